"""The exact solver on two processes over one: each has one thread and, where there are two, a core of its own.

Both take turns; the ratios are of one round. Timed is the solver alone, of the slowest process.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks import probe_ours, processes_ours
from benchmarks.bench_probe import log_path
from benchmarks.harness import Options, Sample, Table, alternate, spread, target_row

TARGET = 0.6
RATIO = [("clock", "min", "max", ""), ("processor", "min", "max", "")]
FIGURES = ["two processes over one", "target", *RATIO[0], *RATIO[1]]
TIMES = ["processes", "median s", "min", "max", "largest gap", "iterations", "passes"]
NOTES = [
    "Clock: judged by that. Processor: seconds of the busier process, which neighbours on the machine lengthen less.",
    "100,000 x 512 float32 features of unit norm, K = 100; each process has half of them, a thread and a core.",
]
Result = dict[str, Any]


def run(options: Options) -> list[Table]:
    name, l2s = ("unit_few", log_path(10, 2)) if options.quick else ("many", log_path(10, 8))
    options = replace(options, rounds=1) if options.quick else options
    results: dict[int, list[Result]] = {1: [], 2: []}
    contestants = {str(n): partial(clock, found, name, l2s, n) for n, found in results.items()}
    alternate(contestants, options)
    one, two = (found[-options.rounds :] for found in results.values())
    if (gap := max(max(each["gap"]) for each in [*one, *two])) > probe_ours.TOLERANCE:
        raise RuntimeError(f"{name}: a gap of {gap:.1e}; judged are optima that are proven to {probe_ours.TOLERANCE:g}")
    ratios = [seconds(two, count).over(seconds(one, count)) for count in ("wall", "cpu")]
    figure = target_row(f"exact, {name}, {len(l2s)} l2 values", TARGET, *ratios)
    rows = [[n, *spread(seconds(found, "wall")), *counts(found[-1])] for n, found in ((1, one), (2, two))]
    return [
        Table("figures", "The exact solver on two processes", FIGURES, [figure], NOTES),
        Table("times", "The paths: seconds by the clock", TIMES, rows),
    ]


def clock(results: list[Result], *arguments: Any) -> float:
    """Solves once more; keeps the result, and returns its seconds."""
    results.append(processes_ours.solve(*arguments))
    return results[-1]["wall"]


def seconds(results: Sequence[Result], count: str) -> Sample:
    return Sample(tuple(result[count] for result in results))


def counts(result: Result) -> list[object]:
    """Returns the largest gap of a path, its iterations and its passes."""
    return [max(result["gap"]), *(int(sum(result[name])) for name in ("iterations", "passes"))]
