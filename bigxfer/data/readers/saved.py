"""A manifest that was saved: for sets whose own files take minutes to read."""

from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.tables import SEE, DataError

FILE = "manifest.parquet"


def read(root: str | Path, data: Data) -> Manifest:
    """What Manifest.save wrote to root/manifest.parquet; its paths lie beneath root.

    The label policies are those that it was saved with. Raises DataError where the
    file is absent, damaged, or no manifest.
    """
    import pyarrow as pa  # here, as in Manifest.save

    path = Path(root) / FILE
    if not path.is_file():
        raise DataError(f"{root}: looked for {FILE}, found none; {SEE}")
    try:
        return Manifest.load(path)
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no manifest ({error})") from None
    except ValueError as error:
        raise DataError(str(error)) from None
