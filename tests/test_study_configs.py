"""The studies of the source documents: every form lists, with the published numbers."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from make_run import make_run
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from bigxfer import config, models, presets
from bigxfer.protocols import freeze, init, optim
from bigxfer.runs import finished
from bigxfer.study import grid

ROOT = Path(__file__).parents[1]
SMALL = ":small=1,nih=/data/nih,covid=/data/covid"
STUDIES = ("transfusion", "init", "freeze", "chexnet_covid")


@cache
def nodes(name, form=""):
    return grid.nodes(f"configs/study_{name}.py{form}")


def transfers(name, form=""):
    return [node.run for node in nodes(name, form) if node.kind == "transfer"]


FORMS = [(name, form) for name in STUDIES for form in ("", ":phantom", SMALL)]


@pytest.mark.parametrize("name, form", [*FORMS, ("medmnist", ":small=1")])
def test_every_form_lists_runs_that_can_start(name, form):
    """All they need is listed before them, they are resolved, and their plans hold."""
    before: dict[str, str] = {}
    for node in nodes(name, form):
        kinds = {before.get(need) for need in node.needs}
        assert None not in kinds, "a need is not listed, or is listed later"
        if node.kind == "transfer":
            assert "cache" in kinds
            init = node.run.init
            trained = init.kind == "pretrained" and not init.checkpoint
            assert ("upstream" in kinds) == trained
        before[node.digest] = node.kind
        assert config.resolve(node.run) == node.run
        optim.plan(
            node.run.optim, 10_000
        )  # raises where the section contradicts itself


@pytest.mark.parametrize("name", STUDIES)
def test_small_forms_name_their_folders_and_phantoms_none(name):
    roots = {node.run.data.root for node in nodes(name, SMALL)}
    assert roots == {"/data/nih", "/data/covid"}
    for node in nodes(name, ":phantom"):
        assert not node.run.data.root and node.run.data.phantom.images
    assert {run.seed for run in transfers(name, SMALL)} == {0, 1, 2}


@pytest.mark.parametrize("name", STUDIES)
def test_draws_are_paired(name):
    """Every arm of a small form has the same seeds, so that differences pair."""
    arms = Counter()
    for run in transfers(name, SMALL):
        run = config.from_dict(config.to_dict(run))
        run.seed = 0
        arms[config.digest(run)] += 1
    assert set(arms.values()) == {3}


def test_transfusion_trains_as_published():
    """facts S001-train-retina and -chexpert: the paper's appendix."""
    for run in transfers("transfusion"):
        o, d = run.optim, run.data
        if d.reader == "eyepacs":
            assert (o.optimizer, o.lr, o.batch, d.crop) == ("adam", 1e-3, 8, 587)
            assert optim.plan(o, 31_600).lr == pytest.approx(1e-3)
        else:
            plan = optim.plan(o, 32 * 100)
            assert (o.optimizer, o.momentum, o.batch, d.crop) == ("sgd", 0.9, 32, 224)
            assert plan.lr == pytest.approx(0.1 * 32 / 256)
            assert plan.warmup_steps == 5 * 100
            assert plan.boundaries == (30 * 100, 60 * 100, 90 * 100)
            assert d.labels == (
                *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema"),
                "Pleural Effusion",
            )
        if d.fraction < 1:
            size = {"eyepacs": 35_126, "chexpert": 191_027}[d.reader]
            assert size * (1 - d.valid) * d.fraction == pytest.approx(5000, rel=0.01)


def test_transfusion_has_every_start_on_every_net():
    runs = [r for r in transfers("transfusion") if r.data.fraction == 1 and not r.seed]
    for name in ("resnet50", "inception_v3", "cbr_large_t", "cbr_tiny", "bit"):
        mine = [r for r in runs if r.model.name == name and r.data.reader == "eyepacs"]
        hows = {r.init.how for r in mine}
        assert hows == {"copy", "mean_var", "shuffle", "resample"}, name
        cuts = [r.init.upto for r in mine if r.init.upto and not r.model.slim_above]
        assert len(set(cuts)) >= 3, name
        bit = name == "bit"  # Mean-Var is nothing there, but for copied norms
        drawn = {r.init.batch_norm for r in mine if r.init.how == "mean_var"}
        assert drawn == ({"copy"} if bit else {"copy", "identity"}), name
        assert any(r.init.above == "mean_var" for r in mine) != bit, name
        assert any("domain=own" in r.init.upstream for r in mine) != bit, name
        gabor = any(r.init.kind == "gabor" for r in mine)
        assert gabor == (name != "inception_v3")
        slim = {r.init.upto for r in mine if r.model.slim_above == "block2"}
        assert slim == (
            set() if name in ("resnet50", "inception_v3") else {"", "block2"}
        )


@pytest.mark.parametrize("form", ["", SMALL])
def test_every_cut_point_is_a_layer(form):
    seen = set()
    for run in transfers("transfusion", form):
        key = (str(run.model), run.init.upto)
        if run.init.upto and key not in seen and run.model.name != "inception_v3":
            seen.add(key)
            below, above = init.split_at(models.build(run.model, 3), run.init.upto)
            assert below and above
    assert len(seen) > 3


@pytest.mark.slow
def test_the_cut_points_of_inception_are_layers():
    net = models.build(config.Model(name="inception_v3"), 3)
    cuts = presets.load_module("configs/study_transfusion.py").CUTS["inception_v3"]
    below = [len(init.split_at(net, cut)[0]) for cut in cuts]
    assert below == sorted(set(below)) and below[0] == 1


@pytest.mark.parametrize("name", ["init", "freeze"])
def test_pydata_trains_as_published(name):
    """facts S004-models, -opt, -lr, -split, -init and -freeze-fractions: the slides."""
    lr = {"histopathology": 1e-5, "aptos": 1e-4, "proteins": 1e-4, "catsdogs": 1e-5}
    pixels = {"inception_v3": 299, "smallcnn": 128}
    seen = set()
    for run in transfers(name):
        o, d = run.optim, run.data
        assert (o.optimizer, o.epochs) == ("adam", 53)
        assert optim.plan(o, 1000).lr == pytest.approx(lr[d.reader])
        assert run.phase.until == (3 / 53,) and run.phase.bottom == (1.0,)
        assert d.crop == pixels.get(run.model.name, 224)
        assert (d.test, (1 - d.test) * d.valid) == (0.1, pytest.approx(0.1))
        assert run.init.kind in ("random", "imagenet")
        assert run.model.name != "smallcnn" or run.init.kind == "random"
        seen.add((run.model.name, d.reader, run.freeze.bottom, run.init.kind))
    assert {net for net, *_ in seen} == {
        *("inception_v3", "resnet50_v2", "densenet121", "mobilenet", "smallcnn")
    }
    shares = {b for _, _, b, kind in seen if kind == "imagenet"}
    assert shares == ({0} if name == "init" else {1, 0.75, 0.5, 0.3, 0.2, 0.1, 0})


def test_the_small_net_fixes_another_number_of_layers_at_each_share():
    import jax

    run = transfers("freeze", SMALL)[0]
    net = models.build(run.model, 3)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), (1, 32, 32, 3)))
    shares = {r.freeze.bottom for r in transfers("freeze", SMALL)}
    fixed = [
        len(freeze.fixed(config.Freeze(bottom=b), net, shapes["params"]))
        for b in sorted(shares)
    ]
    assert fixed == [0, 1, 2, 3, 5, 7, 10]


def test_chexnet_trains_as_published():
    """facts S003-hparams, -covid-percent, -freeze-top; CheXNet's own upstream."""
    for run in transfers("chexnet_covid"):
        o, d = run.optim, run.data
        assert (o.optimizer, o.epochs, o.batch) == ("adam", 10, 32)
        assert optim.plan(o, 13_569).lr == pytest.approx(1e-3)
        assert (d.reader, d.version, d.crop) == ("covidx", "2", 224)
        assert d.sampling == "uniform" or d.sampling_share == 0.3
        assert run.freeze.count_by == "keras_layers"
    found = {(r.freeze.top_layers, r.freeze.top) for r in transfers("chexnet_covid")}
    assert found == {(1, 0), (0, 0.18), (0, 0.5), (0, 0)}
    names = {r.model.name for r in transfers("chexnet_covid")}
    assert names == {"densenet121", "mobilenet_v2"}
    [source] = [n.run for n in nodes("chexnet_covid") if n.kind == "upstream"]
    assert (source.data.reader, source.optim.batch) == ("nih", 16)
    assert optim.plan(source.optim, 1600).lr == pytest.approx(1e-3)


def test_micro_auroc_is_that_of_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import findings

    folder = make_run(tmp_path / "run")
    saved = finished.read(folder).predictions()
    labels, scores = saved.labels, softmax(saved.logits, axis=1)
    expected = roc_auc_score(labels, scores, average="micro", multi_class="ovr")
    assert findings.micro({"folder": str(folder)}) == pytest.approx(expected)


def test_medmnist_crosses_upstream_seeds_with_draws_at_the_same_compute():
    """Only then can an interval separate the two, and domain and amount are not mixed."""
    runs = transfers("medmnist", ":small=1")
    near = [run for run in runs if run.data.version == "pneumoniamnist"]
    few = [run for run in near if run.data.shots == "5" and run.init.upstream]
    pairs = Counter((run.seed, run.init.upstream.rpartition("seed=")[2]) for run in few)
    assert set(pairs) == {(seed, up) for seed in (0, 1) for up in "01"}
    assert len(set(pairs.values())) == 1
    full = [run for run in near if run.data.shots == "full" and run.init.upstream]
    assert all(run.init.upstream.endswith(f"seed={run.seed}") for run in full)
    upstreams = [n.run for n in nodes("medmnist", ":small=1") if n.kind == "upstream"]
    assert len({(u.optim.steps, u.optim.batch) for u in upstreams}) == 1
    assert {u.data.fraction for u in upstreams} == {1 / 16, 1.0}
    assert {u.seed for u in upstreams} == {0, 1}
    assert {u.data.version: u.data.channels for u in upstreams} == {
        "chestmnist": 1,
        "pathmnist": 3,
    }
