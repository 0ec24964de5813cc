"""JUWELS Booster (Juelich): 936 nodes of 4 A100-40GB, given out whole.

  python -m launch.slurm --config configs/study_X.py \\
      --profile launch/profiles/juwels_booster.py --account PROJECT

A project may have some 24 jobs running, so that runs of one GPU are packed four to a
node. Compute nodes have no internet: install the environment and fetch data on a login
node, and keep runs and caches on $SCRATCH or $PROJECT, which all nodes see. The
limits are 24 h here and 2 h on develbooster.

Not run by us: no account. Hosts have an InfiniBand name that ends in "i", by which
the processes of one run find each other.
"""

from bigxfer.config import Run
from launch.profile import Profile


def tasks(run: Run) -> int:
    """Four nodes for the pre-training of networks three times as wide and more."""
    return 16 if run.kind == "upstream" and run.model.width >= 3 else 1


PROFILE = Profile(
    partition="booster",
    gpus=4,
    workers=4,
    cpus=48,
    nodes=16,
    minutes=24 * 60,
    lead=300,
    poll=60,
    tasks=tasks,
    setup=(
        "module load Stages/2025 GCC CUDA Python",
        "first=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)",
        # The port as jax takes it from the job's number
        # (jax/_src/clusters/slurm_cluster.py).
        "export JAX_COORDINATOR_ADDRESS=${first}i:$((61440 + SLURM_JOB_ID % 4096))",
    ),
)
