"""Planted duplicates are found, different images are not; hashes against scipy."""

import csv
import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from bigxfer.config import Data
from bigxfer.data import duplicates, readers
from bigxfer.data.pixels import cache

SHARED = Path(__file__).parents[2] / "shared" / "data"


def scenes(n, side=96, seed=0):
    """uint8 [n, side, side, 1]: a common shape, as anatomy is, and own structure."""
    rng = np.random.default_rng(seed)
    common = gaussian_filter(np.random.default_rng(99).normal(size=(side, side)), 16)
    own = gaussian_filter(rng.normal(size=(n, side, side)), (0, 5, 5))
    fine = gaussian_filter(rng.normal(size=(n, side, side)), (0, 1.5, 1.5))
    x = common / common.std() + own / own.std() + 0.5 * fine / fine.std()
    return np.clip(128 + 35 * x, 0, 255).astype(np.uint8)[..., None]


def copied(pixels, crop, size, rng):
    """Cropped by up to `crop` a side, resized, saved as JPEG, read again."""
    image = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 else pixels)
    w, h = image.size
    left, top, right, bottom = rng.uniform(0, crop, 4)
    box = (left * w, top * h, w - right * w, h - bottom * h)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def test_the_hash_is_that_of_the_plain_dct():
    images = scenes(5)
    prints = duplicates.fingerprint(images, np.arange(5))
    for k in range(5):
        want = dctn(images[k, ..., 0].astype(float), type=2)[:12, :12] / 4
        np.testing.assert_allclose(prints.dct[0, k].reshape(12, 12), want, atol=0.5)
    above = duplicates.signs(prints.dct[0]) > 0
    assert (above.sum(axis=1) == 72).all()


def test_close_pairs_equal_a_loop():
    rng = np.random.default_rng(0)
    a = np.where(rng.random((30, 144)) < 0.5, -1, 1).astype(np.float32)
    b = np.where(rng.random((40, 144)) < 0.2, -1, 1)[:, :] * a[rng.integers(0, 30, 40)]
    want = {
        (i, j): int((a[i] != b[j]).sum())
        for i in range(30)
        for j in range(40)
        if (a[i] != b[j]).sum() <= duplicates.HAMMING
    }
    got = {}
    for i, j, d in duplicates.close(a, b.astype(np.float32)):
        got |= dict(
            zip(zip(i.tolist(), j.tolist(), strict=True), d.tolist(), strict=True)
        )
    assert got == want and len(want) > 5


@pytest.fixture(scope="module")
def apart():
    """(images, their fingerprints, other images), which the copies come from."""
    images = scenes(300)
    prints = duplicates.fingerprint(images, np.arange(300))
    return images, prints, scenes(200, seed=7)


# The smaller crops are the easier ones; whole copies are also found among the poses.
@pytest.mark.parametrize(
    "crop", [*(pytest.param(c, marks=pytest.mark.slow) for c in (0.0, 0.02)), 0.04]
)
def test_copies_are_found_and_nothing_else(crop, apart):
    rng = np.random.default_rng(1)
    images, prints, others = apart
    chosen = rng.choice(300, 20, replace=False)
    copies = np.stack([copied(images[k], crop, 96, rng) for k in chosen])[..., None]
    both = np.concatenate([others, copies])
    rows_a, rows_b = np.arange(300), np.arange(220)
    prints_b = duplicates.fingerprint(both, rows_b)
    pairs = duplicates.near(images, prints, rows_a, (both, prints_b, rows_b))
    want = {(int(k), 200 + i) for i, k in enumerate(chosen)}
    assert {(p.a, p.b) for p in pairs} == want
    assert not any(p.exact for p in pairs)
    # and the other way round, and within one set
    back = duplicates.near(both, prints_b, rows_b, (images, prints, rows_a))
    assert {(p.b, p.a) for p in back} == want
    one = np.concatenate([images, both])
    rows = np.arange(520)
    of_one = duplicates.Prints(
        np.concatenate([prints.digest, prints_b.digest]),
        np.concatenate([prints.flat, prints_b.flat]),
        np.concatenate([prints.dct, prints_b.dct], axis=1),
    )
    within = duplicates.near(one, of_one, rows)
    assert {(p.a, p.b - 300) for p in within} == want


def poses(each=10, side=96):
    """uint8 [12 * each, side, side, 1]: 12 poses of one bone, more or less of one's own.

    Two of a pose are different images; a few correlate at 0.92 or more, as knees do.
    """
    rng = np.random.default_rng(0)
    bone = gaussian_filter(np.random.default_rng(99).normal(size=(side, side)), 1.5)
    pose = gaussian_filter(rng.normal(size=(12, side, side)), (0, 9, 9))
    own = gaussian_filter(rng.normal(size=(12 * each, side, side)), (0, 1.5, 1.5))
    own *= rng.uniform(0.15, 0.6, len(own))[:, None, None] / own.std()
    x = pose.repeat(each, axis=0) / pose.std() + bone / bone.std() + own
    return np.clip(128 + 30 * x, 0, 255).astype(np.uint8)[..., None]


def with_copies(images, chosen, crop, seed=2):
    """(all pairs found, {(row, copy)}) of the images with a copy of each chosen one."""
    rng = np.random.default_rng(seed)
    copies = np.stack([copied(images[k], crop, 96, rng) for k in chosen])[..., None]
    both = np.concatenate([images, copies])
    rows = np.arange(len(both))
    pairs = duplicates.near(both, duplicates.fingerprint(both, rows), rows)
    planted = {(int(k), len(images) + i) for i, k in enumerate(chosen)}
    return {(p.a, p.b): p for p in pairs}, planted


def test_images_in_one_pose_are_no_copies_and_copies_among_them_are(monkeypatch):
    images = poses()
    chosen = np.random.default_rng(2).choice(len(images), 20, replace=False)
    found, planted = with_copies(images, chosen, 0.0)
    assert set(found) == planted
    assert all(0 < p.likeness <= duplicates.LIKENESS for p in found.values())
    monkeypatch.setattr(duplicates, "LIKENESS", np.inf)  # as it was without the rule
    assert len(with_copies(images, chosen, 0.0)[0]) > 20


def test_many_copies_of_one_image_are_all_found():
    """They do not speak for one another: that a dozen are alike makes them no pose."""
    found, planted = with_copies(poses(), [5] * 12, 0.0)
    rows = [5, *(b for _, b in sorted(planted))]
    assert set(found) == {(a, b) for a in rows for b in rows if a < b}


def opened(tmp_path, name, reader):
    m = readers.read(Data(reader=reader, root=str(SHARED / name), views=()))
    images = cache.build(m, tmp_path / "cache", 80, 1).images
    return m, (images, duplicates.fingerprint(images, np.arange(len(m))))


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_no_two_knees_are_alike_and_twenty_copies_are(tmp_path):
    """At 160 px, where 7 pairs of different knees correlate at 0.92 or more."""
    m = readers.read(Data(reader="csv", root=str(SHARED / "knee_oa"), views=()))
    images = np.asarray(cache.build(m, tmp_path, 160, 1).images[np.arange(len(m))])
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(m), 20, replace=False)
    copies = [copied(images[k], 0.04, 64, rng) for k in chosen]
    copies = [np.asarray(Image.fromarray(c).resize((160, 160), 2)) for c in copies]
    both = np.concatenate([images, np.stack(copies)[..., None]])
    rows = np.arange(len(both))
    pairs = duplicates.near(both, duplicates.fingerprint(both, rows), rows)
    want = {(int(k), len(m) + i) for i, k in enumerate(chosen)}
    assert {(p.a, p.b) for p in pairs} == want


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    "name, reader, count", [("covid_cxr", "csv", 11), ("nih64", "nih", 16)]
)
def test_the_leaks_of_mednist_are_found(tmp_path, name, reader, count):
    """Its chest radiographs are NIH's, and nobody planted them."""
    m, (images, prints) = opened(tmp_path, name, reader)
    other, (images_b, prints_b) = opened(tmp_path, "mednist", "folder")
    pair = images_b, prints_b, np.arange(len(other))
    pairs = duplicates.near(images, prints, np.arange(len(m)), pair)
    assert len(pairs) == count
    assert all(other.path[p.b].startswith("CXR/") for p in pairs)


def test_exact_copies_say_so_and_flat_images_are_left_out():
    images = scenes(10)
    images[7] = images[2]
    images[[4, 5]] = 30
    rows = np.array([9, 7, 5, 4, 2, 0])
    prints = duplicates.fingerprint(images, rows)
    assert prints.flat.tolist() == [False, False, True, True, False, False]
    (pair,) = duplicates.near(images, prints, rows)
    assert {pair.a, pair.b} == {2, 7} and pair.exact and pair.hamming == 0
    assert pair.correlation == pytest.approx(1, abs=1e-4)


def test_only_the_rows_asked_for_are_read():
    """Encoded sets decode what they are asked for: never the whole set at once."""
    images, asked = scenes(200), []

    class Lazy:
        shape = images.shape

        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            asked.append(len(index))
            return images[index]

    rows = np.arange(100)
    lazy, plain = (duplicates.fingerprint(x, rows) for x in (Lazy(), images))
    assert np.array_equal(lazy.digest, plain.digest)
    np.testing.assert_array_equal(lazy.dct, plain.dct)
    duplicates.near(Lazy(), lazy, rows)
    assert sum(asked[:2]) == 100 and max(asked) <= 64


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_twenty_planted_in_nih64(tmp_path, seed):
    """NIH images of covid_cxr, cropped, shrunk and re-encoded, in a copy of nih64."""
    rng = np.random.default_rng(seed)
    folder = tmp_path / "nih64"
    shutil.copytree(SHARED / "nih64", folder)
    target = readers.read(Data(reader="csv", root=str(SHARED / "covid_cxr"), views=()))
    chosen = rng.choice(np.flatnonzero(target.source == "nih"), 20, replace=False)
    with open(folder / "Data_Entry_2017_v2020.csv", newline="") as file:
        head, *lines = list(csv.reader(file))
    for k, row in enumerate(chosen):
        name = f"{90000 + k:08d}_000.png"
        pixels = np.asarray(Image.open(SHARED / "covid_cxr" / target.path[row]))
        Image.fromarray(copied(pixels, 0.04, 64, rng)).save(folder / "images" / name)
        lines.append([name, *lines[0][1:]])
        lines[-1][head.index("Patient ID")] = str(90000 + k)
        with open(folder / "train_val_list.txt", "a") as file:
            file.write(f"\n{name}")
    with open(folder / "Data_Entry_2017_v2020.csv", "w", newline="") as file:
        csv.writer(file).writerows([head, *lines])
    upstream = readers.read(Data(reader="nih", root=str(folder), views=()))
    assert len(upstream) == 935
    a, b = (cache.build(m, tmp_path / "cache", 80, 1) for m in (target, upstream))
    rows, rows_b = np.arange(len(target)), np.arange(len(upstream))
    prints = duplicates.fingerprint(a.images, rows)
    other = (b.images, duplicates.fingerprint(b.images, rows_b), rows_b)
    pairs = duplicates.near(a.images, prints, rows, other)
    found = {(target.id[p.a], upstream.id[p.b]) for p in pairs}
    planted = {
        (target.id[row], f"{90000 + k:08d}_000.png") for k, row in enumerate(chosen)
    }
    assert planted <= found
    # One pair is true and not ours: a film of NIH stands in Figure 1's COVID-19 set.
    known = {("train/covid19/figure1_0863_COVID-00048.jpg", "00000005_001.png")}
    assert found - planted == known


@pytest.mark.slow
def test_search_grows_to_a_hundred_thousand():
    """A fifth of them, so a 25th of the products: under 10 minutes / 25."""
    rng = np.random.default_rng(0)
    dct = rng.normal(size=(len(duplicates.MARGINS), 20_000, 144)).astype(np.float32)
    prints = duplicates.Prints(np.zeros(20_000, "V16"), np.zeros(20_000, bool), dct)
    began = time.process_time()
    assert duplicates.candidates(prints, None) == {}
    assert time.process_time() - began < 2 * 600 / 25
