"""Download data sets that are free to download, each file compared with its checksum.

  python -m bigxfer.data.fetch medmnist:chestmnist_64 [medmnist:pneumoniamnist_64 ...] --out DIR

The same command again goes on where a download stopped, and leaves whole files alone.
"""

import argparse
import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Any

import pooch
import requests

from bigxfer.config import dry_run, nearest
from bigxfer.data.readers import medmnist

# Of all files of MedMNIST+, by INFO of the package medmnist 3.0.2.
ADDRESS = "https://zenodo.org/records/10519652/files/{name}.npz?download=1"
BLOCK = 1 << 16  # bytes that are written at once; what breaks off loses at most these
PATIENCE = 30  # seconds without an answer after which the network counts as lost
EACH = 10  # seconds between lines of progress


class FetchError(Exception):
    """A download that failed; the message says what to do."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.data.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sets", nargs="+", metavar="medmnist:NAME", help="what to fetch"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    dry_run.add(parser)
    args = parser.parse_args()
    try:
        names = [file_name(text) for text in args.sets]  # before anything is downloaded
        if args.dry_run:
            rehearse(names, args.out)
            return
        for name in names:
            print(fetch(name, args.out))
    except (FetchError, OSError) as error:
        sys.exit(f"error: {error}")
    print(
        f"read it with --config.data.reader=medmnist --config.data.root={args.out}"
        f" --config.data.version={names[-1]}"
    )


def file_name(text: str) -> str:
    """ "chestmnist_64" of "medmnist:chestmnist_64"; FetchError where there is no such file."""
    source, _, name = text.partition(":")
    known = [n for set_name in medmnist.SETS for n in medmnist.names(set_name)]
    if source != "medmnist" or name not in known:
        hint = nearest(name or source, known)
        raise FetchError(
            f"{text!r} is nothing to fetch: medmnist:NAME is expected{hint}. How to obtain"
            " other sets stands in docs/datasets.md"
        )
    return name


def rehearse(names: list[str], out: Path) -> None:
    """Say which files would be downloaded, and which are there already."""
    lacking = []
    for name in names:
        path = out / f"{name}.npz"
        if path.is_file() and pooch.file_hash(str(path), "md5") == checksum(name):
            print(f"{path} is there and whole")
        else:
            print(f"would download {ADDRESS.format(name=name)}")
            lacking.append(path)
    dry_run.end(*lacking)


def checksum(name: str) -> str:
    """The MD5 of a file of MedMNIST+, in hex."""
    known = medmnist.SETS[name.partition("_")[0]]
    return known.md5[medmnist.names(name.partition("_")[0]).index(name)]


def fetch(name: str, out: Path) -> Path:
    """The path of the file in `out`, downloaded unless it is there and whole.

    Raises FetchError where the network or the checksum fails, OSError where the file
    cannot be written.
    """
    url, md5 = ADDRESS.format(name=name), checksum(name)
    out.mkdir(parents=True, exist_ok=True)
    by_hand = (
        f"By hand: download {url} on another machine, put it at {out / name}.npz, and give"
        f" the command again, which compares it with its MD5, {md5}"
    )
    try:
        file = pooch.retrieve(
            url, f"md5:{md5}", f"{name}.npz", out, downloader=Resuming(out)
        )
    except requests.RequestException as error:
        raise FetchError(
            f"{url} cannot be reached, or stopped answering ({error}). The same command"
            f" goes on where it stopped. {by_hand}"
        ) from None
    except ValueError as error:  # pooch's word for another checksum
        raise FetchError(
            f"what {url} sent is not the published file, and was removed ({error})."
            f" Give the command again. {by_hand}"
        ) from None
    return Path(file)


class Resuming:
    """A downloader for pooch, whose own begins every file anew.

    Keeps what has come in FOLDER/NAME.partial, and asks the server for the rest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, fname: str, action: Any, pooch: Any, *, check_only: bool | None = None
    ) -> None:
        """Download the url `fname` to the file `action`, as pooch calls the two."""
        name = fname.rpartition("/")[2].partition("?")[0]
        partial = self.folder / f"{name}.partial"
        with partial.open("ab") as file:  # append: what a killed download left stays
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FetchError(
                    f"another process downloads {partial}; wait for it"
                ) from None
            download(fname, file)
            # Still locked, so that no other process goes on with the file moved away.
            os.replace(partial, action)


def download(url: str, file: Any) -> None:
    """Append to the open file what it lacks of the url; requests.RequestException."""
    have = file.tell()
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=PATIENCE) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            whole = f"bytes */{have}" == answer.headers.get("Content-Range")
            if not whole:  # longer than the file of the server: it is another file
                file.truncate(file.seek(0))
                download(url, file)
            return
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            # the server begins anew, whatever was asked for
            have = file.truncate(file.seek(0))
        total = have + int(answer.headers.get("Content-Length", 0))
        said = time.monotonic()
        for block in answer.iter_content(BLOCK):
            file.write(block)
            have += len(block)
            if time.monotonic() - said > EACH:
                said = time.monotonic()
                print(f"{file.name}: {have / 1e6:,.0f} of {total / 1e6:,.0f} MB")
        file.flush()
    if have < total:
        raise requests.ConnectionError(f"{have:,} of {total:,} bytes came")


if __name__ == "__main__":
    main()
