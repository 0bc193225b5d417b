"""Blocks are another cut through the plain double loop over epochs and batches: same batches, same order."""

from itertools import product

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.data.blocks import Block, BlockLoader, WholeSets

GRID = [
    (batches, remainder, epochs, interval, shuffle)
    for batches, remainder, epochs, shuffle in product((1, 2, 3, 5, 7, 12), (0, 2), (1, 2, 4), (False, True))
    for interval in sorted({1, 2, 3, max(1, batches // 5), batches, batches + 1, 2 * batches + 1})
]


def make_loader(batches, remainder, epochs, interval, shuffle, step=lambda: 0, seed=0, batch_size=3, **ranks):
    """A loader over samples that are their own number: ``input[n] = [n, -n]``, ``target[n] = n``."""
    target = torch.arange(batches * batch_size + remainder)
    input = torch.stack([target, -target], dim=1).float()
    settings = dict(batch_size=batch_size, epochs=epochs, check_interval=interval, shuffle=shuffle, seed=seed)
    return BlockLoader(input, target, step=step, **settings, **ranks)


def plain_double_loop(loader: BlockLoader) -> list[list[int]]:
    """Returns the sample numbers of all updates, found the plain way."""
    n, size = len(loader.target), loader.batch_size
    updates = []
    for epoch in range(loader.total_updates // loader.batches):
        order = torch.arange(n)
        if loader.shuffle:
            mixed = np.random.SeedSequence([loader.seed, epoch]).generate_state(1, np.uint64)[0]
            order = torch.randperm(n, generator=torch.Generator().manual_seed(int(mixed)))
        updates += [order[start : start + size].tolist() for start in range(0, n - size + 1, size)]
    return updates


class Run:
    """Trains the way Lightning does: a block is fetched before the block before it is trained."""

    def __init__(self, *arguments, start: int = 0) -> None:
        self.step, self.seen, self.checks = start, [], []
        self.loader = make_loader(*arguments, step=lambda: self.step)

    def train(self) -> "Run":
        while self.step < self.loader.total_updates:
            blocks = iter(self.loader)
            fetched = next(blocks)
            while fetched is not None:
                block, fetched = fetched, next(blocks, None)
                self.train_block(block)
        return self

    def train_block(self, block: Block) -> None:
        assert block.first == self.step
        before = len(self.seen)
        for input, target, _ in block:
            assert torch.equal(input, torch.stack([target, -target], dim=1).float())
            self.seen.append(target.tolist())
            self.step += 1
        assert len(self.seen) - before == len(block)
        self.checks.append(self.step)


def expected_checks(total: int, interval: int, start: int = 0) -> list[int]:
    return [step for step in [*range(interval, total, interval), total] if step > start]


@pytest.mark.parametrize(("batches", "remainder", "epochs", "interval", "shuffle"), GRID)
def test_from_any_step_the_rest_is_that_of_the_plain_double_loop(batches, remainder, epochs, interval, shuffle):
    arguments = (batches, remainder, epochs, interval, shuffle)
    expected = plain_double_loop(make_loader(*arguments))
    total = batches * epochs
    assert len(expected) == total
    for start in range(total + 1):
        run = Run(*arguments, start=start).train()
        assert run.seen == expected[start:]
        assert run.checks == expected_checks(total, interval, start)


def test_an_epoch_yields_the_blocks_that_start_in_it():
    run = Run(7, 0, 3, 2, False)
    found = []
    for _ in range(3):
        found.append([(block.first, len(block)) for block in run.loader])
        run.step = sum(found[-1][-1])
    assert found == [[(0, 2), (2, 2), (4, 2), (6, 2)], [(8, 2), (10, 2), (12, 2)], [(14, 2), (16, 2), (18, 2), (20, 1)]]
    assert list(run.loader) == []  # all is trained
    assert not hasattr(run.loader, "__len__")


def test_the_step_is_read_when_an_iteration_begins():
    steps = iter([0, 4])
    loader = make_loader(7, 0, 1, 2, False, step=lambda: next(steps))
    first, second = iter(loader), iter(loader)
    assert next(second).first == 4
    assert next(first).first == 0


# Published numbers depend on this order: to change it is to change every shuffled run.
FIRST_OF_SEED_0 = [36, 1, 53, 8, 28, 52]


def orders_of(seed: int) -> list[tuple[int, ...]]:
    """Returns the order of 60 samples in each of three epochs."""
    loader = make_loader(20, 0, 3, 4, True, seed=seed)
    order = torch.cat([target for update in range(60) for target in loader.minibatch(update)[1:2]])
    return [tuple(epoch) for epoch in order.view(3, 60).tolist()]


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = [order for seed in (0, 1, 2) for order in orders_of(seed)]
    assert all(sorted(order) == list(range(60)) for order in orders)
    assert len(set(orders)) == 9  # also (seed, epoch) = (0, 1) and (1, 0) differ
    assert orders_of(1) == orders[3:6]
    assert list(orders[0][:6]) == FIRST_OF_SEED_0


def test_shuffling_leaves_the_global_generators_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    orders_of(0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_an_epoch_is_drawn_once_although_blocks_alternate_between_two(monkeypatch):
    drawn = []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **kwargs: drawn.append(n) or randperm(n, **kwargs))
    loader = make_loader(5, 1, 2, 2, True)
    for update in (0, 4, 5, 4, 5, 9):
        loader.minibatch(update)
    assert drawn == [16, 16]


def test_unshuffled_batches_are_views():
    loader = make_loader(4, 1, 2, 2, False)
    for block in loader:
        for input, target, _ in block:
            assert input.untyped_storage().data_ptr() == loader.input.untyped_storage().data_ptr()
            assert target.untyped_storage().data_ptr() == loader.target.untyped_storage().data_ptr()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_each_minibatch_like_array_split(world_size, batch_size, shuffle):
    arguments = dict(batches=4, remainder=1, epochs=2, interval=3, shuffle=shuffle, batch_size=batch_size)
    whole = make_loader(**arguments)
    ranks = [make_loader(**arguments, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sum(next(iter(rank)).share for rank in ranks) == pytest.approx(1)
    for update in range(whole.total_updates):
        expected = np.array_split(whole.minibatch(update)[1].numpy(), world_size)
        for rank, share in zip(ranks, expected, strict=True):
            input, target, _ = rank.minibatch(update)
            assert target.tolist() == input[:, 0].tolist() == share.tolist()


class Recorder(pl.LightningModule):
    """Trains nothing, by hand, and writes down what it is given."""

    def __init__(self, loader_arguments: tuple) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.loader = make_loader(*loader_arguments, step=lambda: self.global_step)
        self.seen, self.checks, self.evaluated, self.epochs_ended = [], [], [], 0

    def train_dataloader(self) -> BlockLoader:
        return self.loader

    def val_dataloader(self) -> WholeSets:
        part = (self.loader.input[:5], self.loader.target[:5])
        return WholeSets({"val": part, "train": (self.loader.input, self.loader.target)})

    def training_step(self, block: Block, _: int) -> None:
        for _, target, _ in block:
            self.seen.append((self.global_step, target.tolist()))
            self.optimizers().step()

    def validation_step(self, batch: dict[str, tuple[Tensor, Tensor]], _: int) -> None:
        for index, tensors in enumerate(batch.values()):
            self.checks.append((self.global_step, index))
            self.evaluated.append(tuple(tensor.data_ptr() for tensor in tensors))

    def on_train_epoch_end(self) -> None:
        self.epochs_ended += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class SaveAtChecks(pl.Callback):
    def __init__(self, folder) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def fit(arguments: tuple, callbacks: tuple = (), ckpt_path=None) -> Recorder:
    recorder = Recorder(arguments)
    trainer = pl.Trainer(
        max_epochs=arguments[2],
        val_check_interval=1,
        check_val_every_n_epoch=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, ckpt_path=ckpt_path)
    return recorder


# torch has deprecated the class by which Lightning 2.6.6 looks into loaders.
lightning = pytest.mark.filterwarnings(r"ignore:.isinstance\(treespec, LeafSpec\):FutureWarning")
FITS = [(batches, 1, epochs, 1, True) for batches in range(1, 8) for epochs in range(1, 5)] + [
    (7, 1, 3, 2, True),  # blocks run on into the next epoch
    (7, 1, 3, 3, False),
    (12, 1, 3, 5, True),
    (3, 1, 5, 4, True),  # and over a whole epoch, which leaves Lightning epochs empty
]


@lightning
@pytest.mark.parametrize("arguments", FITS)
def test_lightning_trains_the_plain_double_loop(arguments):
    recorder = fit(arguments)
    batches, _, epochs, interval, _ = arguments
    assert recorder.seen == list(enumerate(plain_double_loop(recorder.loader)))
    assert recorder.checks == list(product(expected_checks(batches * epochs, interval), (0, 1)))
    assert recorder.epochs_ended == epochs
    whole = (recorder.loader.input.data_ptr(), recorder.loader.target.data_ptr())
    assert set(recorder.evaluated) == {whole}  # never copied; the slice from 0 starts where the whole does


@lightning
@pytest.mark.parametrize("arguments", FITS[-4:])
def test_lightning_resumes_from_every_check(arguments, tmp_path):
    complete = fit(arguments, callbacks=(SaveAtChecks(tmp_path),))
    total = complete.loader.total_updates
    steps = expected_checks(total, arguments[3])
    assert {path.stem for path in tmp_path.iterdir()} == {str(step) for step in steps}
    for step in steps:
        resumed = fit(arguments, ckpt_path=tmp_path / f"{step}.ckpt")
        assert resumed.seen == complete.seen[step:]
        assert resumed.checks == [check for check in complete.checks if check[0] > step]
