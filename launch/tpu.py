"""Runs a study on Cloud TPU slices: prints the gcloud commands, or runs them with --go.

  python -m launch.tpu --config configs/study_X.py --project P --zone us-west4-a \\
      --type v5litepod-8 --slices 4 --nfs 10.0.0.2:/share --repo URL --spot
  ... --type v5litepod-64 --only DIGEST         one run over all hosts of one slice

Each slice is a queued resource NAME-0, NAME-1, ... that mounts the same NFS share (a
Filestore), which holds the runs. Slices of one host share a study: each runs
launch.local, and takes whatever run nobody has. With --only all hosts of one slice do a
single run together, such as an upstream that is too large for one host: start that
first. Digests stand in the output of `python -m bigxfer.study list`.

Spot slices that are taken away are deleted, asked for again, and go on. With --go the
slices are deleted at the end; until then they cost what Google asks for them. Never run
by us on a TPU: the commands follow Google's documentation, and are tested as text.
"""

import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from absl import app, flags

from bigxfer import cli, config
from bigxfer.study import grid

RUNTIMES = {  # cloud.google.com/tpu/docs/runtimes, for JAX
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
OLDER = "tpu-ubuntu2204-base"  # v4 and before
GONE = ("SUSPENDED", "FAILED")  # states from which a request does not come back
ROUNDS = 50  # of one slice: asked for, set up, at work; a spot slice may need many
PYTHON = ".venv/bin/python"
MOUNT = "/mnt/bigxfer"
HASHED = "--require-hashes"  # of pip and uv: nothing is installed that no lock names
LOCKS = "-r requirements.lock -r launch/requirements-tpu.lock"

# Who is who among the hosts of a slice, as jax.distributed wants it (processes.arguments).
HOSTS = """
meta() { curl -s -H 'Metadata-Flavor: Google' \
http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1; }
hosts=$(meta worker-network-endpoints | tr , '\\n' | cut -d: -f3)
export JAX_PROCESS_ID=$(meta agent-worker-number)
export JAX_NUM_PROCESSES=$(echo "$hosts" | wc -l)
export JAX_COORDINATOR_ADDRESS=$(echo "$hosts" | head -n 1):8476
"""


@dataclass(frozen=True)
class Slice:
    """The gcloud commands of one slice, in the order of its life."""

    name: str
    project: str
    zone: str
    kind: str  # such as v5litepod-8
    spot: bool
    setup: str  # shell, on every host
    work: str

    def gcloud(self, group: str, *words: str) -> list[str]:
        where = [f"--project={self.project}", f"--zone={self.zone}"]
        return ["gcloud", "compute", "tpus", group, *words, *where]

    def create(self) -> list[str]:
        runtime = RUNTIMES.get(self.kind.partition("-")[0], OLDER)
        return self.gcloud(
            *("queued-resources", "create", self.name, f"--node-id={self.name}"),
            *(f"--accelerator-type={self.kind}", f"--runtime-version={runtime}"),
            *(["--spot"] if self.spot else []),
        )

    def describe(self) -> list[str]:
        how = "--format=value(state.state)"
        return self.gcloud("queued-resources", "describe", self.name, how)

    def ssh(self, command: str) -> list[str]:
        how = ("--worker=all", f"--command={command}")
        return self.gcloud("tpu-vm", "ssh", self.name, *how)

    def delete(self) -> list[str]:
        how = ("--force", "--quiet")
        return self.gcloud("queued-resources", "delete", self.name, *how)


def main(argv: list[str]) -> None:
    f = flags.FLAGS
    names = ("config", "project", "zone", "type", "nfs", "repo")
    missing = [name for name in names if not f[name].value]
    if argv[1:] or missing:
        raise app.UsageError(f"--{' --'.join(missing or argv[1:])}: missing or unknown")
    try:
        known = {node.digest for node in grid.nodes(f.config)}
    except config.ConfigError as error:
        sys.exit(f"error: {error}")
    if f.only and f.only not in known:
        sys.exit(f"error: {f.config} has no run {f.only}")
    if f.only and f.slices > 1:
        sys.exit("error: --only is one run, on one slice")
    work = one_run(f.config, f.only) if f.only else whole_study(f.config)
    slices = [
        Slice(
            *(f"{f.name}-{n}", f.project, f.zone, f.type, f.spot),
            *(setup(f.repo, f.commit, f.nfs), work),
        )
        for n in range(f.slices)
    ]
    if not f.go or f.dry_run:
        for s in slices:
            print_commands(s)
        return
    with ThreadPoolExecutor(len(slices)) as pool:
        failed = [s.name for s, ok in zip(slices, pool.map(keep, slices)) if not ok]
    sys.exit(f"error: not finished: {', '.join(failed)}" if failed else 0)


def setup(repo: str, commit: str, nfs: str) -> str:
    """Shell: the code, its environment, and the share, on a new host or an old one."""
    return "\n".join(
        (
            # Each line can be repeated: a slice that comes back may be half set up.
            "set -e",
            "sudo apt-get -qq update && sudo apt-get -qq install -y nfs-common",
            f"sudo mkdir -p {MOUNT}",
            f"mountpoint -q {MOUNT} || sudo mount {shlex.quote(nfs)} {MOUNT}",
            f"[ -d bigxfer ] || git clone -q {shlex.quote(repo)} bigxfer",
            f"cd bigxfer && git fetch -q && git checkout -q {shlex.quote(commit)}",
            # uv brings the newer Python that the host lacks
            f"python3 -m pip install -q --user {HASHED} -r launch/requirements-uv.lock",
            "~/.local/bin/uv venv -q --allow-existing --python 3.12 .venv",
            f"~/.local/bin/uv pip install -q {HASHED} {LOCKS}",
        )
    )


def study_flags(path: str) -> str:
    return f"--config {shlex.quote(path)} --runs {MOUNT}/runs"


def whole_study(path: str) -> str:
    """Shell: takes runs of the study until all are done."""
    return f"cd bigxfer && {PYTHON} -m launch.local {study_flags(path)}"


def one_run(path: str, digest: str) -> str:
    """Shell: one run on all hosts; the first one claims it and watches over it."""
    here = f"{study_flags(path)} --only {digest}"
    folder = f"{MOUNT}/runs/{digest}"
    # A result that is there may be damaged: then the first host does the run again.
    done = shlex.quote(
        "from pathlib import Path; from bigxfer.runs import finished;"
        f" finished.read(Path({folder!r}))"
    )
    return (
        f"cd bigxfer{HOSTS}"
        f"if [ $JAX_PROCESS_ID = 0 ]; then {PYTHON} -m launch.local {here}\n"
        f"else for round in $(seq {ROUNDS}); do\n"
        f"{PYTHON} -c {done} 2>/dev/null && break\n"
        f"{PYTHON} -m launch.worker {here} || sleep 5; done; fi"
    )


def print_commands(s: Slice) -> None:
    """What --go would run, to be read or pasted."""
    steps = {
        "ask for it": s.create(),
        "until this says ACTIVE": s.describe(),
        "set it up": s.ssh(s.setup),
        "work": s.ssh(s.work),
        "end": s.delete(),
    }
    for what, command in steps.items():
        print(f"# {s.name}: {what}\n{shlex.join(command)}\n")


def keep(s: Slice) -> bool:
    """Sees one slice through: whether its work ended well."""
    for _ in range(ROUNDS):
        if not wait_until_active(s):
            continue
        if call(s.ssh(s.setup)) == 0 and call(s.ssh(s.work)) == 0:
            # A slice costs money for as long as it exists.
            call(s.delete())
            return True
    call(s.delete())
    return False


def wait_until_active(s: Slice) -> bool:
    """Asks for the slice where there is none; False where it is gone for good."""
    while True:
        asked = subprocess.run(
            s.describe(), capture_output=True, text=True, check=False
        )
        state = asked.stdout.strip()
        if state == "ACTIVE":
            return True
        if state in GONE:
            call(s.delete())
            return False
        if asked.returncode and call(s.create()):
            return False
        time.sleep(30)


def call(command: list[str]) -> int:
    print(f"$ {shlex.join(command)[:200]}", flush=True)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    flags.DEFINE_string("config", "", "The study: a config file with a sweep().")
    flags.DEFINE_string("name", "bigxfer", "Slices are called NAME-0, NAME-1, ...")
    flags.DEFINE_string("project", "", "The Google Cloud project.")
    flags.DEFINE_string("zone", "", "Its zone, such as us-west4-a.")
    flags.DEFINE_string("type", "", "Of the slices, such as v5litepod-8.")
    flags.DEFINE_integer("slices", 1, "How many.", 1)
    flags.DEFINE_string("nfs", "", "The share that holds the runs, HOST:/PATH.")
    flags.DEFINE_string("repo", "", "Where the hosts clone this repository from.")
    flags.DEFINE_string("commit", "main", "What they check out.")
    flags.DEFINE_string("only", "", "The digest of one run for all hosts of a slice.")
    flags.DEFINE_bool("spot", False, "Cheaper, and may be taken away.")
    flags.DEFINE_bool("go", False, "Run the commands; otherwise they are printed.")
    flags.DEFINE_bool("dry_run", False, "Print the commands, even with --go.")
    app.run(main, flags_parser=cli.parse)
