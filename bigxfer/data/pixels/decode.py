"""Bytes of any image file -> one square uint8 array, or a reason why not.

The only file that imports PIL and pydicom. What is in the file decides, never its
name: 7 of 861 files of a scraped set had a wrong extension. What each kind becomes:

- 8-bit gray, colour, CMYK, palette, 1-bit: as Pillow converts them, gray by ITU-R
  BT.601; EXIF orientation is applied; transparency is composited on black, the
  background of a radiograph.
- 16-bit (gray, or colour PNG, of which Pillow alone keeps 8 bits in silence): the
  range between two percentiles of the image becomes 0 .. 255.
- DICOM: rescaled, then its first window, or the percentiles where it has none;
  MONOCHROME1 inverted.

Then antialiased bilinear to S x S, the aspect not kept, as BiT does (1912.11370,
github.com/google-research/big_transfer, input_pipeline). JPEGs are decoded at full
size: the DCT scaling of libjpeg is 2 to 6 times faster, but moved edges by up to
90 of 255 levels (measured on odd_files), and decoding happens once. Only their
colour planes are skipped where gray is wanted: the same but where colours clip.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from bigxfer.data.pixels import containers

VERSION = 2  # of the pixels and their records; part of the name of a cache

PERCENTILES = (0.1, 99.9)  # of a 16-bit image; spares a dead or burnt-in pixel


class DecodeError(ValueError):
    """This file gives no image; the message is the reason."""


def load(root: Path | str, path: str, size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels] of what `path` names (data/pixels/containers.py).

    Raises DecodeError with the reason.
    """
    place = containers.parse(path)
    if place.planes:
        gray = [load(root, plane, size, 1) for plane in place.planes]
        return fit(Image.fromarray(np.concatenate(gray, axis=2)), size, channels)
    try:
        found = place.fetch(root)
    except FileNotFoundError:
        raise DecodeError("absent") from None
    except OSError as error:
        raise DecodeError(f"unreadable: {error.strerror or error}") from None
    except (ImportError, ValueError, IndexError, KeyError) as error:
        raise DecodeError(str(error)) from error
    if isinstance(found, np.ndarray):
        return fit(Image.fromarray(found), size, channels)
    return decode(found, size, channels)


def fit(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels] of an 8-bit image without transparency."""
    image = image.convert({1: "L", 3: "RGB"}[channels])
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)


def decode(data: bytes, size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels] (1 gray, 3 RGB); DecodeError with the reason."""
    if not data:
        raise DecodeError("empty file")
    if data.startswith(b"version https://git-lfs"):
        raise DecodeError("a git-LFS pointer, not an image; run `git lfs pull`")
    with warnings.catch_warnings():
        # An image decodes or it does not: half a warning a file would drown the log.
        warnings.simplefilter("ignore")
        try:
            image = dicom(data) if data[128:132] == b"DICM" else picture(data, channels)
            return fit(image, size, channels)
        except DecodeError:
            raise
        except Exception as error:  # decoders raise whatever they like
            reason = str(error).replace("\n", " ") or type(error).__name__
            raise DecodeError(reason) from error


def picture(data: bytes, channels: int) -> Image.Image:
    """Everything Pillow reads, as an upright 8-bit image without transparency."""
    try:
        image = Image.open(io.BytesIO(data))
    except Image.UnidentifiedImageError:
        raise DecodeError("not an image, or its header is broken") from None
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise DecodeError(f"{getattr(image, 'n_frames', 1)} frames; one was expected")
    if image.format == "JPEG" and channels == 1:
        image.draft("L", image.size)  # the full size, only without the colour planes
    deep = wide_png(image, data)  # first: all else loads the image as 8-bit
    if deep is None and image.mode.startswith(("I", "F")):
        deep = from_16_bit(image)
    if deep is not None:
        deep.info["exif"] = image.getexif().tobytes()
        image = deep
    ImageOps.exif_transpose(image, in_place=True)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return image


def from_16_bit(image: Image.Image) -> Image.Image:
    """Modes I;16, I and F; a transparent gray level (PNG's tRNS) becomes black."""
    pixels = np.asarray(image)
    clear = image.info.get("transparency")
    seen = np.ones(pixels.shape, bool) if clear is None else pixels != clear
    out = np.zeros(pixels.shape, np.uint8)
    if seen.any():
        out[seen] = stretch(pixels[seen])
    return Image.fromarray(out)


def wide_png(image: Image.Image, data: bytes) -> Image.Image | None:
    """A PNG of 16-bit colour or gray + alpha at its full depth; None for all else.

    Pillow keeps the high bytes only. Asked for the other byte order, it keeps the
    low ones; gray + alpha, four bytes a pixel, is read as if it were 8-bit RGBA.
    """
    tile = getattr(image, "tile", [])
    if image.format != "PNG" or not tile or not str(tile[0].args).endswith(";16B"):
        return None
    bands = tile[0].args.removesuffix(";16B")
    if bands == "LA":
        four = np.asarray(png_as(data, "RGBA", "RGBA")).astype(np.uint16)
        pixels = four[..., ::2] * 256 + four[..., 1::2]
    elif bands in ("RGB", "RGBA"):
        high = np.asarray(png_as(data, bands, f"{bands};16B")).astype(np.uint16)
        pixels = high * 256 + np.asarray(png_as(data, bands, f"{bands};16L"))
    else:
        return None
    colours = len(bands.removesuffix("A"))
    out = (pixels >> 8).astype(np.uint8)
    out[..., :colours] = stretch(pixels[..., :colours])  # one range for all colours
    if (clear := image.info.get("transparency")) is not None:
        out[(pixels == clear).all(axis=-1)] = 0
    return Image.fromarray(out)


def png_as(data: bytes, mode: str, raw: str) -> Image.Image:
    """The PNG unpacked as this raw mode of Pillow instead of the one it chose."""
    image: Any = Image.open(io.BytesIO(data))
    image._mode = mode
    image.tile = [image.tile[0]._replace(args=raw)]
    return image


def stretch(pixels: np.ndarray) -> np.ndarray:
    """Numbers of any range -> uint8, PERCENTILES to 0 and 255, clipped beyond.

    Where the percentiles coincide the whole range is used; a flat image has none,
    and keeps its level of 16 bits.
    """
    low, high = np.percentile(pixels, PERCENTILES).tolist()
    if low == high:
        low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        low, high = 0.0, 65535.0
    scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
    if not np.isfinite(scaled).all():
        raise DecodeError("pixels that are NaN or infinite")
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def dicom(data: bytes) -> Image.Image:
    """A single-frame DICOM as 8-bit gray or RGB."""
    try:
        import pydicom
    except ImportError:
        raise DecodeError("DICOM needs `pip install pydicom`") from None
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    header = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in header:
        raise DecodeError("a DICOM file without pixels")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise DecodeError(f"{header.NumberOfFrames} frames; one was expected")
    pixels = header.pixel_array
    kind = header.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if pixels.ndim == 3:  # RGB; pydicom has converted YBR
        return Image.fromarray(pixels if pixels.dtype == np.uint8 else stretch(pixels))
    values = apply_modality_lut(pixels, header)
    linear = header.get("VOILUTFunction", "LINEAR") == "LINEAR"
    if "VOILUTSequence" in header or ("WindowWidth" in header and not linear):
        gray = stretch(apply_voi_lut(values, header))
    elif "WindowWidth" in header:
        gray = window(values, header.WindowCenter, header.WindowWidth)
    elif pixels.dtype == np.uint8 and values is pixels:
        gray = pixels
    else:
        gray = stretch(values)
    return Image.fromarray(255 - gray if kind == "MONOCHROME1" else gray)


def window(values: np.ndarray, centers: Any, widths: Any) -> np.ndarray:
    """uint8 by the first window; DICOM PS3.3, C.11.2.1.2.1."""
    center, width = (float(np.atleast_1d(v)[0]) for v in (centers, widths))
    if width < 1:
        raise DecodeError(f"a DICOM window of width {width:g}")
    scaled = (values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def side_lengths(root: Path | str, path: str) -> tuple[int, int]:
    """(width, height) as stored, from the header alone; (0, 0) if it has none."""
    try:
        place = containers.parse(path)
        if place.planes:
            place = containers.parse(place.planes[0])
        found = place.fetch(root)
        if isinstance(found, np.ndarray):
            return found.shape[1], found.shape[0]
        if found[128:132] == b"DICM":
            import pydicom

            header = pydicom.dcmread(io.BytesIO(found), stop_before_pixels=True)
            return int(header.Columns), int(header.Rows)
        return Image.open(io.BytesIO(found)).size
    except (OSError, ImportError, ValueError, IndexError, KeyError, AttributeError):
        return 0, 0
