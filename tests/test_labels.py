"""Label spaces and policies, against torchxrayvision's rules written out plainly."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bigxfer.data import labels
from bigxfer.data.labels import CHEXPERT13, CHEXPERT14, NIH14, PREDECESSOR7
from bigxfer.data.manifest import Manifest

marks = arrays(np.float32, (6, 14), elements=st.sampled_from([1, 0, -1, np.nan]))


def manifest(name, classes, values, root="/data"):
    n = len(values)
    return Manifest(
        name=name,
        root=f"{root}/{name}",
        classes=tuple(classes),
        labels=np.array(values),
        id=np.array([f"i{k}" for k in range(n)], object),
        path=np.array([f"images/{k}.png" for k in range(n)], object),
        patient=np.array([f"p{k}" for k in range(n)], object),
        source=np.array([""] * n, object),
        view=np.array(["PA"] * n, object),
        split=np.array(["train"] * n, object),
    ).validate()


def expected(row, uncertain, blank):
    """One row by hand, cell by cell."""
    out = {}
    cells = dict(zip(CHEXPERT14, row))
    findings = [n for n in CHEXPERT14 if n not in ("No Finding", "Support Devices")]
    marked = any(abs(cells[n]) == 1 for n in findings)
    for name, value in cells.items():
        if (
            name in findings
            and cells["No Finding"] == 1
            and value != 1
            or name == "No Finding"
            and np.isnan(value)
            and marked
        ):
            value = 0
        elif np.isnan(value):
            value = 0 if blank == "negative" else np.nan
        elif value == -1:
            value = {"ignore": np.nan, "zeros": 0, "ones": 1}[uncertain]
        out[name] = value
    return list(out.values())


@settings(deadline=None)  # a loaded machine is no failure
@given(
    marks, *map(st.sampled_from, (("ignore", "zeros", "ones"), ("unknown", "negative")))
)
def test_policy_equals_the_rules_cell_by_cell(raw, uncertain, blank):
    before = raw.copy()
    got, notes = labels.policy(raw, CHEXPERT14, uncertain, blank)
    np.testing.assert_equal(got, [expected(row, uncertain, blank) for row in raw])
    np.testing.assert_equal(raw, before)
    assert notes["uncertain"] == uncertain and notes["blank"] == blank


def test_no_finding_spares_support_devices():
    raw = np.full((1, 14), np.nan, np.float32)
    raw[0, 0] = 1
    got, _ = labels.policy(raw, CHEXPERT14, "ignore", "unknown")
    assert got[0, 0] == 1 and (got[0, 1:13] == 0).all() and np.isnan(got[0, 13])


def test_the_predecessors_seven_are_the_intersection():
    chexpert = manifest("chexpert", CHEXPERT13, np.zeros((2, 13), np.float32))
    nih = manifest("nih", NIH14, np.ones((3, 14), np.float32))
    both = labels.intersection([chexpert, nih])
    assert both.classes == PREDECESSOR7 and both.labels.shape == (5, 7)
    np.testing.assert_equal(both.labels[:, 0], [0, 0, 1, 1, 1])


def test_union_fills_with_nan_and_keeps_every_cell():
    values = np.array([[0, 1], [np.nan, 0]], np.float32)
    a = manifest("a", ("Pleural Effusion", "Hernia"), values)
    b = manifest("b", ("Mass", "Effusion"), np.array([[1, 0]], np.float32))
    both = labels.union([a, b])
    assert both.classes == ("Effusion", "Hernia", "Mass")
    nan = np.nan
    np.testing.assert_equal(both.labels, [[0, 1, nan], [nan, 0, nan], [0, nan, 1]])
    assert list(both.id) == ["a/i0", "a/i1", "b/i0"] and both.root == "/data"
    assert list(both.path) == ["a/images/0.png", "a/images/1.png", "b/images/0.png"]
    assert both.notes["members"] == {"a": {}, "b": {}}


def test_union_with_a_single_label_set_is_one_hot_over_its_own_classes():
    natural = manifest("natural", ("cat", "dog"), [1, 0])
    xray = manifest("xray", ("Mass",), np.array([[1]], np.float32))
    both = labels.union([natural, xray])
    nan = np.nan
    np.testing.assert_equal(both.labels, [[0, 1, nan], [1, 0, nan], [nan, nan, 1]])
    single = labels.union([natural, manifest("more", ("dog", "eel"), [0, 1])])
    assert single.classes == ("cat", "dog", "eel") and list(single.labels) == [
        1,
        0,
        1,
        2,
    ]
    with pytest.raises(ValueError, match="multi-label"):
        labels.intersection([natural, xray])


@pytest.mark.parametrize("roots", [("/d/x", "/d/y/z"), ("/d", "/d"), ("/a/b", "/c")])
def test_concatenated_paths_lead_to_the_same_files(roots):
    sets = [manifest(n, ("Mass",), [[0.0]], root) for n, root in zip("ab", roots)]
    both = labels.union(sets)
    for row, m in enumerate(sets):
        whole = os.path.join(both.root, both.path[row])
        assert whole == os.path.join(m.root, m.path[0])


def test_concatenation_of_one_root_or_one_name():
    a = manifest("a", ("Mass",), [[0.0]])
    inner = labels.union([a, manifest("b", ("Mass",), [[1.0]], "/data/a")])
    assert list(inner.path) == ["images/0.png", "b/images/0.png"]
    with pytest.raises(ValueError, match="two data sets are called"):
        labels.union([a, a])


def test_subset_of_columns_and_of_rows():
    values = np.array([[0, 1, np.nan]], np.float32)
    m = manifest("m", ("Edema", "Effusion", "Mass"), values)
    kept = labels.subset(m, ("Mass", "Pleural Effusion"))
    assert kept.classes == ("Mass", "Pleural Effusion")
    np.testing.assert_equal(kept.labels, [[np.nan, 1]])
    single = labels.subset(manifest("s", ("a", "b", "c"), [0, 1, 2, 2]), ("c", "a"))
    assert list(single.labels) == [1, 0, 0] and list(single.id) == ["i0", "i2", "i3"]
    assert "left out: 1" in single.remarks()[0]
    with pytest.raises(ValueError, match="'Oedema'; did you mean Edema"):
        labels.subset(m, ("Oedema",))
    with pytest.raises(ValueError, match="twice"):
        labels.subset(m, ("Effusion", "Pleural Effusion"))


def test_a_subset_needs_an_image_of_its_classes():
    m = manifest("s", ("a", "b", "c"), [0, 0, 1])
    assert labels.subset(m, ("a",)).labels.tolist() == [0, 0]
    with pytest.raises(ValueError, match="s has no image of"):
        labels.subset(m, ("c",))


def test_a_set_whose_classes_are_not_shared_keeps_its_images():
    """A single-label set without the first class, and classes that others lack."""
    m = manifest("m", ("Mass", "Effusion"), [[1, 0], [np.nan, 1]])
    seen = labels.under(m, ("Effusion", "Edema"), True)
    np.testing.assert_equal(seen, [[0, np.nan], [1, np.nan]])
