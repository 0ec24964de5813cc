"""Test images of the targets of study_real.py that its upstreams were trained on.

  nice python benchmarks/answer_audits.py --data DATA

Compares the training and validation images of each upstream with the test images of each
target, at the 60 px that the study keeps, by the rule of `bigxfer audit --against`, and writes
colabs/real_audits.csv, a line a pair, as each is done: a second call goes on. The photographs take
minutes.
"""

import argparse
import csv
import logging

import numpy as np
from answer_rows import AUDITS, STUDY, read_audits

from bigxfer import config, presets
from bigxfer.data import dataset, duplicates
from bigxfer.data.dataset import Dataset

UPSTREAMS = ("nih64", "mednist", "knee_oa", "tiny_imagenet")
TARGETS = ("covid_cxr", "knee_oa")
HEAD = (
    "upstream",
    "target",
    "upstream_images",
    "test_images",
    "patients",
    "equal",
    "near",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder of all sets")
    parser.add_argument("--cache", default="cache", help="of decoded images")
    args = parser.parse_args()
    done = [line[:2] for line in read_audits()]
    opened: dict[str, Dataset] = {}
    for name in UPSTREAMS:
        for target in TARGETS:
            if target == name or [name, target] in done:
                continue
            for each in {name, target} - set(opened):
                opened[each] = open_set(each, args.data, args.cache)
            line = compared(opened[name], opened[target])
            new = not AUDITS.is_file()
            with AUDITS.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([HEAD] * new + [(name, target, *line)])
            print(name, target, *line)
        opened.pop(name) if name not in TARGETS else None


def open_set(name: str, root: str, cache: str) -> Dataset:
    run = config.resolve(presets.load(f"{STUDY}:root={root},set={name}"))
    run.data.cache = cache
    return dataset.open(run.data, 0, logging.getLogger("bigxfer").info)


def compared(upstream: Dataset, target: Dataset) -> list[int | str]:
    """[images of each side, shared patients, equal images, near-duplicates] of the test."""
    seen = np.sort(np.concatenate([upstream.rows["train"], upstream.rows["valid"]]))
    test = target.rows["test"]
    sides = [
        (data.images, duplicates.fingerprint(data.images, rows), rows)
        for data, rows in ((upstream, seen), (target, test))
    ]
    pairs = duplicates.near(*sides[0], sides[1])
    known = [data.manifest.known_patients().any() for data in (upstream, target)]
    parts = upstream.manifest.select(seen), target.manifest.select(test)
    shared = len(duplicates.shared_patients(*parts)) if all(known) else "unknown"
    exact = {pair.b for pair in pairs if pair.exact}
    near = {pair.b for pair in pairs} - exact
    return [len(seen), len(test), shared, len(exact), len(near)]


if __name__ == "__main__":
    main()
