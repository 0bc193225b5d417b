"""Errors as one line: Hydra's own ones are taken from Hydra, as it words them today."""

import errno
import os

import pytest
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from handgrad.cli.messages import first_line, one_line, unknown_key, unknown_option, wrong_type
from handgrad.errors import MISTAKES, GradientError, InputError
from handgrad.runs.overrides import parse_overrides

pytestmark = pytest.mark.slow  # composes for Hydra's own wording


@pytest.fixture
def said(composed):
    """Composes words that cannot be; returns the line."""

    def said(*words: str) -> str | None:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            composed(*words)
        return one_line(caught.value)

    return said


KEYS = [
    ("lrr=1", "lrr: no such key; did you mean 'lr'?"),
    ("shuffle=true", "shuffle: no such key; did you mean 'data.shuffle'?"),  # the name alone, wherever it stands
    ("optimizer.epochs=1", "optimizer.epochs: no such key; did you mean 'epochs'?"),
    ("data.epoch=1", "data.epoch: no such key; did you mean 'epochs'?"),
    ("callbacks.curvs=null", "callbacks.curvs: no such key; did you mean 'callbacks.curves'?"),
    ("trainer.device=2", "trainer.device: no such key; did you mean 'trainer.devices'?"),
    ("callbacks.weight_images.count=1", "callbacks.weight_images.count: no such key; --help lists those there are"),
    ("data.train=a.npz", "data.train: no such key with the option that is chosen for data; data=features has it"),
    (
        "optimizer.betas=[0,0]",
        "optimizer.betas: no such key with the option that is chosen for optimizer; optimizer=adam has it",
    ),
    ("zzzz=1", "zzzz: no such key; --help lists those there are"),
]


@pytest.mark.parametrize(("word", "line"), KEYS, ids=[word for word, _ in KEYS])
def test_an_unknown_key_and_the_nearest_one(word, line, said):
    assert said(word) == line


OPTIONS = [
    ("task=sofmax", "task=sofmax: accepted are logistic, multilabel, softmax; did you mean 'softmax'?"),
    ("optimizer=lbfgs", "optimizer=lbfgs: accepted are adam, exact, sgd"),
    ("trainer=gpu", "trainer=gpu: accepted are default"),
    ("logger=non", "logger=non: accepted are none, tensorboard; did you mean 'none'?"),
]


@pytest.mark.parametrize(("word", "line"), OPTIONS, ids=[word for word, _ in OPTIONS])
def test_an_unknown_option_and_those_there_are(word, line, said):
    assert said(word) == line


TYPES = [
    ("lr=abc", "lr=abc: accepted is a number > 0"),
    ("epochs=1.5", "epochs=1.5: accepted is a whole number >= 1"),
    ("seed=null", "seed=null: accepted is a whole number >= 0"),
    ("patience=[1,2]", "patience=[1, 2]: accepted is a whole number >= 1, or null"),
    ("optimizer.momentum=x", "optimizer.momentum=x: accepted is a number >= 0 and < 1"),
]


@pytest.mark.parametrize(("word", "line"), TYPES, ids=[word for word, _ in TYPES])
def test_a_value_of_a_wrong_type(word, line, said):
    assert said(word) == line


@pytest.mark.parametrize("word", ["task.lr=abc", "callbacks.checkpoint=5", "lr.x=1"])
def test_a_wrong_type_that_nothing_is_known_of(word, said):
    assert said(word) == f"{word}: not of the type that {word.partition('=')[0]} has; --cfg job shows its default"


@pytest.mark.parametrize("word", ["l2=[0,1", "lr", "data.root=a=b"])
def test_a_word_that_cannot_be_read(word, said):
    line = said(word)
    assert line.startswith(f"{word}: cannot be read: ")
    assert len(line) > len(f"{word}: cannot be read: ")
    assert "\n" not in line


def test_what_is_no_such_message_is_none_of_these():
    for message in ("", "Error merging", "Could not load 'optimizer/a'", "another message"):
        assert unknown_key(message) is unknown_option(message) is wrong_type(message) is None


def test_other_errors_of_hydra_and_omegaconf_are_their_first_line():
    assert one_line(HydraException("\nfirst\nsecond")) == "first"
    with pytest.raises(Exception, match="nokey") as caught:
        OmegaConf.to_container(OmegaConf.create({"epochs": "${nokey}"}), resolve=True)
    assert one_line(caught.value) == "Interpolation key 'nokey' not found"


# --- while it is built -----------------------------------------------------------------------------------------------


def refuse(**_: object):
    try:
        raise FileNotFoundError(2, "No such file", "below")  # what an error of ours comes from is not what is told
    except OSError as error:
        raise InputError("batch_size=0: accepted is a whole number from 1") from error


def break_down(**_: object):
    raise RuntimeError("no such device\nand more of it")


def built(function) -> InstantiationException:
    cfg = OmegaConf.create({"data": {"_target_": f"{__name__}.{function.__name__}"}})
    with pytest.raises(InstantiationException) as caught:
        instantiate(cfg.data)
    return caught.value


def test_an_input_error_in_building_is_its_own_line():
    assert one_line(built(refuse)) == "batch_size=0: accepted is a whole number from 1"


def test_another_error_in_building_names_the_key():
    line = break_down.__code__.co_firstlineno + 1
    assert one_line(built(break_down)) == f"data: no such device (RuntimeError, {__file__}, line {line})"


def test_a_mistake_in_a_file_names_it_and_the_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mistaken.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "lost.py").write_text("\n\nimport nothing_of_that_name\n")
    for name, line, told in (("mistaken", 2, "SyntaxError"), ("lost", 3, "ModuleNotFoundError")):
        with pytest.raises(InstantiationException) as caught:
            instantiate({"_target_": f"{name}.f"})
        assert f"({told}, {tmp_path / name}.py, line {line})" in one_line(caught.value)


# --- the others ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [InputError, GradientError])
def test_errors_of_the_project_speak_for_themselves(kind):
    assert one_line(kind("lr=0: accepted is a number > 0")) == "lr=0: accepted is a number > 0"


@pytest.mark.parametrize("number", sorted(errno.errorcode.keys() - MISTAKES), ids=errno.errorcode.get)
def test_errors_of_the_system_name_the_file(number):
    told = os.strerror(number)
    assert one_line(OSError(number, told, "out/last.ckpt")) == f"out/last.ckpt: cannot be read or written ({told})"
    assert one_line(OSError(number, told)) == f"a file of the run: cannot be read or written ({told})"


def test_lightnings_complaint_is_about_the_trainer():
    error = MisconfigurationException("No supported gpu backend found!\nmore")
    assert one_line(error) == "trainer: No supported gpu backend found!"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a mistake"),
        RuntimeError("a mistake"),
        KeyError("key"),
        OSError(errno.EBADF, "Bad file descriptor"),
        OSError("without a number"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_strangers_error_has_no_line(error):
    assert one_line(error) is None


def test_an_override_error_of_hydra_names_the_word():
    with pytest.raises(HydraException) as caught:
        parse_overrides(["lr=1", "l2=[0"])
    assert one_line(caught.value).startswith("l2=[0: cannot be read: ")


def test_a_value_makes_no_line_of_its_own():
    with pytest.raises(HydraException) as caught:
        parse_overrides(["a\nerror: forged"])
    assert one_line(caught.value).startswith(r"a\nerror: forged: cannot be read: ")


def test_the_first_line_is_the_first_with_text():
    assert first_line(ValueError("\n\n  one \ntwo")) == "one "
    assert first_line(ValueError()) == ""
