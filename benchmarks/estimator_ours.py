"""``LinearProbe`` with cross-validation, and the paths that it is to be measured by, in a process of its own.

One thread and a small problem first, as in ``probe_ours``. ``python -m benchmarks.estimator_ours`` reads a request and
prints a result, both in JSON.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks import harness, probe_data, probe_ours


def ask(module: str, **request: Any) -> dict[str, Any]:
    """Returns what a module of this folder answers to a request, in a process with one thread.

    Raises:
        RuntimeError: the process failed; one line.
    """
    return harness.ask(module, request, probe_ours.environment(), module)


def cross_validated(name: str, l2s: Sequence[float]) -> dict[str, Any]:
    """Returns the seconds of ``LinearProbe(l2s, cv=folds).fit`` on a set, its largest gap and the l2 that it chose."""
    from handgrad import LinearProbe

    x, y = probe_data.get(name)
    probe = LinearProbe(list(l2s), cv=probe_data.folds(y, probe_data.FOLDS[name]))
    took = probe_ours.timed(lambda: probe.fit(x, y))
    return {**took, "gap": max(entry.gap_ for entry in probe.path_), "chosen": probe.l2_}


def separate(names: Sequence[str], l2s: Sequence[float]) -> dict[str, Any]:
    """Returns the seconds of ``LinearProbe(l2s).fit`` on each set, added up, and the largest gap."""
    from handgrad import LinearProbe

    sums, gaps = {"cpu": 0.0, "wall": 0.0}, []
    for name in names:
        x, y = probe_data.get(name)
        probe = LinearProbe(list(l2s))
        took = probe_ours.timed(partial(probe.fit, x, y))
        sums = {count: so_far + took[count] for count, so_far in sums.items()}
        gaps += [entry.gap_ for entry in probe.path_]
    return {**sums, "gap": max(gaps), "chosen": None}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns ``cross_validated`` of one set, or ``separate`` of several."""
    torch.set_num_threads(1)
    warm()
    if "names" in request:
        return separate(request["names"], request["l2s"])
    return cross_validated(request["name"], request["l2s"])


def warm() -> None:
    """Fits two small problems: what the first of a process takes longer is not the folds'."""
    from handgrad import LinearProbe

    for samples, features in ((100, 5), (2000, 120)):
        x = np.random.default_rng(0).normal(size=(samples, features))
        LinearProbe([0.1, 0.01], cv=2, tolerance=1e-4).fit(x, np.arange(samples) % 10)


def main() -> None:
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
