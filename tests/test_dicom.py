"""DICOM: what is present but empty, windows, padding, polarity, codecs, bombs."""

import importlib.util
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from test_decode import dicom

from bigxfer.data.pixels import containers, decode

pydicom = pytest.importorskip("pydicom")

CASES = Path(__file__).parents[2] / "shared" / "cases" / "dicom"
RAMP = np.broadcast_to(np.arange(64) * 64, (64, 64)).copy()  # left to right, 0 to 4032


def decoded(pixels, size=64, **tags):
    return decode.decode(dicom(pixels, **tags), size, 1)[..., 0].astype(int)


def test_the_ramps_of_the_shared_cases():
    if not CASES.is_dir():
        pytest.skip("needs ../shared/cases")
    for name in ("window_empty", "rescale_empty", "padding_4095"):
        row = decode.load(CASES, f"{name}.dcm", 64, 1)[32, :, 0].astype(int)
        assert abs(row[[2, 32, 61]] - [8, 130, 247]).max() <= 3, name


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": 2000, "WindowWidth": None},
        {"WindowCenter": "", "WindowWidth": ""},
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"RescaleSlope": 3, "RescaleIntercept": None},
        {"NumberOfFrames": None},
        {"VOILUTFunction": ""},
        {"VOILUTSequence": []},
        {"ModalityLUTSequence": []},
        {"PixelPaddingValue": None},
        {"PixelPaddingRangeLimit": None},
        {"PresentationLUTShape": ""},
    ],
    ids=lambda tags: "+".join(tags),
)
def test_what_is_present_but_empty_counts_as_absent(tags):
    np.testing.assert_array_equal(decoded(RAMP, **tags), decoded(RAMP))


def test_an_empty_function_of_a_window_is_linear():
    window = {"WindowCenter": 1000, "WindowWidth": 500}
    want = decoded(RAMP, **window)
    np.testing.assert_array_equal(decoded(RAMP, **window, VOILUTFunction=""), want)
    assert (want == 0).any() and (want == 255).any()


@pytest.mark.parametrize(
    "tag", ["Rows", "PhotometricInterpretation", "BitsAllocated", "PixelData"]
)
def test_without_what_must_be_there_the_reason_names_it(tag):
    header = pydicom.dcmread(io.BytesIO(dicom(RAMP)))
    header[tag].value = None
    file = io.BytesIO()
    header.save_as(file)
    with pytest.raises(decode.DecodeError, match=f"(?i){tag[:4]}|without"):
        decode.decode(file.getvalue(), 8, 1)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [0, -5])
def test_a_window_of_no_width_counts_as_absent(function, width):
    tags = {"WindowCenter": 1000, "WindowWidth": width, "VOILUTFunction": function}
    np.testing.assert_array_equal(decoded(RAMP, **tags), decoded(RAMP))


def test_the_first_window_that_has_a_width_is_taken():
    want = decoded(RAMP, WindowCenter=3000, WindowWidth=800)
    got = decoded(RAMP, WindowCenter=[1000, 3000, 7], WindowWidth=[0, 800, 9])
    np.testing.assert_array_equal(got, want)
    exact = {"VOILUTFunction": "LINEAR_EXACT"}
    want = decoded(RAMP, WindowCenter=3000, WindowWidth=800, **exact)
    got = decoded(RAMP, WindowCenter=[1000, 3000], WindowWidth=[0, 800], **exact)
    np.testing.assert_array_equal(got, want)


def bordered(value, dtype="<u2"):
    """The ramp with a border of 8 pixels of this value."""
    out = RAMP.astype(dtype)
    border = np.ones(out.shape, bool)
    border[8:-8, 8:-8] = False
    out[border] = np.array(value).astype(dtype)
    return out, border


@pytest.mark.parametrize(
    "value, tags",
    [
        (65000, {"PixelPaddingValue": 65000}),
        (64000, {"PixelPaddingValue": 63000, "PixelPaddingRangeLimit": 65000}),
        (64000, {"PixelPaddingValue": 65000, "PixelPaddingRangeLimit": 63000}),
        (
            65000,
            {"PixelPaddingValue": 65000, "RescaleSlope": 2, "RescaleIntercept": -9},
        ),
    ],
)
def test_padding_is_black_and_outside_the_percentiles(value, tags):
    pixels, border = bordered(value)
    inside = decoded(RAMP[8:-8, 8:-8], 48)
    for kind, want in (("MONOCHROME2", inside), ("MONOCHROME1", 255 - inside)):
        got = decoded(pixels, PhotometricInterpretation=kind, **tags)
        assert (got[border] == 0).all()
        assert abs(got[8:-8, 8:-8] - want).max() <= 1


def test_padding_with_a_window_or_a_function():
    pixels, border = bordered(4000)
    for function in ("LINEAR", "SIGMOID"):
        tags = {"WindowCenter": 2000, "WindowWidth": 4000, "VOILUTFunction": function}
        got = decoded(pixels, PixelPaddingValue=4000, **tags)
        assert (got[border] == 0).all() and got[~border].max() > 200


def test_signed_padding_written_as_unsigned():
    pixels, border = bordered(-2000, "<i2")
    signed = {"PixelRepresentation": 1}
    data = dicom(pixels, **signed, PixelPaddingValue=-2000)
    got = decode.decode(data, 64, 1)[..., 0]
    assert (got[border] == 0).all() and (got[8:-8, 8] < 3).all()
    unsigned = data.replace(b"\x28\x00\x20\x01SS", b"\x28\x00\x20\x01US")
    assert unsigned != data
    np.testing.assert_array_equal(decode.decode(unsigned, 64, 1)[..., 0], got)


def test_nothing_but_padding_is_black():
    got = decoded(np.full((64, 64), 700), PixelPaddingValue=700)
    assert (got == 0).all()


@pytest.mark.parametrize(
    "kind, shape, inverted",
    [
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "INVERSE", True),  # as PS3.3, C.8.11.3 wants it in a DX image
        ("MONOCHROME1", "IDENTITY", True),
    ],
)
def test_polarity(kind, shape, inverted):
    got = decoded(RAMP, PhotometricInterpretation=kind, PresentationLUTShape=shape)
    want = decoded(RAMP)
    np.testing.assert_array_equal(got, 255 - want if inverted else want)


def compressed(frame, syntax, **tags):
    """A DICOM file of 64 x 64 pixels around an encoded frame."""
    header = pydicom.dcmread(io.BytesIO(dicom(RAMP, **tags)))
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    header.PixelData = pydicom.encaps.encapsulate([frame])
    header["PixelData"].VR = "OB"
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "syntax, name, package, module",
    [
        ("1.2.840.10008.1.2.4.70", "JPEG Lossless", "GPLv3", "libjpeg"),
        ("1.2.840.10008.1.2.4.57", "JPEG Lossless", "GPLv3", "libjpeg"),
        ("1.2.840.10008.1.2.4.51", "JPEG Extended", "GPLv3", "libjpeg"),
        ("1.2.840.10008.1.2.4.80", "JPEG-LS", "GPLv3", "libjpeg"),
        ("1.2.840.10008.1.2.4.201", "High-Throughput", "images", "openjpeg"),
        ("1.2.840.10008.1.2.4.90", "JPEG 2000", "images", "openjpeg"),
    ],
)
def test_the_codec_that_a_file_needs_is_named(
    syntax, name, package, module, monkeypatch
):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == module else real(n, *a)
    )
    with pytest.raises(decode.DecodeError, match=f"{name}.*pip install.*{package}"):
        decode.decode(compressed(b"\xff\xd8no codec", syntax), 64, 1)


def test_signed_jpeg_2000_of_16_bits_comes_out_as_the_plain_file():
    openjpeg = pytest.importorskip("openjpeg.utils")
    values = (RAMP - 1000).astype(np.int16)
    frame = openjpeg.encode_array(values, bits_stored=16)
    signed = {"PixelRepresentation": 1}
    got = decode.decode(compressed(frame, "1.2.840.10008.1.2.4.90", **signed), 64, 1)
    want = decode.decode(dicom(values.astype("<i2"), **signed), 64, 1)
    np.testing.assert_array_equal(got, want)


def test_too_large_an_image_is_refused_before_it_is_decoded():
    data = dicom(RAMP, Rows=20000, Columns=20000)
    with pytest.raises(decode.DecodeError, match="20000 x 20000 pixels take 8.8 GB"):
        decode.decode(data, 8, 1)


def test_a_deflated_bomb(monkeypatch):
    plain = pydicom.dcmread(io.BytesIO(dicom(np.zeros((1024, 1024)))))
    plain.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    file = io.BytesIO()
    plain.save_as(file, enforce_file_format=True)
    data = file.getvalue()
    assert len(data) < 5000 and (decode.decode(data, 8, 1) == 0).all()
    inflated, real = [], zlib.decompress
    monkeypatch.setattr(
        zlib, "decompress", lambda *a, **k: inflated.append(1) or real(*a, **k)
    )
    monkeypatch.setattr(containers, "LARGEST", 1 << 20)
    with pytest.raises(decode.DecodeError, match="deflated from"):
        decode.decode(data, 8, 1)
    assert not inflated
