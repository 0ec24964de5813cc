"""Placement, transfers and the micro-batch that fits, on eight virtual devices."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from bigxfer import config
from bigxfer.training import memory, predictor, sharding


@pytest.mark.parametrize("fsdp", [1, 2, 4, 8])
def test_mesh(fsdp):
    mesh = sharding.make(fsdp)
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.devices.shape == (8 // fsdp, fsdp)
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert list(mesh.devices.flat) == jax.devices()


@pytest.mark.parametrize("fsdp", [0, 3, 16])
def test_mesh_that_cannot_be(fsdp):
    with pytest.raises(ValueError, match="must divide the 8 devices"):
        sharding.make(fsdp)


def test_place_state():
    mesh = sharding.make(4)
    shapes = {
        "kernel": jax.ShapeDtypeStruct((3, 3, 64, 128), jnp.float32),
        "tall": jax.ShapeDtypeStruct((2**12, 4), jnp.float32),
        "small": jax.ShapeDtypeStruct((2**14 - 4,), jnp.float32),
        "enough": jax.ShapeDtypeStruct((2**14,), jnp.float32),
        "odd": jax.ShapeDtypeStruct((2**14 + 1,), jnp.float32),
        "second": jax.ShapeDtypeStruct((1001, 64), jnp.float32),
        "scalar": jax.ShapeDtypeStruct((), jnp.int32),
    }
    got = {n: s.spec for n, s in sharding.place_state(mesh, shapes).items()}
    assert got == {
        "kernel": PartitionSpec(None, None, None, "fsdp"),
        "tall": PartitionSpec("fsdp"),
        "small": PartitionSpec(),
        "enough": PartitionSpec("fsdp"),
        "odd": PartitionSpec(),
        "second": PartitionSpec(None, "fsdp"),
        "scalar": PartitionSpec(),
    }
    whole = sharding.place_state(sharding.make(1), shapes)
    assert all(s.is_fully_replicated for s in whole.values())


def test_fsdp_holds_a_part_on_each_device_and_computes_the_same():
    mesh = sharding.make(4)
    kernel = np.random.default_rng(0).standard_normal((256, 128), np.float32)
    x = np.random.default_rng(1).standard_normal((16, 256), np.float32)
    place = sharding.place_state(mesh, {"w": kernel})
    w = jax.device_put({"w": kernel}, place)
    assert {s.data.shape for s in w["w"].addressable_shards} == {(64, 128)}
    y = jax.jit(lambda w, x: x @ w["w"])(w, sharding.to_global(mesh, {"x": x})["x"])
    np.testing.assert_allclose(sharding.to_host(y), x @ kernel, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(sharding.to_host(w)["w"], kernel)


def test_batches_keep_their_order():
    mesh = sharding.make(2)
    rows = {
        "images": np.arange(16 * 3, dtype=np.uint8).reshape(16, 3),
        "i": np.arange(16),
    }
    got = sharding.to_global(mesh, rows)
    assert got["images"].sharding == sharding.batch(mesh)
    shards = sorted(got["i"].addressable_shards, key=lambda s: s.device.id)
    assert [list(np.asarray(s.data)) for s in shards] == [
        [2 * d, 2 * d + 1] for d in range(8)
    ]
    host = sharding.to_host(got)
    for name, value in rows.items():
        np.testing.assert_array_equal(host[name], value)
        assert host[name].dtype == got[name].dtype


def test_a_batch_that_does_not_spread():
    with pytest.raises(ValueError, match="multiple of 8"):
        sharding.to_global(sharding.make(), {"images": np.zeros((12, 2))})


def test_host_copies_survive_donation():
    x = jax.device_put(jnp.arange(2**20), sharding.replicated(sharding.make()))
    host = sharding.to_host({"x": x, "n": np.ones(3)})
    x = jax.jit(lambda x: x + 1, donate_argnums=0)(x)
    jax.block_until_ready(x)
    np.testing.assert_array_equal(host["x"], np.arange(2**20))


# ---- the micro-batch that fits


def test_micro_batches():
    assert memory.micro_batches(512, 1)[:4] == [512, 256, 128, 64]
    assert memory.micro_batches(48, 8) == [48, 24, 16, 8]
    assert memory.micro_batches(12, 8) == []


def compile_size(size):
    """About 8 * 1024 * size bytes of intermediate values, in float32."""

    def loss(w, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w.T))

    w = jax.ShapeDtypeStruct((64, 1024), jnp.float32)
    x = jax.ShapeDtypeStruct((size, 64), jnp.float32)
    return jax.jit(jax.grad(loss)).lower(w, x).compile()


def test_memory_is_the_programs_and_donation_is_counted():
    needs = [memory.memory_needed(compile_size(s)) for s in (64, 128, 256)]
    assert needs[0] < needs[1] < needs[2]
    assert needs[2] - needs[1] >= 4 * 1024 * 128  # one float32 activation at least
    x = jax.ShapeDtypeStruct((2**20,), jnp.float32)
    plain = jax.jit(lambda x: x + 1).lower(x).compile()
    given = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
    assert memory.memory_needed(plain) - memory.memory_needed(given) == 4 * 2**20


def test_the_largest_that_fits():
    sizes = [512, 256, 128, 64, 32, 16]
    needs = {s: memory.memory_needed(compile_size(s)) for s in sizes}
    for want in sizes:
        compiled, size = memory.largest_that_fits(compile_size, sizes, needs[want])
        assert size == want
        assert memory.memory_needed(compiled) == needs[want]
    assert memory.largest_that_fits(compile_size, sizes, needs[16] - 1) is None
    assert memory.largest_that_fits(compile_size, [], 1e9) is None


def test_a_compiler_out_of_memory_means_too_large():
    def compile_fn(size):
        if size > 16:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: hbm")
        return compile_size(size)

    assert memory.largest_that_fits(compile_fn, [64, 32, 16, 8], 1e12)[1] == 16

    def broken(size):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        memory.largest_that_fits(broken, [1], 1e12)


def test_a_cpu_takes_as_many_devices_as_divide_the_batch():
    assert sharding.make(1, 64).size == 8
    assert sharding.make(1, 12).size == 4
    assert sharding.make(1, 7).size == 1


@pytest.mark.parametrize("crop, want", [(64, 128), (128, 32), (224, 10), (1024, 1)])
def test_evaluation_on_a_cpu_takes_large_images_in_parts(crop, want):
    run = config.Run(kind="transfer")
    run.data.crop = crop
    assert predictor.images_at_once(run, sharding.make(1, 7)) == want  # one device
    assert predictor.images_at_once(run, sharding.make()) == min(8 * want, 128)


def test_cache_sized_divides_the_batch_or_is_it():
    mesh = sharding.make()  # 8 devices
    for images, side, want in (
        *((512, 64, 32), (96, 64, 32), (72, 64, 24), (64, 64, 64), (509, 64, 509)),
        *((64, 128, 32), (32, 224, 8), (8, 224, 8), (7, 224, 7), (11, 224, 11)),
        *((8, 480, 2), (4, 1024, 4)),
    ):
        assert memory.cache_sized(8 * images, side, mesh) == 8 * want


def test_fit_memory():
    mesh = sharding.make()
    gb = memory.memory_needed(compile_size(128)) / 1e9
    for asked, want in ((-1, 128), (128, 128), (64, 64)):
        got = memory.fit_memory(compile_size, 512, asked, mesh, gb)
        assert got[1] == want
    assert memory.fit_memory(compile_size, 512, 0, mesh, 0.0)[1] == 512
    for asked in (0, 256):
        with pytest.raises(config.ConfigError, match="micro_batch=128 fits"):
            memory.fit_memory(compile_size, 512, asked, mesh, gb)
    for asked in (-1, 0):
        with pytest.raises(config.ConfigError, match="not even a micro-batch of 8"):
            memory.fit_memory(compile_size, 512, asked, mesh, 1e-6)
    for batch, asked in ((512, 4), (500, 0), (512, 24)):
        with pytest.raises(config.ConfigError, match="spread over 8 devices"):
            memory.fit_memory(compile_size, batch, asked, mesh, gb)


# ---- two processes

CHILD = """
import sys
import jax, numpy as np
from bigxfer.training import processes, sharding
address, process = sys.argv[1], int(sys.argv[2])
processes.join(address, 2, process)
assert jax.device_count() == 4
for fsdp in (1, 2, 4):
    mesh = sharding.make(fsdp)
    rows = np.arange(8 * 3.0, dtype=np.float32).reshape(8, 3)
    mine = rows[4 * process : 4 * process + 4]
    batch = sharding.to_global(mesh, {"x": mine})
    assert batch["x"].shape == (8, 3)
    w = np.arange(2.0**14, dtype=np.float32).reshape(64, 256)
    place = sharding.place_state(mesh, {"w": w, "n": np.float32(3)})
    state = jax.jit(lambda: {"w": w, "n": np.float32(3)}, out_shardings=place)()
    host = sharding.to_host({**batch, **state})
    np.testing.assert_array_equal(host["x"], rows)
    np.testing.assert_array_equal(host["w"], w)
    assert host["n"] == 3
    twice = jax.jit(lambda x: 2 * x, out_shardings=sharding.replicated(mesh))
    np.testing.assert_array_equal(sharding.to_host(twice(batch["x"])), 2 * rows)
processes.barrier()
print("fine")
"""


def two_processes(script, *args):
    """Runs `script ADDRESS PROCESS *args` twice, on two devices each; their output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environ = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, address, str(process), *map(str, args)],
            env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    out = [child.communicate(timeout=180)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], "\n".join(out)
    return out


@pytest.mark.slow
def test_two_processes():
    assert all("fine" in text for text in two_processes(CHILD))
