"""Commands as the user types them, in a process group of their own, and what is left of that group."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from handgrad.cli.configuration import CONF
from tests.conftest import DATA


def launch(folder: Path, *words: str, **environment: str) -> subprocess.Popen:
    """Starts ``python train.py`` in ``folder``, with some more variables of the environment."""
    if not (folder / "data").exists():
        (folder / "data").symlink_to(DATA)
    command = [sys.executable, CONF.parent / "train.py", *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def read_until(process: subprocess.Popen, text: str) -> str:
    """Reads what the program says up to a line with ``text``."""
    told = ""
    for line in process.stderr:
        told += line
        if text in line:
            return told
    raise AssertionError(told)


def group_members(group: int) -> dict[int, str]:
    """Returns the command lines of the processes of a group that are not at their end, by their ids; needs /proc."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, process_group = (path / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (path / "cmdline").read_text()  # empty once a process is on its way out
            if int(process_group) == group and state != "Z" and command:
                found[int(path.name)] = command
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def until(condition: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 300) -> None:
    """Waits until ``condition`` holds; fails when a process has ended before, or it takes so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None or condition(), process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def holder(path: Path) -> int | None:
    """Returns the process that has a file open, if there is one; needs /proc."""
    for opened in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if opened.readlink() == path:
                return int(opened.parts[2])
    return None
