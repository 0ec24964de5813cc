"""Decoding against references in numpy, file kind by file kind."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigxfer.data.pixels import decode

ODD = Path(__file__).parents[2] / "shared" / "data" / "odd_files"
RNG = np.random.default_rng(0)
SMOOTH = np.add.outer(np.arange(96) * 1.2, np.arange(80) * 1.5).astype(np.uint8)


def encoded(array, kind="PNG", **kw):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **kw)
    return file.getvalue()


def chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png_16(w, h, colour, packed, clear=b""):
    """A 16-bit PNG around its compressed lines."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, 0))
        + (chunk(b"tRNS", clear) if clear else b"")
        + chunk(b"IDAT", packed)
        + chunk(b"IEND", b"")
    )


def png(pixels, colour, clear=b""):
    """A 16-bit PNG written by hand: Pillow writes none in colour."""
    h, w = pixels.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png_16(w, h, colour, zlib.compress(lines), clear)


def triangle(n, size):
    """[size, n]: antialiased bilinear weights, from their definition."""
    scale = max(n / size, 1)
    center = (np.arange(size) + 0.5) * n / size
    x = (np.arange(n) + 0.5 - center[:, None]) / scale
    weights = np.maximum(1 - abs(x), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(pixels, size):
    """float [size, size, C] of an image [h, w, C]."""
    rows, columns = (triangle(n, size) for n in pixels.shape[:2])
    planes = [
        rows @ plane @ columns.T for plane in pixels.astype(float).T.swapaxes(1, 2)
    ]
    return np.stack(planes, axis=-1)


def gray(rgb):
    return rgb[..., :3].astype(float) @ np.array([0.299, 0.587, 0.114])


def palette(image):
    """uint8 [256, 4]: the colours of a palette image and their alpha (tRNS)."""
    table = np.full((256, 4), 255, np.uint8)
    colours = np.array(image.getpalette()).reshape(-1, 3)
    table[: len(colours), :3] = colours
    clear = image.info.get("transparency", b"")
    if isinstance(clear, int):
        table[clear, 3] = 0
    else:
        table[: len(clear), 3] = list(clear)
    return table


def reference(image, size):
    """float [size, size]: what an 8-bit Pillow image should become, in gray."""
    a = np.asarray(image)
    if image.mode == "P":
        a = palette(image)[a]
    elif image.mode == "1":
        a = a * 255.0
        a = a * (a != image.info.get("transparency"))
    if image.mode == "CMYK":
        a = (255.0 - a[..., :3]) * (255.0 - a[..., 3:]) / 255
    elif image.mode in ("LA", "RGBA") or a.shape[2:] == (4,):
        a = a[..., :-1] * (a[..., -1:] / 255.0)
    a = a.astype(float).reshape(*a.shape[:2], -1)
    if a.shape[2] == 3:
        a = a @ np.array([[0.299], [0.587], [0.114]])
    if image.getexif().get(0x0112) == 6:
        a = np.rot90(a, -1)
    return resized(a, size)[..., 0]


def reference_16(values, size):
    """float [size, size]: PERCENTILES to 0 and 255, by sorting."""
    values = values.astype(float)
    low, high = np.quantile(values.ravel(), [0.001, 0.999])
    return resized(np.clip((values - low) / (high - low), 0, 1)[..., None] * 255, size)[
        ..., 0
    ]


OUTCOMES = {  # "reference": as it says above; CT: as that DICOM; else the reason
    "talo__00000773_001.png": "reference",
    "talo__00001280_004.png": "reference",
    "cxnet__766p.jpg": "reference",
    "cxnet__884.png": "reference",
    "cxnet__770.png": "reference",
    "cxnet__871.jpg": "reference",
    "bae__pneumocystis-pneumonia-2-L.png": "reference",
    "bae__MASKEqualized41591_2020_819_Fig1_HTML.webp-day5.png": "reference",
    "talo__all14238-fig-0002-m-d.jpg": "reference",
    "cxnet__230.jpg": "reference",
    "bae__covid-19-pneumonia-7-PA.jpg": "reference",
    "bae__nCoV-Snohomish-20382862_web1_M1-Lungs-EDH-200201-640x300@2x.jpg": "reference",
    "talo__1.CXRCTThoraximagesofCOVID-19fromSingapore.pdf-000-fig1a.png": "reference",
    "fig1__COVID-00012.jpg": "reference",
    "fig1__COVID-00048.png": "reference",
    "hannover__006f3a8a.png": "reference",
    "txrv__1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm": "JPEG within",
    "txrv__tb0005.png": "reference",
    "padchest__5i5mch.png": "16 bits",
    "padchest__7wa3ao.png": "zeros",
    "lfs__002c21358ce6.png": "git-LFS pointer",
    "cxnet__248.jfif": "reference",
    "cxnet__737.JPG": "reference",
    "pillow__pil_sample_cmyk.jpg": "reference",
    "pillow__i_trns.png": "16 bits, tRNS",
    "pillow__truncated_image.png": "truncated",
    "pillow__truncated_jpeg.jpg": "truncated",
    "pillow__truncated_end_chunk.png": "Truncated",
    "pillow__broken.png": "not an image",
    "pillow__broken_data_stream.png": "data stream",
    "pillow__pil123p.png": "reference",
    "pillow__p_trns_single.png": "reference",
    "pillow__uncompressed_la.png": "reference",
    "pillow__hopper_orientation_6.jpg": "reference",
    "pillow__1_trns.png": "reference",
    "pydicom__CT_small.dcm": "CT",
    "pydicom__MR_small.dcm": "window 600/1600",
    "pydicom__MR_truncated.dcm": "less than expected",
    "derived__CT_small_16bit_lowrange.png": "CT",
    "derived__CT_small_16bit_fullrange.png": "CT",
    "derived__CT_small_16bit_rgb.png": "CT",
    "derived__constant.png": "reference",
    "derived__zero_bytes.jpg": "empty file",
    "derived__half_jpeg.jpg": "truncated",
}


def expected(file, outcome, size):
    """float [size, size] of a file that decodes; None for one that must not."""
    data = (ODD / file).read_bytes()
    if outcome == "reference":
        return reference(Image.open(io.BytesIO(data)), size)
    if outcome == "zeros":
        return np.zeros((size, size))
    if outcome == "16 bits":
        return reference_16(np.asarray(Image.open(io.BytesIO(data))), size)
    if outcome == "16 bits, tRNS":
        a = np.asarray(Image.open(io.BytesIO(data))).astype(float)
        low, high = np.quantile(a[a != 255], [0.001, 0.999])
        scaled = np.where(a == 255, 0, np.clip((a - low) / (high - low), 0, 1))
        return resized(scaled[..., None] * 255, size)[..., 0]
    if outcome == "JPEG within":  # the bytes from the JPEG's start on
        return reference(Image.open(io.BytesIO(data[data.index(b"\xff\xd8") :])), size)
    if outcome == "CT":  # the pixels are the last 32,768 bytes but for padding
        pydicom = pytest.importorskip("pydicom")
        raw = pydicom.dcmread(ODD / "pydicom__CT_small.dcm").PixelData
        return reference_16(np.frombuffer(raw, "<i2").reshape(128, 128), size)
    if outcome == "window 600/1600":
        pydicom = pytest.importorskip("pydicom")
        raw = pydicom.dcmread(ODD / file).PixelData
        a = np.frombuffer(raw, "<i2").reshape(64, 64).astype(float)
        scaled = np.clip((a - 599.5) / 1599 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1
        return resized(scaled[..., None] * 255, size)[..., 0]
    return None


@pytest.mark.skipif(not ODD.is_dir(), reason="needs ../shared/data/odd_files")
def test_the_table_covers_all_44_files():
    assert len(OUTCOMES) == 44
    assert set(OUTCOMES) == {f.name for f in ODD.iterdir()} - {
        "README.md",
        "manifest.csv",
    }


@pytest.mark.skipif(not ODD.is_dir(), reason="needs ../shared/data/odd_files")
@pytest.mark.parametrize("file, outcome", OUTCOMES.items())
def test_odd_file(file, outcome):
    if file.endswith(".dcm"):
        pytest.importorskip("pydicom")
    want = expected(file, outcome, 60)
    if want is None:
        with pytest.raises(decode.DecodeError, match=outcome):
            decode.load(ODD, file, 60, 1)
        return
    got = decode.load(ODD, file, 60, 1)
    assert got.shape == (60, 60, 1) and got.dtype == np.uint8
    assert abs(got[..., 0] - want).max() <= 3.5  # hopper's colours clip
    rgb = decode.load(ODD, file, 60, 3)
    assert rgb.shape == (60, 60, 3)
    assert abs(gray(rgb) - want).max() <= 3.5


@pytest.mark.parametrize(
    "kind, options", [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": 1})]
)
def test_content_decides_and_enlarging_works(kind, options):
    data = encoded(SMOOTH, kind, **options)
    for size in (33, 96, 120):
        got = decode.decode(data, size, 1)[..., 0]
        assert abs(got - resized(SMOOTH[..., None], size)[..., 0]).max() <= 1.5


@pytest.mark.parametrize("low, high", [(0, 900), (30000, 65535), (7, 8)])
def test_16_bit_colour_keeps_its_depth(low, high):
    """The same pixels in gray (read by Pillow) and in colours (read here)."""
    values = low + (np.add.outer(np.arange(64), np.arange(64)) * (high - low)) // 126
    values = values.astype(np.uint16)
    want = decode.decode(encoded(values), 64, 1).astype(int)
    assert want.min() == 0 and want.max() == 255
    full = np.full_like(values, 65535)
    for colour, planes in (
        (2, [values] * 3),
        (4, [values, full]),
        (6, [values] * 3 + [full]),
    ):
        got = decode.decode(png(np.stack(planes, -1), colour), 64, 1)
        assert abs(got - want).max() <= 1
    half = png(np.stack([values, full // 2], -1), 4)
    assert abs(decode.decode(half, 64, 1) - want / 2).max() <= 2


def test_16_bit_colours_share_one_range_and_tRNS_is_black():
    ramp = (np.arange(64 * 64).reshape(64, 64) * 10).astype(np.uint16)
    rgb = np.stack([ramp, ramp // 2, ramp // 4], -1)
    got = decode.decode(png(rgb, 2), 64, 3).astype(float)
    assert abs(got[..., 1] - got[..., 0] / 2).max() <= 2
    assert abs(got[..., 2] - got[..., 0] / 4).max() <= 2
    flat = np.broadcast_to(np.uint16([500, 500, 500]), (8, 8, 3)).copy()
    flat[:4] = 1000
    got = decode.decode(png(flat, 2, struct.pack(">HHH", 1000, 1000, 1000)), 8, 1)
    assert (got[:4] == 0).all()


def tiff(pixels, order, interpretation):
    """An uncompressed gray TIFF 6.0 in this byte order."""
    h, w = pixels.shape
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {256: w, 257: h, 258: pixels.itemsize * 8, 259: 1, 262: interpretation}
    tags |= {273: 0, 277: 1, 278: h, 279: pixels.nbytes, 339: kind}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    out = struct.pack(f"{order}2sHI", {"<": b"II", ">": b"MM"}[order], 42, 8)
    out += struct.pack(f"{order}H", len(tags))
    for tag, value in tags.items():
        short = tag in (258, 259, 262, 277, 339)
        out += struct.pack(f"{order}HHI", tag, 3 if short else 4, 1)
        out += struct.pack(f"{order}{'H' if short else 'I'}", value).ljust(4, b"\0")
    out += struct.pack(f"{order}I", 0)
    return out + pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4"])
def test_white_is_zero(order, dtype):
    """TIFF 6.0, PhotometricInterpretation 0: the lowest number is white."""
    low = -1000 if dtype in ("i2", "i4", "f4") else 0
    ramp = np.broadcast_to(np.arange(64) * (4 if dtype == "u1" else 400), (64, 64))
    pixels = (ramp + low).astype(dtype)
    black, white = (decode.decode(tiff(pixels, order, k), 64, 1) for k in (1, 0))
    assert black[0, 0] == 0 and black[0, -1] >= 252
    np.testing.assert_array_equal(white, 255 - black)


def test_white_is_zero_in_a_flat_image():
    flat = np.full((8, 8), 65535, np.uint16)
    assert (decode.decode(tiff(flat, ">", 0), 8, 1) == 0).all()


def test_a_big_tiff_says_that_it_is_one():
    with pytest.raises(decode.DecodeError, match="BigTIFF.*plain TIFF"):
        decode.decode(b"II+\0\x08\0\0\0" + bytes(200), 8, 1)


@pytest.mark.parametrize("order", "<>")
def test_a_colour_tiff_of_16_bits_is_refused(order):
    """Pillow keeps the high bytes only, in silence."""
    gray = tiff(np.zeros((8, 24), np.uint16), order, 2)
    data = bytearray(gray)
    data[8 + 2 + 8 : 8 + 2 + 12] = struct.pack(f"{order}I", 8)  # the width
    at = 8 + 2 + 12 * 6 + 8  # the value of SamplesPerPixel, the seventh tag
    assert struct.unpack_from(f"{order}H", data, at - 8) == (277,)
    struct.pack_into(f"{order}H", data, at, 3)
    # BitsPerSample: three shorts, behind the file's end
    struct.pack_into(f"{order}II", data, 8 + 2 + 12 * 2 + 4, 3, len(data))
    data += struct.pack(f"{order}3H", 16, 16, 16)
    with pytest.raises(decode.DecodeError, match="colour TIFF of 16 bits.*PNG"):
        decode.decode(bytes(data), 8, 3)


def test_a_cut_tiff_has_a_reason():
    data = tiff(np.arange(64, dtype=np.uint16).reshape(8, 8), ">", 0)
    for cut in (6, 9, 20, 60, len(data) - 9):
        with pytest.raises(decode.DecodeError, match="."):
            decode.decode(data[:cut], 8, 1)


@pytest.mark.parametrize("level", [0, 128 * 257, 65535])
def test_flat_16_bit_images_keep_their_level(level):
    flat = np.full((20, 30), level, np.uint16)
    assert (decode.decode(encoded(flat), 10, 1) == level // 257).all()


def test_one_hot_pixel_does_not_blacken_the_rest():
    values = (np.arange(10000).reshape(100, 100) // 10).astype(np.uint16)
    values[50, 50] = 65535
    assert 120 < decode.decode(encoded(values), 50, 1).mean() < 135


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {  # EXIF 2.3, tag 274: how the stored rows and columns are to be shown
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: np.rot90,
    }[orientation]
    want = resized(turn(SMOOTH)[..., None], 40)[..., 0]
    got = decode.decode(encoded(SMOOTH, exif=exif), 40, 1)[..., 0]
    assert abs(got - want).max() <= 1.5
    ramp = np.linspace(0, 65535, SMOOTH.size).reshape(SMOOTH.shape).astype(np.uint16)
    want = resized(turn(ramp)[..., None], 40)[..., 0] / 257
    deep = decode.decode(encoded(ramp, exif=exif), 40, 1)[..., 0]
    assert abs(deep - want).max() <= 1.5


def test_gray_from_a_colour_jpeg_is_its_luminance():
    rgb = RNG.integers(0, 256, (16, 16, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    data = encoded(rgb, "JPEG", quality=95)
    want = np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((64, 64), 2))
    got = decode.decode(data, 64, 1)[..., 0]
    assert abs(got.astype(int) - want).mean() < 1 and got.shape == (64, 64)


def test_every_cut_of_a_file_is_noticed_or_harmless():
    """A PNG or JPEG cut anywhere never passes for another image."""
    texture = RNG.integers(0, 256, (40, 40)).astype(np.uint8)
    for kind in ("PNG", "JPEG"):
        data = encoded(texture, kind)
        whole = decode.decode(data, 40, 1)
        passed = 0
        for cut in range(0, len(data) - 1, 7):
            try:
                got = decode.decode(data[:cut], 40, 1)
            except decode.DecodeError as error:
                assert str(error)
            else:
                passed += 1
                np.testing.assert_array_equal(got, whole)
        assert passed < 5


def test_garbage_is_a_decode_error_with_a_reason(tmp_path):
    for data in (b"", b"hello", bytes(200), RNG.bytes(1000), b"\xff\xd8\xff" * 50):
        with pytest.raises(decode.DecodeError, match="."):
            decode.decode(data, 8, 1)
    with pytest.raises(decode.DecodeError, match="absent"):
        decode.load(tmp_path, "nothing.png", 8, 1)
    with pytest.raises(decode.DecodeError, match="unreadable"):
        decode.load(tmp_path, "", 8, 1)


def test_several_frames_are_refused():
    file = io.BytesIO()
    frames = [
        Image.fromarray(SMOOTH),
        Image.fromarray(SMOOTH.T.copy()).resize((80, 96)),
    ]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(decode.DecodeError, match="several frames"):
        decode.decode(file.getvalue(), 8, 1)


def dicom(pixels, **tags):
    """A DICOM file around 16-bit pixels."""
    pydicom = pytest.importorskip("pydicom")
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(
        "1.2.840.10008.5.1.4.1.1.1"
    )
    header.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 0
    for name, value in tags.items():
        setattr(header, name, value)
    header.PixelData = pixels.astype("<u2").tobytes()
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_dicom_rescale_window_and_inversion():
    values = np.arange(64 * 64).reshape(64, 64)
    plain = decode.decode(dicom(values), 64, 1)[..., 0].astype(int)
    assert plain[0, 0] == 0 and plain[-1, -1] == 255
    inverted = dicom(values, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(decode.decode(inverted, 64, 1)[..., 0], 255 - plain)
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    scaled = dicom(values, **tags, WindowCenter=[1000, 7], WindowWidth=[2000, 9])
    got = decode.decode(scaled, 64, 1)[..., 0].astype(float)
    want = np.clip(((values * 2.0 - 1000) - 999.5) / 1999 + 0.5, 0, 1) * 255
    assert abs(got - want).max() <= 0.51
    with pytest.raises(decode.DecodeError, match="3 frames"):
        decode.decode(dicom(values, NumberOfFrames=3), 8, 1)
