"""A data source of one's own: what it must say, and what it is given for it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from handgrad.data.base import LinearDataModule, is_whole, whole_number
from handgrad.data.rows import Rows
from handgrad.errors import InputError

SIZES = {"train": 200, "val": 60, "test": 40}
SHARED = dict(shuffle=False, batch_size=8, seed=0, epochs=2)


class Clouds(LinearDataModule):
    """Three clouds of points in the plane, each around a corner of a triangle; everything a data source has to say."""

    classes = ("left", "right", "top")
    num_features = 2
    feature_names = ("x", "y")
    scaling = "as drawn"

    def __init__(self, sets=tuple(SIZES), **shared) -> None:
        super().__init__(**shared)
        self.sets, self.reads = sets, 0

    def read(self):
        self.reads += 1
        generator = torch.Generator().manual_seed(0)
        corners = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5]])
        target = {name: torch.randint(0, 3, (SIZES[name],), generator=generator) for name in self.sets}
        return {name: (corners[y] + torch.randn(len(y), 2, generator=generator), y) for name, y in target.items()}


def clouds(sets=tuple(SIZES), **shared) -> Clouds:
    return Clouds(sets, **SHARED | shared)


def test_what_is_known_before_anything_is_read():
    data = clouds()
    assert data.num_classes == 3
    assert data.about() == {
        "classes": ("left", "right", "top"),
        "num_features": 2,
        "feature_names": ("x", "y"),
        "scaling": "as drawn",
    }
    assert (data.train, data.val, data.test, data.batches, data.reads) == (None, None, None, 0, 0)


def test_names_of_features_and_scaling_may_be_left_out():
    class Plain(LinearDataModule):
        classes = (3, 2)
        num_features = 5

    assert Plain(**SHARED).about() == {"classes": (3, 2), "num_features": 5, "feature_names": None, "scaling": None}
    with pytest.raises(NotImplementedError):
        Plain(**SHARED).setup()


def test_setup_takes_the_sets_over_and_counts():
    data = clouds()
    data.setup("fit")
    for name, (input, target) in data.read().items():
        found = getattr(data, name)
        assert torch.equal(found[0], input)
        assert torch.equal(found[1], target)
    assert (data.batches, data.check_interval, data.total_updates) == (25, 5, 50)


@pytest.mark.parametrize(
    ("batch_size", "epochs", "counts"),
    [(1, 1, (200, 40, 200)), (7, 3, (28, 5, 84)), (60, 4, (3, 1, 12)), (101, 1, (1, 1, 1)), (200, 9, (1, 1, 9))],
)
def test_batches_that_are_not_full_are_dropped_and_a_fifth_is_at_least_one(batch_size, epochs, counts):
    data = clouds(batch_size=batch_size, epochs=epochs)
    data.setup()
    assert (data.batches, data.check_interval, data.total_updates) == counts


def test_a_second_setup_does_nothing():
    data = clouds(train_size=100)
    data.setup("fit")
    train, val, test = data.train, data.val, data.test
    data.setup("test")
    assert data.reads == 1
    assert data.train is train
    assert data.val is val
    assert data.test is test
    assert data.batches == 12


def test_train_size_takes_the_first_samples_and_lets_the_others_go():
    data = clouds(train_size=50)
    data.setup()
    whole = data.read()
    input, target = data.train
    assert torch.equal(input, whole["train"][0][:50])
    assert torch.equal(target, whole["train"][1][:50])
    assert input.untyped_storage().nbytes() == 50 * 2 * 4
    assert target.untyped_storage().nbytes() == 50 * 8
    assert len(data.val[1]) == SIZES["val"]
    assert data.batches == 6
    all_of_it = clouds(train_size=200)
    all_of_it.setup()
    assert torch.equal(all_of_it.train[0], whole["train"][0])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"shuffle": "no"}, "data.shuffle='no': accepted are true and false"),
        ({"shuffle": 1}, "data.shuffle=1: accepted are true and false"),
        ({"batch_size": 0}, "batch_size=0: accepted is a whole number from 1"),
        ({"batch_size": 2.0}, "batch_size=2.0: accepted is a whole number from 1"),
        ({"batch_size": None}, "batch_size=None: accepted is a whole number from 1"),
        ({"seed": -1}, "seed=-1: accepted is a whole number from 0"),
        ({"seed": True}, "seed=True: accepted is a whole number from 0"),
        ({"epochs": 0}, "epochs=0: accepted is a whole number from 1"),
        ({"epochs": "many"}, "epochs='many': accepted is a whole number from 1"),
        ({"train_size": 0}, "data.train_size=0: accepted is a whole number from 1"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(wrong, told):
    with pytest.raises(InputError) as error:
        clouds(**wrong)
    assert str(error.value) == told


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"train_size": 201}, "data.train_size=201: accepted are 1 to 200, or null for all"),
        ({"batch_size": 201}, "batch_size=201: accepted are 1 to 200, the size of the training set"),
        ({"batch_size": 8, "train_size": 7}, "batch_size=8: accepted are 1 to 7, the size of the training set"),
    ],
)
def test_what_does_not_fit_the_data_is_told_when_they_are_read(wrong, told):
    data = clouds(**wrong)
    with pytest.raises(InputError) as error:
        data.setup()
    assert str(error.value) == told
    assert data.total_updates == 0


def test_whole_numbers():
    assert whole_number("seed", np.int64(3), least=0) == 3
    assert type(whole_number("seed", np.int64(3), least=0)) is int
    assert [is_whole(value) for value in (0, -1, np.int32(2), True, 1.0, "1", None)] == [True] * 3 + [False] * 4


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_training_loader_hands_out_blocks_of_a_fifth_of_an_epoch(shuffle):
    data = clouds(shuffle=shuffle, seed=3)
    data.setup()
    loader = data.train_dataloader()
    blocks = list(loader)
    assert [(block.first, len(block), block.share) for block in blocks] == [(n, 5, 1) for n in range(0, 25, 5)]
    assert loader.total_updates == data.total_updates
    input, target = (
        torch.cat(parts) for parts in zip(*(batch[:2] for block in blocks for batch in block), strict=True)
    )
    assert torch.equal(target, data.train[1]) is not shuffle
    assert torch.equal(input, data.train[0]) is not shuffle
    assert sorted(input[:, 0].tolist()) == sorted(data.train[0][:, 0].tolist())  # each sample once
    other, again = (clouds(shuffle=True, seed=seed) for seed in (4, 3))
    for data, same in ((other, False), (again, shuffle)):
        data.setup()
        assert torch.equal(next(iter(data.train_dataloader().block(0)))[1], target[:8]) is same


def test_the_training_loader_begins_where_the_trainer_is_and_shares_among_its_processes():
    data = clouds()
    data.setup()
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(strategy=strategy, global_step=15, global_rank=1, world_size=3)
    block = next(iter(data.train_dataloader()))
    assert (block.first, block.share) == (15, 3 / 8)
    input, *_ = next(iter(block))
    assert torch.equal(input, data.train[0][15 * 8 + 3 : 15 * 8 + 6])


@pytest.mark.parametrize("sets", [("train", "val"), ("train", "val", "test")])
def test_evaluation_gets_whole_sets(sets):
    data = clouds(sets)
    data.setup()
    for loader, names in ((data.val_dataloader(), ["val", "train"]), (data.test_dataloader(), list(sets))):
        (batch,) = loader
        assert list(batch) == names
        for name, (input, target) in batch.items():
            assert input is getattr(data, name)[0]
            assert target is getattr(data, name)[1]


def test_sets_move_to_the_trainers_device_for_good():
    data = clouds()
    data.setup()
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    (batch,) = data.val_dataloader()
    assert {tensor.device.type for part in batch.values() for tensor in part} == {"meta"}
    assert data.train[0] is batch["train"][0]
    assert data.test[0].device.type == "cpu"  # until it is asked for


@pytest.mark.parametrize(("name", "value"), [("train", 3), ("val", -1), ("test", 7)])
def test_a_target_that_is_no_class_is_told_before_a_device_sees_it(name, value, monkeypatch):
    read = Clouds.read

    def damaged(self):
        found = read(self)
        found[name][1][5] = value
        return found

    monkeypatch.setattr(Clouds, "read", damaged)
    with pytest.raises(InputError, match=rf"^{name}: target {value}; accepted are whole numbers from 0 to 2$"):
        clouds().setup()


def test_rows_on_disk_stay_there_for_the_cpu_and_are_sent_to_a_device_once(monkeypatch):
    data = clouds()
    data.setup()
    input, target = data.train
    data.train = Rows([input]), target
    for free, kind in ((0, Rows), (2**20, torch.Tensor)):
        data._sent.clear()
        monkeypatch.setattr("handgrad.data.rows.free_memory", lambda device, free=free: free)
        data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
        (first,), (second,) = data.val_dataloader(), data.val_dataloader()
        assert isinstance(first["train"][0], kind)
        assert first["train"][0] is second["train"][0]
        assert {part.device.type for part in first["train"]} == {"meta"}
        assert isinstance(data.train[0], Rows)
        assert data.train[0].device.type == data.train[1].device.type == "cpu"


def test_training_and_validation_set_are_joined_with_their_weights():
    data = clouds()
    data.setup()
    input, target, weight = data.train_and_val()
    assert weight is None
    assert torch.equal(input[:260], torch.cat((data.train[0], data.val[0])))
    assert torch.equal(target, torch.cat((data.train[1], data.val[1])))
    data.val_weight = torch.arange(60).double()
    assert torch.equal(data.train_and_val()[2], torch.cat((torch.ones(200), data.val_weight)))
    data.sample_weight, data.val_weight = torch.arange(200).double(), None
    with pytest.raises(InputError, match=r"^select.refit=true: the validation set has no sample weights"):
        data.train_and_val()
