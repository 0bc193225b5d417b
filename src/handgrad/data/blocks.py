"""Loaders over tensors in memory, or rows on disk.

The training loader hands out *blocks*: the mini-batches between two checks.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from handgrad.data.rows import Rows

Samples = tuple[Tensor | Rows, Tensor]  # input (N, D) and target (N,), or (N, K) of several labels
MiniBatch = tuple[Tensor | Rows, Tensor, Tensor | None]  # input (B, D), target (B,) or (B, K), sample_weight (B,)


class Block:
    """Consecutive mini-batches that are trained without a check in between.

    A plain class on purpose: Lightning looks into dataclasses and sequences to move what they hold, and the
    mini-batches are to be made one by one, when their turn comes.

    Attributes:
        first: index of the update that its first mini-batch makes, counted from 0 across epochs.
        share: of each mini-batch's samples that this rank sees, 1 when it is the only one.
    """

    def __init__(self, loader: "BlockLoader", first: int, stop: int) -> None:
        self.first, self.share = first, loader.share / loader.batch_size
        self._loader, self._stop = loader, stop

    def __len__(self) -> int:
        """Number of mini-batches."""
        return self._stop - self.first

    def __iter__(self) -> Iterator[MiniBatch]:
        """Yields each mini-batch; on several ranks B is this rank's share."""
        return map(self._loader.minibatch, range(self.first, self._stop))

    def following(self) -> "Block | None":
        """Returns the block after this one, or None if this is the last of all epochs."""
        return self._loader.block(self._stop)


class BlockLoader:
    """The training set as blocks; a block ends at each multiple of ``check_interval`` and at the last update.

    One iteration yields the blocks that start in the current epoch. The last of them may run on into the next epoch,
    whose iteration then starts after it. There is no length: epochs differ in their number of blocks.

    Everything is a function of the number of updates so far, read from ``step`` when an iteration begins, so a resumed
    run goes on exactly where it stopped. The order of the samples is a function of ``(seed, epoch)``.

    Args:
        input: ``(N, D)``, in memory or on disk.
        target: ``(N,)``, or ``(N, K)`` of several labels.
        batch_size: samples per mini-batch over all ranks, at most N; the last, partial batch of an epoch is dropped.
        epochs: epochs to train.
        check_interval: updates between two checks, counted across epochs.
        shuffle: a new order in every epoch, or the given order in all of them (then mini-batches are views).
        seed: at least 0.
        step: tells the number of updates so far.
        sample_weight: ``(N,)``, or None: all weigh alike.
        entries: makes each mini-batch the whole training set, which then stays on disk if it is there, and an epoch of
            so many; None: mini-batches are of ``batch_size`` samples.
        rank, world_size: mini-batches are split over the ranks, in order, into shares that differ by at most one.
    """

    def __init__(
        self,
        input: Tensor | Rows,
        target: Tensor,
        *,
        batch_size: int,
        epochs: int,
        check_interval: int,
        shuffle: bool,
        seed: int,
        step: Callable[[], int],
        sample_weight: Tensor | None = None,
        entries: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.input, self.target, self.sample_weight, self.step = input, target, sample_weight, step
        self.entries = entries
        self.batch_size, self.check_interval = batch_size, check_interval
        self.shuffle, self.seed = shuffle, seed
        self.batches = entries or len(target) // batch_size
        self.total_updates = epochs * self.batches
        least, rest = divmod(batch_size, world_size)
        self._offset = rank * least + min(rank, rest)
        self.share = least + (rank < rest)  # samples of a mini-batch on this rank
        # Two epochs: a block may lie in both. Kept per loader: a cache on the class would keep every data set alive.
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __iter__(self) -> Iterator[Block]:
        # The step is read here and not in the generator, which would first run when its first block is asked for.
        return self._blocks(self.step())

    def _blocks(self, first: int) -> Iterator[Block]:
        epoch_end = (first // self.batches + 1) * self.batches
        block = self.block(first)
        while block and block.first < epoch_end:
            yield block
            block = block.following()

    def block(self, first: int) -> Block | None:
        """Returns the block that begins with the given update, or None after the last update."""
        stop = min((first // self.check_interval + 1) * self.check_interval, self.total_updates)
        return Block(self, first, stop) if first < stop else None

    def minibatch(self, update: int) -> MiniBatch:
        """Returns this rank's share of the mini-batch of the given update."""
        epoch, batch = divmod(update, self.batches)
        start = (0 if self.entries else batch * self.batch_size) + self._offset
        share, weight = slice(start, start + self.share), self.sample_weight
        if not self.shuffle:
            input = self.input
            if self.entries and isinstance(input, Rows):
                whole: Tensor | Rows = input.between(share).fleeting()  # a solver keeps no chunk of it
            else:
                whole = input[share]
            return whole, self.target[share], None if weight is None else weight[share]
        index = self._order(epoch)[share]
        weight = None if weight is None else weight.index_select(0, index)
        return self.input.index_select(0, index), self.target.index_select(0, index), weight

    def _permutation(self, epoch: int) -> Tensor:
        """Drawn on the CPU, so that every device trains in the same order."""
        (mixed,) = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed))
        return torch.randperm(len(self.target), generator=generator).to(self.input.device)


class WholeSets:
    """A loader of one batch, ``{name: (input (N, D), target (N,))}``: the sets that are evaluated together."""

    def __init__(self, sets: dict[str, Samples]) -> None:
        self.sets = sets

    def __len__(self) -> int:
        """Number of batches."""
        return 1

    def __iter__(self) -> Iterator[dict[str, Samples]]:
        yield self.sets
