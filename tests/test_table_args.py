"""The table that a command was given: where it stands, and where its runs stand now."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from bigxfer.tables import table, table_args
from bigxfer.tables.table_args import Given


def test_a_run_is_where_it_was_or_beside_the_tables_folder(tmp_path):
    given = Given([], tmp_path / "study_x" / "table.parquet", "")
    run, draw = tmp_path / "abc", tmp_path / "cell" / "draws" / "abc"
    old = "/was/runs/abc", "/was/runs/cell/draws/abc"
    assert [given.find(folder) for folder in old] == [Path(folder) for folder in old]
    run.mkdir()
    draw.mkdir(parents=True)
    assert [given.find(folder) for folder in old] == [run, draw]
    (tmp_path / "here" / "abc").mkdir(parents=True)
    assert given.find(str(tmp_path / "here" / "abc")) == tmp_path / "here" / "abc"


def args(**given):
    return SimpleNamespace(
        **{"table": None, "config": "", "runs": Path("runs")} | given
    )


def row(kind):
    return dict.fromkeys(table.COLUMNS) | {"kind": kind, "digest": "d", "folder": "f"}


def test_a_table_by_its_file_or_by_its_study(tmp_path):
    folder = tmp_path / "study_x"
    table.save([row("transfer"), row("upstream")], folder)
    by_file = table_args.given(args(table=folder / "table.parquet"))
    assert len(by_file.rows) == 2 and by_file.config == ""
    config = "configs/study_x.py:res=32"
    by_study = table_args.given(args(config=config, runs=tmp_path))
    assert by_study.path == folder / "table.parquet" and by_study.config == config
    assert by_study.rows == by_file.rows
    text = table_args.given(args(table=folder / "table.csv"))
    assert [r["kind"] for r in text.rows] == ["transfer", "upstream"]


def test_what_is_no_table_says_what_to_do(tmp_path):
    for both in ({}, {"table": tmp_path / "t.parquet", "config": "configs/x.py"}):
        with pytest.raises(ValueError, match="give --table FILE or --config FILE"):
            table_args.given(args(**both))
    with pytest.raises(FileNotFoundError, match="collect --out DIR"):
        table_args.given(args(table=tmp_path / "t.parquet"))
    with pytest.raises(FileNotFoundError, match="collect --runs R --out R/study_x"):
        table_args.given(args(config="configs/study_x.py", runs=Path("R")))
    table.save([row("upstream")], tmp_path)
    with pytest.raises(ValueError, match="no finished transfer yet"):
        table_args.given(args(table=tmp_path / "table.parquet"))
    table.save([], tmp_path)
    with pytest.raises(ValueError, match="has no rows"):
        table_args.given(args(table=tmp_path / "table.parquet"))
    (tmp_path / "bad.csv").write_text("kind,upstream\ntransfer,nih\n")
    with pytest.raises(ValueError, match="bad.csv lacks the columns study, "):
        table_args.given(args(table=tmp_path / "bad.csv"))
