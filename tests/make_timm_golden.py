"""Makes tests/golden/timm_*.npz: what timm's resnetv2_50x1_bit and narrow nets give.

Run in a separate environment with torch (CPU), timm and numpy only:
    python tests/make_timm_golden.py
The weights come from the formula below, so that the golden file holds outputs
only. Where torchvision does not import a stub of it serves: the model uses
none of it, timm only imports its names.
"""

import sys
import types
from pathlib import Path

import numpy as np

CLASSES = 10
NARROW = {  # nets of one unit a stage, half as wide as R50x1: the groups by channels
    "same": {},  # 32 everywhere, as timm has them unasked
    "fewer": {32: 16},  # as bigxfer has them
}
# two square images and an oblong one, so that axes cannot be swapped unnoticed
SHAPES = {"square": (2, 64, 64, 3), "oblong": (1, 96, 80, 3)}


def formula(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Deterministic float32 numbers for the parameter of this BiT name, HWIO.

    Sines of incommensurate frequencies: kernels of about unit variance (weight
    standardisation makes their scale almost irrelevant), scales near 1.
    """
    seed = sum(map(ord, name)) % 97
    index = np.arange(np.prod(shape), dtype=np.float64)
    wave = np.sin(index * (1.0 + 0.013 * seed) + 0.001 * index**1.5 + seed)
    if name.endswith("gamma"):
        wave = 1 + 0.3 * wave
    elif name.endswith(("beta", "bias")):
        wave = 0.2 * wave
    elif name.startswith("head"):
        wave = 0.05 * wave
    return wave.reshape(shape).astype(np.float32)


def images(shape: tuple[int, ...]) -> np.ndarray:
    """NHWC float32 in [-1, 1]."""
    index = np.arange(np.prod(shape), dtype=np.float64)
    return np.sin(0.37 * index + 1e-3 * index**1.3).reshape(shape).astype(np.float32)


def names_of(model) -> dict[str, str]:
    """timm's name -> BiT's, written here once more, apart from weights.py."""
    out = {
        "stem.conv.weight": "root_block/standardized_conv2d/kernel",
        "norm.weight": "group_norm/gamma",
        "norm.bias": "group_norm/beta",
        "head.fc.weight": "head/conv2d/kernel",
        "head.fc.bias": "head/conv2d/bias",
    }
    for s, stage in enumerate(model.stages):
        for u in range(len(stage.blocks)):
            timm, bit = f"stages.{s}.blocks.{u}.", f"block{s + 1}/unit{u + 1:02d}/"
            for i, part in enumerate("abc"):
                to = f"{bit}{part}/"
                out[f"{timm}conv{i + 1}.weight"] = to + "standardized_conv2d/kernel"
                out[f"{timm}norm{i + 1}.weight"] = to + "group_norm/gamma"
                out[f"{timm}norm{i + 1}.bias"] = to + "group_norm/beta"
            if u == 0:
                to = bit + "a/proj/standardized_conv2d/kernel"
                out[f"{timm}downsample.conv.weight"] = to
    return out


class Anything(type):
    """A class that has every attribute, each of them its own name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class Stub(types.ModuleType):
    """A package in which every public name is an empty class."""

    __path__ = ()  # marks a package

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


def stub_torchvision() -> None:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # none there, or built for another torch
        parts = ["", ".ops", ".ops.misc", ".models", ".models.feature_extraction"]
        parts += [".transforms", ".transforms.functional", ".datasets", ".utils"]
        for part in parts:
            module = sys.modules["torchvision" + part] = Stub("torchvision" + part)
            if part:
                parent, _, child = ("torchvision" + part).rpartition(".")
                setattr(sys.modules[parent], child, module)


def main() -> None:
    import torch

    stub_torchvision()
    import timm

    versions = np.array([f"timm {timm.__version__}", torch.__version__])
    write("timm_r50x1.npz", {**bit_50x1(), "versions": versions})
    narrow = {groups: narrow_logits(of) for groups, of in NARROW.items()}
    write("timm_narrow.npz", {**narrow, "versions": versions})


def write(name: str, golden: dict) -> None:
    path = Path(__file__).parent / "golden" / name
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **golden)
    print(name, {k: v.tolist() for k, v in golden.items() if "names" not in k})


def fill(model) -> dict:
    """Loads the formula's numbers into a net of timm; returns them by timm's name."""
    import torch

    state, to_bit = model.state_dict(), names_of(model)
    for name, old in state.items():
        shape = tuple(old.shape)
        hwio = len(shape) == 4
        if hwio:
            shape = (shape[2], shape[3], shape[1], shape[0])
        array = formula(to_bit[name], shape)
        state[name] = torch.tensor(array.transpose(3, 2, 0, 1) if hwio else array)
    model.load_state_dict(state)
    return state


def narrow_logits(groups: dict[int, int]) -> np.ndarray:
    """float32 [2, CLASSES] of the square images, by a net with these groups of norms."""
    import timm
    import torch

    def norm(channels, **kw):
        return timm.layers.GroupNormAct(channels, groups.get(channels, 32), **kw)

    model = timm.models.resnetv2.ResNetV2(
        [1, 1, 1, 1],
        channels=(128, 256, 512, 1024),
        stem_chs=32,
        num_classes=CLASSES,
        stem_type="fixed",
        norm_layer=norm,
    ).eval()
    fill(model)
    with torch.no_grad():
        return model(
            torch.tensor(images(SHAPES["square"]).transpose(0, 3, 1, 2))
        ).numpy()


def bit_50x1() -> dict:
    import timm
    import torch

    model = timm.create_model("resnetv2_50x1_bit", num_classes=CLASSES).eval()
    state = fill(model)
    golden = {"timm_names": np.array(sorted(state))}
    for key, shape in SHAPES.items():
        x = torch.tensor(images(shape).transpose(0, 3, 1, 2))
        with torch.no_grad():
            ends = {"stem": model.stem.conv(x)}
            y = model.stem(x)
            for i, stage in enumerate(model.stages):
                y = ends[f"block{i + 1}"] = stage(y)
            ends["pre_logits"] = model.norm(y).mean((2, 3))
            golden[f"{key}/logits"] = model(x).numpy()
        for end, value in ends.items():
            stats = [value.mean(), value.std(correction=0), value.abs().max()]
            golden[f"{key}/{end}"] = np.array([float(s) for s in stats])
    return golden


if __name__ == "__main__":
    main()
