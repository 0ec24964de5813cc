"""Unions of data sets, on small phantoms and on manifests made by hand."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from test_split import manifest, random_manifest

from bigxfer import config
from bigxfer.config import ConfigError, Data, Phantom
from bigxfer.data import dataset, labels, unions
from bigxfer.data.readers import DataError

pytestmark = pytest.mark.usefixtures("single_device")

SMALL = Phantom(images=24, pixels=32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def opened(cache, **kw):
    data = Data(resize=16, crop=16, cache=str(cache), phantom=SMALL, **kw)
    return dataset.open(data, 0, lambda line: None)


def test_a_union_holds_what_its_sets_hold(cache):
    alone = [opened(cache, reader=r) for r in ("chexpert", "nih")]
    both = opened(cache, reader="chexpert+nih")
    m = both.manifest
    assert len(m) == sum(len(a.manifest) for a in alone) and m.synthetic
    assert set(labels.PREDECESSOR7) < set(m.classes)
    start = 0
    for a in alone:  # the same pixels, splits and labels, NaN where a set has none
        rows = np.arange(start, start + len(a.manifest))
        np.testing.assert_array_equal(both.images[rows], a.images[:])
        np.testing.assert_array_equal(both.images[rows[3]], a.images[3])
        assert (m.split[rows] == a.manifest.split).all()
        names = [labels.canonical(c) for c in a.manifest.classes]
        for column, name in enumerate(m.classes):
            want = a.manifest.labels[:, names.index(name)] if name in names else np.nan
            np.testing.assert_array_equal(
                m.labels[rows, column], np.broadcast_to(want, len(rows))
            )
        start += len(rows)
    assert both.report["split"]["train"]["images"] == len(both.rows["train"])
    batch = both.loader("train", 8, 0, 0, 1).batch(0)
    for image, label, row in zip(batch["images"], batch["labels"], batch["index"]):
        np.testing.assert_array_equal(image, both.images[row])
        np.testing.assert_array_equal(label, m.labels[row])
    for wrong in (-1, [3, len(m)]):
        with pytest.raises(IndexError, match=f"of {len(m)}"):
            both.images[np.array(wrong)]
    order = np.random.default_rng(0).permutation(len(m))
    everything = both.images[np.arange(len(m))]
    np.testing.assert_array_equal(both.images[order], everything[order])


def test_the_intersection_is_the_predecessors(cache):
    both = opened(cache, reader="chexpert+nih", space="intersection")
    assert both.manifest.classes == labels.PREDECESSOR7
    part = opened(cache, reader="chexpert+nih", labels=("Pleural Effusion", "Edema"))
    assert part.manifest.classes == ("Pleural Effusion", "Edema")
    with pytest.raises(ValueError, match="multi-label sets; use union"):
        opened(cache, reader="nih+covidx", views=(), space="intersection")
    with pytest.raises(ValueError, match="no class 'Edemo'"):
        opened(cache, reader="chexpert+nih", labels=("Edemo",))


def test_x_rays_and_natural_images_under_one_roof(cache):
    """Single-label images become one-hot over their own classes, NaN elsewhere."""
    m = opened(cache, reader="nih+folder", mix=(1.0, 1.0)).manifest
    natural = np.char.startswith(m.id.astype(str), "nih/") == 0
    own = np.isin(m.classes, labels.NIH14)
    assert natural.any() and (~natural).any() and m.multilabel
    assert np.isnan(m.labels[natural][:, own]).all()
    assert (m.labels[natural][:, ~own].sum(axis=1) == 1).all()
    assert np.isnan(m.labels[~natural][:, ~own]).all()


def test_two_single_label_sets_stay_single_label_and_can_be_balanced(cache):
    mixed = opened(
        cache, reader="covidx+folder", views=(), mix=(1, 3), sampling="classes"
    )
    assert not mixed.manifest.multilabel
    train = mixed.manifest.select(mixed.rows["train"])
    x_ray = np.array([i.startswith("covidx") for i in train.id])
    assert mixed.sampling.weights[x_ray].sum() == pytest.approx(0.25)
    with pytest.raises(ConfigError, match="union of single-label sets"):
        opened(cache, reader="covidx+folder", views=(), labels=("normal",))


def test_random_splits_are_of_all_patients_and_leaks_between_sets_are_told():
    a, b = (
        replace(random_manifest(s, 90, 30, True), name=f"set{s}") for s in (1, 2)
    )  # the same 30 people in both
    data = Data(reader="nih+mimic", split="patient", test=0.2, valid=0.2)
    whole, parts = unions.join([a, b], data)
    assert "leaks" not in whole.notes and [len(p) for p in parts] == [90, 90]
    apart = Data(reader="nih+mimic", split="patient+patient", test=0.2, valid=0.2)
    whole, parts = unions.join([a, b], apart)
    assert whole.notes["leaks"]["patients"] > 0
    assert (whole.split == np.concatenate([p.split for p in parts])).all()


def test_each_set_may_have_a_split_and_a_version_of_its_own():
    people = range(20)
    official = manifest(people, [0] * 20, ["train"] * 12 + ["test"] * 4 + [""] * 4)
    none = replace(manifest(range(50, 70), [0] * 20), name="other")
    data = Data(reader="nih+padchest", split="official+patient", valid=0.2)
    parts = unions.join([official, none], data)[1]
    assert [len(p) for p in parts] == [16, 20]  # rows without a split are dropped
    assert set(parts[1].split) == {"train", "valid", "test"}
    with pytest.raises(ValueError, match="other.*has no official split"):
        unions.join([official, none], replace(data, split="official"))
    roots = os.pathsep.join("ABC")
    data = Data(reader="nih+mimic+nih", root=roots, version="+negbio+")
    found = [(m.reader, m.root, m.version) for m in unions.members(data)]
    assert found == [("nih", "A", ""), ("mimic", "B", "negbio"), ("nih", "C", "")]
    with pytest.raises(ConfigError, match="root='A' holds 1 parts"):
        unions.members(replace(data, root="A"))
    with pytest.raises(ConfigError, match="version='a.b' holds 2 parts"):
        unions.members(replace(data, version="a+b"))


def test_a_fraction_is_what_the_report_counts(cache):
    whole = opened(cache, reader="chexpert")
    half = opened(cache, reader="chexpert", fraction=0.5)
    count = round(whole.report["counts"]["train"] / 2)
    assert half.report["counts"]["train"] == len(half.rows["train"]) == count
    assert half.report["counts"]["test"] == whole.report["counts"]["test"]
    assert set(half.rows["train"]) < set(whole.rows["train"])


def test_the_digest_knows_the_sets_but_not_where_they_lie(cache, tmp_path):
    def digest(**kw):
        run = config.Run(data=Data(**kw))
        run.optim.schedule, run.optim.steps = "constant", 1
        return config.digest(config.resolve(run))

    assert digest(reader="nih+mimic", root="/a:/b") == digest(reader="nih+mimic")
    names = {
        digest(),
        digest(reader="nih+mimic"),
        digest(reader="nih+mimic", mix=(1, 2)),
        digest(reader="nih+mimic", space="intersection"),
        digest(fraction=0.5),
        digest(fraction=0.5, fraction_of="patients"),
        digest(sampling="classes"),
    }
    assert len(names) == 7
    assert digest(reader="nih+mimic", mix=("1,2",)) == digest(
        reader="nih+mimic", mix=(1.0, 2.0)
    )
    a = opened(cache, reader="nih+folder")  # real roots: moved, the same data
    roots = [
        dataset.standin(replace(d, cache=str(cache), phantom=SMALL))
        for d in unions.members(Data(reader="nih+folder"))
    ]
    for root in roots:
        shutil.copytree(root, tmp_path / os.path.basename(root))
    moved = [str(tmp_path / os.path.basename(root)) for root in roots]
    b = opened(cache, reader="nih+folder", root=os.pathsep.join(moved))
    assert a.manifest.hash() == b.manifest.hash()


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"mix": (1.0,), "reader": "nih+mimic"}, "one weight above 0 for each"),
        ({"mix": (1.0, 2.0)}, "one weight above 0 for each"),
        ({"mix": (1.0, 0.0), "reader": "nih+mimic"}, "one weight above 0"),
        (
            {"mix": (1, 1), "reader": "a+b", "sampling": "covid_percent"},
            "set one of config.data.mix",
        ),
        ({"split": "official+random"}, "config.data.split is"),
        ({"space": "both"}, "config.data.space is"),
        ({"fraction": 0.0}, "fraction lies in"),
        ({"sampling_share": 1.0}, "sampling_share between"),
    ],
)
def test_what_a_config_can_tell_without_data(wrong, word):
    run = config.Run(data=Data(**wrong))
    with pytest.raises(ConfigError, match=word):
        config.resolve(run)


def test_an_unknown_set_of_a_union_is_named(cache):
    with pytest.raises(DataError, match="no reader 'nhi'"):
        opened(cache, reader="nhi+chexpert", root="/a:/b")
