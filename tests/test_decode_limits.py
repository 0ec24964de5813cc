"""Files that ask for too much, that never end, or that no image format of ours is."""

import os
import signal
import socket
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image
from test_cache import manifest
from test_decode import SMOOTH, chunk, encoded, png_16

from bigxfer import config
from bigxfer.config import Data
from bigxfer.data import images, readers
from bigxfer.data.pixels import cache, cache_encoded, decode, dicom, levels
from bigxfer.data.readers import files

ROOT = Path(__file__).parents[1]


class Hang(BaseException):
    """Nothing catches it: TimeoutError is an OSError."""


@contextmanager
def within(seconds, folder=None):
    """Hang where the block takes longer; whoever waits for the folder's FIFOs goes on."""

    def ring(*_):
        for path in folder.rglob("*") if folder else ():
            if path.is_fifo():
                os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# VmHWM, not ru_maxrss, which in a child is at least what its parent held at the fork:
# under a large test process the bomb could take as much unseen.
BOMB = """
import sys, time
from pathlib import Path
from bigxfer.data.pixels import decode
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before, began = peak(), time.monotonic()
try:
    decode.load(Path(sys.argv[1]).parent, Path(sys.argv[1]).name, 280, 1)
except decode.DecodeError as error:
    print(error)
print((peak() - before) * 1024, time.monotonic() - began)
"""


def test_a_png_that_asks_for_more_than_a_gigabyte(tmp_path):
    """0.4 MB on disk, 6,000 x 6,000 pixels in four colours of 16 bits."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("the peak of a process's memory is read from Linux's /proc")
    side, packer = 6000, zlib.compressobj(1)
    lines = b"".join(packer.compress(bytes(1 + side * 8)) for _ in range(side))
    data = png_16(side, side, 6, lines + packer.flush())
    (tmp_path / "bomb.png").write_bytes(data)
    assert len(data) < 2e6
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", BOMB, str(tmp_path / "bomb.png")]
    out = subprocess.check_output(call, text=True, env=env).splitlines()
    assert "6000 x 6000 pixels take 1.6 GB" in out[0]
    memory, seconds = map(float, out[1].split())
    assert memory < 1e8 and seconds < 5


@pytest.mark.parametrize(
    "mode, side, taken",
    [("L", 20000, "1.2"), ("RGB", 11000, "1.1"), ("RGBA", 8000, "1.1")],
)
def test_what_a_pixel_takes_depends_on_its_kind(mode, side, taken, monkeypatch):
    """By their headers alone; Pillow's own limit is out of the way."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    colour = {"L": 0, "RGB": 2, "RGBA": 6}[mode]
    head = struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"")
    with pytest.raises(decode.DecodeError, match=f"pixels take {taken} GB to decode"):
        decode.decode(data, 8, 1)


def test_the_largest_radiographs_fit():
    """A film of 5,928 x 4,728 pixels and 16 bits, or a colour photograph of 50 Mpx."""
    levels.check_size(5928, 4728, dicom.EACH)
    levels.check_size(5928, 4728, decode.DEEP)
    levels.check_size(8688, 5792, decode.CLEAR)


def test_a_huge_file_is_not_read(tmp_path):
    with open(tmp_path / "x.png", "wb") as file:
        file.truncate(3 << 30)
    with (
        within(1),
        pytest.raises(decode.DecodeError, match="3.22 GB; an image file may"),
    ):
        decode.load(tmp_path, "x.png", 8, 1)
    with pytest.raises(decode.DecodeError, match="5.00 GB; an image file may"):
        decode.load(tmp_path, f"x.tar#0+{5 * 10**9}", 8, 1)


@pytest.fixture
def endless(tmp_path):
    """A root with a good image, a FIFO, a link to one, a device and a socket."""
    root = tmp_path / "root"
    root.mkdir()
    Image.fromarray(SMOOTH).save(root / "good.png")
    os.mkfifo(root / "fifo.png")
    (root / "link.png").symlink_to(root / "fifo.png")
    (root / "device.png").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(root / "socket.png"))
    return root


NAMES = ["good.png", "fifo.png", "link.png", "device.png", "socket.png"]


@pytest.mark.parametrize("build", [cache.build, cache_encoded.build])
def test_fifos_and_devices_are_named_at_once(endless, tmp_path, build):
    with within(10, endless):
        built = build(manifest(endless, NAMES), tmp_path / "c", 8, 1, max_bad=1.0)
    assert built.ok.tolist() == [True, False, False, False, False]
    reasons = [reason for _, _, reason in built.bad]
    assert (
        reasons
        == ["unreadable: a FIFO, not a file"] * 2
        + ["unreadable: a device or socket, not a file"] * 2
    )


def test_fifos_inside_containers_and_beside_dicom_files(endless):
    os.mkfifo(endless / "x.h5")
    os.mkfifo(endless / "x.tar")
    os.mkfifo(endless / "1.2.840")
    with within(10, endless):
        for path in ("x.h5#0", "x.tar#0+10"):
            with pytest.raises(decode.DecodeError, match="a FIFO"):
                decode.load(endless, path, 8, 1)
        assert not files.is_dicom(endless / "1.2.840")
        with pytest.raises(readers.DataError, match="fifo.dcm"):
            for name in ("a", "b"):
                (endless / name).mkdir()
                os.mkfifo(endless / name / "fifo.dcm")
            readers.read(Data(reader="dicom", root=str(endless), views=()))


def test_only_the_formats_that_we_name_are_opened(monkeypatch):
    ran = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: ran.append(a))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with pytest.raises(decode.DecodeError, match="not an image .PNG, JPEG"):
        decode.decode(eps + b"showpage\n%%EOF\n" + bytes(200), 8, 1)
    assert ran == []
    with pytest.raises(decode.DecodeError, match="not an image"):
        decode.decode(encoded(SMOOTH, "TGA"), 8, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_the_formats_that_we_name_are_opened(kind):
    assert decode.decode(encoded(SMOOTH, kind), 8, 1).shape == (8, 8, 1)


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded():
    """Each scan is a pass over the whole image: some kB may ask for hours."""
    data = encoded(SMOOTH, "JPEG", progressive=True)
    last = data.rindex(decode.START_OF_SCAN)
    few, many = (data[:last] + data[last:-2] * n + data[-2:] for n in (20, 1000))
    assert decode.decode(few, 8, 1).shape == (8, 8, 1)
    with pytest.raises(decode.DecodeError, match=r"10\d\d scans.*64 at most"):
        decode.decode(many, 8, 1)


OUTSIDE = ["../secret.png", "/etc/passwd", "img/../../secret.png", "..", "x/.."]


def listing(root, path):
    root.mkdir()
    (root / "metadata.csv").write_text(
        f"file,label,patient_id,split\n{path},a,1,train\nother.png,b,2,test\n"
    )
    return root


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_label_file_cannot_lead_out_of_the_root(tmp_path, path):
    data = Data(reader="csv", root=str(listing(tmp_path / "root", path)), views=())
    with pytest.raises(readers.DataError, match="outside") as error:
        readers.read(data)
    assert repr(path) in str(error.value)
    assert "--config.data.outside=true" in str(error.value)
    data.outside = True
    assert readers.read(data).path[0] == path


def test_dots_in_a_name_and_links_within_the_root_are_fine(tmp_path):
    root = listing(tmp_path / "root", "a..b/c...png")
    assert len(readers.read(Data(reader="csv", root=str(root), views=()))) == 2
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(SMOOTH).save(tmp_path / "elsewhere" / "x.png")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    assert decode.load(root, "link/x.png", 8, 1).shape == (8, 8, 1)


def test_where_images_lie_is_not_in_the_digest():
    runs = [config.Run(data=Data(outside=o)) for o in (False, True)]
    assert config.digest(runs[0]) == config.digest(runs[1])


@pytest.mark.parametrize("path", OUTSIDE[:3])
def test_the_list_of_predict_cannot_lead_out_of_its_folder(tmp_path, path):
    (tmp_path / "list.csv").write_text(f"file\nfine.png\n{path}\n")
    with pytest.raises(readers.DataError, match="line 3.*outside.*--outside"):
        images.listed(tmp_path / "list.csv")
    found = images.listed(tmp_path / "list.csv", outside=True)
    assert found == (tmp_path, ["fine.png", path])
