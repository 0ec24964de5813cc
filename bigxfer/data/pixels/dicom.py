"""A single-frame DICOM file as 8-bit gray or RGB.

The stored values are rescaled (modality LUT), then seen through the first usable
window or VOI LUT, or between the percentiles where there is none; MONOCHROME1 or
PresentationLUTShape INVERSE, or both, invert once (PS3.3, C.11.6: in a DX image INVERSE
is what goes with MONOCHROME1). Padding counts for no percentile and is black.
"""

import importlib.util
import io
import zlib
from typing import Any

import numpy as np

from bigxfer.data.pixels import containers
from bigxfer.data.pixels.levels import DecodeError, check_size, stretch_seen

EACH = 22  # bytes a pixel at the peak: 16 bits, a rescaled double, another, windowed
OPTIONAL = (  # what is present but empty counts as absent
    *("NumberOfFrames", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape"),
)
CODECS = {  # module: (what to install, the transfer syntaxes that need it)
    "openjpeg": (
        "'bigxfer[images]' (pylibjpeg-openjpeg)",
        ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20"),  # JPEG 2000, HTJ2K
    ),
    "libjpeg": (
        "'bigxfer[libjpeg]' (pylibjpeg-libjpeg, under the GPLv3)",
        (  # JPEG of 12 bits, lossless JPEG, JPEG-LS
            *("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57"),
            *("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.8"),
        ),
    ),
}


def read(data: bytes) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] of the file.

    Raises DecodeError with the reason, and whatever pydicom raises.
    """
    try:
        import pydicom
    except ImportError:
        raise DecodeError("DICOM needs `pip install pydicom`") from None
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    refuse_bomb(data)
    header = pydicom.dcmread(io.BytesIO(data))
    if not header.get("PixelData"):
        raise DecodeError("a DICOM file without pixels")
    for name in OPTIONAL:
        if name in header and header[name].is_empty:
            del header[name]
    if int(header.get("NumberOfFrames", 1)) > 1:
        raise DecodeError(f"{header.NumberOfFrames} frames; one was expected")
    pixels = decompressed(header)
    kind = header.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    seen = np.ones(pixels.shape, bool)
    if pixels.ndim == 3:  # RGB; pydicom has converted YBR
        return pixels if pixels.dtype == np.uint8 else stretch_seen(pixels, seen)
    if "PixelPaddingValue" in header:
        seen &= ~padding(pixels, header)
    gray = shown(pixels, apply_modality_lut(pixels, header), seen, header)
    if kind == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE":
        gray = 255 - gray
    return np.where(seen, gray, np.uint8(0))


def decompressed(header: Any) -> np.ndarray:
    """The stored values; DecodeError that names the codec where one is missing."""
    each = EACH * int(header.get("SamplesPerPixel") or 1)
    check_size(int(header.get("Columns") or 0), int(header.get("Rows") or 0), each)
    try:
        return header.pixel_array
    except Exception as error:  # pydicom and its plugins raise whatever they like
        syntax = header.file_meta.TransferSyntaxUID
        for module, (package, known) in CODECS.items():
            if syntax.startswith(known) and importlib.util.find_spec(module) is None:
                raise DecodeError(
                    f"compressed as {syntax.name}; pip install {package}"
                ) from error
        raise


def padding(pixels: np.ndarray, header: Any) -> np.ndarray:
    """bool [H, W]: PixelPaddingValue, or from it to PixelPaddingRangeLimit.

    Of 16 bits and signed, 63536 is -2000: some writers take the wrong representation.
    """
    value = header.PixelPaddingValue
    ends = [value, header.get("PixelPaddingRangeLimit", value)]
    low, high = np.sort(np.array(ends, np.int64).astype(pixels.dtype))
    return (pixels >= low) & (pixels <= high)


def shown(
    pixels: np.ndarray, values: np.ndarray, seen: np.ndarray, header: Any
) -> np.ndarray:
    """uint8 [H, W]: the rescaled `values` by LUT, by window or by percentiles."""
    from pydicom.pixels import apply_voi_lut

    linear = header.get("VOILUTFunction", "LINEAR") == "LINEAR"
    pair = first_window(header, 1 if linear else 0)
    if pair and not linear:
        header.WindowCenter, header.WindowWidth = pair
    if "VOILUTSequence" in header or (pair and not linear):
        return stretch_seen(apply_voi_lut(values, header), seen)
    if pair:
        return window(values, *pair)
    if pixels.dtype == np.uint8 and values is pixels:
        return pixels
    return stretch_seen(values, seen)


def first_window(header: Any, least: float) -> tuple[float, float] | None:
    """(center, width) of the first window that can be used, or None.

    Its width is at least 1, or above 0 for functions other than LINEAR (PS3.3, C.11.2.1.2
    and C.11.2.1.3); writers that mean "no window" put 0.
    """
    centers, widths = (
        [
            float(v if v != "" else "nan")
            for v in np.atleast_1d(header.get(name, [])).tolist()
        ]
        for name in ("WindowCenter", "WindowWidth")
    )
    for center, width in zip(centers, widths, strict=False):
        if np.isfinite(center) and np.isfinite(width) and width >= least and width > 0:
            return center, width
    return None


def window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """uint8 by a linear window; DICOM PS3.3, C.11.2.1.2.1."""
    scaled = values - (center - 0.5)
    scaled /= max(width - 1, 1e-6)
    scaled += 0.5
    np.clip(scaled, 0, 1, out=scaled)
    scaled *= 255
    return np.rint(scaled, out=scaled).astype(np.uint8)


def refuse_bomb(data: bytes) -> None:
    """DecodeError where a deflated data set inflates, perhaps 1,000 times, beyond LARGEST."""
    deflated = b"1.2.840.10008.1.2.1.99"  # its transfer syntax, in the file's head
    if deflated not in data[132:1024]:
        return
    start = 144 + int.from_bytes(data[140:144], "little")  # PS3.10, 7.1
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    for at in range(start, len(data), 1 << 16):
        size += len(inflate.decompress(data[at : at + (1 << 16)]))
        if size > containers.LARGEST:
            raise DecodeError(
                f"deflated from {containers.LARGEST / 1e9:.2f} GB or more"
            )
