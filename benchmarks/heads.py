"""Heads a second on fixed features: ours, and scikit-learn's in a loop.

    PYTHONPATH=. python benchmarks/heads.py [--out FILE.json] [--draws 100]

SYNTHETIC features. A head is one draw x shots x penalty, fitted and scored: macro AUROC on
the test images. 100 draws x (1, 5, 10 shots) x 10 penalties, 2,000 training images to draw
from, 512 and 2,048 dimensions, 319 and 1,656 test images; 3 classes (one an image) and 14
labels. Ours starts from the features in memory and computes its Gram matrix. scikit-learn
does a few of the same draws, with the same scaling, tol 1e-8; the largest difference of
the AUROC is printed. Ridge, then logistic regression. "of a core": heads in a second of
processor time, which other work on the machine changes less.

First, one process a run: bigxfer.transfer on a features file, one draw of 5 shots each (512
dimensions, 319 test images, 3 classes), whose penalty of 10 is chosen by folds of the shots. All
that such a run does is in its time: to start, to read, to fit, to write its folder. It counts
as 10 heads, though the folds fit 50 more.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fast_auroc
import machine
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from bigxfer.data import fewshot
from bigxfer.data.manifest import Manifest
from bigxfer.protocols import features, heads
from bigxfer.protocols.space import Products
from bigxfer.statistics import auroc

POOL = 2000
CELLS = [(d, n, k) for k in (3, 14) for n in (319, 1656) for d in (512, 2048)]
ASKED = {("ridge", 3): 4000, ("ridge", 14): 1000}
ASKED |= {("logistic", 3): 300, ("logistic", 14): 50}


def made(d: int, test: int, k: int) -> tuple[np.ndarray, Manifest]:
    """Features [POOL + test, d] that a little of the classes is in, and their labels."""
    rng, n = np.random.default_rng(0), POOL + test
    spectrum = np.linspace(1, 0, d) ** 3 + 0.02
    x = rng.normal(1, spectrum, (n, d)).astype(np.float32)
    if k == 3:
        labels = rng.integers(3, size=n)
        truth = np.eye(3)[labels]
    else:
        labels = truth = (rng.random((n, k)) < rng.uniform(0.02, 0.2, k)) * 1.0
    x[:, :k] += truth
    names = np.arange(n).astype(str)
    about = dict.fromkeys(("id", "path", "patient", "source", "view", "split"), names)
    classes = tuple(map(str, range(k)))
    return x, Manifest(name="made", root="", classes=classes, labels=labels, **about)


def ours(
    how: str, x: np.ndarray, m: Manifest, draws: list[np.ndarray]
) -> list[np.ndarray]:
    """The macro AUROC [penalties] of each draw."""
    k, test = len(m.classes), np.arange(POOL, len(x))
    truth, products = auroc.one_hot(m.labels[test], k), Products(x, POOL)

    def one(rows: np.ndarray) -> np.ndarray:
        space = products.space(rows, test)
        scores = heads.scores(how, space, m.labels[rows], k, heads.PENALTIES)
        scores = scores if m.multilabel else fast_auroc.odds(scores)
        return fast_auroc.macro_auroc(scores, truth)

    cores = len(os.sched_getaffinity(0))
    with threadpool_limits(1), ThreadPoolExecutor(cores) as threads:
        return list(threads.map(one, draws))


def theirs(
    how: str, x: np.ndarray, m: Manifest, draws: list[np.ndarray]
) -> list[np.ndarray]:
    """The same by scikit-learn: each penalty, and each label, is fitted by itself."""
    k, found = len(m.classes), []
    truth, x = auroc.one_hot(m.labels[POOL:], k), x.astype(np.float64)
    for rows in draws:
        mean = x[rows].mean(0)
        scale = np.sqrt(np.square(x[rows] - mean).sum() / len(rows))
        train, test = (x[rows] - mean) / scale, (x[POOL:] - mean) / scale
        areas = []
        for penalty in heads.PENALTIES:
            if how == "ridge":
                target = 2 * auroc.one_hot(m.labels[rows], k) - 1
                scores = Ridge(alpha=penalty).fit(train, target).predict(test)
                scores = scores if m.multilabel else fast_auroc.odds(scores)
            else:
                fit = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10000).fit
                if m.multilabel:
                    each = [
                        fit(train, y).decision_function(test) for y in m.labels[rows].T
                    ]
                    scores = np.stack(each, 1)
                else:
                    scores = fast_auroc.odds(
                        fit(train, m.labels[rows]).decision_function(test)
                    )
            areas.append(roc_auc_score(truth, scores, average="macro"))
        found.append(np.array(areas))
    return found


def alone(count: int) -> dict[str, float]:
    """Heads a second, and a second of processor time, of one process a run."""
    x, m = made(512, 319, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "patient_id", "label", "split"])
            for i, label in enumerate(m.labels):
                Image.new("L", (8, 8), i % 256).save(folder / f"{i}.png")
                split = "train" if i < POOL else "test"
                writer.writerow([f"{i}.png", i, f"c{label}", split])
        paths = [f"{i}.png" for i in range(len(x))]
        made_file = folder / "made.npz"
        features.write(features.Features(made_file, "path", np.array(paths), x, "made"))
        call = [
            sys.executable,
            "-m",
            "bigxfer.transfer",
            "--config=own_images.py:res=8",
        ]
        call += [f"--config.data.root={folder}", "--config.data.shots=5"]
        call += [
            f"--config.data.cache={folder / 'cache'}",
            "--config.freeze.head=ridge",
        ]
        call += [f"--config.init.features={made_file}"]
        for seed in range(count + 1):  # the first one decodes the images for the others
            if seed == 1:
                began, before = time.perf_counter(), spent()
            own = [f"--config.seed={seed}", f"--workdir={folder / str(seed)}"]
            subprocess.run([*call, *own], check=True, capture_output=True)
        each = count * len(heads.PENALTIES)
        took, busy = time.perf_counter() - began, spent() - before
        return {"runs": count, "heads": each / took, "heads_cpu": each / busy}


def spent() -> float:
    """Seconds of processor time of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="the best one counts")
    parser.add_argument("--processes", type=int, default=5, help="runs, a process each")
    parser.add_argument("--only-processes", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about, rows = machine.about(), []
    single = alone(args.processes)
    print(
        "one process a run: {heads:.1f} heads/s, {heads_cpu:.1f} of a core".format(
            **single
        )
    )
    if args.only_processes:
        return
    print(
        "head      classes  test    d   ours/s   of a core  asked  scikit-learn/s  difference"
    )
    for how in ("ridge", "logistic"):
        for d, test, k in CELLS:
            x, m = made(d, test, k)
            part = m.select(np.arange(POOL))
            draws = [
                fewshot.draw(part, shots, seed)
                for seed in range(args.draws)
                for shots in (1, 5, 10)
            ]
            some = draws[: 3 if how == "logistic" else 6]
            seconds, busy = [], []
            for _ in range(args.rounds):
                began, cpu = time.perf_counter(), time.process_time()
                found = ours(how, x, m, draws)
                seconds.append(time.perf_counter() - began)
                busy.append(time.process_time() - cpu)
            began = time.perf_counter()
            other = theirs(how, x, m, some)
            took = time.perf_counter() - began
            gap = max(abs(a - b).max() for a, b in zip(found, other, strict=False))
            penalties = len(heads.PENALTIES)
            row = {"head": how, "classes": k, "test": test, "dimensions": d}
            row |= {"ours": len(draws) * penalties / min(seconds)}
            row["ours_cpu"] = len(draws) * penalties / min(busy)
            row |= {"asked": ASKED[how, k], "sklearn": len(some) * penalties / took}
            rows.append(row | {"difference": float(gap)})
            print(
                f"{how:9} {k:7} {test:5} {d:4} {row['ours']:8.0f} {row['ours_cpu']:10.0f}"
                f" {row['asked']:6}"
                f" {row['sklearn']:15.1f}  {gap:.1e}",
                flush=True,
            )
    if args.out:
        args.out.write_text(
            json.dumps({"about": about, "alone": single, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
