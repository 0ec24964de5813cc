"""What finished runs have learnt: similarity, weights, heatmaps, calibration, ...

  python -m bigxfer.analyze --run DIR --out OUT
  python -m bigxfer.analyze --run DIR --against DIR2 DIR3 --what similarity --out OUT
  python -m bigxfer.analyze --run DIR --what gradcam --endpoint block3 --out OUT
  python -m bigxfer.analyze --run RANDOM --against PRETRAINED --what convergence --out OUT
  python -m bigxfer.analyze --config configs/study_demo.py --what convergence --out OUT

Each analysis writes plots (PNG and SVG) with the numbers in them (CSV) to OUT, and its
summary to OUT/analysis.json. Without --what all are done that the run allows.

similarity   layers of the run against its own start and against other runs: debiased
             CKA, SVCCA, PWCCA, over Gaussian noise
weights      how far each layer's weights moved (L2, relative), and the first filters
             before and after with their CCA and CKA; the other runs beside it
reuse        the test metric with one block's start put back at a time
convergence  of all runs with --config.eval.every: curves, steps and images to a
             target, speed-up of other starts over random ones, onset of overfitting
gradcam      heatmaps, their sanity check and, where boxes are known, the pointing game
smoothgrad   the same of SmoothGrad, which needs `pip install saliency`
calibration  reliability and referral, before and after a temperature fitted on
             validation or folds of the shots; with --against also the ensemble of all runs
dropout      the same of MC-dropout, where the net has dropout
embedding    PCA and t-SNE of the features by class and by source, the source told
             from features, performance by source and view
overlap      what two classes have in common: in the labels, the predictions and what
             the features of one tell of the other

--config names a study: its finished transfers, the first against the others; without
--what then convergence and calibration. A run folder's config.json says all that the
config of a run would.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from bigxfer import durable
from bigxfer.config import dry_run
from bigxfer.data.manifest import SPLITS

WHAT = (
    "similarity",
    "weights",
    "reuse",
    "convergence",
    "gradcam",
    "smoothgrad",
    "calibration",
    "dropout",
    "embedding",
    "overlap",
)
OF_FILES = ("convergence", "calibration")  # these need no data and no net
WITH_OTHERS = ("similarity", "weights")  # these read the data of the other runs too


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.analyze",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=Path, help="folder of a finished run")
    which.add_argument("--config", default="", help="a study: configs/study_NAME.py")
    add("--runs", type=Path, default=Path("runs"), help="of --config (default runs)")
    add("--against", type=Path, nargs="*", default=[], help="folders of other runs")
    add("--out", type=Path, required=True, help="folder for what is found")
    add("--what", default="", help="such as similarity,weights; default: what can be")
    add("--split", default="test", choices=SPLITS)
    add("--images", type=int, default=512, help="at most this many (default 512)")
    add("--endpoint", default="", help="layer of Grad-CAM; default: the last of 4 x 4")
    add("--metric", default="auroc_macro", help="of curves (default %(default)s)")
    add(
        "--target", type=float, default=0.0, help="of the curves; default: all reach it"
    )
    add("--root", default="", help="where the data lie now, if not where they lay")
    dry_run.add(parser)
    args = parser.parse_args()
    # The others look into one net, and a study has hundreds.
    every = OF_FILES if args.config else WHAT
    what = args.what.split(",") if args.what else list(every)
    if unknown := [name for name in what if name not in WHAT]:
        sys.exit(f"error: --what {unknown[0]}: there are {', '.join(WHAT)}")
    from bigxfer import cli  # absl and ml_collections: not for --help

    cli.set_xla_flags()
    try:
        if args.config:
            args.run, *args.against = transfers(args.config, args.runs)
        analyze(args, what)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def transfers(config: str, runs: Path) -> list[Path]:
    """The folders of a study's finished transfers; ValueError where there is none."""
    from bigxfer.study import grid

    nodes = [node for node in grid.nodes(config) if node.kind == "transfer"]
    states = grid.states(nodes, runs)
    folders = [s.node.folder(runs) for s in states if s.state in ("done", "unchecked")]
    if not folders:
        raise ValueError(f"none of the {len(nodes)} transfers of {config} is in {runs}")
    return folders


def analyze(args: argparse.Namespace, what: list[str]) -> None:
    """Runs the analyses and writes analysis.json last."""
    from bigxfer.runs import finished  # here: --help is quicker without

    runs = [finished.read(folder) for folder in (args.run, *args.against)]
    for run in runs:  # what is wrong is found before compute
        print(run.line)
    if args.dry_run:
        rehearse(args, what)
        return
    synthetic = runs[0].synthetic
    args.out.mkdir(parents=True, exist_ok=True)
    # Several analyses share a run, and opening its data may mean to decode them.
    read: dict[Path, Any] = {}  # {folder: (run, the variables of its start)}
    summaries: dict[str, Any] = {"run": str(args.run), "synthetic": synthetic}
    for name in what:
        print(f"\n{name}{' (SYNTHETIC DATA)' if synthetic else ''}", flush=True)
        needed = needs(name, args)
        try:
            for folder in needed:
                if folder not in read:
                    run = finished.with_data(folder, args.root, print)
                    read[folder] = run, first_variables(run)
            summaries[name] = one(name, args, [read[folder] for folder in needed])
        # ImportError: saliency is an extra.
        except (ValueError, ImportError) as error:
            # What was asked for by name must work; of all that there is it is left out.
            if args.what:
                raise
            summaries[name] = {"not done": str(error)}
        for line in lines(summaries[name]):
            print(f"  {line}")
    durable.write_json(args.out / "analysis.json", clean(summaries))
    print(f"\nplots and tables: {args.out}")


def needs(name: str, args: argparse.Namespace) -> list[Path]:
    """The folders of the runs whose net and data an analysis reads."""
    if name in OF_FILES:
        return []
    return [args.run, *(args.against if name in WITH_OTHERS else [])]


def rehearse(args: argparse.Namespace, what: list[str]) -> None:
    """Open the nets and the data that `what` needs, and say what would be done."""
    from bigxfer.runs import finished

    for folder in dict.fromkeys(f for name in what for f in needs(name, args)):
        try:
            finished.with_data(folder, args.root, print)
        except ValueError as error:  # as in `analyze`
            if args.what:
                raise
            print(f"not done: what needs the net or the data of {folder}: {error}")
    print(f"would do {', '.join(what)}, with plots and tables in {args.out}")
    dry_run.end(args.out / "analysis.json")


def one(name: str, args: argparse.Namespace, read: list) -> dict[str, Any]:
    """The summary of one analysis; read: (run, start), of the other runs too."""
    # matplotlib and scikit-learn, after all that could be wrong with the runs.
    from bigxfer.analysis import (
        convergence,
        embedding,
        heatmaps,
        layer_pairs,
        movement,
        overlap,
        reliability,
    )

    folders, split, most = [args.run, *args.against], args.split, args.images
    if name == "convergence":
        return convergence.write(folders, args.metric, args.target, args.out)
    if name == "calibration":
        return reliability.write(folders, args.out)
    run, begun = read[0]
    if name == "similarity":
        return layer_pairs.write(run, begun, read[1:], split, most, args.out)
    if name == "weights":
        return movement.weights(read, split, most, args.out)
    if name == "reuse":
        return movement.reuse(run, begun, split, args.out)
    if name == "dropout":
        return reliability.dropout(run, args.out)
    if name == "embedding":
        return embedding.write(run, split, most, args.out)
    if name == "overlap":
        return overlap.write(run, split, most, args.out)
    return heatmaps.write(name, run, begun, split, args.endpoint, most, args.out)


def lines(summary: dict[str, Any], prefix: str = "") -> list[str]:
    """A summary as "name  value [low, high]"."""
    out = []
    for name, value in summary.items():
        if isinstance(value, dict) and "value" in value:
            low, high = value["low"], value["high"]
            none = low is None or math.isnan(low)
            span = "" if none else f"[{low:.3f}, {high:.3f}]"
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


def first_variables(run: Any) -> Any:
    """The variables that the run began with, as compiled.Programs.first_state makes them."""
    import jax

    from bigxfer.protocols import init

    key = jax.random.key(run.run.seed)
    if run.run.init.kind == "random":
        return jax.jit(lambda: run.model.init(key, run.image_shape))()
    return init.start(run.run.init, run.model, key, run.image_shape)


if __name__ == "__main__":
    main()
