"""Flip single bits of every file of a run folder, of caches and of a checkpoint.

Each flip is one of three:

noticed    every use of the folder either refuses, or says so in a line, or gives what it
           gave before; at least one refuses or says so
harmless   every use gives what it gave before, and nothing is said: the bit stands in
           padding, in white space, or in a file that no use reads
silent     some use gives something else, and nothing is said: there must be none

The uses of a run folder are what collect, predict and analyze read of it, and what a
second start of its command returns. predict is a function of what finished.open gives
(the config, the net, the calibration), so that is compared, and predict itself is run
after a few harmless flips.
"""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cache import draw

from bigxfer import config, predict, presets, tree
from bigxfer.data import exposure
from bigxfer.data.pixels import cache, cache_encoded
from bigxfer.runs import finished, job, resume
from bigxfer.tables import table
from bigxfer.training.checkpoint import Checkpoints

pytestmark = pytest.mark.slow
FLIPS = {"run": 220, "raw": 90, "encoded": 40, "checkpoint": 40}  # 390
ERRORS = (ValueError, OSError)  # what the mains print as one line
RUN = "configs/upstream_chexpert.py:model=R1-1x0.25,res=32,batch=16,phantom=64"


class Lines(logging.Handler):
    """The warnings that were logged."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


def flips(folder, count, rng):
    """(file, bit): some of each file, the others by chance over the files."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    chosen = [*files, *files, *rng.choice(files, max(0, count - 2 * len(files)))]
    return [(path, int(rng.integers(8 * path.stat().st_size))) for path in chosen]


def judge(folder, uses, count, seed, deeper=lambda: None):
    """Flip `count` bits or more one by one, print what came of it; silent must be 0.

    uses: {name: function of no arguments that returns what can be compared with ==, and
    the lines that it said}. `deeper` is called while the first harmless flip of each
    file is there, and must give what it gives without.
    """
    sound = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    want = {name: use()[0] for name, use in uses.items()}
    whole, looked_at = deeper(), set()
    found = {"noticed": [], "harmless": [], "silent": []}
    for path, bit in flips(folder, count, np.random.default_rng(seed)):
        data = bytearray(sound[path])
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        kind = outcome(path, uses, want)
        found[kind].append(f"{path.name} bit {bit}")
        if kind == "harmless" and path not in looked_at:
            looked_at.add(path)
            assert deeper() == whole, path
        for other, content in sound.items():  # a use may have mended it
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(content)
    counts = ", ".join(f"{len(found[kind])} {kind}" for kind in found)
    total = sum(map(len, found.values()))
    print(f"{total} flips of {folder.parent.name}/{folder.name}, seed {seed}: {counts}")
    assert total >= count and found["silent"] == []


def outcome(path, uses, want):
    """ "noticed", "harmless" or "silent", by every use of the damaged file."""
    kinds, log = set(), Lines()
    logging.getLogger("bigxfer").addHandler(log)
    for name, use in uses.items():
        log.said.clear()
        try:
            got, lines = use()
        except ERRORS as error:
            assert path.stem in str(error), error  # it says which file
            kinds.add("noticed")
        else:
            told = lines or log.said
            same = "harmless" if got == want[name] else "silent"
            kinds.add("noticed" if told else same)
    logging.getLogger("bigxfer").removeHandler(log)
    return next(kind for kind in ("silent", "noticed", "harmless") if kind in kinds)


def test_of_a_run_folder(tmp_path, monkeypatch):
    run = presets.load(RUN)
    presets.set_length(run.optim, 16, 2)
    run.data.cache, run.eval.resamples, run.eval.every = str(tmp_path / "c"), 20, 1
    run = config.resolve(run)
    folder = tmp_path / "runs" / config.digest(run)
    job.execute(run, folder)
    images = sorted(Path(tmp_path / "c").glob("phantom/**/*.jpg"))[:4]
    for number, image in enumerate(images):
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / f"{number}.jpg").write_bytes(image.read_bytes())

    def collected():
        new = table.collect([folder.parent], tmp_path / "no table")
        rows = [{k: v for k, v in r.items() if k != "changed_ns"} for r in new.rows]
        return rows, list(new.bad)

    def opened():
        one = finished.open(folder)
        kind, why = one.calibration()
        net = tree.digest(one.variables)
        about = config.to_dict(one.run), one.classes, one.digest, one.notice
        return (about, net, kind, why), ["damaged"] * ("damaged" in why)

    def read():
        one = finished.read(folder)
        splits = [vars(one.predictions(s)) for s in ("test", "valid")]
        arrays = [{k: np.asarray(v).tolist() for k, v in s.items()} for s in splits]
        return (one.about, one.result, repr(arrays)), []

    def again():
        _, done, damage = resume.begun(folder, config.digest(run))
        return done and done.result, [damage] * bool(damage)

    def exposed():
        seen = vars(exposure.Seen.load(folder))
        return {k: np.asarray(v).tolist() for k, v in seen.items()}, []

    def logged():
        return finished.read(folder).file("metrics.jsonl").read_text(), []

    def predicted():
        out = tmp_path / "out.csv"
        given = [f"--run={folder}", f"--images={tmp_path / 'new'}", f"--out={out}"]
        monkeypatch.setattr(sys, "argv", ["predict", *given])
        assert predict.main(predict.arguments()) == 0
        return out.read_text()

    uses = {f.__name__: f for f in (collected, opened, read, again, exposed, logged)}
    judge(folder, uses, FLIPS["run"], 0, predicted)


@pytest.mark.parametrize("kind", ["raw", "encoded"])
def test_of_a_cache(tmp_path, kind):
    m = draw(tmp_path / "root", 40)
    (tmp_path / "root" / m.path[7]).write_bytes(b"not an image")
    build = {"raw": cache.build, "encoded": cache_encoded.build}[kind]

    def used():
        lines = []
        built = build(m, tmp_path / "c", 16, 1, max_bad=0.1, progress=lines.append)
        pixels = built.images[np.arange(len(m))].tobytes()
        return (pixels, built.ok.tolist(), built.bad, built.images.sums.tolist()), lines

    used()
    (folder,) = (tmp_path / "c").iterdir()
    judge(folder, {"read": used}, FLIPS[kind], 1)


def test_of_a_checkpoint(tmp_path):
    tree_of = {"a": np.arange(3000, dtype=np.float32), "b": np.ones(7, np.float32)}
    saved = Checkpoints(tmp_path / "c", "d")
    for step in (1, 2):
        saved.save(step, tree_of, {"best": {}, "n": step})
        saved.wait()

    def restored():
        lines = []
        step, arrays, extra = saved.restore_latest(tree_of, lines.append)
        values = [np.asarray(arrays[k]).tobytes() for k in "ab"]
        return (step, values, extra), lines

    judge(tmp_path / "c" / "2", {"restore": restored}, FLIPS["checkpoint"], 2)
