"""A path on a synthetic set of any size, in a process of its own: seconds, passes, the products alone, and memory.

One thread. Timed is the solver alone, from zeros to the last certificate, of data in memory. ``python -m
benchmarks.growth_ours`` reads a request and prints a result, both in JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import harness
from benchmarks.probe_ours import Counted, environment, multiplied, path, timed, warm

LARGEST, SMALLEST, TOLERANCE = 1e-1, 1e-5, 1e-6
ROWS = 20_000  # that are made at once


def solve(samples: int, features: int, classes: int, values: int) -> dict[str, Any]:
    """Returns what a path of ``values`` l2 takes in a process of its own.

    Returns:
        ``cpu`` and ``wall`` seconds; ``products``: the same of as many matrix products, alone; ``passes``; the largest
        ``gap``; ``memory``: bytes at most, beside what lay in memory when the solver began.
    """
    asked = {"samples": samples, "features": features, "classes": classes, "values": values}
    title = f"{samples:,} x {features}, K = {classes}, L = {values}"
    return harness.ask("growth_ours", asked, environment(), title)


def answer(request: dict[str, int]) -> dict[str, Any]:
    """Returns the result of ``solve`` for a request of it."""
    samples, features, classes, values = (request[name] for name in ("samples", "features", "classes", "values"))
    torch.set_num_threads(1)
    warm()
    x, y = drawn(samples, features, classes)
    l2s = np.geomspace(LARGEST, SMALLEST, values).tolist() if values > 1 else [(LARGEST * SMALLEST) ** 0.5]
    Counted.passes.clear()
    before = in_use(reset=True)
    found, state = path(x, y, l2s, TOLERANCE)
    memory = in_use("VmHWM") - before
    counts = {name: Counted.passes[name] for name in ("float32", "float64")}
    # Newton's method makes passes of its own; they are counted as float64.
    counts["float64"] += max(0, round(sum(found["passes"])) - sum(counts.values()))
    return {
        **{count: sum(found[count]) for count in ("cpu", "wall")},
        "passes": sum(found["passes"]),
        "gap": max(found["gap"]),
        "memory": memory,
        "products": timed(multiplied(x, state.weight[0], counts)),
    }


def drawn(samples: int, features: int, classes: int) -> tuple[Tensor, Tensor]:
    """Returns ReLU features of 64 hidden numbers, ``(N, D)`` float32 of rows about 1 long, and classes by these."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(64, features)).astype(np.float32) / 8
    teacher = rng.normal(size=(64, classes)).astype(np.float32)
    x, y = np.empty((samples, features), np.float32), np.empty(samples, np.int64)
    for first in range(0, samples, ROWS):
        rows = slice(first, min(first + ROWS, samples))
        hidden = rng.standard_normal((rows.stop - first, 64), dtype=np.float32)
        x[rows] = np.maximum(hidden @ mix, 0) * (2 / features) ** 0.5
        y[rows] = (hidden @ teacher + 4 * rng.gumbel(size=(len(hidden), classes))).argmax(1)
    return torch.from_numpy(x), torch.from_numpy(y)


def in_use(name: str = "VmRSS", reset: bool = False) -> int:
    """Returns bytes of memory in use, or at most since the last ``reset``; 0 where no /proc tells."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
