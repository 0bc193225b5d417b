"""Rows on disk are the same matrix as in memory, whatever is asked for, and no other rows are touched for it."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from handgrad.data.blocks import BlockLoader
from handgrad.data.rows import Chunks, Joined, Leaving, Rows, chunk_dtype

N, D = 103, 5
DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
]
DTYPES += [torch.int64, torch.uint16, torch.bool]


def matrix(dtype: torch.dtype = torch.float16) -> Tensor:
    return (torch.arange(N * D) % 97).reshape(N, D).to(dtype)


def double(x: Tensor) -> Tensor:
    return 2 * x


def cases() -> list[tuple[Rows, Tensor]]:
    """Rows of each kind, beside what they are in memory."""
    whole, index = matrix(), torch.cat((torch.arange(20), torch.arange(25, 70), torch.arange(71, N, 3)))
    found = []
    for shards in ([whole], list(whole.split([1, 40, 60, 2]))):
        for chosen in (None, index):
            for transform in (None, double):
                expected = (whole if chosen is None else whole[chosen]).float()
                found.append((Rows(shards, chosen, transform), transform(expected) if transform else expected))
    return found


@pytest.mark.parametrize(("rows", "expected"), cases())
def test_they_are_the_matrix(rows, expected):
    assert (len(rows), rows.shape, rows.dtype, rows.device.type) == (
        len(expected),
        expected.shape,
        torch.float32,
        "cpu",
    )
    for part in (slice(None), slice(0, 1), slice(38, 44), slice(7, 7), slice(9, 3), slice(-3, None), slice(50, 10**6)):
        assert torch.equal(rows[part], expected[part] if part != slice(9, 3) else expected[:0])
    index = torch.tensor([5, 0, 44, 44, len(expected) - 1, 1])
    assert torch.equal(rows.index_select(0, index), expected.index_select(0, index))
    assert torch.equal(rows.index_select(0, index[:0]), expected[:0])
    assert torch.equal(rows.in_memory(), expected)
    first = rows.first(30)
    assert torch.equal(first[:], expected[:30])
    assert torch.equal(first.index_select(0, index[:2]), expected[index[:2]])


@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize(("rows", "expected"), cases())
def test_fleeting_rows_are_the_same_for_who_keeps_none(rows, expected, dtype):
    rows, expected = rows.fleeting(dtype), expected.to(dtype or rows.dtype)
    assert rows.dtype == expected.dtype
    for part in (slice(0, 9), slice(38, 44), slice(7, 7), slice(15, 60), slice(50, 10**6), slice(None)):
        assert torch.equal(rows[part], expected[part])
    index = torch.tensor([5, 0, 44])
    assert torch.equal(rows.index_select(0, index), expected.index_select(0, index))


def test_each_thread_has_fleeting_rows_of_its_own():
    whole, index = matrix(torch.float32), torch.arange(0, N, 2)
    rows = Rows([whole], index).fleeting()
    mine = rows[0:10]
    assert mine.data_ptr() == rows[10:20].data_ptr()  # the memory is used again
    doubled = rows.fleeting(torch.float64)
    assert doubled[0:10].data_ptr() == doubled[10:20].data_ptr()
    mine = rows[0:10]
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(lambda: rows[10:20]).result()
    assert torch.equal(mine, whole[index[:10]])
    assert torch.equal(theirs, whole[index[10:20]])
    assert rows.at(torch.arange(30))[0:10].data_ptr() != mine.data_ptr()  # rows of them may be kept
    kept = rows.index_select(0, torch.tensor([3, 1]))  # and what is asked for by number
    rows[20:30]
    assert torch.equal(kept, whole[[6, 2]])


@pytest.mark.parametrize(("rows", "expected"), cases())
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunks_are_those_of_a_tensor(rows, expected, size):
    chunks = rows.split(size)
    assert isinstance(chunks, Chunks)
    assert len(chunks) == len(expected.split(size))
    assert all(torch.equal(*pair) for pair in zip(chunks, expected.split(size), strict=True))
    assert torch.equal(chunks[-1], expected.split(size)[-1])
    with pytest.raises(IndexError):
        chunks[len(chunks)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_stored_is_cast_without_loss(dtype):
    rows = Rows([matrix(dtype)])
    assert rows.dtype == chunk_dtype(dtype) == rows[:1].dtype
    assert rows.dtype == (torch.float64 if dtype in (torch.float64, torch.int32, torch.int64) else torch.float32)
    assert torch.equal(rows[:].to(dtype), matrix(dtype))


def test_nothing_is_copied_where_nothing_has_to_be_done():
    whole = matrix(torch.float32)
    rows = Rows([whole])
    assert rows[10:20].data_ptr() == whole[10].data_ptr()
    held = Rows([whole], torch.arange(40, 80))  # without a gap
    assert held[5:9].data_ptr() == whole[45].data_ptr()


def test_other_rows_are_not_touched():
    class Watched(Tensor):
        """Keeps account of the rows that leave it."""

        @classmethod
        def __torch_function__(cls, function, types, arguments=(), options=None):
            if function in (torch.index_select, Tensor.index_select):
                read.extend(arguments[2].tolist())
            return super().__torch_function__(function, types, arguments, options or {})

        def __getitem__(self, rows):
            if isinstance(rows, slice):
                read.extend(range(*rows.indices(len(self))))
            return self.as_subclass(Tensor)[rows]

    read: list[int] = []
    shards = [part.as_subclass(Watched) for part in matrix().split(50)]
    rows = Rows(shards, torch.arange(0, N, 2))
    chunks = rows.split(4)
    assert read == []
    rows[:3]
    assert read == [0, 2, 4]
    del read[:]
    chunks[6]  # rows 48 and 50 to 54 of the file, which is cut at 50
    assert read == [48, 0, 2, 4]
    del read[:]
    rows.index_select(0, torch.tensor([26, 0]))
    assert sorted(read) == [0, 2]
    del read[:]
    Rows(shards)[49:52]
    assert read == [49, 0, 1]


def test_where_a_row_is_stored():
    rows = Rows(matrix().split(50), torch.arange(0, N, 2))
    assert [rows.stored_at(row) for row in (0, 24, 25, 51)] == [(0, 0), (0, 48), (1, 0), (2, 2)]


def test_rows_go_where_they_are_sent():
    rows = Rows([matrix()]).to(torch.device("meta"))
    assert rows.device.type == rows[:3].device.type == rows.index_select(0, torch.tensor([1])).device.type == "meta"


class Card:
    """What of ``torch.cuda`` streams need, on no card: copies are made when they are waited for, as late as can be."""

    def __init__(self) -> None:
        self.copies: list[tuple[Tensor, Tensor]] = []
        self.waited = 0

    def stream(self, *_) -> "Card":
        return self

    Stream = Event = current_stream = stream
    wait_event = stream

    def __enter__(self) -> None: ...

    def __exit__(self, *_) -> None: ...

    def record(self, stream: "Card") -> None: ...

    def synchronize(self) -> None:
        self.waited += 1
        there, here = self.copies.pop(0)
        there.copy_(here)


def test_what_is_sent_is_not_written_over_before_it_has_left(monkeypatch):
    card, whole = Card(), matrix(torch.float32)
    for name in ("Stream", "Event", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(card, name))
    monkeypatch.setattr("handgrad.data.rows.locked", lambda rows: torch.empty(rows.shape, dtype=rows.dtype))

    def to(here: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        there = torch.full_like(here, torch.nan)
        card.copies.append((there, here))
        there.record_stream = lambda stream: None
        return there

    monkeypatch.setattr(Tensor, "to", to)
    leaving = Leaving()
    sent = [leaving.sent(whole[first : first + 10], torch.device("cuda")) for first in range(0, 60, 10)]
    assert card.waited == 4  # the first two have memory of their own
    while card.copies:
        card.synchronize()
    monkeypatch.undo()
    assert torch.equal(torch.cat(sent), whole[:60])
    assert len(leaving.pieces) == 2


@pytest.mark.gpu
def test_rows_are_streamed_to_a_gpu():
    whole = torch.randn(10_000, 256)
    rows = Rows([whole], torch.arange(0, 10_000, 2)).to(torch.device("cuda", 0)).fleeting()
    sums = sum(rows[first : first + 100].double().sum(0) for first in range(0, 5000, 100))
    torch.testing.assert_close(sums.cpu(), whole[::2].double().sum(0))


def test_what_rows_do_not_offer_is_told():
    rows = Rows([matrix()])
    with pytest.raises(ValueError, match="without steps"):
        rows[::2]
    with pytest.raises(ValueError, match="for rows"):
        rows.index_select(1, torch.tensor([0]))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("rows", "expected"), cases()[::3])
def test_mini_batches_are_those_of_a_tensor(rows, expected, shuffle):
    target = torch.arange(len(expected))
    given = dict(batch_size=7, epochs=2, check_interval=3, shuffle=shuffle, seed=1, step=lambda: 0)
    on_disk, in_memory = (BlockLoader(input, target, **given) for input in (rows, expected))
    for update in range(on_disk.total_updates):
        for found, wanted in zip(on_disk.minibatch(update)[:2], in_memory.minibatch(update)[:2], strict=True):
            assert torch.equal(found, wanted)


MEMORY = """
import sys, numpy as np, torch
from handgrad.data.features import FeatureDataModule

def own():
    with open("/proc/self/status") as told:
        return next(int(line.split()[1]) / 1024 for line in told if line.startswith("RssAnon:"))

torch.set_num_threads(1)
data = FeatureDataModule(train=sys.argv[1], train_labels=sys.argv[2], holdout=0.1, normalize="standardize",
                         shuffle=True, batch_size=100, seed=0, epochs=1)
data.about()
before = own()
data.setup()
input, target = data.train
most = own()
for chunk in input.split(10_000):
    most = max(most, own())
loader = data.train_dataloader()
for update in range(50):
    loader.minibatch(update)
print(type(input).__name__, before, max(most, own()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is told by Linux")
def test_memory_stays_flat(tmp_path: Path):
    """Of 300 MB of float16, 600 MB as float32, only the tenth that is held out comes into memory whole."""
    numbers = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (600_000, 256))
    block = np.random.default_rng(0).normal(size=(10_000, 256)).astype(np.float16)
    for start in range(0, len(numbers), len(block)):
        numbers[start : start + len(block)] = block
    numbers.flush()
    np.save(tmp_path / "y.npy", np.arange(len(numbers)) % 3)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "x.npy", tmp_path / "y.npy"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kind, before, most = done.stdout.split()
    assert kind == "Rows"
    assert float(most) - float(before) < 200


# --- two matrices as one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [("memory", "memory"), ("memory", "disk"), ("disk", "memory"), ("disk", "disk")])
def test_two_matrices_are_one_and_neither_is_copied(kinds):
    whole = matrix(torch.float32)
    first, second = (
        part if kind == "memory" else Rows([part]) for kind, part in zip(kinds, whole.split([40, N - 40]), strict=True)
    )
    both = Joined(first, second)
    assert (both.shape, len(both), both.dtype) == (whole.shape, N, torch.float32)
    for start, stop in ((0, N), (0, 40), (40, N), (39, 41), (3, 7), (50, 60), (7, 7), (90, 500)):
        assert torch.equal(both[start:stop], whole[start:stop])
    index = torch.tensor([102, 0, 40, 39, 40])
    assert torch.equal(both.index_select(0, index), whole[index])
    if kinds[0] == "memory":
        assert both[:40].data_ptr() == whole.data_ptr()


def test_two_types_make_the_wider_one():
    both = Joined(matrix(torch.float32)[:3], matrix(torch.float64)[3:5])
    assert both.dtype == both[0:5].dtype == both[0:2].dtype == both.index_select(0, torch.tensor([0])).dtype
    assert both.dtype == torch.float64
