"""``LinearProbe``: folds beside separate fits and ``LogisticRegressionCV``, start-up, and equality with scikit-learn.

What is compared takes turns, each in a process of its own with one thread; ratios are of one round, of processor
seconds and of seconds by the clock. Folds are the same on both sides. The tables are written after each step.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from benchmarks import bench_probe, probe_data, probe_ours, probe_train
from benchmarks.bench_probe import COUNTS, FIGURES, FULL, Figure, Target
from benchmarks.estimator_ours import ask
from benchmarks.harness import Options, Sample, Table, spread

START_S = 300.0  # for a process that fits one small problem
FEW, ONCE = 2, 1  # rounds at most, where a round takes two minutes and seven
AGREE = 1e-3  # of the largest coefficient
FITS = ["contestant", "processor s", "clock s", "largest gap", "within 1e-6", "chosen l2"]
EQUALITY = [
    "set",
    "l2 values",
    "coefficients differ by",
    "must",
    "",
    "largest gap",
    "by accuracy",
    "by loss",
]
DATA = """import numpy as np
rng = np.random.default_rng(0)
X = rng.normal(size=(2000, 64))
y = (X[:, :10] + rng.normal(size=(2000, 10))).argmax(1)
"""
OURS, PEER = "from handgrad import LinearProbe\n", "from sklearn.linear_model import {0}\n"
QUIET = "import warnings; warnings.simplefilter('ignore')\n"
SINGLE = (
    OURS + DATA + "LinearProbe().fit(X, y)",
    PEER.format("LogisticRegression") + DATA + "LogisticRegression(C=1 / (1e-3 * len(y))).fit(X, y)",
)
CHOSEN = (
    OURS + DATA + "LinearProbe(l2='auto', cv=5).fit(X, y)",
    PEER.format("LogisticRegressionCV") + QUIET + DATA + "LogisticRegressionCV(Cs=20, cv=5).fit(X, y)",
)
UNIT = replace(bench_probe.UNIT, title="50,000 x 512, K = 10, 5 folds", target=Target(5, 10))
WINE = Figure("wine, 2 folds", "wine", FULL[::7], bench_probe.CHOLESKY, Target(None))
SETS = (("wine", 5), ("breast_cancer", 5), ("digits", 5), ("wordnet", 0))
SMALL_VALUES = [10.0**-power for power in range(6)]


@dataclass
class Tables:
    """The tables of this benchmark as far as they are filled."""

    figures: Table = field(default_factory=lambda: Table("figures", "The estimator", FIGURES, [], list(HEADS)))
    fits: Table = field(default_factory=lambda: Table("fits", "The fits of the last round", FITS, []))
    equality: Table = field(default_factory=lambda: Table("equality", "Equality with scikit-learn", EQUALITY, []))

    def add(self, title: str, values: int, target: Target, ratios: dict[str, list[float]], valid: bool = True) -> None:
        """Adds a figure with its ratios by ``COUNTS``, judged by processor."""
        samples = [Sample(tuple(ratios[count])) for count in COUNTS]
        measured = [cell for sample in samples for cell in spread(sample)]
        self.figures.rows.append([title, str(values), *target.cells(samples[0].median, valid), *measured])

    def fit(self, title: str, result: dict[str, Any]) -> None:
        within = f"{result['within']} of {result['fits']}" if "fits" in result else "all"
        self.fits.rows.append(
            [title, *(result[count] for count in COUNTS), result["gap"], within, result.get("chosen")]
        )

    def all(self) -> list[Table]:
        return [self.figures, self.fits, self.equality]


HEADS = [
    "Medians of the rounds' ratios, judged by processor seconds; a share where the sign is <=, else times faster.",
    "Folds over separate fits: `LinearProbe(l2, cv=folds)` with its scores, over `LinearProbe(l2)` on a copy of each "
    "fold's training samples and on all samples; the copies are made before.",
    "`LogisticRegressionCV` has no tolerance that stops it at a gap: here it is its paths over the folds, warm, each "
    "value stopped by the oracle of the probe's benchmark, `C = 1 / (l2 N)` with N of the fold; its scores and its "
    "last fit are left out, in its favour.",
]


def run(options: Options) -> Iterator[Table]:
    """Yields the tables again after each step."""
    tables = Tables()
    for name, step in steps(options, tables):
        print(f"  {name}", file=sys.stderr, flush=True)
        try:
            step()
        except RuntimeError as error:
            tables.figures.notes.append(f"{name}: skipped: {error}")
        yield from tables.all()


def steps(options: Options, tables: Tables) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yields what is to be measured, the cheap first."""
    options = replace(options, rounds=1) if options.quick else options
    title = "a process: 2,000 x 64, LinearProbe() over LogisticRegression()"
    yield title, partial(start_up, title, SINGLE, Target(3, at_most=True), options, tables)
    if not options.quick:
        title = "the same, l2='auto', cv=5 over LogisticRegressionCV(Cs=20, cv=5)"
        yield title, partial(start_up, title, CHOSEN, Target(None), options, tables)
    for name, folds in SETS[:1] if options.quick else SETS:
        yield f"equality, {name}", partial(equal, name, folds, tables)
    figure = WINE if options.quick else UNIT
    yield figure.title, partial(folds_over_separate, figure, options, tables)
    yield "LogisticRegressionCV", partial(folds_over_peer, figure, options, tables)


def start_up(title: str, codes: Sequence[str], target: Target, options: Options, tables: Tables) -> None:
    """Adds what a process with our code takes over one with scikit-learn's."""
    ratios: dict[str, list[float]] = {count: [] for count in COUNTS}
    for round_ in range(-options.warmup, options.rounds):
        ours, theirs = (probe_train.watched([sys.executable, "-c", code], START_S) for code in codes)
        if failed := ours.failure or theirs.failure:
            raise RuntimeError(failed)
        for count, found in ratios.items() if round_ >= 0 else ():
            found.append(getattr(ours, count) / getattr(theirs, count))
    tables.add(title, 20 if "auto" in title else 1, target, ratios)
    processor, clock = f"{ours.cpu:.3g} over {theirs.cpu:.3g}", f"{ours.wall:.3g} over {theirs.wall:.3g}"
    tables.figures.notes.append(f"{title}: the last: {processor} processor seconds, {clock} by the clock")


def equal(name: str, folds: int, tables: Tables) -> None:
    """Adds how far apart the coefficients are, and whether the same l2 is chosen."""
    l2s = SMALL_VALUES if folds else [1e-3]
    found = ask("estimator_peers", kind="agreement", name=name, l2s=l2s, folds=folds, standardize=bool(folds))
    cells = Target(AGREE, at_most=True).cells(found["coefficients"])[:2]
    chosen = {metric: "same" if ours == theirs else "FAIL" for metric, (ours, theirs) in found["chosen"].items()}
    both = [chosen.get(metric, "") for metric in ("accuracy", "loss")]
    tables.equality.rows.append([name, str(len(l2s)), found["coefficients"], *cells, found["gap"], *both])


def folds_over_separate(figure: Figure, options: Options, tables: Tables) -> None:
    """Adds what a choice by folds takes over the separate fits."""
    ratios: dict[str, list[float]] = {count: [] for count in COUNTS}
    for _ in range(min(options.rounds, FEW)):
        ours = ask("estimator_ours", name=figure.name, l2s=list(figure.l2s))
        apart = ask("estimator_ours", names=[figure.name, *parts(figure)], l2s=list(figure.l2s))
        for count, found in ratios.items():
            found.append(ours[count] / apart[count])
    valid = max(ours["gap"], apart["gap"]) <= probe_ours.TOLERANCE
    tables.add(f"{figure.title}: folds over separate fits", len(figure.l2s), Target(1, at_most=True), ratios, valid)
    tables.fit(f"LinearProbe with folds, {figure.name}", ours)
    tables.fit("LinearProbe on each part and on all", apart)


def folds_over_peer(figure: Figure, options: Options, tables: Tables) -> None:
    """Adds how many times faster it is than ``LogisticRegressionCV``, at the same gap and as that comes."""
    optima = {part: probe_ours.reference(part, figure.l2s) for part in parts(figure)}
    best = [optimum["objective"] for optimum in optima.values()]
    ratios: dict[str, list[float]] = {count: [] for count in COUNTS}
    for _ in range(min(options.rounds, ONCE)):
        ours = ask("estimator_ours", name=figure.name, l2s=list(figure.l2s))
        theirs = oracle(figure, best)
        for count, found in ratios.items():
            found.append(theirs[count] / ours[count])
    valid, values = ours["gap"] <= probe_ours.TOLERANCE, len(figure.l2s)
    tables.add(f"{figure.title}: over LogisticRegressionCV at the same gap", values, figure.target, ratios, valid)
    tables.fit(f"LogisticRegressionCV, {figure.solver}, oracle", theirs)
    plain = ask("estimator_peers", kind="as_it_comes", name=figure.name, l2s=list(figure.l2s), references=best)
    once = {count: [plain[count] / ours[count]] for count in COUNTS}
    tables.add(f"{figure.title}: over LogisticRegressionCV as it comes", values, Target(None), once)
    tables.fit("LogisticRegressionCV, lbfgs, tol=1e-4", plain)


def oracle(figure: Figure, best: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Returns scikit-learn's seconds over the folds, each value stopped at the gap, and what it reached."""
    found = [
        bench_probe.peer(replace(figure, name=part), objective)
        for part, objective in zip(parts(figure), best, strict=True)
    ]
    if left := [each["name"] for each in found if not each["complete"]]:
        raise RuntimeError(f"scikit-learn was out of time on {left[0]}")
    sums = {count: sum(sum(each[count]) for each in found) for count in COUNTS}
    reached = [ok for each in found for ok in each["reached"]]
    gap = max(max(each["gaps"]) for each in found)
    return {**sums, "gap": gap, "within": sum(reached), "fits": len(reached)}


def parts(figure: Figure) -> list[str]:
    """Returns the sets that are the training samples of the folds."""
    return [f"{figure.name}_fold_{fold}" for fold in range(probe_data.FOLDS[figure.name])]
