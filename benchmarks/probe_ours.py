"""The exact solver on a set of the probe, in a process of its own, and the optima that scikit-learn is stopped by.

As for scikit-learn: one thread, without the variables by which OpenBLAS was told to run slower code, and
a small problem first that is not timed. Timed is the solver alone: data in memory, from zeros to the last certificate.
Two classes are one output (logistic), as scikit-learn has them. ``python -m benchmarks.probe_ours`` reads a request and
prints a result, both in JSON.
"""

import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import harness, probe_data, probe_peers
from handgrad.functions import objective as functions
from handgrad.functions.objective import LOGISTIC, SOFTMAX, Objective
from handgrad.solvers.exact import NUMBERS, Exact, ExactState
from handgrad.solvers.solve import WholeSet

TOLERANCE, CLOSE = 1e-6, 1e-9  # of what is timed, and of the optima that scikit-learn's gap is measured from
MOST = 5000  # iterations of an entry
PRODUCTS = {"float32": torch.float32, "float64": torch.float64}


class Counted(Objective):
    """An objective that counts its passes by the dtype of their products."""

    passes: Counter[str] = Counter()  # noqa: RUF012  # one for the process, which solves one problem

    def data_term(self, *arguments: Any, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
        self.passes[str(dtype).removeprefix("torch.")] += 1
        return super().data_term(*arguments, dtype=dtype, **options)


def solve(name: str, l2s: Sequence[float], **request: Any) -> dict[str, Any]:
    """Returns what the solver takes for the path ``l2s`` on a set, in a process of its own.

    Args:
        l2s: descending.
        request: ``tolerance``; ``products``: whether to time as many matrix products as it made, alone; ``save``: a
            file for weights, biases and numbers; ``threads``: 1 unless given.

    Returns:
        ``wall`` and ``cpu`` seconds of each l2 value, ``NUMBERS`` by name, the ``counts`` of passes by dtype, and
        ``products``, their seconds by clock.
    """
    x, y = probe_data.files(name)
    asked = {"tolerance": TOLERANCE, "products": False, "save": None, "threads": 1} | request
    asked |= {"x": str(x), "y": str(y), "l2s": list(l2s)}
    return harness.ask("probe_ours", asked, environment(asked["threads"]), f"the exact solver on {name}")


def environment(threads: int = 1) -> dict[str, str]:
    """Returns the variables for a process with so many threads."""
    kept = {key: value for key, value in os.environ.items() if key not in probe_peers.UNSET}
    return kept | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def key(*parts: Any) -> str:
    """Returns what tells one request from another, for the name of a file."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def reference(name: str, l2s: Sequence[float]) -> dict[str, list[float]]:
    """Returns ``objective`` and ``gap`` of each optimum, solved for once and then kept with the weights."""
    probe_data.files(name)
    file = probe_data.FOLDER / f"{name}_optimum_{key(list(l2s), CLOSE)}.npz"
    if not file.exists():
        part = file.with_name(f"{file.stem}.{os.getpid()}.npz")
        solve(name, l2s, tolerance=CLOSE, save=str(part))
        part.replace(file)
    with np.load(file) as kept:
        numbers = dict(zip(NUMBERS, kept["numbers"].T.tolist(), strict=True))
    return {name: numbers[name] for name in ("objective", "gap")}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the result of ``solve`` for a request of it."""
    torch.set_num_threads(request["threads"])
    warm()
    x, y = (torch.from_numpy(np.load(request[name])) for name in "xy")
    Counted.passes.clear()
    result, state = path(x, y, request["l2s"], request["tolerance"])
    result["counts"] = {name: Counted.passes[name] for name in PRODUCTS}
    if request["products"]:
        result["products"] = timed(multiplied(x, state.weight[0], result["counts"]))
    if request["save"]:
        tensors = {"weight": state.weight, "bias": state.bias, "numbers": state.numbers}
        np.savez(Path(request["save"]), **{name: tensor.numpy() for name, tensor in tensors.items()})
    return result


def path(x: Tensor, y: Tensor, l2s: Sequence[float], tolerance: float) -> tuple[dict[str, Any], ExactState]:
    """Solves a path; returns the seconds of each entry with its numbers, and the state."""
    classes = int(y.max()) + 1
    outputs = classes if classes > 2 else 1
    objective = Counted(LOGISTIC if outputs == 1 else SOFTMAX, torch.tensor(l2s, dtype=torch.float64))
    weight = torch.zeros(len(l2s), outputs, x.shape[1], dtype=torch.float64)
    solver, block, active = Exact(tolerance, MOST), WholeSet(x, y, None), torch.ones(len(l2s))
    seconds: dict[str, list[float]] = {"wall": [], "cpu": []}
    state = solver.init(weight, weight[:, :, 0].clone())
    for _ in l2s:
        for name, took in timed(lambda: solver.step(objective, state, block, active)).items():
            seconds[name].append(took)
    return {**seconds, **dict(zip(NUMBERS, state.numbers.T.tolist(), strict=True))}, state


def timed(function: Callable[[], object]) -> dict[str, float]:
    """Returns the seconds of a call: by the clock on the wall, and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def multiplied(x: Tensor, weight: Tensor, counts: dict[str, int]) -> Callable[[], None]:
    """Returns what makes the two matrix products of so many passes and no more, chunk by chunk as a pass does."""
    rows = max(functions.LEAST_ROWS, functions.CACHED // max(x.shape[1], len(weight) // 2))
    data = {name: (x.to(dtype), weight.to(dtype)) for name, dtype in PRODUCTS.items() if counts[name]}

    def multiply() -> None:
        for name, (input, weight) in data.items():
            for _ in range(counts[name]):
                for chunk in input.split(rows):
                    (weight @ chunk.t()) @ chunk

    return multiply


def warm() -> None:
    """Solves two small problems: what the first of a process takes longer is not the path's."""
    generator = torch.Generator().manual_seed(0)
    for samples, features in ((100, 5), (2000, 120)):
        x, y = torch.randn(samples, features, generator=generator), torch.arange(samples) % 10
        path(x, y, [1e-1, 1e-2], 1e-4)


def main() -> None:
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
