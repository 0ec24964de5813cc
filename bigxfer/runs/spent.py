"""What the training of a run has cost."""

from dataclasses import dataclass, replace

from bigxfer.training import loop


@dataclass(frozen=True)
class Spent:
    """The cost of a training by steps, or of one fit of a head."""

    steps: int
    images: int
    flops: float  # 0 for features from a file, whose FLOPs are not known
    clock: loop.Clock

    def with_trials(self, trials: "list[Spent]") -> "Spent":
        """Add the FLOPs and seconds of the trials; steps and images stay the run's own."""
        every = [self, *trials]
        return replace(
            self,
            flops=sum(one.flops for one in every),
            clock=loop.Clock(
                # "waiting_for_data" is a share of the whole time, trials included.
                sum(one.clock.train for one in every),
                sum(one.clock.waiting for one in every),
            ),
        )

    def told(self, devices: int, parameters: int) -> dict[str, float]:
        """Return what result.json says of the cost."""
        return {
            "steps": self.steps,
            "images": self.images,
            "flops": self.flops,
            "device_seconds": self.clock.train * devices,
            "waiting_for_data": self.clock.waiting / max(self.clock.train, 1e-9),
            "parameters": parameters,
        }
