"""Class probabilities of images, by a finished run.

  python -m bigxfer.predict --run runs/DIGEST --images FOLDER --out FILE.csv
  python -m bigxfer.predict --run DIR --images LIST.csv > FILE.csv

PNG, JPEG, DICOM and whatever else the run could be trained on, resized as the run did
it. A folder is searched with all beneath it; a CSV has a column `file` or `path`,
relative to the CSV. Gives a row a file: its probabilities, divided by a temperature
fitted on the run's validation images (the column `calibration` says so, or that they
are as the net gives them), or the reason why it could not be read. The exit status is
1 where there is such a file. Research software, no diagnostic device.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from bigxfer.trained import Trained


def main(args: argparse.Namespace) -> int:
    """Lists the images, opens the run, writes a row for each image."""
    from bigxfer import trained  # imports jax: --help should not wait for it

    root, paths = listed(args.images)
    run = trained.open(args.run)
    say(run.notice)
    temperature, calibration = run.calibration()
    say(f"{len(paths)} images; calibration: {calibration}")
    columns = [f"probability/{name}" for name in run.classes]
    bad = 0
    with output(args.out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", *columns, "error", "calibration", "run", "notice"])
        about = [calibration, run.digest, run.notice]
        for path, logits, reason in predictions(run, root, paths, args.batch):
            if reason:
                bad += 1
                say(f"not read: {path}: {reason}")
                writer.writerow([path, *[""] * len(columns), reason, *about])
            else:
                p = run.probabilities(logits[None], temperature)[0]
                writer.writerow([path, *(f"{x:.6g}" for x in p), "", *about])
            file.flush()
    say(f"{len(paths) - bad} images predicted, {bad} not read")
    return int(bad > 0)


def predictions(
    run: "Trained", root: Path, paths: list[str], batch: int
) -> Iterator[tuple]:
    """(path, logits float32 [classes], "" or why it could not be read) of each path.

    By the evaluation of the training runs, a batch at a time.
    """
    from dataclasses import replace

    import numpy as np

    from bigxfer import evaluate, sharding
    from bigxfer.data.loader import Loader

    batch = min(batch or run.run.eval.batch, len(paths))
    how = replace(run.run, eval=replace(run.run.eval, batch=batch))
    predict = evaluate.make_predict(run.model, how, sharding.make(1, batch))
    files = Files(root, paths, how.data.resize, how.data.channels)
    labels = np.zeros(len(paths), np.int32)  # that a Loader wants; not looked at
    for start in range(0, len(paths), batch):
        rows = np.arange(start, min(start + batch, len(paths)))
        loader = Loader(files, labels, rows, batch, seed=0)
        for row, logits in zip(*predict(run.variables, loader), strict=True):
            yield paths[row], logits, files.bad.get(int(row), "")


class Files:
    """The images of these files as a Loader wants them, decoded when asked for.

    One that cannot be read is black, and `bad` gives the reason.
    """

    def __init__(self, root: Path, paths: list[str], size: int, channels: int) -> None:
        self.root, self.paths = root, paths
        self.shape = (len(paths), size, size, channels)
        self.bad: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):
        """uint8 [b, S, S, C]; the padding of a batch repeats a row, read once."""
        import numpy as np

        rows, places = np.unique(index, return_inverse=True)
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(self.read, rows.tolist())))[places]

    def read(self, row: int):
        import numpy as np

        from bigxfer.data import decode

        try:
            return decode.load(self.root, self.paths[row], self.shape[1], self.shape[3])
        except decode.DecodeError as error:
            self.bad[row] = str(error)
            return np.zeros(self.shape[1:], np.uint8)


def listed(images: Path) -> tuple[Path, list[str]]:
    """(root, paths relative to it) of a folder, a CSV or one image.

    Of a folder, the files with an image's ending and those that begin as DICOM does,
    sorted. Raises ValueError or FileNotFoundError where there is none.
    """
    from bigxfer.data.readers import folder, tables

    if images.is_dir():
        files = sorted(f for f in folder.walk(images) if Path(f).name[0] != ".")
        found = [
            f
            for f in files
            if f.lower().endswith(folder.IMAGES) or is_dicom(images / f)
        ]
        if not found:
            raise ValueError(f"{images}: no image among {len(files)} files")
        if other := len(files) - len(found):
            say(f"{other} files of {images} are no images and are passed over")
        return images, found
    if not images.is_file():
        raise FileNotFoundError(f"--images {images}: no such folder or file")
    if images.suffix.lower() != ".csv":
        return images.parent, [images.name]
    table = tables.read_csv(images)
    column = table.column("file", "path")
    table.check_filled(column)
    return images.parent, table[column]


def is_dicom(path: Path) -> bool:
    """By its content: DICOM files often have no ending, or the UID's last number."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


@contextmanager
def output(path: Path | None) -> Iterator[IO[str]]:
    """The file, whole or not at all (FILE.part is what there was); or stdout."""
    if path is None:
        yield sys.stdout
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "w", newline="", encoding="utf-8") as file:
        yield file
    part.replace(path)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="a finished run's folder")
    add("--images", type=Path, required=True, help="a folder, a CSV or one image")
    add("--out", type=Path, help="the CSV to write; default: standard output")
    add("--batch", type=int, default=0, help="images at once; default: as in the run")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    try:
        from bigxfer import cli

        cli.set_xla_flags()
        sys.exit(main(given))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
