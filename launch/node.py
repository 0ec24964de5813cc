"""What a Slurm job of launch/slurm.py does: a pool of workers on its node, or one run
that spreads over its tasks.

Slurm tells a job by SIGTERM that its time is nearly up, or that others need the node:
the runs save, and the job puts itself back into the queue if anything is left to do.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bigxfer.study import claims, grid
from launch import pool, shares


@dataclass(frozen=True)
class Work:
    """These nodes of a study; submitit calls it on the first machine of the job."""

    config: str
    runs: str
    digests: tuple[str, ...]
    workers: int
    hang: float
    patience: float
    grace: float  # seconds from SIGTERM on
    srun: tuple[
        str, ...
    ] = ()  # before the worker's command, where a run has many tasks

    def __call__(self) -> None:
        # By digest: the config may have been edited while the job was queued.
        study = [n for n in grid.nodes(self.config) if n.digest in self.digests]
        if len(study) != len(self.digests):
            raise ValueError(f"{self.config} has changed since this job was submitted")
        command = [*self.srun, *pool.worker_command(self.config, Path(self.runs))]
        workers = pool.Pool(
            study,
            Path(self.runs),
            command,
            shares.share_out(os.environ, self.workers),
            self.hang,
            patience=self.patience,
            grace=self.grace,
            leave=True,
            pass_on=not self.srun,
        )

        def on_term(*_: object) -> None:
            workers.stopping = True

        signal.signal(signal.SIGTERM, on_term)
        workers.run()
        states = grid.states(study, workers.runs)
        # Waiting runs need one of these first, so they do not count by themselves.
        left = [s for s in states if s.state in ("running", "ready", "failed")]
        if workers.stopping and left:
            requeue(claims.job_id(os.environ))


def requeue(job: str) -> None:
    """Put this job back into the queue, which ends it."""
    # Not check=True: Slurm may have requeued it already, and refuses to do so again.
    done = subprocess.run(
        ["scontrol", "requeue", job], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"job {job} is not requeued: {done.stderr.strip()}", file=sys.stderr)
