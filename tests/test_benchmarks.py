"""The benchmarks: they parse, count rightly, and agree with the nets they speak of."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from sklearn.metrics import roc_auc_score

from bigxfer import models, presets, tree
from bigxfer.training import sharding

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def as_scripts(monkeypatch):
    """They import each other as scripts do, by the folder they lie in."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(
    "name",
    [
        "train_step",
        "study_throughput",
        "scaling",
        "memory",
        "opening",
        "startup",
        "input_pipeline",
    ],
)
def test_help(name):
    call = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"]
    env = {"PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(call, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0 and "--out" in done.stdout, done.stderr


def test_truths_of_simulated_studies_are_their_means():
    """coverage_cells.expected, over all luck and given one seed's, beside 200 studies."""
    import coverage_cells as cells

    gap, sd = cells.NOISES["AUROC .80, sd .02 .03 .01"]
    rng, found = np.random.default_rng(0), {m: [] for m in cells.METRICS}
    for _ in range(200):
        study = cells.Study(rng, 60, gap, sd, "a")
        for metric, (points, sums) in study.judged("a").items():
            np.testing.assert_allclose(sums.sum(axis=0), 0, atol=1e-12)
            given = cells.expected(metric, gap, sd, study.luck["a"])
            found[metric].append((points.mean(), points[0].mean() - given))
    for metric, values in found.items():
        error = np.std(values, axis=0) / np.sqrt(len(values))
        mean, apart = np.mean(values, axis=0)
        assert abs(mean - cells.expected(metric, gap, sd)) < 3 * error[0]
        assert abs(apart) < 3 * error[1]
    assert cells.expected("auroc", gap, (0, 0, 0)) == pytest.approx(0.802, abs=1e-3)


def test_every_kind_of_interval_is_simulated_and_printed():
    import coverage
    import coverage_cells
    import coverage_claims
    import coverage_runs

    modules = coverage_cells, coverage_claims, coverage_runs
    rows = [row for module in modules for row in module.settings()]
    kinds = {kind: (where, simulate) for kind, where, simulate in rows[::-1]}
    assert len({(kind, where) for kind, where, _ in rows}) == len(rows)
    coverage_runs.LARGE, large = 3000, coverage_runs.LARGE
    saved = {
        f"{kind}: {where}": {"rows": simulate(6)}
        for kind, (where, simulate) in kinds.items()
    }
    coverage_runs.LARGE = large
    text = "\n".join(coverage.table(saved))
    for kind in kinds:
        assert kind in text
    for name in (
        "auroc_micro",
        "sensitivity",
        "5 paired seeds, 5 or 10 draws",
        "any of ten",
    ):
        assert name in text


def test_collectives_are_counted_by_their_bytes():
    import scaling

    mesh = sharding.make(8)
    split, whole = (NamedSharding(mesh, PartitionSpec(s)) for s in ("fsdp", None))
    x = jax.ShapeDtypeStruct((8, 100), jnp.float32, sharding=split)

    def found(f, out):
        text = jax.jit(f, out_shardings=out).lower(x).compile().as_text()
        return scaling.communicated(text)

    assert found(lambda x: x * 2, split) == {}
    assert found(lambda x: x.sum(0), whole) == {"all-reduce": {"ops": 1, "bytes": 400}}
    assert found(lambda x: x * 2, whole) == {"all-gather": {"ops": 1, "bytes": 3200}}


def test_collectives_in_pairs_and_tuples():
    import scaling

    text = """
  %s = (f32[4]{0}, f32[8]{0}) all-gather-start(%p), dimensions={0}
  %d = f32[8]{0} all-gather-done(%s)
  %t = (f32[3]{0}, bf16[2,5]{1,0}) all-reduce(%a, %b), to_apply=%add
  %u = f32[9]{0} add(%all-reduce, %d)
"""
    assert scaling.communicated(text) == {
        "all-gather": {"ops": 1, "bytes": 32},
        "all-reduce": {"ops": 1, "bytes": 32},
    }


@pytest.mark.parametrize("name", ["R50x1", "R26x1"])
def test_the_paper_model_has_the_nets_own_parameters(name):
    import scaling_model

    net = models.build(presets.bit(name), 10)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), (1, 32, 32, 3)))
    flat = tree.flatten(shapes["params"])
    convs = sum(
        v.size for n, v in flat.items() if n.endswith("standardized_conv2d/kernel")
    )
    found = scaling_model.net(name, 224)
    assert found.parameters == convs
    assert convs > 0.99 * sum(v.size for v in flat.values())


def test_the_paper_model_counts_flops_as_published():
    """shared facts: 24.5, 417 and 1,098 GFLOP an image in training, by XLA's count."""
    import scaling_model

    for name, gflop in (("R50x1", 24.5), ("R101x3", 417), ("R152x4", 1098)):
        found = scaling_model.net(name, 224).train_flops
        assert found == pytest.approx(gflop * 1e9, rel=0.005)


def test_efficiencies_are_shares_and_fall_with_the_nodes():
    import scaling_model

    rows = scaling_model.rows()
    assert len(rows) == 2 * 6 * 2 * 2
    for row in rows:
        for kind in ("weak", "strong"):
            ends = [row[kind][n] for n in scaling_model.NODES if row[kind]]
            assert all(0 < low <= high <= 1 for low, high in ends)
            assert ends == sorted(ends, reverse=True)
    json.dumps(rows, allow_nan=False)
    assert scaling_model.table(rows).count("\n") == len(rows) + 1


def test_a_study_s_table_and_differences(tmp_path):
    import study_throughput as study

    keys = ("way", "runs", "seconds", "cpu_seconds")
    records = [("one", 2, 20.0, 40.0), ("trained", 8, 16.0, 20.0)]
    records += [("one", 2, 40.0, 40.0), ("ridge", 8, 8.0, 8.0)]
    records += [("packed", 2, 10.0, 20.0)]
    text = study.report([dict(zip(keys, r, strict=True)) for r in records])
    line = next(line for line in text.splitlines() if line.startswith("| trained"))
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [
        *("8", "2.00", "2.50", "1,800", "7.5", "8.0")
    ]
    for way, value, high in (("runs", 0.5, 0.75), ("packed", 0.5 + 1e-5, 0.75)):
        folder = tmp_path / way / "abc"
        folder.mkdir(parents=True)
        metric = {"value": value, "low": None, "high": high}
        file = folder / "result.json"
        file.write_text(json.dumps({"metrics": {"auroc_macro": metric}}))
    runs, worst = study.difference(tmp_path)
    assert runs == 1 and worst == pytest.approx(1e-5)
    assert study.gap(None, 0.5) == float("inf") and study.gap(None, None) == 0


def test_the_throughput_grid_lists():
    from bigxfer.study import grid

    study = grid.nodes(f"{BENCHMARKS / 'throughput_grid.py'}:draws=2,head=ridge")
    kinds = [node.kind for node in study]
    assert kinds.count("transfer") == 24 and kinds.count("upstream") == 1
    assert all(n.run.freeze.head == "ridge" for n in study if n.kind == "transfer")


WORKER = """
import time
import turns


def make():
    def steps(n):
        time.sleep(0.01 * n)
        print("a library's chatter", flush=True)

    return steps, {"batch": 2}


turns.serve({"a": make}, seconds=0.05, peak=lambda: 7)
"""


def test_a_worker_makes_takes_turns_and_ends(tmp_path):
    import turns

    (tmp_path / "worker.py").write_text(WORKER)
    env = {"PYTHONPATH": f"{BENCHMARKS}:{BENCHMARKS.parent}"}
    with turns.Worker([sys.executable, str(tmp_path / "worker.py")], env) as worker:
        assert worker.ask("a") == {"batch": 2}
        for _ in range(2):
            turn = worker.ask("turn")
            assert turn["peak_bytes"] == 7
            assert turn["seconds"] >= 0.01 > turn["cpu_seconds"]  # asleep
        with pytest.raises(RuntimeError, match="KeyError: 'b'"):
            worker.ask("b")
        with pytest.raises(RuntimeError, match="KeyError: 'b'"):
            worker.ask("turn")  # it has ended
    assert worker.process.poll() is not None


def test_workers_that_are_told_work_at_once(tmp_path):
    import turns

    (tmp_path / "worker.py").write_text(WORKER)
    env = {"PYTHONPATH": f"{BENCHMARKS}:{BENCHMARKS.parent}"}
    call = [sys.executable, str(tmp_path / "worker.py")]
    with turns.Worker(call, env) as first, turns.Worker(call, env) as second:
        for what in ("a", "turn"):
            for worker in (first, second):
                worker.tell(what)
        assert second.answer() == first.answer() == {"batch": 2}
        assert second.answer()["peak_bytes"] == first.answer()["peak_bytes"] == 7


def test_scaling_s_ratios_are_to_the_first_of_a_kind():
    """On a machine three times slower in every second round; half as much an image."""
    import scaling

    def row(kind, devices, batch, cpu):
        turns = [{"seconds": cpu * m, "cpu_seconds": cpu * m} for m in (1.0, 3.0)]
        about = {"kind": kind, "devices": devices, "batch": batch, "turns": turns}
        sizes = {"parameter_bytes": 4, "argument_bytes": 0, "temporary_bytes": 0}
        return about | sizes | {"communicated": {}}

    rows = [row("weak", 1, 16, 0.1), row("weak", 2, 32, 0.1)]
    rows += [row("strong", 1, 64, 0.2), row("strong", 2, 64, 0.5)]
    lines = scaling.table(rows).splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:8]] for line in lines]
    assert [c[5] for c in cells] == ["1.00", "0.50", "1.00", "2.50"]
    assert cells[1] == ["weak", "2", "32", "200.0", "200.0", "0.50", "none"]


def test_ratios_are_taken_within_a_round_of_turns():
    """The machine is three times slower in every second round; ours takes 0.8 of it."""
    import train_step

    moods = [1.0, 3.0] * 4

    def process(seconds):
        times = [
            {"seconds": seconds * m, "cpu_seconds": 2 * seconds * m} for m in moods
        ]
        turns = [{**t, "peak_bytes": k} for k, t in enumerate(times)]
        about = {"batch": 4, "compile_seconds": 5.0, "flops": 100, "turns": turns}
        return dict.fromkeys(("forward", "train", "matmul"), about)

    found = {"bigxfer": [process(0.8)] * 2, "other": [process(1.0)] * 2}
    rows = train_step.summary(found, "seconds")
    assert [(r["mode"], r["way"]) for r in rows] == [
        ("train", "bigxfer"),
        ("train", "other"),
        ("forward", "bigxfer"),
        ("forward", "other"),
    ]
    for row in rows[1::2]:
        np.testing.assert_allclose(row["ours_over_it"], 0.8)
        np.testing.assert_allclose(row["ours_over_it_cpu"], 0.8)
    ours = rows[0]
    assert ours["images_per_s"] == pytest.approx(4 / (0.8 * 2))  # at the median mood
    assert ours["cpu_ms_per_image"] == pytest.approx(1e3 * 2 * 0.8 * 2 / 4)
    assert ours["matmul_peak"] == pytest.approx(100 / (0.8 * 2))
    assert ours["of_peak"] == pytest.approx(3 * 100 / (1.6 / 4) / (100 / 1.6))
    assert ours["peak_gb"] == 7e-9
    assert "0.80 (0.80 to 0.80)" in train_step.table(
        [{**rows[1], "case": "", "dtype": ""}]
    )


@pytest.mark.parametrize("n, first", [(5, 0), (6, 0), (9, 1), (10, 1), (20, 5)])
def test_interval_of_a_median(n, first):
    """By ranks: 2 and 9 of 10, 6 and 15 of 20 (tables of the sign test)."""
    import turns

    values = np.random.default_rng(n).permutation(n)
    assert turns.median(values) == ((n - 1) / 2, first, n - 1 - first)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one path for all
)
@given(st.integers(0, 10**6), st.booleans())
def test_the_fast_macro_auroc_is_scikit_learns(seed, ties):
    import fast_auroc

    rng = np.random.default_rng(seed)
    scores = rng.normal(-0.3, 10 ** rng.uniform(-3, 2), (4, 50, 3)).astype(np.float32)
    scores = np.round(scores) if ties else scores
    truth = np.where(rng.random((50, 3)) < 0.2, np.nan, rng.random((50, 3)) < 0.3)
    truth[:2] = [[0] * 3, [1] * 3]
    truth[:, 2] = np.where(truth[:, 2] == 1, np.nan, truth[:, 2])  # no positive
    found = fast_auroc.macro_auroc(scores, truth)
    scores = (scores.view(np.int32) & ~1).view(np.float32)  # its ties: all but a bit
    for head in range(4):
        known = [~np.isnan(truth[:, k]) for k in range(2)]
        areas = [
            roc_auc_score(truth[rows, k], scores[head][rows, k])
            for k, rows in enumerate(known)
        ]
        assert found[head] == pytest.approx(np.mean(areas), abs=1e-9)
