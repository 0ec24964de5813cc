"""Bytes of any image file -> one square uint8 array, or a reason why not.

The only file that imports PIL. What is in the file decides, never its name: 7 of 861
files of a scraped set had a wrong extension; but only the formats of FORMATS are
opened, since others reach foreign programs (EPS: Ghostscript). What each kind becomes:

- 8-bit gray, colour, CMYK, palette, 1-bit: as Pillow converts them, gray by ITU-R
  BT.601; EXIF orientation is applied; transparency is composited on black, the
  background of a radiograph.
- 16-bit (gray, or colour PNG; Pillow alone keeps 8 of its bits and says nothing): the
  range between two percentiles of the image becomes 0 .. 255; TIFF's WhiteIsZero is
  inverted. A colour TIFF of more than 8 bits is refused: Pillow keeps 8 in silence.
- DICOM: see data/pixels/dicom.py.

Then antialiased bilinear to S x S, the aspect not kept, as BiT does (1912.11370,
github.com/google-research/big_transfer, input_pipeline). JPEGs are decoded at full
size: the DCT scaling of libjpeg is 2 to 6 times faster, but moved edges by up to
90 of 255 levels (measured on odd_files), and decoding happens once. Only their
colour planes are skipped where gray is wanted: the same but where colours clip.
"""

import io
import struct
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from bigxfer.data.pixels import containers, dicom
from bigxfer.data.pixels.levels import DecodeError, check_size, stretch, stretch_seen

VERSION = 3  # of the pixels and their records; part of the name of a cache
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
EACH = {"1": 3, "L": 3, "P": 9}  # bytes a pixel at the peak (measured), by mode
COLOUR, CLEAR, DEEP, DEEP_COLOUR = 9, 17, 22, 45  # of others, transparency, 16 bits
SCANS = 64  # of a JPEG; progressive ones have about 10, bombs thousands in some kB
START_OF_SCAN = b"\xff\xda"  # within a scan's own data 0 stands behind each 0xff
BITS, INTERPRETATION, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF 6.0, and a value


def load(root: Path | str, path: str, size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels] of what `path` names (data/pixels/containers.py).

    At size 0 as it is: [h, w, channels]. Raises DecodeError with the reason.
    """
    place = containers.parse(path)
    if place.planes:
        gray = [load(root, plane, size, 1) for plane in place.planes]
        return fit(Image.fromarray(np.concatenate(gray, axis=2)), size, channels)
    content = fetched(root, place)
    if isinstance(content, np.ndarray):
        return fit_array(content, size, channels)
    return decode(content, size, channels)


def fetched(root: Path | str, place: containers.Plain) -> bytes | np.ndarray:
    """What lies there, not decoded; DecodeError with the reason."""
    try:
        return place.fetch(root)
    except FileNotFoundError:
        raise DecodeError("absent") from None
    except OSError as error:
        raise DecodeError(f"unreadable: {error.strerror or error}") from None
    except (ImportError, ValueError, IndexError, KeyError) as error:
        raise DecodeError(str(error)) from error


def fit(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels] of an 8-bit image without transparency; 0: as it is."""
    image = image.convert({1: "L", 3: "RGB"}[channels])
    if size:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)


def fit_array(pixels: np.ndarray, size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels] of uint8 [h, w] or [h, w, 3]."""
    return fit(Image.fromarray(pixels), size, channels)


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
            if data[128:132] == b"DICM":
                image = Image.fromarray(dicom.read(data))
            else:
                image = picture(data, channels)
            return fit(image, size, channels)
        except DecodeError:
            raise
        except Exception as error:  # decoders raise whatever they like
            reason = str(error).replace("\n", " ") or type(error).__name__
            raise DecodeError(reason) from error


def picture(data: bytes, channels: int) -> Image.Image:
    """What is of FORMATS, as an upright 8-bit image without transparency."""
    plain = black_is_zero(data)
    image = opened(plain or data)
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DecodeError("several frames; one was expected")
    # By the header, before a pixel is decoded: a bomb must not fill the memory.
    check_size(*image.size, bytes_each(image))
    if image.format == "TIFF" and image.mode.startswith("RGB") and tiff_bits(image) > 8:
        raise DecodeError(
            f"a colour TIFF of {tiff_bits(image)} bits, of which 8 would be kept: save it"
            " as PNG"
        )
    if image.format in ("JPEG", "MPO") and (n := data.count(START_OF_SCAN)) > SCANS:
        raise DecodeError(f"a JPEG of {n} scans, each a pass over it; {SCANS} at most")
    if image.format == "JPEG" and channels == 1:
        image.draft("L", image.size)  # the full size, only without the colour planes
    deep = wide_png(image, data)  # first: all else loads the image as 8-bit
    if deep is None and image.mode.startswith(("I", "F")):
        deep = from_16_bit(image, plain is not None)
    if deep is not None:
        # A new image has no EXIF, and its orientation would be lost.
        deep.info["exif"] = image.getexif().tobytes()
        image = deep
    ImageOps.exif_transpose(image, in_place=True)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return image


def opened(data: bytes) -> Image.Image:
    """Its header is read; DecodeError where it is of no format that we name."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        formats = ", ".join(FORMATS)
        raise DecodeError(
            f"not an image ({formats} or DICOM), or its header is broken"
        ) from None


def bytes_each(image: Image.Image) -> int:
    """Bytes a pixel that decoding will take at its peak."""
    if raw_mode(image).endswith(";16B") and image.mode != "I;16":
        return DEEP_COLOUR
    if image.mode.startswith(("I", "F")):
        return DEEP
    return CLEAR if image.has_transparency_data else EACH.get(image.mode, COLOUR)


def raw_mode(image: Any) -> str:
    """How a PNG's pixels are packed, such as RGB;16B; "" for other formats."""
    return str(image.tile[0].args) if image.format == "PNG" and image.tile else ""


def tiff_bits(image: Any) -> int:
    """Bits of the widest channel of a TIFF."""
    return max(image.tag_v2.get(BITS, (8,)))


def black_is_zero(data: bytes) -> bytes | None:
    """A TIFF of more than 8 bits that is WhiteIsZero, said to be BlackIsZero.

    None for all else. Pillow inverts 8 bits and fewer; of 16 bits and floats it
    ignores the tag, or refuses the file. The first directory is walked as TIFF 6.0
    lays it out: 2 bytes of count, then tag, type, count and value in 12 bytes each.
    """
    if data[:4] in (b"II+\0", b"MM\0+"):
        raise DecodeError("a BigTIFF, which Pillow misreads; save it as a plain TIFF")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    places, values = {}, {}
    with suppress(struct.error):  # cut off: Pillow says so
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, at)
            places[tag], values[tag] = at + 8, value
    if values.get(INTERPRETATION) != WHITE_IS_ZERO or values.get(BITS, 1) <= 8:
        return None
    at = places[INTERPRETATION]
    return data[:at] + struct.pack(f"{order}H", 1) + data[at + 2 :]


def from_16_bit(image: Image.Image, inverted: bool) -> Image.Image:
    """Modes I;16, I and F; a transparent gray level (PNG's tRNS) becomes black."""
    pixels = np.asarray(image)
    clear = image.info.get("transparency")
    # What is transparent is no level of the picture: it stays out of the percentiles.
    seen = np.ones(pixels.shape, bool) if clear is None else pixels != clear
    gray = stretch_seen(pixels, seen)
    return Image.fromarray(255 - gray if inverted else gray)


def wide_png(image: Image.Image, data: bytes) -> Image.Image | None:
    """A PNG of 16-bit colour or gray + alpha at its full depth; None for all else.

    Pillow keeps the high bytes only. Asked for the other byte order, it keeps the
    low ones; gray + alpha, four bytes a pixel, is read as if it were 8-bit RGBA.
    """
    if not raw_mode(image).endswith(";16B"):
        return None
    bands = raw_mode(image).removesuffix(";16B")
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
    image: Any = opened(data)
    image._mode = mode
    image.tile = [image.tile[0]._replace(args=raw)]
    return image


def side_lengths(root: Path | str, path: str) -> tuple[int, int]:
    """(width, height) as stored, from the header alone; (0, 0) if it has none."""
    try:
        place = containers.parse(path)
        if place.planes:
            place = containers.parse(place.planes[0])
        content = place.fetch(root)
        if isinstance(content, np.ndarray):
            return content.shape[1], content.shape[0]
        if content[128:132] == b"DICM":
            import pydicom

            header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
            return int(header.Columns), int(header.Rows)
        return opened(content).size
    except (OSError, ImportError, ValueError, IndexError, KeyError, AttributeError):
        return 0, 0


def to_png(pixels: np.ndarray) -> bytes:
    """Return uint8 [S, S, 1 or 3] as a PNG file."""
    pixels = np.asarray(pixels)
    file = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(file, "PNG")
    return file.getvalue()
