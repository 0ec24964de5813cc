"""Manifests on disk: what is saved is loaded, what is damaged is refused, and size."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_readers import nih, read
from test_split import random_manifest

from bigxfer.data import manifest as module
from bigxfer.data.manifest import COLUMNS, Manifest
from bigxfer.data.readers import DataError, saved

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)


@st.composite
def manifests(draw):
    n = draw(st.integers(1, 40))
    ids = draw(st.lists(TEXT.filter(bool), min_size=n, max_size=n, unique=True))
    lists = st.lists(TEXT, min_size=n, max_size=n)
    patient = draw(st.sampled_from([ids, ["p"] * n, ids[::-1]]))
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 2, n)
    if draw(st.booleans()):
        labels = rng.choice([0, 1, np.nan], (n, 2))
    about = {"synthetic": draw(st.booleans()), "notes": {"rows": [n, {"a": None}]}}
    rest = [draw(lists) for _ in range(3)]
    return Manifest("s", "/r", ("a", "b c"), labels, ids, ids, patient, *rest, **about)


@settings(max_examples=60, deadline=None)
@given(manifests(), st.sampled_from([3, 16, 1 << 16]))
def test_what_is_saved_is_loaded(tmp_path_factory, m, block):
    path = tmp_path_factory.mktemp("m") / "m.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        m.save(path)
        back = Manifest.load(path)
        assert back.hash() == m.hash()
    for name in COLUMNS:
        assert getattr(back, name).tolist() == getattr(m, name).tolist()
        assert {type(v) for v in getattr(back, name)} == {str}
    np.testing.assert_array_equal(back.labels, m.labels)
    assert back.labels.dtype == m.labels.dtype and back.classes == m.classes
    assert (back.name, back.root, back.synthetic) == ("s", "/r", m.synthetic)
    assert back.notes == m.notes
    # the hash, however it is chunked, is that of the joined columns
    sha = hashlib.sha256(json.dumps([m.name, m.classes]).encode())
    for name in COLUMNS:
        sha.update("\0".join(getattr(m, name)).encode() + b"\1")
    sha.update(m.labels.tobytes())
    assert m.hash() == sha.hexdigest()


def test_a_changed_row_is_noticed(tmp_path):
    path = tmp_path / "m.parquet"
    random_manifest(0, 50, 9).save(path)
    table = pq.read_table(path)
    row = table.slice(0, 1)
    for name in ("id", "patient", "label"):
        other = table.slice(1, 1)[name]
        column = table.schema.get_field_index(name)
        assert other[0] != row[name][0]
        changed = table.slice(0, 1).set_column(column, name, other)
        pq.write_table(pa.concat_tables([changed, table.slice(1)]), path)
        with pytest.raises(ValueError, match="m.parquet is damaged"):
            Manifest.load(path)


def test_a_saved_manifest_is_a_data_set(tmp_path):
    nih(tmp_path)
    first = read("nih", tmp_path)
    replace(first, synthetic=True, root="/elsewhere").save(tmp_path / saved.FILE)
    again = read("manifest", tmp_path)
    assert again.hash() == first.hash() and again.root == str(tmp_path)
    assert again.synthetic and not first.synthetic  # the mark is never lost


@pytest.mark.parametrize("content", [None, b"", b"id,path", "table", "changed"])
def test_what_is_no_manifest_is_named(tmp_path, content):
    path = tmp_path / saved.FILE
    if content in ("table", "changed"):
        random_manifest(0, 9, 3).save(path)
        table = pq.read_table(path)
        kept = table.slice(1) if content == "changed" else table.select(["id"])
        about = table.schema.metadata if content == "changed" else None
        pq.write_table(kept.replace_schema_metadata(about), path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="manifest.parquet"):
        read("manifest", tmp_path)


# ru_maxrss of a child begins with what its parent held at the fork: 4.04 GB of a test
# process that had run for half an hour. VmHWM is of this program alone.
BIG = """
import sys, time
import numpy as np
from bigxfer.data.manifest import Manifest
n, each, path = 14_197_122, 650, sys.argv[2]
if sys.argv[1] == "save":
    synset = [f"n{k:08d}" for k in range(n // each + 1)]
    ids = [f"{synset[k // each]}_{k % each * 7}" for k in range(n)]
    files = [f"{synset[k // each]}.tar#{k * 90112 + 1536}+{k}" for k in range(n)]
    ids, blank = np.array(ids, object), np.full(n, "", object)
    labels = np.arange(n) // each
    m = Manifest("big", "/r", synset, labels, ids, files, ids, blank, blank, blank)
    m.save(path)
else:
    began = time.process_time()
    assert len(Manifest.load(path)) == n
    print(time.process_time() - began)
    status = open("/proc/self/status").read()
    print(int(status.split("VmHWM:")[1].split()[0]) / 2**20)
"""


@pytest.mark.slow
def test_14_million_images_open_in_10_seconds_and_4_gb(tmp_path):
    """As many as ImageNet-21k, with ids and paths as its reader makes them."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("the peak of a process's memory is read from Linux's /proc")
    for what in ("save", "load"):
        done = subprocess.run(
            [sys.executable, "-c", BIG, what, str(tmp_path / "big.parquet")],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
    seconds, gb = map(float, done.stdout.split())
    assert seconds < 10 and gb < 4
    (tmp_path / "big.parquet").unlink()
