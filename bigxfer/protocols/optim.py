"""From the Optim section and the size of a training set to a plan, by arithmetic.

Nothing here imports jax: `study list` plans thousands of runs. What follows the plan
stands in optimizer.py.
"""

import math
from dataclasses import dataclass

from bigxfer.config import ConfigError, Optim
from bigxfer.protocols import hyperrule


@dataclass(frozen=True)
class Plan:
    steps: int
    warmup_steps: int
    boundaries: tuple[int, ...]  # steps
    lr: float  # the peak, scaled to the batch
    mixup: float  # alpha; 0 is off
    schedule: str  # hyperrule, cosine, step, constant

    def __str__(self) -> str:
        """Such as "900 steps, rate 0.004 cosine, warm-up of 90"."""
        words = [f"{self.steps} steps", f"rate {self.lr:.4g} {self.schedule}"]
        if self.warmup_steps:
            words.append(f"warm-up of {self.warmup_steps}")
        if self.boundaries:
            words.append(f"x0.1 at {', '.join(map(str, self.boundaries))}")
        if self.mixup:
            words.append(f"mixup {self.mixup:g}")
        return ", ".join(words)


def plan(cfg: Optim, examples: int) -> Plan:
    """Return the plan of `cfg` for a training set of `examples` images.

    Epochs become steps (rounded up), the rate scales linearly with the batch
    (Goyal et al., 1706.02677 section 2.1). Under the HyperRule `steps` or `epochs`,
    where set, stretch its boundaries and warm-up in proportion; a warm-up that is
    set replaces the rule's. Raises ConfigError where `cfg` contradicts itself.
    """
    known = hyperrule.rule(examples, 1, cfg.variant)  # the pixels stand in `data`
    ruled = cfg.schedule == "hyperrule"
    if bool(cfg.boundaries) != (cfg.schedule == "step"):
        raise ConfigError(
            "config.optim.boundaries belong to schedule=step, and it needs them: "
            f"boundaries={cfg.boundaries}, schedule={cfg.schedule}"
        )
    if any(not 0 < b < 1 for b in cfg.boundaries):
        raise ConfigError(
            f"config.optim.boundaries={cfg.boundaries} are fractions of the run, "
            "between 0 and 1"
        )
    # `steps` has the word over `epochs`; rounded up, so that no epoch is cut short
    steps = cfg.steps or math.ceil(examples * cfg.epochs / cfg.batch)
    if ruled:
        steps = steps or known.steps
    if steps < 1:
        raise ConfigError("the run has no steps: set config.optim.steps or epochs")
    warmup = cfg.warmup_steps or math.ceil(examples * cfg.warmup_epochs / cfg.batch)
    boundaries = tuple(round(b * steps) for b in cfg.boundaries)
    if ruled:
        warmup = warmup or round(known.warmup_steps * steps / known.steps)
        boundaries = tuple(round(b * steps / known.steps) for b in known.boundaries)
    if warmup > steps:
        raise ConfigError(f"the warm-up of {warmup} steps exceeds the run's {steps}")
    return Plan(
        steps=steps,
        warmup_steps=warmup,
        boundaries=boundaries,
        lr=peak(cfg),
        # -1 is the rule's; 0 has to be able to say "off"
        mixup=known.mixup if cfg.mixup == -1 else cfg.mixup,
        schedule=cfg.schedule,
    )


def peak(cfg: Optim) -> float:
    """The peak rate at the config's batch."""
    return cfg.lr * cfg.batch / cfg.lr_batch
