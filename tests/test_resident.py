"""Images that lie on the devices: the same batches, and the same run to the bit."""

import jax
import numpy as np
import pytest

from bigxfer import config, presets
from bigxfer.data.loader import Loader
from bigxfer.data.sampling import Sampling
from bigxfer.runs import job
from bigxfer.training import feed, sharding


@pytest.mark.parametrize("rare", [False, True])
def test_the_pool_holds_the_images_of_every_batch(rare):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 6, 6, 1), np.uint8)
    rows = rng.permutation(50)[:37]
    sampling = Sampling()
    if rare:
        sampling = Sampling(rare=rng.random(37) < 0.3, share=0.25)
    loader = Loader(images, np.arange(50), rows, 16, seed=3, sampling=sampling)
    mesh = sharding.make(2)
    fed = feed.of(loader, mesh, resident=True)
    pool = fed.pool
    assert pool.shape == (40, 6, 6, 1) and pool.dtype == np.uint8
    assert {s.data.shape[0] for s in pool.addressable_shards} == {5}
    got = np.asarray(pool)
    for step in (0, 1, 2, 7):
        ours, want = fed.batch(step), loader.batch(step)
        np.testing.assert_array_equal(got[ours.pop("place")], want.pop("images"))
        assert ours.keys() == want.keys()
        for name in want:
            np.testing.assert_array_equal(ours[name], want[name], name)


@pytest.mark.parametrize("labels", [np.arange(50), np.zeros((50, 3), np.float32)])
@pytest.mark.parametrize("resident", [False, True])
def test_a_feed_knows_its_shapes_without_reading_an_image(resident, labels):
    class Unread:
        shape = (50, 6, 6, 1)

        def __len__(self):
            return 50

        def __getitem__(self, index):
            raise AssertionError("an image was read for a shape")

    mesh = sharding.make(2)
    args = labels, np.arange(50), 16, 3
    known = feed.of(Loader(Unread(), *args), mesh, resident).shapes
    fed = feed.of(Loader(np.zeros((50, 6, 6, 1), np.uint8), *args), mesh, resident)
    batch = fed.place(fed.batch(0))
    assert known.keys() == batch.keys()
    for name, array in batch.items():
        found = known[name]
        assert (found.shape, found.dtype) == (array.shape, array.dtype), name
        assert found.sharding == array.sharding, name


def test_a_run_is_the_same_to_the_bit(tmp_path, monkeypatch):
    four = jax.devices()[:4]  # on two cores eight take twice as long
    monkeypatch.setattr(jax, "devices", lambda *_: four)
    results = {}
    for on_devices in (False, True):
        run = presets.load(
            "configs/covidx_small.py:model=R1-1x0.125,res=32,batch=16,steps=3,phantom=64"
        )
        # two images a device: of one alone the two programs round differently
        run.init.kind, run.optim.micro_batch, run.keep = "random", 8, "all"
        run.model.blocks = (1,)
        run.data.cache, run.data.resident = str(tmp_path / "cache"), on_devices
        run = config.resolve(run)
        assert sharding.make(1, run.optim.batch).size == 4
        folder = tmp_path / str(on_devices)
        result = job.execute(run, folder)
        results[on_devices] = (
            (folder / "params.npz").read_bytes(),
            config.digest(run),
            result["metrics"]["auroc_macro"],
        )
    assert results[True] == results[False]
