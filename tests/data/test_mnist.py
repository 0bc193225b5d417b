"""The data module: which samples, as which numbers, in which loaders; and what it refuses."""

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from handgrad.cli.configuration import identity
from handgrad.data import mnist
from handgrad.data.mnist import ArchivedDataModule, FashionMNISTDataModule, KMNISTDataModule, MNISTDataModule
from handgrad.errors import InputError
from tests.data.idx_samples import images_and_labels, write

ARCHIVES = Path(__file__).parents[2] / "data/MNIST/raw"
DEFAULTS = dict(split="full", digits=range(10), shuffle=True, batch_size=128, seed=0, epochs=50)


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A data folder of the tests' own, with the repository's archives."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "MNIST/raw").mkdir(parents=True)
    for archive in ARCHIVES.glob("*.gz"):
        shutil.copy(archive, folder / "MNIST/raw")
    return folder


@pytest.fixture
def make(root):
    """Makes a data module after ``setup`` from what differs from the defaults."""

    def make(**changes) -> MNISTDataModule:
        data = MNISTDataModule(root=root, **DEFAULTS | changes)
        data.setup()
        return data

    return make


def pixels(root: Path, name: str) -> np.ndarray:
    """Returns the images as the file holds them, ``(N, 784)`` bytes."""
    return np.fromfile(root / f"MNIST/raw/{name}-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 784)


def labels(root: Path, name: str) -> np.ndarray:
    return np.fromfile(root / f"MNIST/raw/{name}-labels-idx1-ubyte", np.uint8, offset=8)


def assert_samples(part, pixels: np.ndarray, labels: np.ndarray) -> None:
    input, target = part
    assert (input.dtype, target.dtype) == (torch.float32, torch.int64)
    assert np.array_equal(target.numpy(), labels)
    assert input.shape == pixels.shape
    assert np.array_equal(input.numpy(), pixels.astype(np.float32) / np.float32(127.5) - np.float32(1))


def test_full_holds_the_last_10000_of_the_training_set_out(make, root):
    data = make(split="full")
    assert_samples(data.train, pixels(root, "train")[:50_000], labels(root, "train")[:50_000])
    assert_samples(data.val, pixels(root, "train")[50_000:], labels(root, "train")[50_000:])
    assert_samples(data.test, pixels(root, "t10k"), labels(root, "t10k"))
    assert data.train[1][:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert data.test[1][:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
    assert (data.train[0].min(), data.train[0].max()) == (-1, 1)
    assert (data.num_features, data.num_classes) == (784, 10)


def test_course_validates_on_the_official_test_set(make, root):
    data = make(split="course")
    assert_samples(data.train, pixels(root, "train")[:20_000], labels(root, "train")[:20_000])
    assert_samples(data.val, pixels(root, "t10k"), labels(root, "t10k"))
    assert data.test is None


def test_report_draws_what_legacy_numpy_draws_and_leaves_it_alone(make, root):
    before = np.random.get_state()  # noqa: NPY002
    data = make(split="report")
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    np.random.seed(0)  # noqa: NPY002
    train = np.random.choice(60_000, 18_000, replace=False)  # noqa: NPY002
    val = np.random.choice(10_000, 2_000, replace=False)  # noqa: NPY002
    np.random.set_state(before)  # noqa: NPY002
    assert_samples(data.train, pixels(root, "train")[train], labels(root, "train")[train])
    assert_samples(data.val, pixels(root, "t10k")[val], labels(root, "t10k")[val])
    assert data.test is None


@pytest.mark.parametrize(
    ("split", "train", "val", "test", "batches", "interval"),
    [
        ("full", 10_069, 2_020, 2_042, 78, 15),
        ("course", 4_005, 2_042, None, 31, 6),
        ("report", 3_596, 403, None, 28, 5),
    ],
)
def test_sizes_for_two_digits(split, train, val, test, batches, interval, make):
    data = make(split=split, digits=[3, 2])
    assert [part and len(part[0]) for part in (data.train, data.val, data.test)] == [train, val, test]
    assert (data.batches, data.check_interval, data.total_updates) == (batches, interval, 50 * batches)
    assert (data.classes, data.num_classes) == ([3, 2], 2)


@pytest.mark.parametrize("digits", [[3, 2], [2, 3], [9, 0, 4]])
def test_the_place_in_digits_is_the_class(digits, make, root):
    data = make(split="course", digits=digits)
    raw = labels(root, "train")[:20_000]
    kept = np.isin(raw, digits)
    assert_samples(data.train, pixels(root, "train")[:20_000][kept], [digits.index(label) for label in raw[kept]])


@pytest.mark.parametrize("digits", [(3, 2), np.array([3, 2]), np.array([3, 2], np.uint8), OmegaConf.create([3, 2])])
def test_digits_of_any_kind_become_a_list_of_int(digits, root):
    classes = MNISTDataModule(root=root, **DEFAULTS | {"digits": digits}).classes
    assert classes == [3, 2]
    assert [type(digit) for digit in classes] == [int, int]


def test_counts_of_updates(make):
    data = make(split="course", epochs=3)
    assert (data.batches, data.check_interval, data.total_updates) == (156, 31, 468)
    data = make(split="course", batch_size=5_000, epochs=2)  # fewer than five batches: a check after each
    assert (data.batches, data.check_interval, data.total_updates) == (4, 1, 8)


def test_setup_again_does_nothing(make):
    data = make(split="report")
    train, val = data.train, data.val
    data.setup("test")
    assert data.train is train
    assert data.val is val


REFUSED = [
    ({"split": "ful"}, r"split='ful'.*full, course, report; did you mean 'full'\?"),
    ({"split": "train"}, "split='train'"),
    ({"split": None}, "split=None"),
    ({"digits": [3]}, r"digits=\[3\]"),
    ({"digits": []}, r"digits=\[\]"),
    ({"digits": [3, 3]}, r"digits=\[3, 3\]: accepted are two or more different whole numbers from 0 to 9"),
    ({"digits": [3, 10]}, r"digits=\[3, 10\]"),
    ({"digits": [-1, 3]}, r"digits=\[-1, 3\]"),
    ({"digits": [2.0, 3]}, r"digits=\[2\.0, 3\]"),
    ({"digits": [True, False]}, r"digits=\[True, False\]"),
    ({"digits": np.array([True, False])}, "digits=array"),
    ({"digits": ["2", "3"]}, r"digits=\['2', '3'\]"),
    ({"digits": "23"}, "digits='23'"),
    ({"digits": 3}, "digits=3"),
    ({"digits": None}, "digits=None"),
    ({"shuffle": "no"}, "shuffle='no': accepted are true and false"),
    ({"batch_size": 0}, "batch_size=0: accepted is a whole number from 1"),
    ({"batch_size": 12.5}, r"batch_size=12\.5"),
    ({"batch_size": True}, "batch_size=True"),
    ({"batch_size": "128"}, "batch_size='128'"),
    ({"seed": -1}, "seed=-1: accepted is a whole number from 0"),
    ({"seed": None}, "seed=None"),
    ({"epochs": 0}, "epochs=0: accepted is a whole number from 1"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refuses_before_it_looks_at_any_file(change, message):
    with pytest.raises(InputError, match=message) as error:
        MNISTDataModule(root="/nowhere", **DEFAULTS | change)
    assert "\n" not in str(error.value)


def test_every_argument_must_be_given():
    for name in DEFAULTS:
        with pytest.raises(TypeError, match=name):
            MNISTDataModule(root=".", **{key: value for key, value in DEFAULTS.items() if key != name})


@pytest.mark.slow
def test_a_batch_larger_than_the_training_set_is_refused_every_time(root):
    data = MNISTDataModule(root=root, **DEFAULTS | {"split": "report", "digits": [3, 2], "batch_size": 3_597})
    for _ in range(2):
        with pytest.raises(InputError, match="batch_size=3597: accepted are 1 to 3596"):
            data.setup()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [(3, [0, 9], "3 images and 2 labels"), (2, [0, 10], "labels from 0 to 10"), (2, [-1, 9], "labels from -1 to 9")],
)
def test_images_and_labels_must_fit_together(images, labels, message, root, monkeypatch):
    loaded = SimpleNamespace(data=torch.zeros(images, 28, 28, dtype=torch.uint8), targets=torch.tensor(labels))
    monkeypatch.setattr(mnist, "MNIST", lambda *args, **kwargs: loaded)
    with pytest.raises(InputError, match=message):
        MNISTDataModule(root=root, **DEFAULTS).setup()


def test_a_root_without_data_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}/MNIST/raw"):
        MNISTDataModule(root=tmp_path, **DEFAULTS).setup()


ARCHIVED = {"FashionMNIST": FashionMNISTDataModule, "KMNIST": KMNISTDataModule}


@pytest.fixture(params=ARCHIVED)
def archived(request, tmp_path, monkeypatch) -> type[ArchivedDataModule]:
    """A module whose archives are small ones below ``tmp_path``, of which torchvision's class knows the MD5."""
    module = ARCHIVED[request.param]
    sets = dict(train=images_and_labels(300, 10, side=28), test=images_and_labels(50, 10, side=28, seed=1))
    sums = write(tmp_path / request.param / "raw", **sets)
    monkeypatch.setattr(module.dataset, "resources", list(sums.items()))
    return module


def test_sets_like_mnist_are_read_from_torchvisions_archives(archived, tmp_path):
    data = archived(root=tmp_path, **DEFAULTS | {"split": "course"})
    data.setup()
    for part, (images, labels) in zip(
        (data.train, data.val),
        (images_and_labels(300, 10, side=28), images_and_labels(50, 10, side=28, seed=1)),
        strict=True,
    ):
        assert_samples(part, images.reshape(-1, 784), labels)
    assert (data.classes, data.num_features) == (archived.dataset.classes, 784)
    assert data.about() | {"split": "course", "classes": archived.dataset.classes} == data.about()
    archive = tmp_path / archived.dataset.__name__ / "raw/train-images-idx3-ubyte.gz"
    assert data.digests()[archive.name] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert not list(archive.parent.glob("*ubyte"))  # they are read as they are


def test_their_classes_are_chosen_by_number_and_called_by_name(tmp_path, archived):
    data = archived(root=tmp_path, **DEFAULTS | {"split": "course", "digits": [9, 0], "batch_size": 10})
    data.setup()
    assert data.classes == [archived.dataset.classes[9], archived.dataset.classes[0]]
    assert data.train[1].tolist() == [1, 0] * 30


def test_a_missing_archive_says_how_to_get_it(tmp_path, archived):
    """The command it names, with torchvision's class as it is, is what puts the archives there."""
    name = archived.dataset.__name__
    path = tmp_path / name / "raw/t10k-labels-idx1-ubyte.gz"
    path.unlink()
    with pytest.raises(InputError) as error:
        archived(root=tmp_path, **DEFAULTS).setup()
    assert str(error.value) == (
        f'{path}: missing; the four archives of {name} belong there: python -c "from torchvision.datasets import '
        f"{name}; {name}('{tmp_path}', download=True)\", or by hand from {archived.dataset.mirrors[0]}"
    )


def test_the_command_downloads_to_where_the_archives_are_read(tmp_path, archived, monkeypatch):
    said = []
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", lambda url, **how: said.append(how))
    monkeypatch.setattr(archived.dataset, "_check_exists", lambda self: bool(said))
    monkeypatch.setattr(archived.dataset, "_load_data", lambda self: (None, None))
    archived.dataset(str(tmp_path), download=True)
    folder = archived(root=tmp_path, **DEFAULTS).folder
    assert {Path(how["download_root"]) / how["filename"] for how in said} == {*folder.glob("*.gz")}


def test_an_archive_that_is_not_torchvisions_is_refused(tmp_path, archived):
    write(tmp_path / archived.dataset.__name__ / "raw", test=images_and_labels(40, 10, side=28))
    with pytest.raises(InputError, match=r"t10k-images-\S+: damaged, or another file: found MD5 \w+, expected \w+"):
        archived(root=tmp_path, **DEFAULTS).setup()


@pytest.mark.slow
@pytest.mark.parametrize("option", ["fashion_mnist", "kmnist"])
def test_the_command_line_knows_them(option, composed):
    mnist, found = composed(), composed(f"data={option}")
    assert get_class(found.data._target_) in ARCHIVED.values()
    assert {**found.data, "_target_": None} == {**mnist.data, "_target_": None}
    assert dict(identity(found)) == dict(identity(mnist)) | {"data": option}


def only_batch(loader) -> dict:
    (batch,) = loader
    assert len(loader) == 1
    return batch


def same(batches, parts) -> bool:
    return [[id(tensor) for tensor in pair] for pair in batches] == [[id(tensor) for tensor in pair] for pair in parts]


def test_evaluation_loaders_give_each_set_whole_and_uncopied(make):
    full, course = make(split="full"), make(split="course")
    val, test = only_batch(full.val_dataloader()), only_batch(full.test_dataloader())
    assert list(val) == ["val", "train"]
    assert same(val.values(), [full.val, full.train])
    assert list(test) == ["train", "val", "test"]
    assert same(test.values(), [full.train, full.val, full.test])
    assert same(only_batch(course.test_dataloader()).values(), [course.train, course.val])


def test_the_training_loader_has_the_settings_of_the_module(make):
    data = make(split="course", digits=[3, 2], shuffle=False, epochs=2)
    blocks = list(data.train_dataloader())
    assert [(block.first, len(block)) for block in blocks] == [(0, 6), (6, 6), (12, 6), (18, 6), (24, 6), (30, 6)]
    first_input, first_target, _ = next(iter(blocks[0]))
    assert torch.equal(first_input, data.train[0][:128])
    assert torch.equal(first_target, data.train[1][:128])
    assert data.train_dataloader().total_updates == data.total_updates == 62
    assert make(split="course", seed=7).train_dataloader().seed == 7


def fake_trainer(device: str) -> SimpleNamespace:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(strategy=strategy, global_step=9, global_rank=1, world_size=2)


def test_the_training_loader_follows_the_trainer(make):
    data = make(split="course", digits=[3, 2], shuffle=False)
    data.trainer = fake_trainer("cpu")
    block = next(iter(data.train_dataloader()))
    assert (block.first, len(block), block.share) == (9, 3, 0.5)
    _, target, _ = next(iter(block))
    assert torch.equal(target, data.train[1][9 * 128 + 64 : 10 * 128])


def test_tensors_move_to_the_device_once(make):
    data = make(split="report")
    on_cpu = data.train
    data.trainer = fake_trainer("cpu")
    assert same([(data.train_dataloader().input, data.train_dataloader().target)], [on_cpu])
    data.trainer = fake_trainer("meta")
    loader = data.train_dataloader()
    val, train = only_batch(data.val_dataloader()).values()
    assert same([(loader.input, loader.target), train, val], [data.train, data.train, data.val])
    assert {tensor.device.type for tensor in (*train, *val)} == {"meta"}
