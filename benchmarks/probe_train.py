"""``python train.py`` with ``optimizer=exact`` on features in files, as a process: its seconds, and its own memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import probe_ours
from benchmarks.harness import ROOT, scratch

INTERVAL = 0.02  # seconds between two looks


@dataclass(frozen=True)
class Run:
    """A process: its seconds, its largest RssAnon in bytes (0 where no /proc tells), and in a line why it failed."""

    wall: float
    cpu: float
    memory: int
    failure: str = ""


def train(files: tuple[Path, Path], l2s: Sequence[float], limit_s: float, *more: str) -> Run:
    """Runs ``train.py`` with one thread on an array of features and one of labels; ended after ``limit_s``."""
    x, y = files
    words = [f"data.train={x}", f"data.train_labels={y}", "optimizer=exact", f"l2={list(l2s)}", "threads=1"]
    with scratch() as folder:
        place = f"hydra.run.dir={folder.relative_to(ROOT)}/run"
        return watched([sys.executable, "train.py", "data=features", *words, place, *more], limit_s)


def watched(command: Sequence[str], limit_s: float) -> Run:
    """Runs a command to its end, with a look at its memory now and then."""
    start, memory = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as errors:
        pipes = {"stdout": subprocess.DEVNULL, "stderr": errors}
        process = subprocess.Popen(command, cwd=ROOT, env=probe_ours.environment(), **pipes)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            memory = max(memory, anonymous(process.pid))
            if time.monotonic() - start > limit_s:
                process.kill()
            time.sleep(INTERVAL)
        errors.seek(0)
        said = errors.read().strip().splitlines() or ["failed"]
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    wall, cpu = time.monotonic() - start, usage.ru_utime + usage.ru_stime
    failure = f"did not end in {limit_s:g} s" if wall > limit_s else said[-1]
    return Run(wall, cpu, memory, failure if process.returncode else "")


def anonymous(pid: int) -> int:
    """Returns a process's RssAnon in bytes: its own memory, without files that it maps."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
