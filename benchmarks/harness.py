"""What every benchmark needs: alternating rounds, thread counts, tables, and the facts about the machine.

Imports neither torch nor Lightning: the memory benchmark runs in a process that must stay small.
"""

import csv
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "numpy", "scikit-learn", "tensorboard")
DEFAULT, ONE = "default", "1"  # thread counts: what the library chooses by itself, and one
OWN_PROCESSES = True  # with --quick one process answers all: its imports take longer than anything that is asked


@dataclass(frozen=True)
class Options:
    """How to run: ``rounds`` recorded rounds after ``warmup`` unrecorded ones; ``quick``: tiny, for the tests."""

    quick: bool
    rounds: int
    warmup: int


@dataclass(frozen=True)
class Sample:
    """The seconds of one contestant, one entry per round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def over(self, other: "Sample") -> "Sample":
        """Returns the ratios to ``other``, round by round: what slows a whole round down cancels."""
        return Sample(tuple(a / b for a, b in zip(self.seconds, other.seconds, strict=True)))

    def scaled(self, factor: float) -> "Sample":
        return Sample(tuple(factor * s for s in self.seconds))


@dataclass
class Table:
    """One table of a report; ``rows`` hold numbers or text, one entry per column."""

    name: str
    title: str
    columns: Sequence[str]
    rows: list[Sequence[object]]
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        cells = [list(map(_cell, row)) for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *lines, *([""] if notes else []), *notes, ""])


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "pass" if value else "FAIL"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def alternate(contestants: Mapping[str, Callable[[], float]], options: Options) -> dict[str, Sample]:
    """Runs all contestants in turn, A B A B, and returns what each says it took."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(-options.warmup, options.rounds):
        for name, contestant in contestants.items():
            took = contestant()
            if round_ >= 0:
                seconds[name].append(took)
        print(f"  round {round_ + 1} of {options.rounds} done" if round_ >= 0 else "  warm", file=sys.stderr)
    return {name: Sample(tuple(s)) for name, s in seconds.items()}


def timed(function: Callable[[], object], count: int = 1) -> float:
    """Returns the seconds of one call, the mean of ``count`` calls in a row."""
    start = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - start) / count


def ask(module: str, request: dict[str, Any], environment: dict[str, str], title: str) -> dict[str, Any]:
    """Returns what a module of this folder answers to a request, in a process of its own.

    Args:
        environment: the process's variables.
        title: says in a message what failed.

    Raises:
        RuntimeError: the process failed; one line.
    """
    if not OWN_PROCESSES:
        with threads(ONE), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return json.loads(json.dumps(importlib.import_module(f"benchmarks.{module}").answer(request)))
    child = [sys.executable, "-m", f"benchmarks.{module}"]
    pipes: dict[str, Any] = {"input": json.dumps(request), "capture_output": True, "text": True}
    done = subprocess.run(child, cwd=ROOT, env=environment, **pipes)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"{title}: {said[-1]}")
    return json.loads(done.stdout)


def has(module: str) -> bool:
    """Returns whether a package that not every environment has can be imported."""
    return importlib.util.find_spec(module) is not None


@contextmanager
def scratch() -> Iterator[Path]:
    """Lends out a folder for runs, below ``outputs/`` where all runs go; it is removed afterwards."""
    outputs = ROOT / "outputs"
    outputs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench_", dir=outputs) as folder:
        yield Path(folder)


@contextmanager
def threads(count: str) -> Iterator[None]:
    """Sets the threads of torch and, where threadpoolctl is there to do it, of NumPy's and scikit-learn's libraries."""
    import torch

    before = torch.get_num_threads()
    limit = nullcontext()
    if count == ONE:
        if has("threadpoolctl"):
            from threadpoolctl import threadpool_limits

            limit = threadpool_limits(1)
        torch.set_num_threads(1)
    try:
        with limit:
            yield
    finally:
        torch.set_num_threads(before)


def spread(sample: Sample, unit: float = 1.0) -> list[float]:
    """Returns the cells ``median, min, max`` in ``unit`` seconds."""
    return [value / unit for value in (sample.median, min(sample.seconds), max(sample.seconds))]


def target_row(name: str, at_most: float | None, *ratios: Sample | None) -> list[object]:
    """Returns the cells ``name, target``, and ``ratio, min, max, pass`` of each of ``ratios``."""
    cells: list[object] = [name, "report" if at_most is None else f"<= {at_most:g}"]
    for ratio in ratios:
        if ratio is None:
            cells += ["-", "", "", ""]
        else:
            cells += [*spread(ratio), "" if at_most is None else ratio.median <= at_most]
    return cells


def machine(module: str = "benchmarks") -> Table:
    """Returns the facts about processor and versions, and the command: ``module`` is what runs."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    facts = {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load average at the start (1, 5, 15 min)": load,
        "system": platform.platform(),
        "Python": platform.python_version(),
    }
    return Table("machine", "Machine", ["", "value"], [*facts.items(), *((p, version(p)) for p in PACKAGES)])


def processor() -> str:
    """Returns the processor's name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write(stem: str, tables: Sequence[Table], folder: Path) -> str:
    """Writes ``tables`` to ``<stem>.md``, and each to ``<stem>_<table>.csv``; returns them as text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(table.markdown() for table in tables)
    (folder / f"{stem}.md").write_text(f"# {stem.capitalize()}\n\n{text}")
    for table in tables:
        with open(folder / f"{stem}_{table.name}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            writer.writerows(table.rows)
    return text
