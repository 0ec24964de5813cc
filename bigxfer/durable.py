"""Write files that matter: after a crash a file is the old one or the new one, whole.

A file is written under a temporary name in its own folder, brought to the disk (fsync),
renamed to its name, and the folder is brought to the disk too. A reader, or a process
that starts after the power went, never sees a part of it. A writer that is killed may
leave NAME.xxxxxxxx.part behind; nothing reads such files.
"""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SEAL = "sha256"  # the key of an object's own checksum

# What a file system says that cannot bring a folder to the disk by itself (CIFS, FUSE).
NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the place of `path` at the end.

    Where the block raises, the temporary is removed and `path` stays as it was.
    """
    path = Path(path)
    # A name of each writer's own: of two that write at once, the later wins.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        # Before the rename: else a power cut can leave the new name on an empty file.
        sync(temporary)
        temporary.replace(path)
    finally:
        # The rename took the file away; it is still there if the block raised.
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write(path: Path | str, data: bytes | bytearray | str) -> None:
    """Write all of a file; text as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def create(path: Path, data: bytes | str) -> bool:
    """Write a new file; False where one is there already, which stays as it is.

    Of two processes that create the same file exactly one gets True.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        sync(temporary)
        # A link fails where the name is taken, which a rename does not; so on NFS too.
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def write_json(path: Path | str, value: dict[str, Any]) -> None:
    """Write an object as JSON; NaN raises ValueError, since JSON has none."""
    write(path, to_json(value))


def to_json(value: dict[str, Any]) -> str:
    """The text of `write_json`."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: Path | str) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises OSError where it cannot be read, ValueError that names it where it holds no
    JSON object: it is empty, cut short or damaged.
    """
    data = Path(path).read_bytes()
    # Some file systems leave zeros where the power went before the data were written.
    if not data.strip(b" \n\0"):
        raise ValueError(f"{path} is empty: JSON was expected; remove or restore it")
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, it is no JSON ({error}); remove or restore it"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - as all that is wrong with a file
            f"{path} is damaged: a JSON object was expected"
        )
    return value


def write_sealed(path: Path | str, value: dict[str, Any]) -> None:
    """Write an object as JSON with its own checksum, for `read_sealed`."""
    write(path, json.dumps({**value, SEAL: seal(value)}, indent=1) + "\n")


def read_sealed(path: Path | str) -> dict[str, Any]:
    """Read what `write_sealed` wrote; ValueError also where it was changed since."""
    value = read_json(path)
    if value.pop(SEAL, "") != seal(value):
        raise ValueError(f"{path} is not as it was written: its {SEAL} does not fit")
    return value


def seal(value: dict[str, Any]) -> str:
    """The sha256 of what an object says, however its JSON is laid out."""
    # JSON keeps the order of keys, so what is read back gives the same text.
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def sums(folder: Path) -> dict[str, str]:
    """{relative path: sha256} of every file in a folder and the folders in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    # hashlib lets other threads run meanwhile.
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(sha256, files), strict=True))


def check_sums(folder: Path, want: dict[str, str]) -> None:
    """Raise ValueError that names the first file that is not as `sums` found it once."""
    have = sums(folder)
    for name, value in want.items():
        if have.get(name) != value:
            how = "is not as it was written (sha256)" if name in have else "is missing"
            raise ValueError(f"{folder / name} {how}")


def sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path | str) -> None:
    """Bring the content of a file to the disk, whoever wrote it."""
    # A folder can be opened in no other way.
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(path: Path | str) -> None:
    """Bring the names in a folder to the disk, where its file system can."""
    try:
        sync(path)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
