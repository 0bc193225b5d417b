"""A path of L2 penalties against one classifier, and against one run per value: what training them together saves."""

from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks import ours
from benchmarks.bench_training import COURSE, QUICK, check_end
from benchmarks.harness import ONE, Options, Sample, Table, alternate, spread, target_row, threads, timed
from benchmarks.peers import Problem

FIVE = [0.0, 0.002, 0.02, 0.2, 2.0]
ALONE, ALL, PRODUCTS = "training alone", "all", "matrix products only"
TARGETS = {(5, ALONE): 1.3, (5, ALL): 2.0, (100, ALONE): 7.0, (100, ALL): 25.0}  # largest accepted, over one
RUNS_TARGET = 0.45
RUNS, WHOLE_RUNS, WHOLE_FIVE = "five runs, fit", "five runs, whole call", "path of 5, whole call"
AUTO = "auto"


def run(options: Options) -> list[Table]:
    epochs, many, most = (1, 10, 20) if options.quick else (2, 100, 1000)
    overrides = [*COURSE, f"epochs={epochs}", *(QUICK if options.quick else [])]
    problem = ours.problem(overrides)
    contestants = {}
    for paths in (1, 5, many):
        for what in (ALONE, ALL):
            for count in (ONE,) if options.quick else (AUTO, ONE):
                contestants[paths, what, count] = contestant(overrides, paths, what, count)
        contestants[paths, PRODUCTS, ONE] = products(problem, paths)
    few = replace(options, rounds=min(options.rounds, 3), warmup=0)
    longest = {(n, what, AUTO): contestant(overrides, n, what, AUTO) for n in (many, most) for what in (ALONE, ALL)}
    check_together(overrides)
    samples = alternate(contestants, options)
    several = alternate(runs(overrides), options)
    long = alternate(longest, few)
    rows = [[f"path of {n}, {what}", count, *spread(s)] for (n, what, count), s in (samples | long).items()]
    rows += [[name, AUTO, *spread(s)] for name, s in several.items()]
    notes = [
        f"{epochs} epochs of `course_softmax`. `fit`: from the start of `Trainer.fit` to its end, data in memory. "
        "Whole call: with reading the data, building and the last evaluation, in one process, as a multirun.",
        "Training alone: `Trainer.fit` without evaluations, logger and callbacks.",
        "Matrix products only: mini-batches taken, and two products with each; learns nothing.",
        "Threads: `auto` as the configuration chooses, and `threads=1`.",
        f"The path of {most}, and that of {many} beside it: {few.rounds} rounds, not warmed.",
    ]
    columns = ["contestant", "threads", "median s", "min", "max"]
    return [Table("times", "Paths of L2 penalties", columns, rows, notes), targets(samples, several, long)]


def contestant(overrides: list[str], paths: int, what: str, count: str) -> Callable[[], float]:
    l2 = {1: 0.0, 5: FIVE}.get(paths, [2.0 * 10 ** (-4 * i / paths) for i in range(paths)])
    path = [*overrides, f"l2={l2}", f"threads={count}"]
    return lambda: ours.run(path, alone=what == ALONE).fit


def products(problem: Problem, paths: int) -> Callable[[], float]:
    """Returns what makes the two matrix products of every update, and no more."""
    input, weight = problem.train[0], torch.zeros(paths * problem.num_classes, problem.train[0].shape[1])

    def multiply() -> None:
        for index in problem.batches:
            x = input.index_select(0, index)
            torch.mm(torch.mm(weight, x.t()), x)

    def once() -> float:
        with threads(ONE):
            return timed(multiply)

    return once


def runs(overrides: list[str]):
    """Returns a path of five and five runs one after another, in this process: their fits and their whole calls."""
    took: dict[str, float] = {}

    def path() -> float:
        run = ours.run([*overrides, f"l2={FIVE}"], test=True)
        took[WHOLE_FIVE] = run.whole
        return run.fit

    def five() -> float:
        five = [ours.run([*overrides, f"l2={l2}"], test=True) for l2 in FIVE]
        took[WHOLE_RUNS] = sum(run.whole for run in five)
        return sum(run.fit for run in five)

    return {
        "path of 5, fit": path,
        WHOLE_FIVE: lambda: took[WHOLE_FIVE],
        RUNS: five,
        WHOLE_RUNS: lambda: took[WHOLE_RUNS],
    }


def check_together(overrides: list[str]) -> None:
    """Raises a RuntimeError unless a path's classifiers end where single runs do."""
    together = ours.run([*overrides, f"l2={FIVE}"]).ends
    for l2, end in zip(FIVE, together, strict=True):
        (single,) = ours.run([*overrides, f"l2={l2}"]).ends
        check_end(f"l2={l2} in a path", end, single)


def targets(
    samples: dict[tuple[int, str, str], Sample], several: dict[str, Sample], long: dict[tuple[int, str, str], Sample]
) -> Table:
    rows = []
    for paths, what in dict.fromkeys((paths, what) for paths, what, _ in samples if paths > 1):
        ratios = [
            samples[paths, what, count].over(samples[1, what, count]) if (paths, what, count) in samples else None
            for count in (AUTO, ONE)
        ]
        rows.append(target_row(f"path of {paths} over one, {what}", TARGETS.get((paths, what)), *ratios))
    many, most = sorted({paths for paths, _, _ in long})
    for what in (ALONE, ALL):
        ratio = long[most, what, AUTO].over(long[many, what, AUTO])
        rows.append(target_row(f"path of {most} over {many}, {what}", None, ratio, None))
    rows.append(
        target_row("path of 5 over five runs, fit", RUNS_TARGET, several["path of 5, fit"].over(several[RUNS]), None)
    )
    whole = several[WHOLE_FIVE].over(several[WHOLE_RUNS])
    rows.append(target_row("path of 5 over five runs, whole call", None, whole, None))
    columns = ["ratio", "target", "threads=auto", "min", "max", "", "threads=1", "min", "max", ""]
    return Table("targets", "Paths over single classifiers", columns, rows, ["Median of the rounds' ratios."])
