"""What launch/slurm.py has to know of a cluster; launch/profiles/ has examples."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bigxfer.config import ConfigError, Run


def one(run: Run) -> int:
    """Return 1: every run in a single process."""
    return 1


@dataclass(frozen=True)
class Profile:
    """One partition, and how much of it a study may take."""

    partition: str
    account: str = ""
    gpus: int = 4  # of a node; 0: none
    workers: int = 4  # of a node, one run each; as many as there are GPUs
    cpus: int = 48  # cores of a node
    nodes: int = 8  # at most, in jobs of one node each
    minutes: int = 24 * 60  # time limit of a job
    lead: int = 300  # seconds before it at which the runs are told to save
    poll: float = 30.0  # seconds between two looks at the queue
    patience: float = 120.0  # seconds without a ready run after which a node is left
    tasks: Callable[[Run], int] = one  # processes, one a GPU, over which a run spreads
    setup: tuple[str, ...] = ()  # shell lines before the work
    sbatch: dict[str, str] = field(default_factory=dict)  # more options, by long name


def load(path: str) -> Profile:
    """The PROFILE of a Python file; ConfigError where there is none.

    The shipped profiles are found by their names from anywhere.
    """
    if not Path(path).is_file():
        shipped = Path(__file__).parent / "profiles" / Path(path).name
        path = str(shipped) if shipped.is_file() else path
    if not Path(path).is_file():
        raise ConfigError(f"there is no profile {path}; see launch/profiles/")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    profile = getattr(module, "PROFILE", None)
    if not isinstance(profile, Profile):
        raise ConfigError(f"{path} has no PROFILE = Profile(...) (launch/profile.py)")
    if profile.gpus and profile.workers > profile.gpus:
        raise ConfigError(f"{path}: {profile.workers} workers, but {profile.gpus} GPUs")
    return profile
