"""scikit-learn's ``LogisticRegression`` along a path of l2 values, stopped by an oracle close to the optimum.

The objective of every l2 value is ``mean cross-entropy + l2 / 2 ||W||^2``, bias free, so ``C = 1 / (l2 N)``. Of two
classes scikit-learn keeps one weight vector: the optimum of softmax at ``l2`` is its own at ``l2 / 2``.

A tolerance of the solver's own is never right: too small for one l2 value, too large for the next. So the iterations
that each value needs are found first, untimed: the fewest after which the objective is within ``TOLERANCE`` of the
optimum that the caller knows. Only then is the path timed, with these ``max_iter``; no user can do better.

A child process does this: with one thread, and without the variables by which OpenBLAS was told to run slower code,
which are read when NumPy is imported. ``python -m benchmarks.probe_peers`` reads a request and prints a result, both
in JSON.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import harness, probe_data

SOLVERS = ("newton-cg", "lbfgs", "newton-cholesky")
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
TOLERANCE = 1e-6  # wanted: (J - J*) / J*
NEVER = 1e-15  # the solver's own tolerance, which shall not stop it
MOST = 20_000  # iterations of one l2 value
FIRST_GUESS = 3  # iterations of a Newton method
PATIENCE = 30  # iterations of Newton-CG that come no nearer: rounding is what is left
WARM = 2000  # samples of a fit that is not timed
ROWS = 4096  # samples cast to float64 at once

Weights = tuple[np.ndarray, np.ndarray]  # W (K, D), or (1, D) for two classes, and bias


class OutOfTime(Exception):
    """The search took longer than its budget."""


def available() -> str | None:
    """Returns None, or in one line why there is no peer."""
    needed = [module for module in ("sklearn", "threadpoolctl") if not harness.has(module)]
    return f"not installed: {', '.join(needed)}; requirements.txt has them" if needed else None


def path_seconds(
    name: str,
    l2s: Sequence[float],
    references: Sequence[float],
    solver: str,
    budget_s: float,
    warm: bool = True,
    iterations: Sequence[int] | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Returns what ``solver`` takes for the path ``l2s`` on a set of ``probe_data``, in a process of its own.

    Args:
        name: the set; float32 ones are centred, float64 ones go in as they are.
        l2s: descending, each started from the last one's end if ``warm``, else from zero.
        references: the smallest objective of each, known better than ``TOLERANCE``.
        solver: one of ``SOLVERS``.
        budget_s: processor seconds of the search; what it does not reach is left out of the path.
        iterations: those of an earlier result: no search.
        threads: of the libraries that multiply.

    Returns:
        ``l2s`` as far as searched (``complete`` tells whether all), and for each its ``iterations``, ``wall`` and
        ``cpu`` seconds of the fit alone, its end's ``gaps``, and whether these were ``reached``; the sums
        ``wall_s``, ``cpu_s``; ``search_s``; and a ``note``, empty where every value is reached.

    Raises:
        RuntimeError: the set can not be had, or the child failed; one line.
    """
    x, y = probe_data.files(name)
    request = {"x": str(x), "y": str(y), "l2s": list(l2s), "references": list(references), "solver": solver}
    request |= {"budget_s": budget_s, "warm": warm, "iterations": None if iterations is None else list(iterations)}
    request["threads"] = threads
    environment = {key: value for key, value in os.environ.items() if key not in UNSET}
    return {"name": name, **harness.ask("probe_peers", request, environment, f"scikit-learn {solver} on {name}")}


@dataclass(frozen=True)
class L2Path:
    """A data set and the path to fit on it; ``x (N, D)`` as handed to scikit-learn."""

    x: np.ndarray
    y: np.ndarray
    l2s: Sequence[float]
    references: Sequence[float]
    solver: str
    warm: bool = True

    def model(self, l2: float, iterations: int, start: Weights | None) -> Any:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(
            C=1 / (l2 * len(self.y)), solver=self.solver, max_iter=iterations, tol=NEVER, warm_start=True
        )
        if start is not None:
            model.coef_, model.intercept_ = start
        return model

    def gap(self, index: int, weights: Weights) -> float:
        """Returns the relative gap of the objective of one l2 value to its reference, in float64."""
        best = self.references[index]
        return (objective(self.x, self.y, *weights, self.l2s[index]) - best) / best


def objective(x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, l2: float) -> float:
    """Returns ``mean cross-entropy + l2 / 2 ||W||^2`` in float64; ``weight (1, D)`` is that of class 1 of two."""
    weight, bias, loss = weight.astype(np.float64), bias.astype(np.float64), 0.0
    for start in range(0, len(x), ROWS):
        z = x[start : start + ROWS].astype(np.float64) @ weight.T + bias
        if len(weight) == 1:
            z = np.hstack([np.zeros_like(z), z])
        z -= z.max(1, keepdims=True)
        loss += (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), y[start : start + ROWS]]).sum()
    return float(loss / len(x) + l2 / 2 * (weight**2).sum())


def search(path: L2Path, deadline: float) -> list[int]:
    """Returns the iterations that each l2 value needs, from the first on as far as the time allows."""
    found: list[int] = []
    start = None
    find = {"lbfgs": _by_callback, "newton-cg": _by_line_search}.get(path.solver, _by_trial)
    try:
        for index in range(len(path.l2s)):
            guess = found[-1] if found else FIRST_GUESS
            count, end = find(path, index, start, guess, deadline)
            found.append(count)
            start = end if path.warm else None
    except OutOfTime:
        pass
    return found


def _by_trial(path: L2Path, index: int, start: Weights | None, guess: int, deadline: float) -> tuple[int, Weights]:
    """For the methods of few iterations: fits anew with more and with fewer than ``guess``."""
    ends: dict[int, Weights] = {}
    gaps: dict[int, float] = {}

    def reaches(count: int) -> bool:
        if time.process_time() > deadline:
            raise OutOfTime
        model = path.model(path.l2s[index], count, start).fit(path.x, path.y)
        done = min(count, int(model.n_iter_[0]))
        ends[count] = ends[done] = _weights(model)
        gaps[count] = gaps[done] = path.gap(index, ends[done])
        return gaps[count] <= TOLERANCE or done < count  # or it stopped by itself

    fewest(reaches, guess)
    count = first_best(gaps)
    return count, ends[count]


def fewest(reaches: Callable[[int], bool], guess: int) -> int:
    """Returns the smallest count >= 1 that reaches, walking up or down from ``guess``; at most ``MOST``."""
    count = guess
    if reaches(count):
        while count > 1 and reaches(count - 1):
            count -= 1
        return count
    while count < MOST and not reaches(count + 1):
        count += 1
    return min(count + 1, MOST)


def first_best(gaps: dict[int, float]) -> int:
    """Returns the fewest iterations that reach the gap, or, where none do, that come within a tenth of the best."""
    enough = max(TOLERANCE, 1.1 * min(gaps.values()))
    return min(count for count, gap in gaps.items() if gap <= enough)


class _Watch:
    """A callback of scikit-learn: notes the gap after every iteration of l-bfgs; ends the fit at the wanted one."""

    class Reached(Exception):
        """The gap is reached, with the weights in ``args``."""

    def __init__(self, path: L2Path, index: int, deadline: float) -> None:
        self.path, self.index, self.deadline = path, index, deadline
        self.gaps: dict[int, float] = {}

    def setup(self, estimator: Any, context: Any) -> None:
        pass

    def teardown(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> None:
        if context.task_name != "lbfgs-iter" or fitted_estimator is None:
            return
        if time.process_time() > self.deadline:
            raise OutOfTime
        gap = self.gaps[len(self.gaps) + 1] = self.path.gap(self.index, _weights(fitted_estimator))
        if gap <= TOLERANCE:
            raise _Watch.Reached(_weights(fitted_estimator))


def _by_callback(path: L2Path, index: int, start: Weights | None, guess: int, deadline: float) -> tuple[int, Weights]:
    """For l-bfgs, of many iterations: looks on while it fits."""
    watch = _Watch(path, index, deadline)
    try:
        path.model(path.l2s[index], MOST, start).set_callbacks(watch).fit(path.x, path.y)
    except _Watch.Reached as reached:
        return len(watch.gaps), reached.args[0]
    count = first_best(watch.gaps) if watch.gaps else 1
    return count, _weights(path.model(path.l2s[index], count, start).fit(path.x, path.y))


def _by_line_search(
    path: L2Path, index: int, start: Weights | None, guess: int, deadline: float
) -> tuple[int, Weights]:
    """For Newton-CG, which has no callback: looks on where its line search ends, once for every iteration."""
    from sklearn.utils import optimize

    plain, gaps, last = optimize._line_search_wolfe12, {}, {}

    def watched(f: Any, fprime: Any, x: Any, step: Any, *arguments: Any, **options: Any) -> Any:
        if time.process_time() > deadline:
            raise OutOfTime
        found = plain(f, fprime, x, step, *arguments, **options)
        last["weights"] = _unravelled(x + found[0] * step, path.y)
        gaps[len(gaps) + 1] = path.gap(index, last["weights"])
        if gaps[len(gaps)] <= TOLERANCE or len(gaps) - first_best(gaps) >= PATIENCE:
            raise _Watch.Reached
        return found

    optimize._line_search_wolfe12 = watched
    try:
        path.model(path.l2s[index], MOST, start).fit(path.x, path.y)
    except _Watch.Reached:
        pass
    finally:
        optimize._line_search_wolfe12 = plain
    count = first_best(gaps) if gaps else 1
    if count == len(gaps):
        return count, last["weights"]
    return count, _weights(path.model(path.l2s[index], count, start).fit(path.x, path.y))


def _unravelled(flat: np.ndarray, y: np.ndarray) -> Weights:
    """Returns weights and bias from scikit-learn's flat parameters, which are column by column."""
    classes = len(np.unique(y))
    parameters = flat.reshape((classes if classes > 2 else 1, -1), order="F")
    return parameters[:, :-1].copy(), parameters[:, -1].copy()


def _weights(model: Any) -> Weights:
    return model.coef_.copy(), model.intercept_.copy()


def times(path: L2Path, iterations: Sequence[int]) -> dict[str, list[Any]]:
    """Fits the path with the iterations given; returns the seconds of every fit and the gap that it ends with."""
    result: dict[str, list[Any]] = {"wall": [], "cpu": [], "gaps": []}
    start = None
    for index, count in enumerate(iterations):
        model = path.model(path.l2s[index], count, start)
        wall, cpu = time.perf_counter(), time.process_time()
        model.fit(path.x, path.y)
        result["cpu"].append(time.process_time() - cpu)
        result["wall"].append(time.perf_counter() - wall)
        result["gaps"].append(path.gap(index, _weights(model)))
        start = _weights(model) if path.warm else None
    return result


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the result of ``path_seconds`` for a request of it, but for the set's name."""
    x, y = np.load(request["x"]), np.load(request["y"])
    if x.dtype == np.float32:
        x -= x.mean(0, dtype=np.float64).astype(x.dtype)
    path = L2Path(x, y, request["l2s"], request["references"], request["solver"], request["warm"])
    start = time.process_time()
    iterations = request["iterations"] or search(path, start + request["budget_s"])
    searched = time.process_time() - start
    if iterations:  # what the first fit of a process takes longer is not the path's
        path.model(path.l2s[0], 1, None).fit(x[:WARM], y[:WARM])
    result = times(path, iterations)
    reached = [gap <= 1.01 * TOLERANCE for gap in result["gaps"]]
    said = {"note": note(path, reached, result["gaps"]), "complete": len(reached) == len(path.l2s)}
    sums = {"wall_s": sum(result["wall"]), "cpu_s": sum(result["cpu"]), "search_s": searched}
    values = {"l2s": list(path.l2s[: len(reached)]), "iterations": list(iterations), "reached": reached}
    return {"solver": path.solver, "warm": path.warm, **values, **result, **sums, **said}


def note(path: L2Path, reached: Sequence[bool], gaps: Sequence[float]) -> str:
    """Says which values ended above the wanted gap, and how many of the path the search left out."""
    parts = []
    if not all(reached):
        short = [path.l2s[index] for index, ok in enumerate(reached) if not ok]
        parts.append(f"ends above {TOLERANCE:g} at l2 = {', '.join(f'{l2:.1e}' for l2 in short)} (to {max(gaps):.0e})")
    if len(reached) < len(path.l2s):
        parts.append(f"out of time after {len(reached)} of {len(path.l2s)} values")
    return "; ".join(parts)


def main() -> None:
    import sklearn.linear_model  # noqa: F401  # a limit holds for the libraries that are loaded
    from threadpoolctl import threadpool_limits

    warnings.simplefilter("ignore")  # every fit ends at its max_iter, of which scikit-learn warns
    request = json.load(sys.stdin)
    with threadpool_limits(request["threads"]):
        json.dump(answer(request), sys.stdout)


if __name__ == "__main__":
    main()
