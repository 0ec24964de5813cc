"""The size of a BiT net by arithmetic: `list` traces no net and does not import jax."""

from collections.abc import Iterator

from bigxfer import presets
from bigxfer.config import Model


def flops_and_parameters(cfg: Model, crop: int, classes: int) -> tuple[float, int]:
    """Return (FLOPs of a forward pass of one image of crop x crop px, parameters).

    FLOPs are two for each multiply-add of the convolutions and the head, taps on the
    padding included, as timm and the papers count. Norms, ReLUs and pools are left out.
    """
    flops = parameters = 0
    for size, channels, features, side in convolutions(cfg, crop):
        kernel = size**2 * channels * features
        flops += 2 * kernel * side**2
        parameters += kernel
    # A unit's output is four times as wide as its middle (models/bit.py).
    last = 4 * presets.bit_widths(cfg)[-1]
    head = last * classes
    return float(flops + 2 * head), parameters + norms(cfg) + head + classes


def convolutions(cfg: Model, crop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (side of the kernel, channels in, channels out, side of the output) of each.

    They are those of models/bit.py, with the stem's 7 x 7 first.
    """
    widths = presets.bit_widths(cfg)
    side = halved(crop)
    yield 7, 3, widths[0], side
    channels, side = widths[0], halved(side)  # after the pool
    for stage, (units, width) in enumerate(zip(cfg.blocks, widths, strict=True)):
        for unit in range(units):
            halves = stage > 0 and unit == 0
            yield 1, channels, width, side
            # The stride is at the 3 x 3 layer, so the first 1 x 1 has the larger side.
            side = halved(side) if halves else side
            if halves or channels != 4 * width:
                yield 1, channels, 4 * width, side  # the shortcut
            yield 3, width, width, side
            yield 1, width, 4 * width, side
            channels = 4 * width


def norms(cfg: Model) -> int:
    """Return the number of parameters in norms: a gamma and a beta for each channel."""
    widths = presets.bit_widths(cfg)
    channels, total = widths[0], 0
    for units, width in zip(cfg.blocks, widths, strict=True):
        for _ in range(units):
            total += channels + 2 * width  # before a, b and c of the unit
            channels = 4 * width
    return 2 * (total + channels)


def halved(side: int) -> int:
    """Return the side after stride 2 with padding k // 2."""
    return (side + 1) // 2
