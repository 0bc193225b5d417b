"""A default stands in conf/ alone, type, range, help and example in cli/settings.py alone, and the two fit together."""

import dataclasses
import inspect
import subprocess
import sys

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, OmegaConf

from handgrad.cli import settings
from handgrad.cli.configuration import CONF, DEFAULTS, check_ranges, composed, leaves, refusal
from handgrad.cli.settings import OPTIONS, SETTINGS, Setting
from handgrad.errors import InputError

CLASSES = [kind for _, kind in inspect.getmembers(settings, dataclasses.is_dataclass)]
NAN, INF = float("nan"), float("inf")

FILES = [f"{name}{kind}" for kind in ("", "_labels") for name in ("train", "val", "test")]
# Values that each setting refuses, and one besides its default that it takes.
WRONG = {
    "l2": ([-1, NAN, INF, None, "abc", True, [], [0, -1], [0, "abc"], [[0]], {"a": 1}], [0, 0.5]),
    "lr": ([0, -0.1, NAN, INF, None, "abc", True, [1]], 1e-5),
    "epochs": ([0, 1.0, 1.5, None, True, "1"], 1),
    "batch_size": ([0, 1.5, None, True], 1),
    "seed": ([-1, 0.0, None, False], 7),
    "patience": ([0, 1.5, True, "null"], None),
    "select.metric": (["acc", "", 1, None, ["loss"]], "auroc"),
    "select.rule": (["first", 1, None], "one_standard_error"),
    "select.refit": ([0, 1, "yes", None], True),
    "penalize_bias": ([0, 1, "yes", None], True),
    "threads": ([0, 1.5, True, None, "all"], 3),
    "data.train_size": ([0, -1, 1.5, True, "all"], None),
    **{f"data.{key}": ([1, "", [], ["a.npy", 1], {"a": 1}], ["a.npy", "b.npy"]) for key in FILES},
    "data.x": ([1, "", [], ["a", 1], True], ["a", "b"]),
    "data.y": ([1, "", [], ["a", 1], True], ["a", "b"]),
    "data.label_names": ([1, "a", [], ["a", 1], True], ["a", "b"]),
    "data.label_separator": ([""], "|"),
    "data.folds": ([1, 0, 2.5, True, "5"], 5),
    "data.shots": ([1, [], [0], [1, "2"], [2, 2], "all", True], [1, 16]),
    "data.draws": ([0, 1.5, None, True], 3),
    "data.bootstrap": ([0, 19, 1.5, True, "100"], 100),
    "data.holdout": ([0, 1, -0.1, NAN, "abc", True, [0.1]], 0.5),
    "data.split": (["ful", "", 1, None], "course"),
    "data.digits": ([[1], [1, 1], [1, 10], [1, 1.5], [-1, 2], [True, 2], 3, "3,2", []], [3, 2]),
    "data.shuffle": (["maybe", 1, 0, None], False),
    "data.folder": ([1, "", ["a"]], "letters"),
    "data.labels": ([3, "ab", [3], [3, 3], [3, "2"], [-1, 3], [3, 256], [True, 3], {"a": 1}], [3, 0]),
    "data.md5": ([1, "", ["a"]], "MD5SUMS"),
    "data.normalize": (["standard", "", 1, True], "l2"),
    "data.class_weight": (["balance", 1, True, [1, 2], {"a": -1}, {"a": NAN}, {"a": "1"}], {"a": 1, 2: 0.5}),
    "optimizer.momentum": ([-0.1, 1, NAN, "abc", True], 0.9),
    "optimizer.betas": ([[0.9], [0.9, 0.9, 0.9], [0.9, 1], [-0.1, 0], 0.9, ["a", "b"]], [0, 0]),
    "optimizer.tolerance": ([0, -1, NAN, INF, True], 1e-3),
    "optimizer.max_iterations": ([0, 1.5, True], 1),
    "trainer.accelerator": (["gpuu", "", 1], "gpu"),
    "trainer.devices": ([0, -1, "all", [], ["0"], True, 1.0], [0]),
    "trainer.num_nodes": ([0, -1, "all", True, 1.0, [1]], 2),
    "trainer.peer_timeout": ([0, 0.9, -1, NAN, INF, "abc", True], 5),
    "trainer.strategy": (["fsdp", "ddp_spawn", 1], "ddp"),
    "trainer.precision": (["16-mixed", "16-true", 32], "64-true"),
    "callbacks.gradient_check.tolerance": ([0, -1, NAN, INF, True], 1),
    "callbacks.gradient_check.directions": ([0, 1.5, True], 1),
    "callbacks.gradient_check.classifiers": ([0, 1.5, True], 1),
    "callbacks.weight_images.rows": ([0, 1.5, True], 1),
    "callbacks.checkpoint.every_seconds": ([-1, NAN, INF, "abc", True], 0),
}
LINES = [
    ("lr", 0.0, "lr=0: accepted is a number > 0"),
    ("l2", [0, -0.5], "l2=[0, -0.5]: accepted is a number >= 0 or a list of them, like 2.0 or [0,0.02,2], or auto"),
    ("epochs", 0, "epochs=0: accepted is a whole number >= 1"),
    ("seed", -1, "seed=-1: accepted is a whole number >= 0"),
    ("patience", 0, "patience=0: accepted is a whole number >= 1, or null"),
    ("threads", "all", "threads=all: accepted is a whole number >= 1, or auto"),
    ("penalize_bias", 1, "penalize_bias=1: accepted is true or false"),
    ("optimizer.momentum", 1.0, "optimizer.momentum=1: accepted is a number >= 0 and < 1"),
    ("optimizer.betas", [0.9], "optimizer.betas=[0.9]: accepted is two numbers >= 0 and < 1"),
    ("data.train", 3, "data.train=3: accepted is a file, a list of files, a pattern like features/*.npy, or null"),
    ("data.holdout", 1.0, "data.holdout=1: accepted is a number > 0 and < 1"),
    ("data.normalize", "L2", "data.normalize=L2: accepted is one of none, center, standardize, l2; did you mean 'l2'?"),
    ("data.normalize", "l1", "data.normalize=l1: accepted is one of none, center, standardize, l2"),
    ("trainer.strategy", "fsdp", "trainer.strategy=fsdp: accepted is auto or ddp"),
    ("trainer.accelerator", "x", "trainer.accelerator=x: accepted is one of auto, cpu, gpu, cuda, mps"),
    ("select.rule", "bst", "select.rule=bst: accepted is one of best, one_standard_error; did you mean 'best'?"),
    ("callbacks.checkpoint.every_seconds", NAN, "callbacks.checkpoint.every_seconds=NaN: accepted is a number >= 0"),
]
# The data modules check them.
OWNERS = {"data.root", "data.sample_weight", "data.groups"}


@pytest.fixture(scope="module")
def defaults(tmp_path_factory) -> dict:
    """The composed configuration as plain values, with the settings of all options of a group in it."""
    folder = tmp_path_factory.mktemp("run")
    whole = OmegaConf.to_container(composed([], folder), resolve=True)
    for group, option in OPTIONS:
        found = OmegaConf.to_container(composed([f"{group}={option}"], folder), resolve=True)
        whole[group] = found[group] | whole[group]
    HydraConfig.instance().cfg = None
    return whole


@pytest.fixture
def plain(defaults):
    """The same with one other value in it, of whatever type."""

    def plain(key: str | None = None, value: object = None):
        cfg = OmegaConf.create(defaults)
        if key:
            OmegaConf.update(cfg, key, value)
        return cfg

    return plain


def test_each_setting_accepts_its_default(plain):
    cfg = plain()
    check_ranges(cfg)
    for key, found in SETTINGS.items():
        value = OmegaConf.select(cfg, key, throw_on_missing=True)
        assert found.accepts(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value), key


def test_every_setting_is_checked_here_or_by_its_owner():
    assert {key for key, found in SETTINGS.items() if found.accepts is settings.by_owner} == OWNERS
    assert WRONG.keys() == SETTINGS.keys() - OWNERS


@pytest.mark.parametrize("key", WRONG)
def test_each_setting_refuses_wrong_values(key):
    wrong, right = WRONG[key]
    for value in wrong:
        assert not SETTINGS[key].accepts(value), value
    assert SETTINGS[key].accepts(right)


@pytest.mark.parametrize(("key", "value", "line"), LINES, ids=[key for key, *_ in LINES])
def test_a_refusal_is_one_line(key, value, line, plain):
    with pytest.raises(InputError) as caught:
        check_ranges(plain(key, value))
    assert str(caught.value) == line == refusal(key, value)


def test_the_first_wrong_value_of_each_setting_is_refused_by_the_check(plain):
    cfg = plain()
    for key, (wrong, right) in WRONG.items():
        default = OmegaConf.select(cfg, key)
        value = next(value for value in wrong if value is not None)
        OmegaConf.update(cfg, key, value)
        with pytest.raises(InputError) as caught:
            check_ranges(cfg)
        assert str(caught.value) == refusal(key, value)
        OmegaConf.update(cfg, key, right)
        check_ranges(cfg)
        OmegaConf.update(cfg, key, default)


@pytest.mark.parametrize("key", sorted(key for key in SETTINGS.keys() - OWNERS if "." in key))
def test_null_is_a_value_like_any_other(key, plain):
    cfg = plain(key, None)
    if SETTINGS[key].accepts(None):
        check_ranges(cfg)
    else:
        with pytest.raises(InputError) as caught:
            check_ranges(cfg)
        assert str(caught.value) == refusal(key, None)


def test_a_missing_callback_is_not_checked(plain):
    check_ranges(plain("callbacks.gradient_check", None))


# --- conf/ and the classes --------------------------------------------------------------------------------------------


def test_every_key_of_conf_is_a_setting_and_the_other_way_round():
    found = {}
    for path in CONF.glob("*/*.yaml"):
        if path.parent.name not in ("experiment", "hydra"):
            found |= dict(leaves(OmegaConf.to_container(OmegaConf.load(path)), f"{path.parent.name}."))
    top = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    found |= dict(leaves({key: value for key, value in top.items() if key not in ("defaults", "hydra")}))
    own = {"lr"} | DEFAULTS  # linked to the task's, and yet settings
    linked_to = {str(found[key]).strip("${}") for key in own}
    assert linked_to == {"task.lr", "task.digits"}
    settable = {
        key
        for key, value in found.items()
        if key.rpartition(".")[2] not in ("_target_", "defaults") and (not str(value).startswith("${") or key in own)
    }
    assert settable == SETTINGS.keys() | linked_to | {"task.name", "task.multilabel"}


def test_experiments_set_settings():
    for path in CONF.glob("experiment/*.yaml"):
        keys = {key for key, _ in leaves(OmegaConf.to_container(OmegaConf.load(path)))} - {"defaults"}
        assert keys
        assert keys <= SETTINGS.keys()


def test_every_option_with_settings_of_its_own_names_its_class():
    for (group, option), node in OPTIONS.items():
        (named,) = (key for key in OmegaConf.load(CONF / group / f"{option}.yaml").defaults if key != "_self_")
        assert named == f"/settings/{group}/{option}@_here_" or OPTIONS.get((group, named)) is node


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_no_default_stands_here(kind):
    for entry in dataclasses.fields(kind):
        if (kind, entry.name) == (settings.Settings, "logger"):
            assert entry.default is None
        elif entry.default_factory is not dataclasses.MISSING:
            assert entry.default_factory in CLASSES
        else:
            assert entry.default == MISSING, entry.name


def test_each_setting_says_what_it_means():
    for key, found in SETTINGS.items():
        assert isinstance(found, Setting)
        assert found.help, key
        assert found.accepted, key
        assert "\n" not in found.help + found.accepted


def test_neither_torch_nor_lightning_is_loaded():
    text = "import sys, handgrad.cli.settings; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
    assert {"handgrad", "hydra", "omegaconf"} <= set(loaded)
    assert not {"torch", "pytorch_lightning", "lightning_fabric", "torchvision", "numpy", "matplotlib"} & set(loaded)
