"""Does runs, one after another, as a pool (launch/pool.py) tells it to.

  python -m launch.worker --config configs/study_demo.py --runs runs

A launcher starts it. It reads digests of the study's nodes from stdin, one a line, and answers
each with a line of JSON on stdout: {"how": ready, done or failed, "kind", "message"}. When stdin
ends the worker exits at once, whatever it is doing. SIGTERM asks it to save and to exit with
status 75. The run's own lines go to runs/DIGEST/log.txt. In several processes of one run (srun,
a TPU pod) each does the same, and the first one answers; --only DIGEST does one run without a
pool.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from absl import app, flags

from bigxfer import cli
from bigxfer.study import grid

if TYPE_CHECKING:
    from bigxfer.training.stopping import Stop


def main(argv: list[str]) -> None:
    orders: queue.SimpleQueue[str] = queue.SimpleQueue()
    if only := flags.FLAGS.only:
        orders.put(only)
        orders.put("")
    else:
        threading.Thread(target=listen, args=(orders,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints is no answer

    from bigxfer.training import processes, stopping

    quieten()
    processes.join_by_environment()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher
    with stopping.listen([signal.SIGTERM]) as stop:
        work(orders, answers, stop)


def work(orders: queue.SimpleQueue[str], answers: TextIO, stop: "Stop") -> None:
    """Does what is ordered until "" comes; says how each run went."""
    import jax

    from bigxfer.training.stopping import Preempted

    runs, first = Path(flags.FLAGS.runs), jax.process_index() == 0
    share_programs(runs)
    nodes = {node.digest: node for node in grid.nodes(flags.FLAGS.config)}

    def tell(how: str, kind: str = "", message: str = "") -> None:
        answer = {"how": how, "kind": kind, "message": message}
        print(json.dumps(answer), file=answers, flush=True)

    kept: dict = {}  # the data sets that were opened
    shared: dict = {}  # what is compiled, for runs of one shape
    if first:
        tell("ready")
    while digest := orders.get():
        folder = nodes[digest].folder(runs)
        try:
            with log_to(folder, jax.process_index()):
                perform(nodes[digest], runs, stop, shared, kept)
        # A SystemExit, so it has to come before the next clause.
        except Preempted:
            if first:
                tell("released")
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 all go to the pool
            with suppress(OSError):
                # The pool gets one line; the traceback is for whoever looks into it.
                (folder / "error.txt").write_text(traceback.format_exc())
            tell("failed", type(error).__name__, " ".join(str(error).split()))
            os._exit(1)  # a device may be in a bad state: the next starts afresh
        if first:
            tell("done")


def listen(orders: queue.SimpleQueue) -> None:
    """Passes on the lines of stdin; its end ends this process, in mid-run too."""
    # At its end os._exit: sys.exit would end this thread, not the run in the main one.
    for line in sys.stdin:
        orders.put(line.strip())
    os._exit(1)


def perform(
    node: grid.Node, runs: Path, stop: "Stop", shared: dict, kept: dict
) -> None:
    """Does one node of the study; whatever goes wrong in it raises.

    Later nodes find what is compiled in `shared`, the data sets in `kept`.
    """
    from bigxfer.runs import finished, folders, job

    if node.kind == "cache":
        folder = node.folder(runs)
        folders.write(folder / "result.json", build_cache(node, kept))
        return
    for need in node.needs:
        # Only known once the upstream is done, unlike the digest in init.digest.
        if not need.startswith("caches/"):
            node.run.init.checkpoint = str(finished.read(runs / need).parameters())
    job.execute(node.run, node.folder(runs), stop, shared, kept)


def build_cache(node: grid.Node, kept: dict) -> dict:
    """Decodes the whole data set; what was decoded stays when it is stopped."""
    from bigxfer.data import dataset, identity
    from bigxfer.runs import folders

    began = time.monotonic()
    say = logging.getLogger("bigxfer").info
    # Any seed: the cache is of the whole set, before a draw.
    data = dataset.open(node.run.data, 0, say, kept)
    about = {"digest": node.digest, "counts": data.report["counts"]}
    about["identity"] = identity.of_set(data.identity)
    seconds = time.monotonic() - began
    return {**about, "seconds": seconds, "finished": folders.now()}


def share_programs(runs: Path) -> None:
    """Keep compiled programs on disk, for all workers and the next launch."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(runs.parent / "cache" / "xla"))
    # jax leaves out what compiles within a second, as most programs of small nets do.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def quieten() -> None:
    """Print warnings of others alone; what a run says goes to its own file."""
    for name in ("absl", "jax"):
        logging.getLogger(name).setLevel(logging.WARNING)
    ours = logging.getLogger("bigxfer")
    ours.setLevel(logging.INFO)
    ours.propagate = False


@contextmanager
def log_to(folder: Path, process: int) -> Iterator[None]:
    """Log to folder/log.txt, by whose growth the pool sees that the run gets on."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"log-{process}.txt" if process else "log.txt"
    handler = logging.FileHandler(folder / name)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("bigxfer").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("bigxfer").removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    flags.DEFINE_string("config", "", "The study: a config file with a sweep().")
    flags.DEFINE_string("runs", "runs", "The folder of all run folders.")
    flags.DEFINE_string("only", "", "The digest of one run to do, without a pool.")
    cli.set_xla_flags()
    app.run(main, flags_parser=cli.parse)
