"""Class probabilities of images, by a finished run.

  python -m bigxfer.predict --run runs/DIGEST --images FOLDER --out FILE.csv
  python -m bigxfer.predict --run DIR --images LIST.csv > FILE.csv
  python -m bigxfer.predict --run DIR --images FOLDER --out FILE.csv --heatmaps FOLDER2
  python -m bigxfer.predict --run DIR --images FOLDER --features FILE.npz
  python -m bigxfer.predict --pixels 32 --images FOLDER --features FILE.npz

PNG, JPEG, DICOM and whatever else the run could be trained on, resized as the run did
it. A folder is searched with all beneath it; a CSV has a column `file` or `path`,
relative to the CSV. Gives a row a file: its probabilities, divided by a temperature
fitted on validation or on folds of the shots (the column `calibration` says so, or that they
are as the net gives them), or the reason why it could not be read. The exit status is
1 where there is such a file. Where the run's data are at hand, or were at an earlier call,
the column `unlike` says whether an image is unlike the training set, and `distance` by how
much (above 1: unlike). --features writes what the net's head sees, for
--config.init.features of a transfer to these images (docs/encoders.md); --pixels takes
the gray values of small squares in place of a net. Research software, no diagnostic device.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bigxfer import durable
from bigxfer.config import dry_run

if TYPE_CHECKING:
    import numpy as np

    from bigxfer.data.images import Files
    from bigxfer.protocols.features import Features
    from bigxfer.runs.finished import Trained
    from bigxfer.statistics.novelty import Known

AT_ONCE = 256  # images whose heatmaps are made together, by one compiled program


def main(args: argparse.Namespace) -> int:
    """Open the run, list the images and write a row for each; return 1 if one is bad."""
    from bigxfer.data.images import Files, listed  # --help should not wait for them
    from bigxfer.runs import finished

    if bool(args.run) == bool(args.pixels):
        raise ValueError("give one of --run and --pixels")
    if args.pixels and not args.features:
        raise ValueError("--pixels has no classes to predict: give --features FILE")
    # Before anything is loaded: a mistyped path is told at once.
    if not args.images.exists():
        raise FileNotFoundError(f"--images {args.images}: no such folder or file")
    if args.features:
        from bigxfer.protocols import features

        # Check it now: it would otherwise be refused after hours of computing.
        features.check_ending(args.features)
    if args.pixels and not args.dry_run:
        return write_pixels(args)
    # Before the files: a folder may hold 100,000.
    run = finished.open(args.run) if args.run else None
    root, paths = listed(args.images, args.outside)
    if args.dry_run:
        return rehearse(args, run, root, paths)
    assert run is not None
    data = run.run.data
    if args.features:
        return write_features(args.features, run, root, paths, args.batch)
    files = Files(root, paths, data.resize, data.channels)
    say(f"{run.notice}\n{run.line}")
    called = write_probabilities(run, files, args)
    say(f"{len(called)} images predicted, {len(files.bad)} not read")
    if args.heatmaps:
        # Imports matplotlib, half a second, so only where heatmaps are asked for.
        from bigxfer.analysis import overlays

        overlays.write(run, files, called, args.heatmaps)
        say(f"{len(called)} heatmaps in {args.heatmaps}")
    return int(bool(files.bad))


def rehearse(
    args: argparse.Namespace, run: "Trained | None", root: Path, paths: list[str]
) -> int:
    """Say what would be read and written; return 1 where a file is not there."""
    by = run.line if run else f"the pixels, {args.pixels} x {args.pixels}"
    gone = [path for path in paths if not (root / path).is_file()]
    for path in gone:
        say(f"not there: {root / path}")
    say(f"would read {len(paths) - len(gone)} of {len(paths)} images; by {by}")
    written = [args.features] if args.features else [args.out, args.heatmaps]
    dry_run.end(*filter(None, written), to_stderr=True)
    return int(bool(gone))


def write_probabilities(
    run: "Trained", files: "Files", args: argparse.Namespace
) -> dict[int, tuple[int, float]]:
    """Write a row for each file; return {row: (likeliest class, its probability)}."""
    from dataclasses import replace

    import numpy as np

    from bigxfer.analysis.features import Endpoints

    temperature, calibration = run.calibration()
    say(f"{len(files)} images; calibration: {calibration}")
    known = training_set(run, args.root)
    net, classes = run, len(run.classes)
    if known:  # one forward pass gives both
        both = Endpoints(run.model, ("logits", "pre_logits"), lambda values: values)
        net = replace(run, model=both)
    columns = [*(f"probability/{name}" for name in run.classes), "distance", "unlike"]
    tail, called, unlike = [calibration, run.digest, run.notice], {}, 0
    with output(args.out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", *columns, "error", "calibration", "run", "notice"])
        for row, values in predictions(net, files, args.batch):
            if reason := files.bad.get(row):
                say(f"not read: {files.paths[row]}: {reason}")
                cells = [*[""] * len(columns), reason]
            else:
                logits, features = np.split(values, [classes])
                p = run.probabilities(logits[None], temperature)[0]
                called[row] = int(p.argmax()), float(p.max())
                cells = [f"{x:.6g}" for x in p]
                if known:
                    (distance,) = known.distances(features[None])
                    unlike += distance > 1
                    cells += [f"{distance:.4g}", "yes" if distance > 1 else "no"]
                # Empty where no distance is known, and the column of the error.
                cells += [""] * (len(columns) + 1 - len(cells))
            writer.writerow([files.paths[row], *cells, *tail])
            # Whoever reads the pipe has each row at once.
            file.flush()
    if known:
        say(
            f"unlike the training set: {unlike} of {len(called)} images, by distances"
            f" between features (column unlike); {alarms(known)}"
        )
    return called


def training_set(run: "Trained", root: str) -> "Known | None":
    """Return what tells whether images are unlike those of training, or say why not."""
    from bigxfer.runs import novelty

    try:
        return novelty.of_run(run, root, say)
    except (ValueError, OSError, ImportError) as error:
        say(f"not known whether images are unlike the training set: {error}")
        return None


def alarms(known: "Known") -> str:
    """How many images like the training set are flagged too, in words."""
    rate, low, high = known.false_alarms()
    return (
        f"it also flags {rate:.1%} [{low:.1%}, {high:.1%}] of images like the"
        f" {known.validation} validation images of {known.patients} patients"
    )


def write_features(
    out: Path, run: "Trained", root: Path, paths: list[str], batch: int
) -> int:
    """Write what the head of the run's net sees of each image; 1 if one is bad."""
    from dataclasses import replace

    import numpy as np

    from bigxfer.data.images import Files
    from bigxfer.presets import net_name
    from bigxfer.protocols import probe
    from bigxfer.protocols.features import Features

    data = run.run.data
    files = Files(root, paths, data.resize, data.channels)
    net = replace(run, model=probe.Headless(run.model))
    values = np.stack([features for _, features in predictions(net, files, batch)])
    config, kept = run.about["config"], run.about["data"]
    # With shots only the drawn images have trained the net.
    drawn = kept.get("drawn")
    encoder = Features(
        out,
        "path",
        np.array(paths, object),
        values,
        name=f"{net_name(config['model'])} {run.digest}",
        parameters=run.result["cost"]["parameters"],
        upstream_size=len(drawn) if drawn else kept["counts"]["train"],
        domain="phantom" if run.synthetic else config["data"]["reader"],
    )
    return save_readable(encoder, files)


def write_pixels(args: argparse.Namespace) -> int:
    """Write the gray values of each image at --pixels squared; 1 if one is bad."""
    import numpy as np

    from bigxfer.data.images import Files, listed
    from bigxfer.protocols.features import Features

    root, paths = listed(args.images, args.outside)
    files = Files(root, paths, args.pixels, 1)
    batches = [
        files[np.arange(start, min(start + AT_ONCE, len(files)))].reshape(
            -1, args.pixels**2
        )
        for start in range(0, len(files), AT_ONCE)
    ]
    values = np.concatenate(batches) / np.float32(255)
    # The zeros: pixels have no parameters, and were trained on no images.
    name = f"pixels {args.pixels} x {args.pixels}"
    images = np.array(paths, object)
    encoder = Features(args.features, "path", images, values, name, 0, 0, "pixels")
    return save_readable(encoder, files)


def save_readable(encoder: "Features", files: "Files") -> int:
    """Write the features of the images that could be read; 1 if one could not.

    `encoder` has a row for each of the files; rows of `files.bad` mean nothing.
    """
    from dataclasses import replace

    from bigxfer.protocols import features

    for row, reason in files.bad.items():
        say(f"not read: {files.paths[row]}: {reason}")
    good = [row for row in range(len(files)) if row not in files.bad]
    if not good:
        raise ValueError(f"none of the {len(files)} images could be read")
    readable = replace(
        encoder, images=encoder.images[good], values=encoder.values[good]
    )
    features.write(readable)
    say(f"{encoder.values.shape[1]} features of {len(good)} images in {encoder.path}")
    return int(bool(files.bad))


def predictions(
    run: "Trained", files: "Files", batch: int
) -> Iterator[tuple[int, "np.ndarray"]]:
    """(row, logits float32 [classes]) of each file, a batch at a time.

    As a run evaluates itself. Rows in `files.bad` mean nothing.
    """
    from dataclasses import replace

    import numpy as np

    from bigxfer.data.images import unlabelled
    from bigxfer.training import sharding
    from bigxfer.training.predictor import make_predict

    many = len(files)
    # A batch is padded to its size: a few images should not cost as many as 512.
    batch = min(batch or run.run.eval.batch, many)
    how = replace(run.run, eval=replace(run.run.eval, batch=batch))
    predict = make_predict(run.model, how, sharding.make(1, batch))
    for start in range(0, many, batch):
        rows = np.arange(start, min(start + batch, many))
        order, logits = predict(run.variables, unlabelled(files, rows, batch))
        yield from zip(order.tolist(), logits, strict=True)


@contextmanager
def output(path: Path | None) -> Iterator[IO[str]]:
    """The file, whole or not at all; or stdout."""
    if path is None:
        yield sys.stdout
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        durable.replacing(path) as temporary,
        # csv writes its own line ends.
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        yield file


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, help="a finished run's folder")
    add("--pixels", type=int, default=0, help="or, for --features, a side in pixels")
    add("--images", type=Path, required=True, help="a folder, a CSV or one image")
    add("--out", type=Path, help="the CSV to write; default: standard output")
    add("--features", type=Path, help="the npz or Parquet to write, in place of a CSV")
    add("--heatmaps", type=Path, help="a folder for Grad-CAM of each image's top class")
    add("--root", default="", help="where the run's data lie now (column unlike)")
    add("--outside", action="store_true", help="a CSV may name files anywhere")
    add("--batch", type=int, default=0, help="images at once; default: as in the run")
    dry_run.add(parser)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    try:
        from bigxfer import cli

        cli.set_xla_flags()
        sys.exit(main(given))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
