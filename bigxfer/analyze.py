"""What finished runs have learnt: similarity, heatmaps, calibration, ...

  python -m bigxfer.analyze --run DIR --out OUT
  python -m bigxfer.analyze --run DIR --against DIR2 DIR3 --what similarity --out OUT
  python -m bigxfer.analyze --run DIR --what gradcam --endpoint block3 --out OUT

Each analysis writes plots (PNG and SVG) with the numbers in them (CSV) to OUT, and its
summary to OUT/analysis.json.

similarity   layers of the run against its own start and against other runs: debiased
             CKA, SVCCA, PWCCA, over Gaussian noise
gradcam      heatmaps, their sanity check and, where boxes are known, the pointing game
calibration  reliability and referral, before and after a temperature fitted on
             validation; with --against also the ensemble of all runs
embedding    PCA and t-SNE of the features by class and by source, the source told
             from features, performance by source and view

A run folder's config.json says all that a config would, so there is no --config.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

WHAT = ("similarity", "gradcam", "calibration", "embedding")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.analyze",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of a finished run")
    add("--against", type=Path, nargs="*", default=[], help="folders of other runs")
    add("--out", type=Path, required=True, help="folder for what is found")
    add("--what", default=",".join(WHAT), help="default: %(default)s")
    add("--split", default="test", choices=("train", "valid", "test"))
    add("--images", type=int, default=512, help="at most so many (default 512)")
    add("--endpoint", default="", help="layer of Grad-CAM; default: the last of 4 x 4")
    add("--root", default="", help="where the data lie now, if not where they lay")
    args = parser.parse_args()
    what = args.what.split(",")
    if unknown := [name for name in what if name not in WHAT]:
        sys.exit(f"error: --what {unknown[0]}: there are {', '.join(WHAT)}")
    from bigxfer import cli  # absl and ml_collections: not for --help

    cli.set_xla_flags()
    try:
        analyze(args, what)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def analyze(args: argparse.Namespace, what: list[str]) -> None:
    """Runs the analyses and writes analysis.json last."""
    from bigxfer import folders  # imports here: --help should not wait for jax
    from bigxfer.analysis import features

    _, about, _ = features.about(args.run)  # what is wrong is found before compute
    for folder in args.against:
        features.about(folder)
    synthetic = about["synthetic"]
    args.out.mkdir(parents=True, exist_ok=True)
    steps = {
        "similarity": similarity,
        "gradcam": gradcam,
        "calibration": calibration,
        "embedding": embedding,
    }
    read: Any = None
    found: dict[str, Any] = {"run": str(args.run), "synthetic": synthetic}
    for name in what:
        if name != "calibration" and read is None:
            read = features.read(args.run, args.root, print)
        print(f"\n{name}{' (SYNTHETIC DATA)' if synthetic else ''}")
        found[name] = steps[name](args, read)
        for line in lines(found[name]):
            print(f"  {line}")
    folders.write_json(args.out / "analysis.json", clean(found))
    print(f"\nplots and tables: {args.out}")


def lines(found: dict[str, Any], prefix: str = "") -> list[str]:
    """A summary as "name  value [low, high]"."""
    out = []
    for name, value in found.items():
        if isinstance(value, dict) and "value" in value:
            span = f"[{value['low']:.3f}, {value['high']:.3f}]" if value["low"] else ""
            out.append(f"{prefix + name:44} {value['value']:.3f} {span}")
        elif isinstance(value, dict):
            out += lines(value, f"{prefix}{name} ")
        elif isinstance(value, float):
            out.append(f"{prefix + name:44} {value:.3f}")
        else:
            out.append(f"{prefix + name:44} {value}")
    return out


def clean(value: Any) -> Any:
    """NaN as None, for JSON."""
    if isinstance(value, dict):
        return {k: clean(v) for k, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def start(run: Any) -> Any:
    """The variables that the run began with, made again as programs.start makes them."""
    import jax

    from bigxfer.protocols import init

    key = jax.random.key(run.run.seed)
    if run.run.init.kind == "random":
        return jax.jit(lambda: run.model.init(key, run.image_shape))()
    return init.start(run.run.init, run.model, key, run.image_shape)


def similarity(args: argparse.Namespace, run: Any) -> dict[str, Any]:
    """The run's layers against its start's and against those of the other runs."""
    from bigxfer.analysis import compared, features, plots

    rows = features.sample(run, args.split, args.images)
    reduce = features.thinned(compared.SIDE)
    extract = features.extractor(run, reduce)
    ended, begun = extract(run.variables, rows), extract(start(run), rows)
    names, pairs = list(ended), {"trained and its start": (ended, begun)}
    matrices = {"trained and itself": (compared.matrix(ended, ended), names, names)}
    matrices["trained and its start"] = compared.matrix(ended, begun), names, names
    for folder in args.against:
        other = features.read(folder, args.root, print)
        if other.data.manifest.hash() != run.data.manifest.hash():
            raise ValueError(f"{folder} had other data than {run.folder}")
        of = features.extractor(other, reduce)
        b_ended, b_begun = of(other.variables, rows), of(start(other), rows)
        title, there = f"trained and {folder.name}", list(b_ended)
        pairs[title] = ended, b_ended
        pairs[f"start and {folder.name}'s"] = begun, b_begun
        matrices[title] = compared.matrix(ended, b_ended), names, there
    by_layer, scatter = compared.by_layer(pairs, print), []
    for folder in args.against:
        two = (f"start and {folder.name}'s", f"trained and {folder.name}")
        for measure in ("cka_debiased", "svcca"):
            found = compared.scattered(by_layer, *two, measure)
            scatter += [{**row, "against": folder.name} for row in found]
    about = (
        f"{run.folder.name}, {run.data.manifest.name} {args.split}, {len(rows)} images"
    )
    to, synthetic = args.out, run.data.manifest.synthetic
    drawn = compared.draw_layers(by_layer, about)
    plots.save(drawn, to, "similarity_layers", by_layer, synthetic)
    cells = [
        {"pair": pair, "row": a, "column": b, "cka_debiased": values[i, j]}
        for pair, (values, down, across) in matrices.items()
        for i, a in enumerate(down)
        for j, b in enumerate(across)
    ]
    drawn = compared.draw_matrices(matrices, f"debiased CKA: {about}")
    plots.save(drawn, to, "similarity_matrix", cells, synthetic)
    if scatter:
        drawn = compared.draw_scatter(scatter, about)
        plots.save(drawn, to, "similarity_scatter", scatter, synthetic)
    out: dict[str, Any] = {}
    for row in by_layer:
        if row["measure"] == "cka_debiased":
            out.setdefault(row["pair"], {})[row["layer"]] = float(row["value"])
    return out


def gradcam(args: argparse.Namespace, run: Any) -> dict[str, Any]:
    from bigxfer.analysis import heatmaps

    return heatmaps.report(
        run, start(run), args.split, args.endpoint, args.images, args.out
    )


def calibration(args: argparse.Namespace, run: Any) -> dict[str, Any]:
    """Needs no data and no net, only the predictions that the runs kept."""
    del run
    from bigxfer.analysis import reliability

    return reliability.report([args.run, *args.against], args.out)


def embedding(args: argparse.Namespace, run: Any) -> dict[str, Any]:
    from bigxfer.analysis import embedded

    return embedded.report(run, args.split, args.images, args.out)


if __name__ == "__main__":
    main()
