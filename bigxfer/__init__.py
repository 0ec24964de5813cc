"""bigxfer: scaling studies of transfer learning in medical imaging.

load(run) opens a finished run, table(study) reads the table of a study; docs/python_api.md.
Nothing else is imported until one of them is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigxfer.api import Net, load, table

__version__ = "0.1.0"
__all__ = ["Net", "__version__", "load", "table"]


# Every `python -m bigxfer.X --help` imports this file: numpy and pyarrow can wait.
def __getattr__(name: str) -> Any:
    if name in ("Net", "load", "table"):
        from bigxfer import api

        return getattr(api, name)
    raise AttributeError(f"module 'bigxfer' has no attribute {name!r}")
