"""From numbers of any range to 0 .. 255; how large an image may be; the one error."""

import numpy as np

PERCENTILES = (0.1, 99.9)  # of a 16-bit image; spares a dead or burnt-in pixel
MEMORY = 1e9  # bytes that decoding one image may take: 0.5 MB of PNG may ask for 3 GB


class DecodeError(ValueError):
    """This file gives no image; the message is the reason."""


def check_size(width: int, height: int, each: int) -> None:
    """DecodeError where width x height pixels at `each` bytes exceed MEMORY."""
    if (need := width * height * each) > MEMORY:
        raise DecodeError(
            f"{width} x {height} pixels take {need / 1e9:.1f} GB to decode;"
            f" an image may take {MEMORY / 1e9:g} GB"
        )


def stretch(pixels: np.ndarray) -> np.ndarray:
    """Numbers of any range -> uint8, PERCENTILES to 0 and 255, clipped beyond.

    Where the percentiles coincide the whole range is used; a flat image has none,
    and keeps its level of 16 bits. Raises DecodeError where one is NaN or infinite.
    """
    low, high = np.percentile(pixels, PERCENTILES).tolist()
    if low == high:
        low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        low, high = 0.0, 65535.0
    # float32 holds every level of 16 bits; float64 would double the peak.
    scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
    if not np.isfinite(scaled).all():
        raise DecodeError("pixels that are NaN or infinite")
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def stretch_seen(pixels: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """`stretch` of the pixels that are seen (bool); the others are black."""
    out = np.zeros(pixels.shape, np.uint8)
    if seen.any():
        out[seen] = stretch(pixels[seen])
    return out
