"""``--help`` has lines for everything that may be typed, and for nothing else; its examples and defaults are right."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from handgrad.cli.command_line import HYDRA_KEYS, OPTIONS, check_arguments
from handgrad.cli.configuration import CONF, DEFAULTS, check_ranges, composed, written
from handgrad.cli.help import ABOUT, FLAGS, GROUPS, OTHERS, defaults, help_text, launchers, options, sections
from handgrad.cli.settings import LAUNCHER_SETTINGS, SETTINGS, UNUSED
from handgrad.data.mnist import SPLITS

LINKED = {"lr"} | DEFAULTS  # to the task's


def test_every_setting_has_its_lines_and_nothing_else_has():
    """That each key of conf/ is a setting, and the other way round, tests/cli/test_settings.py sees to."""
    *heads, flags = help_text().partition("\nFlags:\n")[::2]
    found = [shlex.split(line)[0].partition("=")[0] for line in heads[0].splitlines() if line[:2] == "  " != line[1:3]]
    named = [key for keys in sections().values() for key in keys]
    assert set(named) == SETTINGS.keys()
    others = ["callbacks.figures", *GROUPS, *(word.partition("=")[0].removesuffix(" resume") for word in OTHERS)]
    of_launchers = [key for settings in launchers().values() for key in settings]
    assert found == ["python", *named, *others, *of_launchers]
    assert [line.strip() for line in flags.splitlines() if line[:2] == "  " != line[1:3]] == [*FLAGS]


def test_each_setting_tells_its_meaning_range_and_default():
    text, found = " ".join(help_text().split()), defaults()
    assert text.startswith(f"{ABOUT} python train.py")
    for title, keys in sections().items():
        for key in keys:
            setting, default = SETTINGS[key], found.get((key, title)) or found[key, ""]
            unused = "".join(f" (not with optimizer={name})" for name, keys in UNUSED.items() if key in keys)
            told = f"{setting.help}{unused} Accepted: {setting.accepted}. Default: {default} "
            head = shlex.quote(f"{key}={setting.example}")
            assert f"{head} {told}" in text[text.index(f"{title}: ") :]


def test_nothing_that_may_be_typed_is_left_out():
    assert {name for flag in FLAGS for name in flag.replace(",", "").split() if name[0] == "-"} == OPTIONS
    assert {word.rpartition(" ")[2].partition("=")[0] for word in OTHERS} == HYDRA_KEYS | {"resume"}
    several = {folder.name for folder in CONF.iterdir() if len([*folder.glob("*.yaml")]) > 1}
    assert several == GROUPS.keys()
    assert all(option in options(group) for group, (_, option) in GROUPS.items())
    assert all(split in SETTINGS["data.split"].accepted for split in SPLITS)


@pytest.mark.slow
def test_every_setting_of_a_launcher_is_told_once_with_an_example_that_is_accepted():
    told = [key for settings in launchers().values() for key in settings]
    assert sorted(told) == sorted({key for settings in LAUNCHER_SETTINGS.values() for key in settings})
    for launcher, settings in LAUNCHER_SETTINGS.items():
        for key, setting in settings.items():
            check_arguments([f"hydra/launcher={launcher}", f"{key}={setting.example}"])
            assert shlex.quote(f"{key}={setting.example}") in help_text()


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Callable[[list[str]], Any]]:
    yield lambda words: composed(words, tmp_path)
    HydraConfig.instance().cfg = None


@pytest.mark.slow
@pytest.mark.parametrize("title", [title for title in sections() if title.startswith("With ")])
def test_examples_are_accepted_and_defaults_are_those_of_a_run(title, compose):
    option = title.removeprefix("With ").partition(" or ")[0]
    keys = [
        key for other, keys in sections().items() if other == title or not other.startswith("With ") for key in keys
    ]
    found, cfg = defaults(), compose([option])
    for key in set(keys) - LINKED:
        assert written(plain(cfg, key)) == (found.get((key, title)) or found[key, ""]), key
    other = compose([option, *(f"{key}={SETTINGS[key].example}" for key in keys)])
    check_ranges(other)
    same = {key for key in keys if plain(other, key) == plain(cfg, key)}
    assert same == set(), "an example shows something else than the default"


def plain(cfg: Any, key: str) -> Any:
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


@pytest.mark.slow
def test_a_default_that_follows_from_the_task_is_told_for_each(compose):
    for key in LINKED:
        told = next(text for (name, _), text in defaults().items() if name == key)
        for task in ("logistic", "softmax"):
            value = written(plain(compose([f"task={task}"]), key))
            assert f"{value} with task={task}" in told


@pytest.mark.parametrize("width", [None, 60, 80, 140])
def test_it_fits_the_terminal(width):
    lines = help_text(width).splitlines()
    assert max(len(line) for line in lines if line[:3].isspace()) <= min(width or 80, 100)
    assert all(line == line.rstrip() for line in lines)
