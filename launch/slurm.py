"""Runs a study on a Slurm cluster.

  python -m launch.slurm --config configs/study_X.py --profile PROFILE --dry-run
  python -m launch.slurm --config configs/study_X.py \\
      --profile launch/profiles/juwels_booster.py --account PROJECT

Start it on a login node, in tmux, and from the repository's root. It submits jobs of
one node (by submitit), each of which packs one run on every GPU and takes the next
ready run until its time is nearly up; a run that the profile spreads over several
tasks gets a job of its own. Preempted, requeued and timed-out jobs save what they are
at and go on. It submits more while runs are ready, and ends with the table when all
are done; exit status 1 if any run was given up.

It may be killed at any time: its jobs go on, and the same command finds them again.
Ctrl-C leaves them in the queue as well (scancel --me --name NAME ends them; the name
is printed first). --dry-run prints the scripts and submits nothing.
"""

import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import app, flags

from bigxfer import cli, config
from bigxfer.study import grid
from launch import local, node, pool
from launch.profile import Profile, load

FRUITLESS = 3  # rounds of jobs that ended without having taken any run
DEAF = 10  # polls in a row at which Slurm did not answer: it may be restarting


def main(argv: list[str]) -> None:
    f = flags.FLAGS
    if argv[1:] or not f.config or not f.profile:
        raise app.UsageError("--config FILE and --profile FILE are needed")
    try:
        study, profile = grid.nodes(f.config), load(f.profile)
    except config.ConfigError as error:
        sys.exit(f"error: {error}")
    profile = replace(profile, account=f.account or profile.account)
    launch = Launch(f.config, Path(f.runs).absolute(), study, profile, f.hang)
    try:
        # For its errors, before anything is submitted.
        launch.parameters(launch.name)
    except config.ConfigError as error:
        sys.exit(f"error: {error}")
    if f.dry_run:
        launch.dry_run()
        return
    launch.watch()
    sys.exit(local.conclude(study, f.config, Path(f.runs)))


class Launch:
    """A study on a cluster: its jobs are known by their names, its runs by folders."""

    def __init__(
        self,
        path: str,
        runs: Path,
        study: list[grid.Node],
        profile: Profile,
        hang: float,
    ) -> None:
        self.path, self.runs, self.study = path, runs, study
        self.profile, self.hang = profile, hang
        # The same command has the same name, and so finds its jobs in the queue again.
        here = hashlib.sha256(f"{path} {runs}".encode()).hexdigest()[:8]
        self.name = f"bigxfer-{here}"
        self.small = [n for n in study if self.tasks(n) == 1]
        self.large = [n for n in study if self.tasks(n) > 1]
        self.done: set[str] = set()
        self.fruitless, self.deaf, self.seen = 0, 0, -1

    def tasks(self, n: grid.Node) -> int:
        return 1 if n.kind == "cache" else self.profile.tasks(n.run)

    def watch(self) -> None:
        """Submits and waits until nothing is left to do."""
        print(f"jobs: {self.name}; their output: {self.runs / 'slurm'}", flush=True)
        began, before = time.monotonic(), []
        grid.reopen(self.study, self.runs)
        while True:
            states = grid.states(self.study, self.runs, self.done)
            for line in news(before, states):
                elapsed = pool.clock(time.monotonic() - began)
                print(f"[{len(self.done)}/{len(states)}] {elapsed}  {line}")
            sys.stdout.flush()
            before = states
            if all(s.state in ("done", "given up") for s in states):
                return
            try:
                self.submit_missing(states, jobs(self.name))
                self.deaf = 0
            except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
                # The jobs go on meanwhile: a scheduler that restarts ends no study.
                self.deaf += 1
                said = str(getattr(error, "stderr", "") or error).strip()
                print(f"Slurm: {said}", file=sys.stderr, flush=True)
                if self.deaf == DEAF:
                    sys.exit(f"error: Slurm refused {DEAF} times in a row, see above")
            time.sleep(self.profile.poll)

    def submit_missing(self, states: list[grid.Standing], queued: list[str]) -> None:
        """One job for each large run that is ready, and nodes for the small ones."""
        # Grows with every run that a job takes: else jobs end before they work.
        tried = sum(len(s.tries) for s in states) + len(self.done)
        ready = {s.node.digest for s in states if s.state in ("ready", "failed")}
        running = {s.node.digest for s in states if s.state == "running"}
        submitted = 0
        for n in self.large:
            name = f"{self.name}-{n.digest}"
            if n.digest in ready and name not in queued:
                self.submit(self.large_job(n), 1)
                submitted += 1
        small = {n.digest for n in self.small}
        if small & ready:
            # Running runs have workers already, so that nodes for all are counted;
            # rounded up.
            wanted = -(-len(small & (ready | running)) // self.profile.workers)
            missing = min(wanted, self.profile.nodes) - queued.count(self.name)
            if missing > 0:
                self.submit(self.small_job(), missing)
                submitted += 1
        if submitted:
            self.fruitless = self.fruitless + 1 if tried == self.seen else 0
            self.seen = tried
            if self.fruitless == FRUITLESS:
                sys.exit(
                    f"error: {FRUITLESS} times in a row jobs ended before they took a"
                    f" run; what they said is in {self.runs / 'slurm'}"
                )

    def submit(self, job: tuple[node.Work, dict[str, Any]], count: int) -> None:
        """`count` jobs of one kind, as an array where there are several."""
        set_signal()
        import submitit

        work, parameters = job
        # submitit's default, three time-outs of a job, is too few for a long study.
        executor = submitit.SlurmExecutor(self.runs / "slurm", max_num_timeout=1000)
        executor.update_parameters(**parameters)
        with executor.batch():
            for _ in range(count):
                executor.submit(work)
        print(f"submitted {count} x {parameters['job_name']}", flush=True)

    def dry_run(self) -> None:
        """Prints the script of each kind of job."""
        set_signal()
        from submitit.slurm import slurm

        kinds = [self.small_job()] if self.small else []
        kinds += [self.large_job(n) for n in self.large]
        for _, parameters in kinds:
            command = f"{sys.executable} -u -m submitit.core._submit {self.runs}/slurm"
            print(slurm._make_sbatch_string(command, self.runs / "slurm", **parameters))
        print(f"# at most {self.profile.nodes} of the first, {len(self.small)} runs")

    def small_job(self) -> tuple[node.Work, dict[str, Any]]:
        """A node with a pool of workers."""
        p, digests = self.profile, tuple(n.digest for n in self.small)
        work = self.work(digests, p.workers)
        how: dict[str, Any] = {"nodes": 1, "ntasks_per_node": 1}
        how["cpus_per_task"] = p.cpus  # which srun no longer inherits, as of 22.05
        how["srun_args"] = [f"--cpus-per-task={p.cpus}"]
        return work, {**self.parameters(self.name), **how}

    def large_job(self, n: grid.Node) -> tuple[node.Work, dict[str, Any]]:
        """A run over several tasks; the job's first machine calls srun for it."""
        p, tasks = self.profile, self.tasks(n)
        each = min(tasks, p.gpus or tasks)  # tasks of a node; each sees all its GPUs
        cpus = max(1, p.cpus // each)
        # Without it the tasks that are left would wait for the one that died.
        srun = ("srun", "--kill-on-bad-exit=1", f"--cpus-per-task={cpus}")
        how = {"nodes": -(-tasks // each), "ntasks_per_node": each}
        # Not within submitit's own srun: node.Work calls srun itself.
        how |= {"cpus_per_task": cpus, "use_srun": False}
        work = self.work((n.digest,), 1, srun)
        return work, {**self.parameters(f"{self.name}-{n.digest}"), **how}

    def work(
        self, digests: tuple[str, ...], workers: int, srun: tuple[str, ...] = ()
    ) -> node.Work:
        p = self.profile
        # Half a minute of the lead is left to requeue the job.
        grace = max(5.0, p.lead - 30.0)
        runs = str(self.runs)
        return node.Work(
            self.path, runs, digests, workers, self.hang, p.patience, grace, srun
        )

    def parameters(self, name: str) -> dict[str, Any]:
        """What sbatch is told of every job."""
        p, root = self.profile, Path(__file__).parents[1]
        out: dict[str, Any] = {
            "job_name": name,
            "partition": p.partition,
            "time": p.minutes,
            "signal_delay_s": p.lead,
            "stderr_to_stdout": True,
            "setup": [
                f'export PYTHONPATH={shlex.quote(str(root))}:"$PYTHONPATH"',
                # In the job too, where submitit sets its handler by it.
                "export SUBMITIT_PREEMPT_SIGNAL=TERM",
                *p.setup,
            ],
            # Else the cluster decides whether a job may be requeued.
            "additional_parameters": {"requeue": True, **p.sbatch},
        }
        if p.account:
            out["account"] = p.account
        for key, text in {**out, **p.sbatch, "runs": str(self.runs)}.items():
            if isinstance(text, str) and not text.isprintable():  # a line of its own
                raise config.ConfigError(
                    f"{key} holds a line break or the like: {text!r}"
                )
        if p.gpus:
            out["gres"] = f"gpu:{p.gpus}"
        return out


def set_signal() -> None:
    """Have submitit, which reads it when it is imported, use SIGTERM in place of USR2."""
    # SIGTERM also comes at a preemption, and by it jax's processes agree on a step.
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "TERM"


def news(before: list[grid.Standing], now: list[grid.Standing]) -> Iterator[str]:
    """A line for each run that has come to an end, good or bad, between two looks."""
    for old, new in zip(before, now):
        changed = (old.state, len(old.tries)) != (new.state, len(new.tries))
        if changed and new.state in ("done", "failed", "given up"):
            yield f"{new.node}  {new.node.digest}  {new.state} {new.error}".rstrip()


def jobs(name: str) -> list[str]:
    """The names of our jobs of this study that are queued or running."""
    # --array: a line for each job of an array, also while it is pending.
    call = ["squeue", "--me", "--noheader", "--array", "--format=%j"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.split() if line.startswith(name)]


if __name__ == "__main__":
    flags.DEFINE_string("config", "", "The study: a config file with a sweep().")
    flags.DEFINE_string("profile", "", "The cluster: a file of launch/profiles/.")
    flags.DEFINE_string("account", "", "The account, where the profile has none.")
    flags.DEFINE_string("runs", "runs", "The folder of all run folders.")
    flags.DEFINE_float("hang", 1800, "Seconds without a sign of a run that hangs.", 1)
    flags.DEFINE_bool("dry_run", False, "Print the scripts, submit nothing.")
    app.run(main, flags_parser=cli.parse)
