"""A path of L2 penalties against one classifier, and against one run per value: what training them together saves."""

from benchmarks import ours
from benchmarks.bench_training import COURSE, QUICK, check_end
from benchmarks.harness import Options, Sample, Table, alternate, spread, target_row

FIVE = [0.0, 0.002, 0.02, 0.2, 2.0]
ALONE, ALL = "training alone", "all"
TARGETS = {(5, ALONE): 1.3, (5, ALL): 2.0, (100, ALONE): 7.0, (100, ALL): 25.0}  # largest accepted, over one
RUNS_TARGET = 0.45
RUNS, WHOLE_RUNS, WHOLE_FIVE = "five runs, fit", "five runs, whole call", "path of 5, whole call"
AUTO, ONE = "auto", "1"


def run(options: Options) -> list[Table]:
    epochs, most = (1, 10) if options.quick else (2, 100)
    overrides = [*COURSE, f"epochs={epochs}", *(QUICK if options.quick else [])]
    contestants = {}
    for l2 in ([0.0], FIVE, [2.0 * 10 ** (-4 * i / most) for i in range(most)]):
        for what in (ALONE, ALL):
            for threads in (ONE,) if options.quick else (AUTO, ONE):
                contestants[len(l2), what, threads] = contestant(overrides, l2, what, threads)
    check_together(overrides)
    samples = alternate(contestants, options)
    several = alternate(runs(overrides), options)
    rows = [[f"path of {paths}, {what}", threads, *spread(s)] for (paths, what, threads), s in samples.items()]
    rows += [[name, AUTO, *spread(s)] for name, s in several.items()]
    notes = [
        f"{epochs} epochs of `course_softmax`. `fit`: from the start of `Trainer.fit` to its end, data in memory. "
        "Whole call: with reading the data, building and the last evaluation, in one process, as a multirun.",
        "Training alone: `Trainer.fit` without evaluations, logger and callbacks.",
        "Threads: `auto` as the configuration chooses, and `threads=1`. OpenMP's idle threads spin here, as they do by "
        "default; `train.py` lets them sleep.",
    ]
    columns = ["contestant", "threads", "median s", "min", "max"]
    return [Table("times", "Paths of L2 penalties", columns, rows, notes), targets(samples, several)]


def contestant(overrides: list[str], l2: list[float], what: str, threads: str):
    path = [*overrides, f"l2={l2 if len(l2) > 1 else l2[0]}", f"threads={threads}"]
    return lambda: ours.run(path, alone=what == ALONE).fit


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


def targets(samples: dict[tuple[int, str, str], Sample], several: dict[str, Sample]) -> Table:
    rows = []
    for paths, what in [(paths, what) for paths, what, threads in samples if paths > 1 and threads == ONE]:
        ratios = [
            samples[paths, what, threads].over(samples[1, what, threads]) if (paths, what, threads) in samples else None
            for threads in (AUTO, ONE)
        ]
        rows.append(target_row(f"path of {paths} over one, {what}", TARGETS.get((paths, what)), *ratios))
    rows.append(
        target_row("path of 5 over five runs, fit", RUNS_TARGET, several["path of 5, fit"].over(several[RUNS]), None)
    )
    whole = several[WHOLE_FIVE].over(several[WHOLE_RUNS])
    rows.append(target_row("path of 5 over five runs, whole call", None, whole, None))
    columns = ["ratio", "target", "threads=auto", "min", "max", "", "threads=1", "min", "max", ""]
    return Table("targets", "Paths over single classifiers", columns, rows, ["Median of the rounds' ratios."])
