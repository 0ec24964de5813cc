"""Features of any encoder in place of an upstream, from the file to the table."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import Ridge

from bigxfer import config, predict, presets
from bigxfer.data import external
from bigxfer.protocols import features, heads
from bigxfer.protocols.features import Features
from bigxfer.report import overview
from bigxfer.runs import cells, choice, finished, job
from bigxfer.statistics import calibration, operating_point
from bigxfer.study import cost, grid
from bigxfer.tables import table

pytestmark = pytest.mark.usefixtures("single_device")

CLASSES = ("a", "b", "c")
COUNTS = {"train": 60, "valid": 15, "test": 30}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """(root, ids, labels): small noisy squares of three classes, two images a patient."""
    root = tmp_path_factory.mktemp("target")
    rng, rows, labels = np.random.default_rng(0), [], []
    for split, count in COUNTS.items():
        for i in range(count):
            label, name = i % 3, f"{split}{i:02d}.png"
            pixels = rng.integers(0, 120, (16, 16)) + 40 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
            rows.append([name, CLASSES[label], f"{split}{i // 6}-{i % 3}", split])
            labels.append(label)
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["file", "label", "patient_id", "split"], *rows])
    return root, np.array([row[0] for row in rows]), np.array(labels)


@pytest.fixture(scope="module")
def encoder(target, tmp_path_factory):
    """(file, features): a noisy sight of the classes in 20 dimensions."""
    _, names, labels = target
    rng = np.random.default_rng(1)
    values = rng.normal(3, 1, (len(names), 20)).astype(np.float32)
    values[:, :3] += 3.0 * np.eye(3)[labels]
    file = tmp_path_factory.mktemp("features") / "encoder.npz"
    order = rng.permutation(len(names))
    about = "toynet", 123, 4567, "photographs"
    features.write(Features(file, "path", names[order], values[order], *about))
    return file, values


def make(target, cache, file="", **fields):
    run = config.Run(kind="transfer", seed=0)
    presets.set_res(run.data, 16)
    run.data.reader, run.data.root, run.data.cache = "csv", str(target[0]), str(cache)
    run.optim.batch, run.eval.batch = 8, 64
    run.init.features, run.freeze.head = str(file), "ridge"
    run.seed = fields.pop("seed", 0)
    for name, value in fields.items():
        section, field = name.split("__")
        setattr(getattr(run, section), field, value)
    run = config.resolve(run)
    features.name_files(run)
    return run


def execute(run, runs):
    folder = runs / config.digest(run)
    return job.execute(run, folder), folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cell(target, encoder, cache, tmp_path_factory):
    """A cell of three 5-shot draws, and what its command returned."""
    runs = tmp_path_factory.mktemp("runs")
    run = make(target, cache, encoder[0], data__shots="5", data__draws=3)
    return run, *execute(run, runs), runs


def test_a_draw_is_scikit_learns_head_on_the_files_features(target, encoder, cell):
    _, names, _ = target
    _, values = encoder
    _, _, folder, _ = cell
    drawn = finished.read(next(iter(sorted((folder / "draws").iterdir()))))
    ids = np.array(drawn.about["data"]["drawn"])
    place = {name: i for i, name in enumerate(names)}
    test = drawn.predictions()
    assert len(ids) == 15 and len(test.ids) == COUNTS["test"]
    train = values[[place[i] for i in ids]]
    labels = target[2][[place[i] for i in ids]]
    mean = train.mean(0)
    scale = np.sqrt(np.square(train - mean).sum() / len(train))
    strength = drawn.result["head"]["strength"]
    other = Ridge(alpha=strength).fit((train - mean) / scale, 2 * np.eye(3)[labels] - 1)
    judged = values[[place[i] for i in test.ids]]
    np.testing.assert_allclose(
        test.logits, other.predict((judged - mean) / scale), atol=1e-5
    )


def test_folds_of_the_shots_fix_the_operating_point(target, encoder, cell):
    """By scikit-learn's head without each fold; the temperature is fitted on these too."""
    drawn = finished.read(min((cell[2] / "draws").iterdir()))
    held = drawn.predictions("folds")
    assert held.ids.tolist() == drawn.about["data"]["drawn"]
    place = {name: i for i, name in enumerate(target[1])}
    x = encoder[1][[place[i] for i in held.ids]]
    data = external.open(drawn.run.data, drawn.run.seed, lambda _: None, {})
    fold, count = choice.fold_of(data.manifest.select(data.rows["train"]))
    assert count == 5 and {min(fold), max(fold)} == {0, 4}
    for number in range(count):
        kept, out = x[fold != number], x[fold == number]
        mean = kept.mean(0)
        scale = np.sqrt(np.square(kept - mean).sum() / len(kept))
        truth = 2 * np.eye(3)[held.labels[fold != number]] - 1
        head = Ridge(alpha=drawn.result["head"]["strength"])
        head.fit((kept - mean) / scale, truth)
        want = head.predict((out - mean) / scale)
        np.testing.assert_allclose(held.logits[fold == number], want, atol=1e-5)
    test = drawn.predictions()
    of_test = test.labels, test.logits, CLASSES, test.patients
    point = operating_point.judge(held.labels, held.logits, *of_test)
    assert drawn.result["operating_point"] == point
    card = (drawn.folder / "card.md").read_text()
    assert "fixed on folds of the shots, each image judged without its own" in card
    temperature, words = drawn.calibration()
    assert temperature == calibration.temperature(held.labels, held.logits)
    assert "fitted on 15 training images, each left out in turn" in words


def test_a_draw_of_a_cell_is_the_run_alone(target, encoder, cache, cell, tmp_path):
    run, result, folder, _ = cell
    assert [d["seed"] for d in result["draws"]] == [0, 1, 2]
    alone = replace(run, seed=1, data=replace(run.data, draws=1))
    found, own = execute(alone, tmp_path)
    within = finished.read(folder / "draws" / config.digest(alone))
    for name, metric in found["metrics"].items():
        for end in ("value", "low", "high"):
            same = pytest.approx(metric[end], abs=1e-5)
            assert within.result["metrics"][name][end] == same
    np.testing.assert_allclose(
        within.predictions().logits, finished.read(own).predictions().logits, atol=1e-5
    )
    means = [
        finished.read(folder / "draws" / d["digest"]).result["metrics"]["auroc_macro"]
        for d in result["draws"]
    ]
    values = [m["value"] for m in means]
    assert result["metrics"]["auroc_macro"]["value"] == pytest.approx(np.mean(values))
    assert min(values) > 0.7 and all(m["low"] < m["value"] < m["high"] for m in means)


def test_the_table_has_a_row_a_draw_that_names_the_encoder(cell, tmp_path):
    _, _, _, runs = cell
    found = table.collect([runs], tmp_path)
    assert not found.bad
    assert sorted(row["seed"] for row in found.rows) == [0, 1, 2]
    for row in found.rows:
        assert row["upstream"] == "photographs" and row["model"] == "toynet"
        assert (row["params"], row["upstream_size"]) == (123, 4567)
        assert (row["width"], row["depth"], row["init"]) == (None, None, "features")
        assert (row["labels_training"], row["labels_selection"]) == (15, 0)
        assert row["select_on"] == "support" and row["start"] == "ridge head"
    assert len({row["family"] for row in found.rows}) == 1
    table.save(found.rows, tmp_path)
    assert len(table.load(tmp_path / "table.parquet")) == 3


def test_the_card_says_whose_features_and_which_labels(cell):
    _, _, folder, _ = cell
    text = (next((folder / "draws").iterdir()) / "card.md").read_text()
    assert "toynet, not ours: 20 features an image" in text
    assert "trained on 4,567 images of photographs" in text
    assert "Labels used: of 15 images to train, of 0 more to choose" in text
    assert "chosen by 5 folds of the shots" in text


def test_the_page_says_which_labels_were_used(cell, tmp_path):
    rows = table.collect([cell[3]], tmp_path).rows
    about = overview.costs(rows)
    place = about["head"].index("labels to train + to choose")
    assert [row[place] for row in about["rows"]] == ["15 + 0"]
    assert overview._select_on(rows) == "support (3)"


def test_the_content_of_the_file_names_the_run(target, encoder, cache, tmp_path):
    file, values = encoder
    copy = tmp_path / "elsewhere.npz"
    copy.write_bytes(file.read_bytes())
    same, again = make(target, cache, file), make(target, cache, copy)
    assert config.digest(same) == config.digest(again)
    other = tmp_path / "other.npz"
    features.write(Features(other, "path", target[1], values + 1, "toynet"))
    assert config.digest(make(target, cache, other)) != config.digest(same)


@pytest.mark.parametrize("how", heads.FITTED)
@pytest.mark.parametrize("shots", ["1", "5", "full"])
def test_every_head_at_all_shots(target, encoder, cache, tmp_path, how, shots):
    run = make(target, cache, encoder[0], freeze__head=how, data__shots=shots)
    result, folder = execute(run, tmp_path)
    assert result["metrics"]["auroc_macro"]["value"] > 0.6
    used = result["labels_used"]
    want = {
        "1": ("none", 3, 0),
        "5": ("support", 15, 0),
        "full": ("validation", 60, 15),
    }
    assert tuple(used[k] for k in ("select_on", "training", "selection")) == want[shots]
    files = {s: finished.read(folder).has(s) for s in ("valid", "folds")}
    assert files == {"valid": shots == "full", "folds": shots == "5"}
    assert ("operating_point" in result) == (shots != "1")


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_a_file_is_read_as_it_was_written(tmp_path, ending):
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    file = tmp_path / f"some.{ending}"
    images = np.array([*"wxyz"], object)
    features.write(Features(file, "id", images, values, "net", 10, None, "faces"))
    found = features.read(file)
    assert (found.key, found.images.tolist()) == ("id", list("wxyz"))
    np.testing.assert_array_equal(found.values, values)
    want = {"name": "net", "parameters": 10, "upstream_size": None, "domain": "faces"}
    assert found.about() == {**want, "dimensions": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": ["a", "b", "a"]}, "the path 'a' stands twice, in rows 0 and 2"),
        ({"features": np.array([[1.0], [np.nan], [2]])}, r"'b' \(row 1\) hold NaN"),
        ({"features": np.ones((2, 1))}, "3 of `path`, but 2 rows.*features is 'c'"),
        ({"features": np.ones(3)}, r"float64 \[3\]; it must be float"),
        ({"features": np.ones((3, 1), int)}, "it must be float"),
        ({"path": None}, "a features file holds `id` or `path`"),
        ({"name": None}, "`features` and `name`"),
        ({"parameters": "many"}, "`parameters` is 'many'; a whole number"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, change, message):
    good = {"path": ["a", "b", "c"], "features": np.ones((3, 1)), "name": "net"}
    columns = {k: v for k, v in (good | change).items() if v is not None}
    np.savez(tmp_path / "bad.npz", **columns)
    with pytest.raises(ValueError, match=message):
        features.read(tmp_path / "bad.npz")


def test_rows_of_two_lengths_are_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = pa.table({"id": ["a", "b"], "features": [[1.0, 2.0], [3.0]]})
    pq.write_table(
        columns.replace_schema_metadata({"name": "n"}), tmp_path / "f.parquet"
    )
    with pytest.raises(
        ValueError, match="row 1 of `features` has 1 numbers, row 0 has 2"
    ):
        features.read(tmp_path / "f.parquet")


@pytest.mark.parametrize(
    ("lost", "more", "message"),
    [
        (3, [], r"no features of the path 'train03.png', which the run.*\(1 of 90"),
        (None, ["z.png"], r"of the path 'z.png', which is no image of .*\(1 of 106"),
    ],
)
def test_images_that_lack_or_are_extra(
    target, encoder, cache, tmp_path, lost, more, message
):
    _, names, _ = target
    kept = [name for i, name in enumerate(names) if i != lost] + more
    file = tmp_path / "other.npz"
    features.write(Features(file, "path", kept, np.ones((len(kept), 2)), "net"))
    run = make(target, cache, file, eval__select_on="none")
    with pytest.raises(ValueError, match=message):
        execute(run, tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze__head": "trained"}, "gives no net to train.*freeze.head=ridge"),
        ({"data__draws": 5}, "draws=5: draws of config.data.shots"),
        ({"data__external": "csv"}, "external needs a net that predicts"),
        ({"data__support": "a.txt"}, "is the draw of config.data.shots .here full"),
        (
            {"data__support": "a.txt", "data__shots": "1", "data__draws": 2},
            "of 2 draws its name must hold {seed}",
        ),
        ({"init__upto": "block2"}, "upto='block2' say what is taken from a checkpoint"),
        ({"eval__select": "loss", "eval__select_on": "none"}, "rules it out"),
    ],
)
def test_configs_that_cannot_be(target, encoder, cache, fields, message):
    with pytest.raises(config.ConfigError, match=message):
        make(target, cache, encoder[0], **fields)


def test_our_own_net_and_pixels_are_files_too(target, cache, tmp_path, monkeypatch):
    """predict --features, then a head on its file: the scores of the net with the head."""
    root = target[0]
    net = make(target, cache, data__shots="5", init__kind="random")
    net.model, net.keep = config.Model("smallcnn", width=0.125, hidden=6), "all"
    result, folder = execute(net, tmp_path)
    files = {"net.npz": [f"--run={folder}"], "pixels.npz": ["--pixels=8"]}
    for name, flags in files.items():
        out = f"--features={tmp_path / name}"
        call = ["predict", *flags, f"--images={root}", out]
        monkeypatch.setattr("sys.argv", call)
        assert predict.main(predict.arguments()) == 0
    run = make(target, cache, tmp_path / "net.npz", data__shots="5")
    found, other = execute(run, tmp_path)
    logits = [finished.read(f).predictions().logits for f in (folder, other)]
    np.testing.assert_allclose(*logits, atol=1e-4)
    assert found["cost"]["parameters"] == result["cost"]["parameters"]
    about = finished.read(other).about["features"]
    assert about["name"] == f"smallcnn x0.125 {config.digest(net)}"
    assert (about["domain"], about["upstream_size"]) == ("csv", 15)
    pixels = features.read(tmp_path / "pixels.npz")
    assert pixels.values.shape == (105, 64) and pixels.parameters == 0
    found, _ = execute(make(target, cache, pixels.path), tmp_path)
    assert (
        found["metrics"]["auroc_macro"]["value"] > 0.9
    )  # classes differ in brightness


def test_an_image_that_cannot_be_read_is_left_out_of_the_features(
    tmp_path, monkeypatch
):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(
        tmp_path / "a.png"
    )
    (tmp_path / "b.png").write_bytes(b"no image")
    out = tmp_path / "out" / "f.parquet"
    call = ["predict", "--pixels=4", f"--images={tmp_path}", f"--features={out}"]
    monkeypatch.setattr("sys.argv", call)
    assert predict.main(predict.arguments()) == 1
    assert features.read(out).images.tolist() == ["a.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "one of --run and --pixels"),
        (["--run=x", "--pixels=3"], "one of --run and --pixels"),
        (["--pixels=3"], "give --features FILE"),
    ],
)
def test_flags_that_cannot_be(tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr("sys.argv", ["predict", f"--images={tmp_path}", *flags])
    with pytest.raises(ValueError, match=message):
        predict.main(predict.arguments())


def test_a_draw_is_written_and_read_again(target, encoder, cache, cell, tmp_path):
    """The same images by the file as by the seed; another draw is another run."""
    _, _, folder, _ = cell
    for seed in (5, 6):
        (tmp_path / f"exp{seed}.txt").write_text("")
    for number, draw in enumerate(sorted((folder / "draws").iterdir())[:2]):
        ids = (draw / "support.txt").read_text().split()
        assert ids == finished.read(draw).about["data"]["drawn"] and len(ids) == 15
        lines = ["# published", "", *(f"{name} 0 1 0" for name in ids)]
        (tmp_path / f"exp{5 + number}.txt").write_text("\n".join(lines))
    fields = {"data__shots": "5", "data__support": str(tmp_path / "exp{seed}.txt")}
    both = make(target, cache, encoder[0], **fields, data__draws=2, seed=5)
    _, other = execute(both, tmp_path / "runs")
    for draw in (other / "draws").iterdir():
        again = finished.read(draw)
        assert again.run.data.support_digest and draw.name == config.digest(
            next(r for r in cells.draws(both) if r.seed == again.run.seed)
        )
        same = next(
            finished.read(d)
            for d in (folder / "draws").iterdir()
            if (d / "support.txt").read_text() == (draw / "support.txt").read_text()
        )
        assert again.result["metrics"]["loss"]["value"] == pytest.approx(
            same.result["metrics"]["loss"]["value"], abs=1e-6
        )
    before = config.digest(both)
    with (tmp_path / "exp6.txt").open("a") as file:
        file.write("\n# changed")
    changed = make(target, cache, encoder[0], **fields, data__draws=2, seed=5)
    assert config.digest(changed) != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train00.png\nnobody.png 1", "line 2: 'nobody.png 1' is neither an id nor"),
        ("test00.png", "line 1: 'test00.png' is neither .* of the training split"),
        ("train00.png\n\ntrain00.png 0", "line 3: .* stands in line 1 already"),
        ("# only words", "names no image"),
    ],
)
def test_a_bad_support_is_refused(target, encoder, cache, tmp_path, text, message):
    file = tmp_path / "support.txt"
    file.write_text(text)
    fields = {"data__shots": "1", "data__support": str(file)}
    with pytest.raises(ValueError, match=message):
        execute(make(target, cache, encoder[0], **fields), tmp_path)


def test_a_file_that_is_not_there(target, cache, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="there is no file.*init.features.*docs/encoders"
    ):
        make(target, cache, tmp_path / "none.npz")


def test_the_rows_of_a_study_are_those_of_its_cells_draws(cell, tmp_path):
    """A row of a draw names its cell, by which a study knows its own runs."""
    run, _, folder, runs = cell
    rows = table.collect([runs], tmp_path).rows
    assert {table.node_of(row) for row in rows} == {config.digest(run)} == {folder.name}
    alone = rows[0] | {"folder": f"runs/{rows[0]['digest']}"}
    assert table.node_of(alone) == rows[0]["digest"]


def test_a_study_lists_features_and_draws(target, encoder, cache):
    run = make(target, cache, encoder[0], data__shots="5", data__draws=3)
    node = grid.Node(run, config.digest(run))
    assert str(node) == "encoder features -> csv, 5 shots, 3 draws from 0 on"
    (found,) = cost.costs([node])
    assert found.flops == 0 and found.disk == 3e6


def test_what_a_file_says_of_its_encoder():
    told = [np.array("net"), np.array(["net"]), np.array(7), np.array([b"net"])]
    assert [features._plain(one) for one in told] == ["net", "net", 7, b"net"]
    for none in (np.array(""), np.array([b""]), np.array(["a", "b"]), np.array([])):
        assert features._plain(none) is None


def test_files_name_a_run_by_16_digits_of_their_content(tmp_path):
    for seed, text in ((3, "a"), (4, "b"), (5, "a")):
        (tmp_path / f"s{seed}.txt").write_text(text)

    def named(seed, draws):
        run = config.Run(seed=seed)
        run.data.support, run.data.draws = str(tmp_path / "s{seed}.txt"), draws
        features.name_files(run)
        return run.data.support_digest

    a = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # of "a"
    assert named(3, 1) == named(5, 1) == a[:16] != named(4, 1)
    assert named(3, 2) == config.hash_of([a[:16], named(4, 1)])
    assert len(named(3, 2)) == 16
    with pytest.raises(FileNotFoundError, match="no file .*s6.txt .*data.support"):
        named(5, 2)
