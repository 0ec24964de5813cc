"""`batch(step)`: the order of training as a pure function, so nothing else is saved."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from bigxfer.data.sampling import UNIFORM, Sampling

Batch = dict[str, np.ndarray]


class Images(Protocol):
    """uint8 [N, S, S, C] that need not be in memory: numpy's memmap, or encoded."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: np.ndarray, /) -> np.ndarray:
        """A fresh array uint8 [b, S, S, C] of these rows."""
        ...


class Batches(Protocol):
    """What `prefetch` reads from: a loader, or a feed of the training."""

    def batch(self, step: int, /) -> Batch: ...


class Loader:
    """Batches of the given rows, for one process of several.

    Training reads one endless stream: a permutation of the rows for each epoch, one
    after the other. So an epoch ends inside a batch where it has to, and a set
    smaller than the batch repeats. A `sampling` with weights draws the rows of an
    epoch with replacement instead; one with rare rows puts a share of them into every
    batch (data/sampling.py). Evaluation knows nothing of it.
    """

    def __init__(
        self,
        images: Images,  # uint8 [N, S, S, C], a memmap as a rule
        labels: np.ndarray,  # [N] or [N, classes]
        rows: np.ndarray,  # int [n]: which of the N; their order matters
        batch: int,  # the global one: images a step, over all processes
        seed: int,
        share: tuple[int, int] = (0, 1),  # this process's index, how many there are
        sampling: Sampling = UNIFORM,
    ) -> None:
        """Raises ValueError for no rows, a batch the processes cannot share, or one
        that would take more rare rows than there are."""
        if not len(rows):
            raise ValueError("a loader needs at least one image")
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images, {len(labels)} labels")
        self.images, self.labels = images, labels
        self.rows = np.asarray(rows, np.int32)
        self.weights, rare = sampling.weights, sampling.rare
        self.rare = self.rows[:0] if rare is None else self.rows[rare]
        self.stream = self.rows if rare is None else self.rows[~rare]
        self.rare_in_batch = sampling.count(batch)
        if self.rare_in_batch > len(self.rare):
            raise ValueError(
                f"config.data.sampling: {self.rare_in_batch} images of the rare class"
                f" go into every batch of {batch}, the training set has only"
                f" {len(self.rare)}; lower sampling_share or the batch"
            )
        self.batch_size, self.seed = batch, seed
        self.process_index, self.process_count = share
        self.part(batch)
        self.epochs: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, batch: int) -> np.ndarray:
        """int [b]: this process's positions in a global batch of that size."""
        if batch < 1 or batch % self.process_count:
            raise ValueError(
                f"a batch of {batch} cannot be shared by {self.process_count} processes"
            )
        b = batch // self.process_count
        return np.arange(self.process_index * b, (self.process_index + 1) * b)

    def order(self, epoch: int) -> np.ndarray:
        """int [n]: places in the stream, in the order of this epoch; two are kept."""
        if epoch not in self.epochs:
            rng, n = np.random.default_rng([self.seed, epoch]), len(self.stream)
            if self.weights is None:
                order = rng.permutation(n)
            else:
                order = rng.choice(n, n, p=self.weights)
            # Two, since a batch may end one epoch and begin the next.
            recent = dict(list(self.epochs.items())[-1:])
            self.epochs = {**recent, epoch: order}
            return order
        return self.epochs[epoch]

    def batch(self, step: int) -> Batch:
        """The batch of this step, counted from 0: this process's share of it.

        images uint8 [b, S, S, C], labels, mask float32 [b] (ones), index int32 [b]
        (row of the manifest) and position int32 [b] (place in the global batch).
        """
        index, position = self.order_of(step)
        return self.gather(index, position, np.ones(len(index), np.float32))

    def order_of(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(index, position) of the batch of this step."""
        position = self.part(self.batch_size)
        return self.index(step, position), position

    def index(self, step: int, position: np.ndarray) -> np.ndarray:
        """int32 [b]: the rows at these positions of the global batch of this step."""
        epoch, place = np.divmod(step * self.batch_size + position, len(self.stream))
        index = np.empty(len(position), np.int32)
        for e in np.unique(epoch):
            here = epoch == e
            index[here] = self.stream[self.order(int(e))[place[here]]]
        if k := self.rare_in_batch:  # drawn for the whole batch, by every process
            # 1: numpy pads seeds by 0, so [seed, step] is the order of an epoch.
            rng = np.random.default_rng([self.seed, step, 1])
            whole = np.full(self.batch_size, -1, np.int32)
            whole[rng.choice(self.batch_size, k, replace=False)] = rng.choice(
                self.rare, k, replace=False
            )
            rare = whole[position]
            index = np.where(rare < 0, index, rare)
        return index

    def eval_batches(self, batch: int) -> Iterator[Batch]:
        """Every row once, in order; the last batch is padded, its padding masked.

        All processes yield the same number of batches of the same shape.
        """
        position = self.part(batch)
        for start in range(0, len(self.rows), batch):
            place = start + position
            real = place < len(self.rows)
            # Padding repeats a row: all processes need batches of one shape.
            index = self.rows[np.where(real, place, 0)]
            yield self.gather(index, position, real.astype(np.float32))

    def gather(
        self, index: np.ndarray, position: np.ndarray, mask: np.ndarray
    ) -> Batch:
        images = np.asarray(self.images[index])  # a copy: jax may alias it
        return {"images": images, **self.about(index, position, mask)}

    def about(self, index: np.ndarray, position: np.ndarray, mask: np.ndarray) -> Batch:
        """A batch but for its images."""
        return {
            "labels": self.labels[index],
            "mask": mask,
            "index": index,
            "position": position.astype(np.int32),
        }


class Prefetch:
    """Iterates over batches that one thread gathers ahead.

    `waited` is the seconds that the consumer has spent waiting for data so far, but for
    waits at whose end `busy()` says that there was work to do all the same. An
    exception in the thread is raised where the batch would have come.
    """

    def __init__(
        self,
        loader: Batches,
        start: int,
        stop: int,
        depth: int,
        busy: Callable[[], bool],
    ) -> None:
        self.waited = 0.0
        self.busy = busy
        self.left = max(0, stop - start)
        self.ready: queue.Queue = queue.Queue(depth)
        self.closed = threading.Event()
        # Not self: a thread that held it would keep it from ever being collected.
        args = (loader, range(start, stop), self.ready, self.closed)
        # daemon: a run that fails must not wait for its data.
        self.thread = threading.Thread(target=fill, args=args, daemon=True)
        self.thread.start()

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> Batch:
        if not self.left or self.closed.is_set():
            self.close()
            raise StopIteration
        began = time.perf_counter()
        item = self.ready.get()  # the thread puts its exception there, too
        if not self.busy():
            self.waited += time.perf_counter() - began
        self.left -= 1
        if isinstance(item, Exception):
            self.close()
            raise item
        return item

    def close(self) -> None:
        """Ends the thread; iterating on after that ends at once."""
        self.closed.set()
        self.thread.join()

    def __del__(self) -> None:
        self.closed.set()


def fill(
    loader: Batches, steps: range, ready: queue.Queue, closed: threading.Event
) -> None:
    """Puts the batches of these steps, or the first exception, into the queue."""
    for step in steps:
        try:
            item = loader.batch(step)
        except Exception as error:  # noqa: BLE001 - handed to the consumer
            item = error
        while not closed.is_set():
            try:
                # A put without end would never see that nobody takes any more.
                ready.put(item, timeout=0.1)
                break
            except queue.Full:
                continue
        if closed.is_set() or isinstance(item, Exception):
            return


def prefetch(
    loader: Batches,
    start: int,
    stop: int,
    depth: int = 2,
    busy: Callable[[], bool] = lambda: False,
) -> Prefetch:
    """The batches of steps start .. stop - 1, gathered up to `depth` ahead."""
    return Prefetch(loader, start, stop, depth, busy)
