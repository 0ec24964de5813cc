"""Which training images a batch takes, where that is not each once an epoch."""

from dataclasses import dataclass, replace

import numpy as np

from bigxfer.config import ConfigError, Data, nearest
from bigxfer.data.manifest import Manifest


@dataclass(frozen=True)
class Sampling:
    """How n training rows are drawn. Both fields None: each row once an epoch."""

    weights: np.ndarray | None = None  # float64 [n], sum 1: drawn with replacement
    rare: np.ndarray | None = None  # bool [n]: a share of every batch, by position
    share: float = 0.0

    def count(self, batch: int) -> int:
        """Rare rows in a global batch: COVID-Net's max(int(batch * share), 1)."""
        return 0 if self.rare is None else max(int(batch * self.share), 1)

    def only(self, kept: np.ndarray) -> "Sampling":
        """Return the sampling of the rows `kept` (bool [n]), in equal proportions."""
        weights, rare = self.weights, self.rare
        if weights is not None:
            weights = weights[kept] / weights[kept].sum()
        return replace(self, weights=weights, rare=None if rare is None else rare[kept])


UNIFORM = Sampling()


def choose(train: Manifest, member: np.ndarray, data: Data) -> Sampling:
    """The sampling that data.sampling and data.mix ask for.

    `train` holds the training rows after fraction and shots; `member` int [n] says
    which set of a union each comes from.

    classes: an image of class c gets the weight N / n_c and an epoch draws N images
    with replacement, as the oversampling of 2106.00116's code (torch's
    WeightedRandomSampler, SLAMPAI/large-scale-pretraining-transfer at fe6232b); like
    there, few-shot draws, which are balanced already, are left uniform.

    covid_percent: COVID-Net's BalanceCovidDataset (lindawangg/COVID-Net data.py at
    6599980): the others come in a shuffled stream; in every batch int(batch * share)
    positions, at least one, are overwritten by images of the rare class, none twice in a
    batch. The images so displaced are passed over for that epoch, as there. Its three
    bugs are not here: the stream has no short last batch that leaves black images of
    class 0; every epoch has an order of its own; labels come from the reader, not from
    the third word of a line.

    data.mix: the share of each set of a union in the draws, with replacement; within
    a set uniform, or by class where sampling is classes.

    Raises ConfigError for multi-label sets, a class that is not there, or a set of the
    mix without a training image.
    """
    # Few-shot draws are balanced already, and left uniform by the predecessor too.
    kind = data.sampling if data.shots == "full" else "uniform"
    if kind != "uniform" and train.multilabel:
        raise ConfigError(
            f"config.data.sampling={kind} weighs single-label classes, and"
            f" {train.name} is multi-label; set it to uniform"
        )
    if kind == "covid_percent":
        return Sampling(rare=rare(train, data), share=data.sampling_share)
    if kind == "uniform" and not data.mix:
        return UNIFORM
    mix = np.array(data.mix or (1.0,))
    member = member if data.mix else np.zeros(len(train), int)
    weights = np.zeros(len(train))
    for number, share in enumerate(mix / mix.sum()):
        rows = np.flatnonzero(member == number)
        if not len(rows):
            name = data.reader.split("+")[number]
            raise ConfigError(f"config.data.mix: no training image is left of {name}")
        within = np.ones(len(rows))
        if kind == "classes":
            within /= np.bincount(train.labels[rows])[train.labels[rows]]
        # Each set sums to its share, whatever its size and its classes.
        weights[rows] = share * within / within.sum()
    return Sampling(weights=weights)


def rare(train: Manifest, data: Data) -> np.ndarray:
    """bool [n]: the rows of data.sampling_class, or of the rarest class there is."""
    count = np.bincount(train.labels, minlength=len(train.classes))
    # Of the classes that are there: a draw may have lost the rarest of the set.
    if not (name := data.sampling_class):
        present = np.flatnonzero(count)
        number = int(present[count[present].argmin()])
    elif name in train.classes:
        number = train.classes.index(name)
    else:
        hint = nearest(name, list(train.classes))
        raise ConfigError(f"config.data.sampling_class: no class {name!r}{hint}")
    if not 0 < count[number] < len(train):
        raise ConfigError(
            f"config.data.sampling: {count[number]} of {len(train)} training images are"
            f" of class {train.classes[number]!r}; there must be others and some of it"
        )
    return train.labels == number
