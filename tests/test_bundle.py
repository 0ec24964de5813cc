"""A bundle of predictions and the compact table: every interval again, and nobody's id."""

import dataclasses
import math

import numpy as np
import pytest

from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import metrics
from bigxfer.tables import bundle, cells, compact, families, lines, table
from bigxfer.tables.cells import PredictionReader

CLASSES = ("KL0", "KL1", "KL2")


class Folders(PredictionReader):
    """Predictions by folder, as if they were on disk."""

    def __init__(self, of):
        super().__init__()
        self.of = of

    def load(self, folder):
        return self.of.get(folder)


def study(seeds=(0, 1, 2), n=120):
    """(rows, reader): an upstream of two sizes and scratch, 60 patients of two knees."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n).astype(np.int32)
    people = np.array([f"patient{i // 2}" for i in range(n)])
    ids = np.array([f"test/{p}{'LR'[i % 2]}.jpg" for i, p in enumerate(people)])
    none, rows, of = np.full(n, ""), [], {}
    for size, skill in ((705, 0.6), (2820, 1.2), (None, 0.3)):
        for seed in seeds:
            digest = f"{size or 0:06d}{seed:010d}"
            logits = rng.normal(5, 1, (n, 3)) + skill * np.eye(3)[labels]
            saved = Predictions(ids, people, none, none, labels, logits, CLASSES)
            of[f"runs/{digest}"] = saved
            row = dict.fromkeys(table.COLUMNS) | {
                "kind": "transfer",
                "synthetic": False,
            }
            row |= {"upstream": "tiny" if size else "scratch", "upstream_size": size}
            row |= {"upstream_seed": seed if size else None, "model": "R26x0.25"}
            row |= {"upstream_digest": f"up{size}{seed}" if size else "", "params": 9}
            row |= {"target": "knee_oa", "shots": "full", "seed": seed, "steps": 900}
            row |= {"family": f"f{size}", "data": "d" * 16, "digest": digest}
            row |= {"folder": f"runs/{digest}", "settings": "{}", "margin": 0.02}
            row |= {"width": 0.25, "fraction": 1.0, "protocol": "cosine"}
            row |= {"test_images": n, "device_seconds": 60.5}
            told = metrics.compute(labels, logits, CLASSES, people)["metrics"]
            for name in ("auroc_macro", "accuracy"):
                row[name] = told[name]["value"]
                row[f"{name}_low"] = told[name]["low"]
                row[f"{name}_high"] = told[name]["high"]
            rows.append(row)
    return rows, Folders(of)


def compared(rows, predictions):
    named, _ = lines.lines(rows)
    found = families.compare_all(named, "auroc_macro", predictions)
    return {
        (c.a, c.b): (c.difference.low, c.difference.high, c.p_holm, c.verdict)
        for family in found
        for c in family.found.values()
    }


def test_the_images_of_a_set_are_hashed_once(tmp_path, monkeypatch):
    rows, reader = study()
    calls, key_of = [], bundle.key_of
    monkeypatch.setattr(
        bundle, "key_of", lambda saved: calls.append(1) or key_of(saved)
    )
    bundle.write(rows, reader, tmp_path / "b.npz")
    assert len(rows) == 9 and len(calls) == 1
    # as many as the other images say: never those of one set for another
    other = reader.of[rows[0]["folder"]]
    other = dataclasses.replace(other, patients=other.patients[::-1])
    with pytest.raises(ValueError, match="other images"):
        bundle.write(
            rows,
            Folders({**reader.of, rows[0]["folder"]: other}),
            tmp_path / "c.npz",
        )


def test_table_and_bundle_alone_give_the_same_intervals(tmp_path):
    rows, reader = study()
    written = bundle.write(rows, reader, tmp_path / "b.npz")
    assert written.runs == 9 and 0 < written.moved < 1e-3
    compact.write(rows, tmp_path / "t.csv")
    before = compared(rows, reader)
    after = compared(
        compact.load(tmp_path / "t.csv"), bundle.BundleReader(tmp_path / "b.npz")
    )
    assert before.keys() == after.keys() and len(before) == 3
    for pair, (low, high, p, verdict) in before.items():
        assert after[pair][:2] == pytest.approx((low, high), abs=2e-4)
        assert after[pair][2] == pytest.approx(p, rel=0.05, abs=1e-4)
        assert after[pair][3] == verdict


def test_numpy_alone_has_the_auroc_of_a_run(tmp_path):
    rows, reader = study(seeds=(0,))
    bundle.write(rows, reader, tmp_path / "b.npz")
    b = np.load(tmp_path / "b.npz")
    logits, y = b["logits/0"][0].astype(float), b["labels/0"]
    odds = [
        z - np.logaddexp(*np.delete(logits, k, 1).T) for k, z in enumerate(logits.T)
    ]
    pairs = [s[y == k][:, None] - s[y != k] for k, s in enumerate(odds)]
    auroc = np.mean([((d > 0) + 0.5 * (d == 0)).mean() for d in pairs])
    assert auroc == pytest.approx(rows[0]["auroc_macro"], abs=5e-4)


def test_no_id_can_be_read_or_tried(tmp_path):
    rows, reader = study(seeds=(0,))
    saved = reader.load(rows[0]["folder"])
    labels = saved.labels.copy()
    labels[0] = (labels[0] + 1) % 3  # who does not know one label has another key
    other = Predictions(**{**vars(saved), "labels": labels})
    bundle.write(rows, reader, tmp_path / "a.npz")
    bundle.write(rows[:1], Folders({rows[0]["folder"]: other}), tmp_path / "b.npz")
    a, b = (np.load(tmp_path / name) for name in ("a.npz", "b.npz"))
    for name in ("ids/0", "patients/0"):
        text = b"".join(a[name].tolist())
        assert b"patient" not in text and b".jpg" not in text
        assert not set(a[name]) & set(b[name])
    assert not set(bundle.hashed(saved.ids, b"")) & set(a["ids/0"].astype(str))
    assert a["ids/0"].tolist() == sorted(a["ids/0"])  # not in the order of the ids
    assert len(set(a["patients/0"])) == 60
    assert not [n for n in a.files if n.startswith(("sources", "views", "sexes"))]


def test_a_bundle_goes_on_from_a_former_one_with_the_same_patients(tmp_path):
    """Half of the runs on one machine and half on another are as all on one."""
    rows, reader = study()
    half = [row for row in rows if row["upstream_size"] == 705]
    more = Folders({r["folder"]: reader.of[r["folder"]] for r in rows if r not in half})
    first, both, whole = (tmp_path / f"{name}.npz" for name in "abc")
    bundle.write(half, reader, first)
    bundle.write(rows, more, both, bundle.BundleReader(first))
    bundle.write(rows, reader, whole)
    assert both.read_bytes() == whole.read_bytes()
    of = {f: saved.select(np.arange(100)) for f, saved in more.of.items()}
    with pytest.raises(ValueError, match="tested on other images"):
        bundle.write(rows, Folders(of), both, bundle.BundleReader(first))


def test_what_a_bundle_cannot_hold_is_refused_and_leaves_no_file(tmp_path, monkeypatch):
    rows, reader = study(seeds=(0,))
    path = tmp_path / "b.npz"
    with pytest.raises(ValueError, match="runs/none kept no predictions"):
        bundle.write([*rows, {**rows[0], "folder": "runs/none"}], reader, path)
    other = reader.load(rows[0]["folder"]).select(np.arange(100))
    with pytest.raises(ValueError, match="tested on other images"):
        of = {**reader.of, rows[1]["folder"]: other}
        bundle.write(rows, Folders(of), path)
    monkeypatch.setattr(bundle, "MOST", 1000)
    with pytest.raises(ValueError, match="leave draws out"):
        bundle.write(rows, reader, path)
    assert not path.exists()


def test_several_labels_an_image_keep_their_logits(tmp_path):
    rows, reader = study(seeds=(0,))
    saved = reader.load(rows[0]["folder"])
    truth = np.eye(3, dtype=np.float32)[saved.labels]
    truth[0, 1] = math.nan
    several = Predictions(**{**vars(saved), "labels": truth})
    bundle.write(rows[:1], Folders({rows[0]["folder"]: several}), tmp_path / "b.npz")
    back = bundle.BundleReader(tmp_path / "b.npz").load(rows[0]["digest"])
    order = np.argsort(bundle.hashed(saved.ids, bundle.key_of(several)))
    np.testing.assert_array_equal(back.labels, truth[order])
    np.testing.assert_allclose(back.logits, saved.logits[order], rtol=1e-3)


def test_the_compact_table_of_own_runs_comes_back(tmp_path):
    rows, _ = study()
    source = rows[0] | {"kind": "upstream", "target": "tiny", "digest": "up7050"}
    source |= {"upstream_seed": None, "upstream": None, "folder": "runs/up7050"}
    assert compact.write([*rows, source], tmp_path / "t.csv") == 10
    back = {row["digest"]: row for row in compact.load(tmp_path / "t.csv")}
    for row in (*rows, source):
        for name in (*compact.COLUMNS, *compact.OWN, "auroc_macro", "auroc_macro_low"):
            value = back[row["digest"]][name]
            if isinstance(row[name], float):
                assert value == pytest.approx(row[name], abs=1e-6), name
            else:
                assert value == row[name], name
    assert cells.seeds(back[rows[0]["digest"]]) == (0, 0)
    assert back[rows[0]["digest"]]["folder"] == rows[0]["digest"]


def test_cells_of_the_compact_table():
    told = [compact._cell(v) for v in (0.1234567, 0.5, 7, None, "x", True)]
    assert told == ["0.123457", "0.500000", "7", "", "x", "True"]


def test_a_published_table_has_transfers_alone(tmp_path):
    plain = dict.fromkeys(table.COLUMNS) | {"kind": "transfer", "upstream": "nih"}
    plain |= {"model": "R50x1", "target": "pets", "shots": "5", "seed": 1, "steps": 9}
    rows = [plain | {"accuracy": 0.5}, plain | {"kind": "upstream", "seed": 2}]
    assert compact.write(rows, tmp_path / "t.csv") == 1
    (row,) = compact.load(tmp_path / "t.csv")
    assert row["folder"] == "t.csv line 2" and row["kind"] == "transfer"
    assert 0.48 < row["accuracy_low"] < 0.5 < row["accuracy_high"] < 0.52
    assert "auroc_macro" not in row  # a metric that is not known has no column
    with pytest.raises(ValueError, match="no transfer in the table"):
        compact.write(rows[1:], tmp_path / "t.csv")
