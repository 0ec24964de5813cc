"""The table of run folders: columns, cache, damage, pairs. All folders are made up."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from bigxfer import config, presets
from bigxfer.config import Freeze, Init, Model, Run
from bigxfer.tables import differences, lines, run_row, summary, table

ROOT = Path(__file__).parents[1]


def write_run(runs, run, values=None, synthetic=True, **report):
    """A finished run folder as job.py writes it, with these metric values."""
    run = config.resolve(run)
    digest = config.digest(run)
    folder = runs / digest
    folder.mkdir(parents=True)
    about = {
        "config": config.to_dict(run),
        "digest": digest,
        "commit": "abc",
        "versions": {},
        "manifest_hash": "0",
        "plan": {"steps": 300},
        "synthetic": synthetic,
        "data": {"counts": {"train": 900, "valid": 50, "test": 80}, **report},
    }
    about["config"]["optim"]["batch"] = 64
    result = {
        "metrics": {
            name: {"value": v, "low": v - 0.1, "high": v + 0.1}
            for name, v in (values or {"accuracy": 0.5}).items()
        },
        "images": 80,
        "patients": 70,
        "cost": {
            "steps": 300,
            "images": 300 * 64,
            "flops": 1e12,
            "device_seconds": 5.0,
            "parameters": 123,
        },
        "synthetic": synthetic,
        "digest": digest,
        "commit": "abc",
    }
    result["metrics"]["auroc/rare"] = {
        "value": None,
        "low": None,
        "high": None,
        "reason": "no positive label of rare in the test split",
    }
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "result.json").write_text(json.dumps(result))
    return digest


def upstream(distance=0.5, **kw):
    run = Run(kind="upstream", model=config.Model(blocks=(2, 2, 2, 2), width=0.5))
    run.data.reader, run.data.phantom.distance = "chexpert", distance
    for name, value in kw.items():
        setattr(run, name, value)
    return run


def transfer(source="", shots="5", seed=0):
    run = Run(kind="transfer", seed=seed, model=config.Model(blocks=(2, 2, 2, 2)))
    run.data.reader, run.data.shots = "covidx", shots
    if source:
        run.init.kind, run.init.digest = "pretrained", source
    return run


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    source = write_run(folder, upstream())
    for seed in range(3):
        for digest, value in ((source, 0.7), ("", 0.6)):
            write_run(
                folder,
                transfer(digest, seed=seed),
                {"accuracy": value + seed / 100},
                drawn=[f"i{k}" for k in range(15)],
            )
    return folder


def test_one_row_a_run_with_what_made_it(runs, tmp_path):
    found = table.collect([runs], tmp_path / "out")
    assert (len(found.rows), found.read, found.bad) == (7, 7, {})
    table.save(found.rows, tmp_path / "out")
    got = pq.read_table(tmp_path / "out" / "table.parquet")
    assert got.column_names[: len(table.COLUMNS)] == list(table.COLUMNS)
    rows = got.to_pylist()
    (up,) = differences.select(rows, kind="upstream")
    assert (
        up["upstream"] == "scratch" and up["target"] == "phantom-chexpert distance=0.5"
    )
    assert (up["model"], up["depth"], up["width"]) == ("R26x0.5", 26, 0.5)
    row = differences.select(rows, init="pretrained", seed=1)[0]
    want = {
        "study": "runs",
        "upstream": "phantom-chexpert distance=0.5",
        "upstream_size": 900,
        "upstream_examples": 19200,
        "upstream_distance": 0.5,
        "upstream_digest": up["digest"],
        "params": 123,
        "target": "phantom-covidx",
        "target_size": 15,
        "target_distance": 0.0,
        "shots": "5",
        "protocol": "hyperrule-code",
        "steps": 300,
        "images": 19200,
        "flops": 1e12,
        "device_seconds": 5.0,
        "test_images": 80,
        "test_patients": 70,
        "synthetic": True,
        "commit": "abc",
        "accuracy": 0.71,
        "auroc/rare": None,
    }
    assert {k: row.get(k) for k in want} == want
    assert abs(row["accuracy_low"] - 0.61) < 1e-12
    csv = pa.csv.read_csv(tmp_path / "out" / "table.csv")
    assert csv.num_rows == 7 and csv["digest"].to_pylist() == [
        r["digest"] for r in rows
    ]


def test_what_was_trained_on_is_in_the_row(tmp_path):
    run = upstream()
    run.data.reader, run.data.mix, run.data.space = (
        "nih+mimic",
        (1, 0.5),
        "intersection",
    )
    run.data.fraction, run.data.sampling = 0.25, "classes"
    folder = tmp_path / "runs" / write_run(tmp_path / "runs", run, synthetic=False)
    want = {
        "fraction": 0.25,
        "sampling": "classes",
        "mix": "1:0.5",
        "space": "intersection",
        "leaked_patients": None,
    }
    row = run_row.read_run(folder)
    assert {k: row[k] for k in want} == want
    # A run from before these fields is one of their defaults; leaks count in the test.
    about = json.loads((folder / "config.json").read_text())
    about["config"]["data"] = {
        k: v for k, v in about["config"]["data"].items() if k not in want
    }
    (folder / "config.json").write_text(json.dumps(about))
    result = json.loads((folder / "result.json").read_text())
    test = {"patients": 2, "exact": None}
    result["leaks"] = {"upstream": {"patients": 9, "exact": None, "test": test}}
    (folder / "result.json").write_text(json.dumps(result))
    row = run_row.read_run(folder)
    assert (row["fraction"], row["sampling"], row["mix"]) == (1.0, "uniform", None)
    assert (row["leaked_patients"], row["leaked_images"]) == (2, None)


def test_a_second_collect_reads_only_what_changed(runs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = table.collect([runs], out)
    table.save(first.rows, out)
    again = table.collect([runs], out)
    assert again.read == 0
    assert table.to_arrow(again.rows).equals(table.to_arrow(first.rows))
    changed = runs / first.rows[0]["digest"] / "result.json"
    text = changed.read_text().replace("abc", "def")
    time.sleep(0.01)
    changed.write_text(text)
    write_run(runs, transfer(shots="10"))
    third = table.collect([runs], out)
    assert third.read == 2 and len(third.rows) == 8
    assert sorted(r["commit"] for r in third.rows) == ["abc"] * 7 + ["def"]
    # A table of other columns is not a cache.
    monkeypatch.setattr(table, "COLUMNS", {"new": pa.string(), **table.COLUMNS})
    assert table.collect([runs], out).read == 8


def test_seeds_and_settings_make_families(tmp_path):
    """Two seeds of an upstream are one family; another rate, crop or data is another."""
    folder = tmp_path / "runs"
    first, second = (write_run(folder, upstream(seed=s)) for s in (0, 3))
    other = write_run(folder, upstream(distance=0.2))
    runs = [transfer(source, seed=d) for source in (first, second) for d in range(2)]
    faster, smaller = transfer(first), transfer(first)
    faster.optim.lr, smaller.data.crop, smaller.data.resize = 0.01, 64, 80
    made = [write_run(folder, run) for run in runs]
    changed = (faster, smaller, transfer(other))
    rate, crop, far = (write_run(folder, run) for run in changed)
    alone = write_run(folder, transfer("0123456789abcdef"))
    rows = {r["digest"]: r for r in table.collect([folder], tmp_path).rows}
    assert [rows[d]["upstream_seed"] for d in made] == [0, 0, 3, 3]
    assert len({rows[d]["family"] for d in made}) == 1
    families = {rows[d]["family"] for d in (made[0], rate, crop, far, alone)}
    assert len(families) == 5
    assert rows[alone]["upstream_seed"] is None  # its upstream is not at hand
    assert json.loads(rows[rate]["settings"])["optim/lr"] == 0.01
    assert "optim/lr" not in json.loads(rows[made[0]]["settings"])
    about = json.loads((folder / made[1] / "config.json").read_text())
    (folder / made[1] / "config.json").write_text(
        json.dumps(about | {"manifest_hash": "1"})
    )
    assert run_row.read_run(folder / made[1])["family"] != rows[made[0]]["family"]


def test_the_margin_is_the_configs_and_no_part_of_the_digest(tmp_path):
    run = transfer()
    run.eval.margin = 0.05
    assert config.digest(run) == config.digest(transfer())
    folder = tmp_path / write_run(tmp_path, run)
    assert run_row.read_run(folder)["margin"] == 0.05
    about = json.loads((folder / "config.json").read_text())
    del about["config"]["eval"]["margin"]  # a run from before there was one
    (folder / "config.json").write_text(json.dumps(about))
    assert run_row.read_run(folder)["margin"] is None


def test_unfinished_and_damaged_runs_are_listed_and_stop_nothing(runs, tmp_path):
    half = runs / "half"
    half.mkdir()
    (half / "config.json").write_text("{}")
    (runs / "notes.txt").write_text("not a run")
    names = sorted(p for p in runs.iterdir() if (p / "result.json").exists())
    (names[0] / "result.json").write_text("{")
    about = json.loads((names[1] / "config.json").read_text())
    about["digest"] = "other"
    (names[1] / "config.json").write_text(json.dumps(about))
    found = table.collect([runs], tmp_path / "out")
    assert len(found.rows) == 5
    assert found.unfinished == [str(half)]
    assert len(found.bad) == 2
    assert list(found.bad) == [str(names[0]), str(names[1])]
    assert "damaged" in found.bad[str(names[0])] and "other" in found.bad[str(names[1])]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        table.collect([tmp_path / "nowhere"], tmp_path / "out")


@pytest.mark.parametrize("end", ["value", "low", "high"])
def test_a_metric_outside_its_range_is_refused(runs, tmp_path, end):
    file = next(iter(sorted(runs.iterdir()))) / "result.json"
    result = json.loads(file.read_text())

    def refused(**values):
        ends = {"value": 0.5, "low": 0.4, "high": 0.6}
        result["metrics"] = {name: ends | {end: v} for name, v in values.items()}
        file.write_text(json.dumps(result))
        return table.collect([runs], tmp_path / "out").bad.get(str(file.parent), "")

    assert refused(loss=2.482, brier=1.5, auroc_macro=1.0, accuracy=None) == ""
    assert f"{end} of auroc_macro is 2.482, outside [0, 1]" in refused(
        auroc_macro=2.482
    )
    assert "outside [0, 2]" in refused(brier=2.1)
    assert "outside [0, inf]" in refused(loss=-0.1)


def test_transfers_keep_the_name_of_an_upstream_that_cannot_be_read(runs, tmp_path):
    rows = table.collect([runs], tmp_path / "out").rows
    (source,) = {r["upstream_digest"] for r in rows} - {""}
    (runs / source / "result.json").write_text("")
    found = table.collect([runs], tmp_path / "out")
    assert list(found.bad) == [str(runs / source)]
    columns = ("upstream", "upstream_size", "upstream_examples", "upstream_distance")
    for row in found.rows:
        before = next(r for r in rows if r["digest"] == row["digest"])
        assert [row.get(c) for c in columns] == [before.get(c) for c in columns]


def test_names_of_data_models_and_unknown_upstreams():
    data = config.to_dict(Run())["data"]
    assert run_row.set_name(
        {**data, "root": "/x/covid_cxr", "reader": "csv"}, False
    ) == ("covid_cxr")
    covid = {**data, "reader": "covidx", "version": "9A"}
    assert run_row.set_name(covid, False) == "covidx-9A"
    assert presets.model_name(config.DEPTHS[152], 4.0) == "R152x4"
    assert presets.model_name((1, 1), 0.25) == "R1-1x0.25"
    init = {"checkpoint": "w/BiT-M-R50x1.npz", "upstream": "", "digest": "d"}
    assert run_row._source(init) == "BiT-M-R50x1"
    init = {"checkpoint": "", "upstream": "configs/upstream_nih.py:res=64"}
    assert run_row._source(init) == "upstream_nih"


def test_a_second_collect_reads_no_run_again(tmp_path):
    values = {f"auroc/c{i}": 0.5 for i in range(14)} | {"accuracy": 0.4}
    for seed in range(200):
        write_run(tmp_path / "runs", transfer(seed=seed), values)
    found = table.collect([tmp_path / "runs"], tmp_path)
    assert found.read == len(found.rows) == 200
    table.save(found.rows, tmp_path)
    assert table.collect([tmp_path / "runs"], tmp_path).read == 0


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "bigxfer.study", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(runs, tmp_path):
    out = tmp_path / "out"
    done = command("collect", "--runs", runs, "--out", out, "--study", "mine")
    assert done.returncode == 0, done.stderr
    assert "7 finished runs (7 read anew), 0 unfinished, 0 unreadable" in done.stdout
    assert {r["study"] for r in table.load(out / "table.parquet")} == {"mine"}
    done = command("collect", "--out", out)
    assert done.returncode == 1 and done.stderr.startswith("error: collect needs")
    done = command("collect", "--published", tmp_path / "no", "--out", out)
    assert done.returncode == 1 and "SLAMPAI" in done.stderr


def test_help_imports_nothing_slow():
    call = [sys.executable, "-X", "importtime", "-m", "bigxfer.study", "--help"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "collect" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "bigxfer.study.commands.report" in imported
    assert not imported & {"jax", "flax", "pandas", "plotly", "sklearn", "orbax"}


@pytest.mark.parametrize(
    "init, freeze, words",
    [
        (Init(), Freeze(), None),
        (Init(kind="gabor"), Freeze(), "gabor"),
        (Init(kind="pretrained", how="mean_var"), Freeze(), "mean_var"),
        (Init(upto="block2"), Freeze(bottom=0.3), "copy up to block2, 30% fixed"),
        (Init(), Freeze(top=0.18), "top 18% trains"),
        (Init(upto="a", above="mean_var"), Freeze(), "copy up to a, mean_var above"),
    ],
)
def test_a_start_is_told_in_words(init, freeze, words):
    assert run_row.start_words(vars(init), vars(freeze)) == words
    assert run_row.start_words({"kind": init.kind}, {}) in (None, "gabor")  # an old run


def test_nets_are_told_apart():
    names = [Model(), Model(width=0.25, slim_above="block2"), Model(name="cbr_tiny")]
    names += [Model(name="cbr_tiny", width=0.5)]
    assert [presets.net_name(vars(model)) for model in names] == [
        "R50x1",
        "R50x0.25 slim above block2",
        "cbr_tiny",
        "cbr_tiny x0.5",
    ]


def test_the_summary_takes_rows_that_no_upstream_was_joined_to(tmp_path):
    for seed in (0, 1):
        for bottom in (0.0, 0.5):
            run = Run(kind="transfer", seed=seed, freeze=Freeze(bottom=bottom))
            run.optim.steps, run.optim.schedule = 1, "constant"
            write_run(tmp_path, run, {"auroc_macro": 0.5 + bottom / 10})
    rows = table.collect([tmp_path], tmp_path).rows
    named = {row["line"] for row in lines.lines(rows)[0]}
    assert named == {"scratch", "scratch, 50% fixed"}


def test_the_summary_compares_each_start_with_scratch_of_the_same_layers():
    names = {"scratch", "scratch, 50% fixed", "nih, 50% fixed", "nih, mean_var"}
    assert summary.rival("nih, 50% fixed", names) == "scratch, 50% fixed"
    assert summary.rival("nih, mean_var", names) == "scratch"
    assert summary.rival("scratch, 50% fixed", names) == "scratch"


def test_what_is_amiss_in_a_run_is_a_sentence():
    assert run_row.said(KeyError("cost")) == "it lacks the field 'cost'"
    assert run_row.said(ValueError("cost is text")) == "cost is text"


def test_words_of_old_and_new_runs():
    phantom = {"reader": "covidx", "phantom": {"distance": 0.5, "severity": 1}}
    assert run_row.set_name(phantom, True) == "phantom-covidx distance=0.5"
    phantom["phantom"] |= {"severity": 2, "shortcut": 0.25}
    name = "phantom-covidx distance=0.5 severity=2 shortcut=0.25"
    assert run_row.set_name(phantom, True) == name
    assert run_row.set_name({**phantom, "reader": "folder"}, True) == "phantom-natural"
    assert run_row.target_size({"drawn": ["a", "b"], "counts": {"train": 9}}) == 2
    assert run_row.target_size({"drawn": None, "counts": {"train": 9}}) == 9
    assert run_row.target_size({}) is None
    none = {"value": None, "low": None, "high": None, "reason": "no label of x"}
    assert run_row.lacking({"auroc_macro": none}) == "no label of x"
    assert run_row.lacking({"auroc_macro": {"value": 0.0}}) is None
    assert run_row.lacking({}) is None
    frozen = {"top_layers": 2, "head": "ridge"}
    assert run_row.start_words({"kind": "random"}, frozen) == (
        "top 2 layers train, ridge head"
    )
    assert run_row.protocol({"schedule": "hyperrule", "variant": "paper"}) == (
        "hyperrule-paper"
    )
    assert run_row.protocol({"schedule": "cosine", "variant": "paper"}) == "cosine"
    init = {"checkpoint": "run/params.npz", "upstream": "", "digest": "d"}
    assert run_row._source(init) == "d" and run_row._source({"kind": "imagenet"}) == (
        "imagenet"
    )


def test_what_was_chosen_and_on_what():
    tuned = {"what": "rate", "of": [1, 2, 3], "value": 2, "edge": ""}
    assert run_row.of_choice({"tuned": tuned}) == {
        "tuned": "rate of 3",
        "chosen": 2,
        "edge": None,
    }
    plain = dict.fromkeys(("tuned", "chosen", "edge"))
    assert run_row.of_choice({}) == plain | {"tuned": "untuned"}
    assert run_row.of_choice({"tuned": None, "head": {}}) == plain | {
        "tuned": "untuned"
    }
    assert run_row.of_choice({"head": {}}) == plain  # older than what it says of it
    edge = tuned | {"edge": "lowest"}
    assert run_row.of_choice({"tuned": edge, "head": {}})["edge"] == "lowest"


def test_columns_of_other_sets():
    one = {"value": 0.7, "low": 0.6, "high": 0.8}
    sets = {"metrics": {"auroc_macro": one}, "gaps": {"auroc_macro": one, "loss": one}}
    assert run_row.of_external({"external": {"far": sets}}) == {
        "external/far/auroc_macro": 0.7,
        "external/far/auroc_macro_low": 0.6,
        "external/far/auroc_macro_high": 0.8,
        "gap/far/auroc_macro": 0.7,
        "gap/far/auroc_macro_low": 0.6,
        "gap/far/auroc_macro_high": 0.8,
    }
    groups = {"sex": {"gaps": {"auroc_macro": one, "accuracy": one}}}
    assert run_row.of_groups({"groups": groups}) == {
        "gap/sex/auroc_macro": 0.7,
        "gap/sex/auroc_macro_low": 0.6,
        "gap/sex/auroc_macro_high": 0.8,
    }
