"""Damaged files are named, each by an error that says what to do; never a bare one."""

import numpy as np
import pytest

from bigxfer import config, tree
from bigxfer.tables import table
from bigxfer.training.log import RunLog

ROW = {"digest": "a" * 16, "folder": "f", "seed": 1, "auroc_macro": 0.5}


@pytest.mark.parametrize("beside", [b"", b"\xff\xfe", b"0" * 64 + b"  a.npz\n"])
def test_a_damaged_sum_beside_an_npz(tmp_path, beside):
    path = tmp_path / "a.npz"
    tree.save_npz(path, {"x": np.arange(3)})
    (tmp_path / "a.npz.sha256").write_bytes(beside)
    with pytest.raises(ValueError, match=r"a.npz or a.npz.sha256 is damaged"):
        tree.load_npz(path)


def test_a_damaged_table_is_named_and_collected_anew(tmp_path):
    """One flipped bit in a value: Parquet alone reads it in silence."""
    path = tmp_path / "table.parquet"
    table.save([ROW], tmp_path)
    assert table.load(path)[0]["auroc_macro"] == 0.5
    sound = path.read_bytes()
    at = sound.index(np.float64(0.5).tobytes()) + 6
    flipped = sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :]
    for damage in (flipped, b"", sound[:-9], b"PAR1" + sound[40:]):
        path.write_bytes(damage)
        with pytest.raises(
            ValueError, match=r"(?s)table.parquet is damaged .*collect again"
        ):
            table.load(path)
        (tmp_path / "runs").mkdir(exist_ok=True)
        assert table.collect([tmp_path / "runs"], tmp_path).rows == []


def test_a_log_that_was_changed_is_said_on_resuming(tmp_path, caplog):
    log = RunLog(tmp_path, config.Log(), True)
    for step in (1, 2):
        log.scalars(step, {"loss": step / 10})
    saved = log.sum()
    log.scalars(3, {"loss": 0.3})  # after the step that is resumed
    log.rewind(2, saved)
    assert log.sum() == saved and not caplog.records
    (tmp_path / "metrics.jsonl").write_text(log.path.read_text().replace("0.1", "0.7"))
    log.rewind(2, saved)
    assert f"{log.path} is damaged" in caplog.text


def test_a_log_that_lost_a_key_is_cut_there(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"stfp": 2}\n{"step": 3}\n')
    RunLog(tmp_path, config.Log(), True).rewind(3)
    assert path.read_text() == '{"step": 1}\n'
