"""The phantom: synthetic sets written to disk in the layouts of the real ones.

Its images are drawings, not radiographs, and show no person. What they show is
known, so a question such as "does pre-training help when the domains are far
apart?" can be asked where the answer is known, anywhere and without credentials.
"""

import json
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from bigxfer import host
from bigxfer.config import Phantom
from bigxfer.data.phantom import draw, film, layouts
from bigxfer.data.phantom.findings import radiograph
from bigxfer.data.phantom.layouts import Drawing, write_csv
from bigxfer.data.phantom.natural import natural

VERSION = 1  # of the drawings: a change of any pixel or label raises it
DONE = "SYNTHETIC.txt"
WORTH_IT = 2000 * 64**2  # pixels to draw from which processes are started
TRUTH = ("file", "finding", "x0", "y0", "x1", "y1")  # of truth.csv


def write(kind: str, folder: Path | str, phantom: Phantom) -> Path:
    """Draws a synthetic set into `folder` and returns it.

    kind: "chexpert", "nih", "covidx" or "natural" (a folder of class folders);
    phantom.images is the number of training images. A folder that holds the same
    set already stays as it is, one that holds another phantom is replaced, and
    one that holds anything else is an error. The set is drawn beside the folder
    and moved into place when complete, so a killed run leaves no half set.
    truth.csv says where each finding lies (x0, y0, x1, y1 in pixels, inclusive).
    """
    if kind not in LAYOUTS:
        raise ValueError(f"phantom kind {kind!r}; there are {', '.join(LAYOUTS)}")
    if phantom.images < 1 or phantom.pixels < 16:
        raise ValueError(
            f"a phantom of {phantom.images} images of {phantom.pixels} pixels: set"
            " config.data.phantom.images > 0 and pixels >= 16"
        )
    if phantom.severity < 0:
        raise ValueError("config.data.phantom.severity is 0 or more")
    for name in ("distance", "shortcut"):
        if not 0 <= getattr(phantom, name) <= 1:
            raise ValueError(f"config.data.phantom.{name} lies between 0 and 1")
    folder = Path(folder)
    note = notice(kind, phantom)
    if _done(folder, note):
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / DONE).exists():
        raise ValueError(
            f"{folder} holds files but no {DONE}; the phantom replaces only its own"
            " sets. Give another folder, or empty this one."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder: a rename moves nothing within one file system.
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        draft.chmod(0o755)  # mkdtemp keeps others out; a shared cache lets them read
        truth = _render(draft, LAYOUTS[kind](draft, phantom))
        write_csv(draft / "truth.csv", TRUTH, truth)
        (draft / DONE).write_text(note)
        if _done(folder, note):  # another process was faster
            return folder
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def notice(kind: str, phantom: Phantom) -> str:
    settings = {"kind": kind, "version": VERSION, **asdict(phantom)}
    return (
        "SYNTHETIC DATA. The images in this folder are drawings made by a program\n"
        "(bigxfer/data/phantom/write.py). They are not radiographs or photographs, show\n"
        "no person, and must not be used to judge any method for clinical use. The\n"
        "layout and file names are those of a real set only so that its reader\n"
        "works.\n" + json.dumps(settings) + "\n"
    )


def _done(folder: Path, note: str) -> bool:
    mark = folder / DONE
    return mark.is_file() and mark.read_text() == note


def _draw(folder: Path, drawing: Drawing) -> list[list]:
    """Draws and saves one image; the rows of truth.csv."""
    # Of the image's own seed: the cut of the work over processes changes no pixel.
    rng = np.random.default_rng([*drawing.image, 2])
    boxes: list[tuple[str, draw.Box]] = []
    if drawing.scanner < 0:
        image = natural(drawing.findings[0], drawing.pixels, rng)
    else:
        # Of the patient's seed: all films of a patient show one body.
        body = draw.person(
            np.random.default_rng([*drawing.patient, 3]), drawing.distance
        )
        style = film.scanner(drawing.scanner, drawing.distance)
        findings = list(drawing.findings)
        image, boxes = radiograph(
            drawing.pixels, body, style, findings, rng, drawing.severity
        )
    path = folder / drawing.file
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=92)
    return [[drawing.file, name, *box] for name, box in boxes]


def _draw_many(work: tuple[Path, list[Drawing]]) -> list[list]:
    folder, drawings = work
    return [row for drawing in drawings for row in _draw(folder, drawing)]


def _render(folder: Path, drawings: list[Drawing]) -> list[list]:
    """Draws all drawings, in processes where it is worth it; the rows of truth.csv."""
    pieces = [(folder, drawings[k : k + 64]) for k in range(0, len(drawings), 64)]
    cores = len(host.cores())
    if cores > 1 and sum(drawing.pixels**2 for drawing in drawings) > WORTH_IT:
        # spawn: a fork of a process that runs jax may hang
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            return [row for rows in pool.map(_draw_many, pieces) for row in rows]
    return [row for piece in pieces for row in _draw_many(piece)]


LAYOUTS = {
    "chexpert": layouts.chexpert,
    "nih": layouts.nih,
    "covidx": layouts.covidx,
    "natural": layouts.natural,
}
