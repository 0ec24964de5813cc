"""A synthetic first layer: Gabor filters in place of learned ones.

Transfusion (1902.07208, appendix) finds that a first layer of Gabor filters, the rest
random, speeds up convergence as a pretrained one does. It publishes no parameters;
these are our own: 8 orientations, the two phases 0 and pi/2, and as many wavelengths
as fill the layer, in equal ratios from 3 pixels to the width of the kernel; a round
envelope of one octave; grey, the same kernel on R, G and B.
"""

import math

import numpy as np

from bigxfer.config import ConfigError

ORIENTATIONS = 8
PHASES = (0.0, math.pi / 2)
SHORTEST = 3.0  # pixels; 2 is the least that can be sampled
LEAST = 5  # pixels; a smaller kernel holds no wave
# sigma / wavelength of a filter whose half-response bandwidth is one octave
# (Petkov & Kruizinga 1997, Biol. Cybern. 76, equation 4)
OCTAVE = math.sqrt(math.log(2) / 2) / math.pi * 3  # 3 = (2**1 + 1) / (2**1 - 1)


def bank(size: int, count: int, std: float) -> np.ndarray:
    """float32 [size, size, 3, count]: `count` filters of mean 0 and this deviation.

    Order: phase fastest, then orientation, then wavelength; orientation theta has its
    wave vector along (cos theta, sin theta) in (x, y). ConfigError below 5 pixels.
    """
    if size < LEAST:
        raise ConfigError(
            f"config.init.kind=gabor needs a first kernel of {LEAST} pixels or more, not"
            f" {size}: BiT, CBR, SmallCNN, ResNet-50 and DenseNet-121 have one"
        )
    many = math.ceil(count / (ORIENTATIONS * len(PHASES)))
    at = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(at, at, indexing="ij")
    filters = []
    for wavelength in np.geomspace(SHORTEST, size, many):
        envelope = np.exp(-(x**2 + y**2) / (2 * (OCTAVE * wavelength) ** 2))
        for theta in np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS:
            along = x * np.cos(theta) + y * np.sin(theta)
            for phase in PHASES:
                wave = envelope * np.cos(2 * np.pi * along / wavelength - phase)
                # Cut to the kernel, a cosine would answer to brightness.
                wave -= wave.mean()
                filters.append(wave * (std / wave.std()))
    # The last wavelength may be incomplete, where the layer has no multiple of 16.
    grey = np.stack(filters[:count], axis=-1)[:, :, None]
    return np.repeat(grey, 3, axis=2).astype(np.float32)
