"""Runs of the program inside the test process: what a command does, without the seconds that imports take."""

import csv
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import train as program
from handgrad.cli import configuration
from handgrad.cli.command_line import command_line
from handgrad.cli.configuration import CONF
from handgrad.data.mnist_files import prepare
from handgrad.runs.folder import RunFolder
from handgrad.runs.signals import stopping

DATA = CONF.parent / "data"


# Fixtures of tests that train, start a process, wait for one another's beats, or read or draw much.
SLOW = {
    "run",
    "command",
    "start",
    "server",
    "watches",
    "distributed",
    "tensorboard",
    "browser",
    "fresh",
    "folder",
    "make",
    "splits",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    without_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(without_gpu)
        fixtures = set(getattr(item, "fixturenames", ()))
        if SLOW & fixtures:
            item.add_marker("slow")
        if {"run", "server", "fresh_compiler"} & fixtures or item.path.parent.name == "torture":
            item.add_marker("no_cover")  # coverage makes these half as long again or twice, and others cover the same


@pytest.fixture(autouse=True)
def restored_environment() -> Iterator[None]:
    """Takes from the environment what a test has left there: processes that later ones start would find it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def extracted() -> None:
    """Extracts the data before any test copies it: on a fresh clone there are only the archives."""
    prepare(DATA)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tests share two cores with one another's processes; and results do not depend on how many there are."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch on other processes may give the main thread a signal: that of a program, not of the tests."""
    monkeypatch.setattr(stopping, "installed", False)


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """Composes a run's configuration with the given overrides, as `python train.py` does."""

    def composed(*overrides: str, folder: Path = tmp_path / "outputs" / "run") -> DictConfig:
        root = [] if {"data=features", "data=idx"} & {*overrides} else [f"data.root={DATA}"]
        quick = ["threads=1", "callbacks.figures=null"]  # a third of a second for each run
        return configuration.composed([*root, *quick, *overrides], folder)

    yield composed
    HydraConfig.instance().cfg = None


@pytest.fixture
def run(tmp_path: Path, composed: Callable[..., DictConfig]) -> Callable[..., Path]:
    """Trains with the given overrides; returns the run's folder."""

    def run(*overrides: str, name: str = "run") -> Path:
        folder = tmp_path / "outputs" / name
        cfg = composed(*overrides, folder=folder)
        program.check(cfg)
        program.train(cfg, RunFolder(folder))
        return folder

    return run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A made-up sweep of four jobs, the third of which failed."""
    from tests.runs.test_sweep import write_job

    for number, l2 in enumerate((0, 0.002, 0.02, 2)):
        write_job(tmp_path, number, ["task=softmax", f"l2={l2}"], failed=l2 == 0.02, l2=float(l2))
    return tmp_path


@pytest.fixture
def browser(tmp_path: Path):
    """Drives a headless Chromium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for word in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
        options.add_argument(f"--{word}")
    for word in ("disable-background-networking", "disable-component-update", "window-size=1400,1000"):
        options.add_argument(f"--{word}")
    options.add_argument(f"--user-data-dir={tmp_path / 'chromium'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd, request) -> Iterator[Callable[..., Ended]]:
    """Runs ``python train.py`` with the given words in an empty folder that has only the data.

    Its runs draw no figures, a third of a second each, but in tests with the marker ``draws``.
    """
    if not request.node.get_closest_marker("draws"):
        monkeypatch.setattr("handgrad.callbacks.figures.pictures", lambda *_: {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(DATA)

    def command(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        code = 0
        try:
            with command_line() as stopped:
                program.resume(stopped) if stopped else program.main()
        except SystemExit as end:
            code = end.code
        close_logs()
        return Ended(code, *capfd.readouterr())

    yield command
    HydraConfig.instance().cfg = None
    close_logs()


def close_logs() -> None:
    """Closes the log files that Hydra opened: it leaves them to the end of the process."""
    for name in ("", "pytorch_lightning", "lightning_fabric", "py.warnings"):
        logger = logging.getLogger(name)
        for handler in [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]:
            handler.close()
            logger.removeHandler(handler)


def results(folder: Path) -> list[dict[str, float | str]]:
    """Returns the rows of a run's results.csv, numbers as numbers."""

    def value(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    with open(folder / "results.csv") as file:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(file)]
