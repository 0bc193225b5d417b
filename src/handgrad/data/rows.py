"""A matrix that stays on disk: its rows are read, and cast, when they are asked for."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

SMALL = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.float16, torch.bfloat16, torch.float32)
CHUNK_NUMBERS = 2**20  # numbers in a chunk: 4 MiB of float32


class Rows:
    """A matrix (N, D) whose rows become real tensors when they are asked for.

    It offers what training uses of a tensor. Whatever is asked for, no other rows are touched, and no more memory is
    taken than what is returned needs. A file that is mapped must not be written to as long as its rows are used.

    Args:
        shards: one or several matrices of one dtype and D, one below the other, memory-mapped or not.
        index: ``(N,)`` int64, ascending: the rows there are, counted over all shards; None: all of them.
        transform: makes (n, D) of what is stored (n, D), a row by itself; None: nothing is done. It must leave what it
            gets as it is.
        device: where the rows that are asked for go.

    Attributes:
        shape: ``(N, D)``.
        dtype: of what is returned, at least float32.
        device: of what is returned.
    """

    def __init__(
        self,
        shards: Sequence[Tensor],
        index: Tensor | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shards, self.index, self.transform = list(shards), index, transform
        self.device = torch.device(device)
        self.dtype = self._transformed_in = chunk_dtype(self.shards[0].dtype)
        self._numbers = None if index is None else index.numpy()  # the index; a number of it is quicker had than there
        self._memory: Memory | None = None
        self._first = list(accumulate(map(len, self.shards), initial=0))  # each shard's first row, and the end
        stored = self._first[-1] if index is None else len(index)
        self.shape = torch.Size((stored, self.shards[0].shape[1]))

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Returns the rows of a slice without steps, (n, D); a view, where nothing has to be done to them."""
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"{rows}: accepted is a slice without steps")
        stop = max(start, stop)
        if self._numbers is None:
            return self._finished(self._between(start, stop), self._memory)
        if stop > start:
            first, end = int(self._numbers[start]), int(self._numbers[stop - 1]) + 1
            if end - first == stop - start:  # no gap
                return self._finished(self._between(first, end), self._memory)
            return self._finished(self._ascending(start, stop, self._memory), self._memory)
        return self._finished(self.shards[0][:0])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Returns the rows ``index (n,)`` in this order, (n, D); ``dim`` is 0."""
        if dim != 0:
            raise ValueError(f"dim={dim}: accepted is 0, for rows")
        index = index.cpu()
        return self._finished(self._gathered(index if self.index is None else self.index.index_select(0, index)))

    def split(self, rows: int) -> "Chunks":
        """Returns the chunks of ``rows`` rows each, the last one perhaps of fewer; each is read when it is indexed."""
        return Chunks(self, rows)

    def chunks(self) -> "Chunks":
        """Returns chunks of a size that is handy for whoever looks at all rows once."""
        return self.split(max(1, CHUNK_NUMBERS // self.shape[1]))

    def first(self, rows: int) -> "Rows":
        """Returns the first ``rows`` rows, without a copy of them."""
        return self.between(slice(rows))

    def between(self, rows: slice) -> "Rows":
        """Returns the rows of a slice, without a copy of them."""
        if rows.indices(len(self)) == (0, len(self), 1):
            return self
        return self.at(torch.arange(len(self))[rows])

    def at(self, index: Tensor) -> "Rows":
        """Returns the rows ``index (n,)``, ascending, without a copy of them."""
        return Rows(self.shards, index if self.index is None else self.index[index], self.transform, self.device)

    def transformed(self, transform: Callable[[Tensor], Tensor]) -> "Rows":
        """Returns what ``transform`` makes of the rows, a row by itself; it must leave what it gets as it is."""
        before = self.transform
        both = transform if before is None else lambda x: transform(before(x))
        return Rows(self.shards, self.index, both, self.device)

    def fleeting(self, dtype: torch.dtype | None = None) -> "Rows":
        """Returns the same rows for whoever keeps none: a slice may lie where that thread's next slice will lie.

        Memory that is used again is mapped and in the processor's cache, which makes a gather up to three times faster.

        Args:
            dtype: of what is returned, where it is to be another one.
        """
        rows = Rows(self.shards, self.index, self.transform, self.device)
        rows._memory, rows.dtype = Memory(), dtype or self.dtype
        return rows

    def to(self, device: torch.device | str) -> "Rows":
        """Returns the same rows, which now go to ``device`` when they are asked for."""
        return Rows(self.shards, self.index, self.transform, device)

    def sent(self, device: torch.device) -> "Rows | Tensor":
        """Returns the same rows on a device: all of them if half of its free memory holds them, else when asked for."""
        rows = self.to(device)
        return rows.in_memory() if 2 * self.shape.numel() * self.dtype.itemsize <= free_memory(device) else rows

    def in_memory(self) -> Tensor:
        """Returns all rows at once, (N, D)."""
        whole = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        chunks = self.chunks()
        for chunk, place in zip(chunks, whole.split(chunks.rows), strict=True):
            place.copy_(chunk)
        return whole

    def stored_at(self, row: int) -> tuple[int, int]:
        """Returns the number of the shard that holds a row, and the row's number there."""
        stored = row if self.index is None else int(self.index[row])
        shard = next(number for number, end in enumerate(self._first[1:]) if stored < end)
        return shard, stored - self._first[shard]

    def _between(self, start: int, stop: int) -> Tensor:
        """Returns the stored rows from ``start`` to ``stop`` as they are stored."""
        found = [shard[max(start - first, 0) : stop - first] for shard, first in self._shards(start, stop)]
        return found[0] if len(found) == 1 else torch.cat(found) if found else self.shards[0][:0]

    def _shards(self, start: int, stop: int) -> Iterator[tuple[Tensor, int]]:
        """Yields the shards that hold the stored rows from ``start`` to ``stop``, each with its first row."""
        if start < stop:
            first, last = bisect_right(self._first, start) - 1, bisect_right(self._first, stop - 1)
            yield from zip(self.shards[first:last], self._first[first:last], strict=True)

    def _ascending(self, start: int, stop: int, memory: "Memory | None") -> Tensor:
        """Returns the rows from ``start`` to ``stop`` of the index, as they are stored, shard by shard."""
        assert self.index is not None
        assert self._numbers is not None
        found = (memory or Memory()).matrix(stop - start, self.shape[1], self.shards[0].dtype)
        here = start
        for shard, first in self._shards(int(self._numbers[start]), int(self._numbers[stop - 1]) + 1):
            end = here + int(np.searchsorted(self._numbers[here:stop], first + len(shard)))
            torch.index_select(shard, 0, self.index[here:end] - first, out=found[here - start : end - start])
            here = end
        return found

    def _gathered(self, index: Tensor) -> Tensor:
        """Returns the stored rows ``index``, in this order, as they are stored."""
        if len(self.shards) == 1:
            return self.shards[0].index_select(0, index)
        ends = torch.tensor(self._first[1:])
        number = torch.bucketize(index, ends, right=True)
        found = self.shards[0].new_empty((len(index), self.shape[1]))
        for shard in number.unique().tolist():
            (places,) = torch.where(number == shard)
            found[places] = self.shards[shard].index_select(0, index[places] - self._first[shard])
        return found

    def _finished(self, stored: Tensor, memory: "Memory | None" = None) -> Tensor:
        cast = Tensor.to if memory is None else memory.cast
        found = cast(stored, self._transformed_in)
        found = cast(self.transform(found) if self.transform else found, self.dtype)
        if memory is not None and self.device.type == "cuda":
            return memory.leaving.sent(found, self.device)
        return found.to(self.device)


class Memory(threading.local):
    """Memory that a thread uses again and again, a piece for each dtype.

    Attributes:
        leaving: for what goes to a device.
    """

    def __init__(self) -> None:
        self.pieces: dict[torch.dtype, Tensor] = {}
        self.leaving = Leaving()

    def matrix(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """Returns a matrix (rows, columns) of any numbers, over the same memory as the last one of this dtype."""
        piece = self.pieces.get(dtype)
        if piece is None or piece.shape[1] != columns or len(piece) < rows:
            piece = self.pieces[dtype] = torch.empty(rows, columns, dtype=dtype)
        return piece if len(piece) == rows else piece[:rows]

    def cast(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns rows in a dtype, where they are not already in the memory of it."""
        return rows if rows.dtype == dtype else self.matrix(len(rows), rows.shape[1], dtype).copy_(rows)


class Leaving:
    """Two pieces of page-locked memory, from which rows go to a CUDA device by a stream of their own.

    While one piece is sent, and the device computes with what was sent before, the other one is filled. Nothing waits
    but for a piece that is still being sent when its turn comes again.
    """

    def __init__(self) -> None:
        self.pieces: list[tuple[Tensor, torch.cuda.Event]] = []
        self.stream: torch.cuda.Stream | None = None

    def sent(self, rows: Tensor, device: torch.device) -> Tensor:
        """Returns ``rows (n, D)`` on a device; what is computed there next waits for them, and the caller does not."""
        self.stream = self.stream or torch.cuda.Stream(device)
        place, event = self.piece(rows)
        place.copy_(rows)
        with torch.cuda.stream(self.stream):
            found = place.to(device, non_blocking=True)
            event.record(self.stream)
        computing = torch.cuda.current_stream(device)
        computing.wait_event(event)
        found.record_stream(computing)  # else its memory could be given away before it is used
        return found

    def piece(self, rows: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """Returns memory of the shape of ``rows`` from which nothing is sent any more, and what tells of its use."""
        if len(self.pieces) < 2:
            memory, event = locked(rows), torch.cuda.Event()
        else:
            memory, event = self.pieces.pop(0)
            event.synchronize()
            if memory.dtype != rows.dtype or memory.shape[1] != rows.shape[1] or len(memory) < len(rows):
                memory = locked(rows)
        self.pieces.append((memory, event))
        return memory[: len(rows)], event


class Chunks(Sequence[Tensor]):
    """Consecutive chunks of ``Rows``; each is read when it is indexed, and kept by none."""

    def __init__(self, whole: Rows, rows: int) -> None:
        self.whole, self.rows = whole, rows

    def __len__(self) -> int:
        """Number of chunks."""
        return -(-len(self.whole) // self.rows)

    def __getitem__(self, number):
        """Returns chunk ``number``, (n, D)."""
        place = range(len(self))[number]
        return self.whole[place * self.rows : (place + 1) * self.rows]


class Joined:
    """Two matrices (N_1, D) and (N_2, D), in memory or on disk, one below the other and neither copied.

    It offers what a solver that looks at all samples uses of a tensor.

    Attributes:
        shape: ``(N_1 + N_2, D)``.
        dtype: the wider one.
    """

    def __init__(self, first: "Tensor | Rows", second: "Tensor | Rows") -> None:
        self.first, self.second = first, second
        self.shape = torch.Size((len(first) + len(second), first.shape[1]))
        self.dtype = torch.promote_types(first.dtype, second.dtype)

    def __len__(self) -> int:
        """N_1 + N_2."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Returns the rows of a slice without steps, (n, D)."""
        start, stop, _ = rows.indices(len(self))
        end = len(self.first)
        if stop <= end:
            return self.first[start:stop].to(self.dtype)
        second = self.second[max(start - end, 0) : stop - end].to(self.dtype)
        return second if start >= end else torch.cat((self.first[start:end].to(self.dtype), second))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Returns the rows ``index (n,)`` in this order, (n, D); ``dim`` is 0."""
        found = torch.empty(len(index), self.shape[1], dtype=self.dtype)
        end = len(self.first)
        for part, of_part, first in ((self.first, index < end, 0), (self.second, index >= end, end)):
            found[of_part] = part.index_select(dim, index[of_part] - first).to(self.dtype)
        return found


def fleeting(input: Tensor | Rows, dtype: torch.dtype | None = None) -> Tensor | Rows:
    """Returns rows for whoever keeps none of them, in a dtype; a tensor as it is."""
    return input.fleeting(dtype) if isinstance(input, Rows) else input


def locked(rows: Tensor) -> Tensor:
    """Returns page-locked memory for rows like these."""
    return torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)


def free_memory(device: torch.device) -> int:
    """Returns the bytes that a CUDA device has left; 0 of others: what is on disk is read when they ask for it."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def chunk_dtype(stored: torch.dtype) -> torch.dtype:
    """Returns what numbers are computed with: float32, or float64 where float32 can not hold what is stored."""
    return torch.float32 if stored in SMALL else torch.float64
