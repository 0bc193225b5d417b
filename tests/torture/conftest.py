"""Real processes, killed for real: a short form runs with all tests, the long one by `make torture`."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from handgrad.cli.configuration import CONF
from tests.conftest import DATA
from tests.torture import child

REPOSITORY = CONF.parent


@pytest.fixture(scope="session")
def server() -> Any:
    """Forks processes that have imported everything and nothing else: no thread, no state of the tests."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the program does, before it imports torch
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.torture.child"])
    with contextlib.chdir(REPOSITORY):  # the server finds its modules from where it starts
        first = context.Process(target=child.nothing)
        first.start()
        first.join()
    return context


class Program:
    """``python train.py`` with some words, under way in a folder of its own.

    Attributes:
        process: its process.
        told: the file with what it has said.
    """

    def __init__(
        self,
        context: Any,
        folder: Path,
        words: tuple[str, ...],
        number: int,
        change: Callable[[], None] | None = None,
        **environment: str,
    ) -> None:
        """Starts the program, with a ``change`` to it if there is one: see ``faults``."""
        self.told = folder / f"told{number}.txt"
        self.told.touch()
        target = partial(child.changed_program, change) if change else child.program
        self.process = context.Process(target=target, args=(folder, words, self.told, environment))
        self.process.start()

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """Waits until ``condition`` holds; fails if the process ends before."""
        while not condition():
            self.process.join(0.005)
            assert self.process.exitcode is None or condition(), self.told.read_text()

    def kill_after(self, seconds: float) -> bool:
        """Kills the process after some time; returns False if it was faster."""
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL

    def end(self) -> tuple[int, str]:
        """Waits for the end; returns the exit code and what was said."""
        self.process.join()
        return self.process.exitcode, self.told.read_text()


@pytest.fixture
def start(server, tmp_path: Path) -> Any:
    """Starts the program with the given words in the test's folder; whatever still runs at the end is killed."""
    (tmp_path / "data").symlink_to(DATA)
    started: list[Program] = []

    def start(*words: str, **environment: str) -> Program:
        words = words if any(word.startswith("threads=") for word in words) else (*words, "threads=1")
        started.append(Program(server, tmp_path, words, len(started), **environment))
        return started[-1]

    def resume(run: str, change: Callable[[], None] | None = None) -> Program:
        started.append(Program(server, tmp_path, (f"resume={run}",), len(started), change))
        return started[-1]

    start.folder, start.resume = tmp_path, resume
    yield start
    for program in started:
        if program.process.is_alive():
            os.kill(program.process.pid, signal.SIGKILL)
        program.process.join()
