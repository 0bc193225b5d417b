"""The probe: whole l2 paths to a certified optimum, and scikit-learn stopped by an oracle at the same gap.

Ours and scikit-learn's take turns, each in a process of its own with one thread; ratios are of one round, of processor
seconds and of seconds by the clock. The optima, and the iterations that scikit-learn needs, are found once and kept
below ``outputs/bench_data``. The cheap rows come first, and the tables are written after each.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks import probe_data, probe_ours, probe_peers, probe_train
from benchmarks.harness import Options, Sample, Table, spread

SEARCH_S = 3600.0  # of the processor, for the iterations that scikit-learn needs on one set
TRAIN_S = 600.0  # for a run of train.py
SMALL_ROUNDS = 5  # at least, where a path takes milliseconds
NEWTON_CG, LBFGS, CHOLESKY = probe_peers.SOLVERS
COUNTS = ("cpu", "wall")  # seconds of the processor, and by the clock
GB = 1e9
Round = tuple[dict[str, Any], dict[str, Any]]  # ours and scikit-learn's


@dataclass(frozen=True)
class Target:
    """What a figure must be, and what would be good: at least, or at most."""

    must: float | None
    reach: float | None = None
    at_most: bool = False

    def cells(self, value: float | None, valid: bool = True, whole: bool = True) -> list[object]:
        """Returns for both the bound and whether ``value`` is within; nothing is where it is not valid.

        A ``value`` that is only known to be at least so large is not ``whole``: what it misses stays open.
        """
        cells: list[object] = []
        for bound in (self.must, self.reach):
            within = value is not None and bound is not None and (value <= bound if self.at_most else value >= bound)
            sign = "<=" if self.at_most else ">="
            cells += (
                ["", ""]
                if bound is None
                else [f"{sign} {bound:g}", "open" if valid and not (whole or within) else within and valid]
            )
        return cells


@dataclass(frozen=True)
class Figure:
    """A path that both solve: ``solver`` is scikit-learn's; with ``warm`` it begins an l2 where the last one ended.

    With several ``threads`` on both sides it is judged by the clock.
    """

    title: str
    name: str
    l2s: Sequence[float]
    solver: str
    target: Target
    warm: bool = True
    rounds: int | None = None
    threads: int = 1


def log_path(largest: float, count: int = 20) -> list[float]:
    """Returns ``count`` l2 values from ``largest`` to 1e-6, descending."""
    return np.geomspace(largest, 1e-6, count).tolist()


FULL, WORDNET = log_path(10), log_path(0.1)
SMALL = [
    Figure(f"{name}, raw", name, FULL, CHOLESKY, Target(1, 2), rounds=SMALL_ROUNDS)
    for name in ("wine", "breast_cancer", "digits")
]
UNIT = Figure("50,000 x 512, K = 10, unit norm", "unit", FULL, NEWTON_CG, Target(6, 10))
SYNTHETIC = Figure("20,000 x 512, K = 100", "synthetic", FULL, NEWTON_CG, Target(2, 4))
LIMITED = replace(SYNTHETIC, title="the same, against lbfgs", solver=LBFGS, target=Target(None), rounds=1)
COLD = [
    Figure(f"50,000 x 512, unit norm, l2 = {l2:g} alone", "unit", [l2], NEWTON_CG, Target(2, 4), warm=False)
    for l2 in (1e-3, 1e-5)
]
THOUSAND = [
    Figure(f"100,000 x 512, K = 1,000, l2 = {l2:g} alone", "thousand", [l2], NEWTON_CG, Target(2), warm=False, rounds=1)
    for l2 in (1e-4, 1e-5, 1e-6)
]
THOUSAND += [replace(figure, title=f"{figure.title}, two threads, by the clock", threads=2) for figure in THOUSAND]
GLOSSES = Figure("WordNet x MiniLM, K = 45", "wordnet", WORDNET, NEWTON_CG, Target(6, 10))
STANDARDIZED = Figure("50,000 x 512, standardized", "standardized", FULL, NEWTON_CG, Target(5, 10))
PIXELS = Figure("MNIST pixels, 50,000 x 784", "pixels", FULL, NEWTON_CG, Target(3, 7))
FEW = replace(UNIT, title="500 x 512, unit norm", name="unit_few", l2s=FULL[::7], target=Target(None))

FIGURES = ["figure", "l2 values", "must", "", "reach", "", "processor", "min", "max", "clock", "min", "max"]
PATHS = ["figure", "ours, processor s", "clock s", "passes", "in float64", "largest gap", "converged"]
PATHS += ["scikit-learn", "processor s", "clock s", "iterations", "reached"]


@dataclass
class Tables:
    """The tables of this benchmark as far as they are filled."""

    figures: Table = field(default_factory=lambda: Table("figures", "The exact optimum of an l2 path", FIGURES, []))
    paths: Table = field(default_factory=lambda: Table("paths", "The paths", PATHS, []))

    def add(
        self,
        title: str,
        l2s: str,
        target: Target,
        ratios: Sequence[Sample],
        valid: bool = True,
        least: float | None = None,
        judged: int = 0,
    ) -> None:
        """Adds a figure with its ratios by processor and by clock.

        It is judged by that one of them, or, where the ratios are of a part of the path, by what the whole has at
        ``least``.
        """
        value = least if least is not None else ratios[judged].median if ratios else None
        cells = target.cells(value, valid, whole=least is None)
        measured = [cell for ratio in ratios for cell in spread(ratio)] or ["-"] + [""] * 5
        self.figures.rows.append([title, l2s, *cells, *(measured + [""] * 3)[:6]])

    def note(self, title: str, text: str) -> None:
        self.figures.notes.append(f"{title}: {text}")

    def both(self) -> list[Table]:
        return [self.figures, self.paths]


def run(options: Options) -> Iterator[Table]:
    """Yields the tables again after each row."""
    tables = Tables()
    tables.figures.notes += HEADS
    for name, step in (quick_steps if options.quick else steps)(options, tables):
        print(f"  {name}", file=sys.stderr, flush=True)
        before = len(tables.figures.rows)
        try:
            step()
        except RuntimeError as error:
            tables.note(name, f"skipped: {error}")
        for row in tables.figures.rows[before:]:
            print(f"    {' | '.join(f'{c:.4g}' if isinstance(c, float) else str(c) for c in row)}", file=sys.stderr)
        yield from tables.both()


HEADS = [
    "Times faster, or a share where the sign is <=: medians of the rounds' ratios. Judged by processor seconds, with "
    "several threads by the clock, and only where every gap is proven to be at most 1e-6.",
    "scikit-learn: centred float32 (raw float64 on the small sets), warm along the path but for single values, stopped "
    "after the fewest iterations that bring it within 1e-6 of the optimum, which no tolerance of its own can do.",
    f"Its solver is the fastest of those tried: {NEWTON_CG}, on the small sets {CHOLESKY}; lbfgs was slower, "
    "or never came within 1e-6.",
]
Step = tuple[str, Callable[[], None]]


def steps(options: Options, tables: Tables) -> Iterator[Step]:
    """Yields what is to be measured, the quick and the important first."""
    for figure in [*SMALL, UNIT, SYNTHETIC, LIMITED, *COLD, *THOUSAND]:
        yield figure.title, partial(compare, figure, options, tables)
    yield "products", partial(products, UNIT, options, tables)
    yield "memory", partial(memory, tables, 1_000_000, 512)
    yield "train.py", partial(whole, UNIT, options, tables)
    yield GLOSSES.title, partial(compare, GLOSSES, options, tables)
    yield "WordNet, 96 values", partial(longer, GLOSSES, 96, options, tables)
    for figure in (STANDARDIZED, PIXELS):
        yield figure.title, partial(compare, figure, options, tables)


def quick_steps(options: Options, tables: Tables) -> Iterator[Step]:
    """Yields one of each kind, tiny."""
    options = replace(options, rounds=1)
    for figure in (replace(SMALL[0], l2s=FULL[::7], rounds=None), FEW):
        yield figure.title, partial(compare, figure, options, tables)
    yield "products", partial(products, FEW, options, tables)
    yield "memory", partial(memory, tables, 2000, 16)
    yield "train.py", partial(whole, FEW, options, tables)
    yield "longer", partial(longer, FEW, 6, options, tables)


def compare(figure: Figure, options: Options, tables: Tables) -> None:
    """Adds how many times faster ours is, on the l2 values that scikit-learn solved in its time."""
    optimum = probe_ours.reference(figure.name, figure.l2s)
    rounds: list[Round] = []
    for _ in range(options.rounds if figure.rounds is None else rounds_of(figure.rounds, options)):
        ours = probe_ours.solve(figure.name, figure.l2s, threads=figure.threads)
        rounds.append((ours, peer(figure, optimum["objective"])))
    solved, values = len(rounds[-1][1]["l2s"]), len(figure.l2s)
    l2s = str(values) if solved == values else f"first {solved} of {values}"
    valid = max(max(ours["gap"]) for ours, _ in rounds) <= probe_ours.TOLERANCE
    least = statistics.median(sum(b["cpu"]) / sum(a["cpu"]) for a, b in rounds) if solved < values else None
    ratios, judged = times_faster(rounds, solved), COUNTS.index("cpu" if figure.threads == 1 else "wall")
    tables.add(figure.title, l2s, figure.target, ratios, valid, least, judged)
    tables.paths.rows.append(described(figure, rounds))
    for text in remarks(rounds, least, max(optimum["gap"])):
        tables.note(figure.title, text)


def times_faster(rounds: Sequence[Round], solved: int) -> list[Sample]:
    """Returns scikit-learn's seconds over ours on the first l2 values, for each of ``COUNTS``; of none nothing."""
    counts = COUNTS if solved else ()
    return [Sample(tuple(sum(b[count]) / sum(a[count][:solved]) for a, b in rounds)) for count in counts]


def remarks(rounds: Sequence[Round], least: float | None, reference_gap: float) -> Iterator[str]:
    """Yields what a reader of the ratio must know."""
    note = rounds[-1][1]["note"]
    if note:
        yield f"scikit-learn {note}"
    if least is not None:
        yield (
            f"the ratio is that of the values for which its search found the iterations in {SEARCH_S:.0f} processor s; "
            f"the whole path has at least {least:.3g}, all of ours over these of scikit-learn's: judged by that"
        )
    if reference_gap > probe_peers.TOLERANCE / 20:
        yield f"the optimum that scikit-learn's gap is measured from is itself proven to {reference_gap:.0e} only"


def rounds_of(least: int, options: Options) -> int:
    """Returns one round for what asks for one, else the more of both."""
    return 1 if least == 1 else max(least, options.rounds)


def peer(figure: Figure, best: Sequence[float]) -> dict[str, Any]:
    """Returns scikit-learn's result, with the iterations of an earlier search where there was one."""
    kept = probe_ours.key(list(figure.l2s), figure.warm, SEARCH_S)
    file = probe_data.FOLDER / f"{figure.name}_{figure.solver}_{kept}.json"
    iterations = json.loads(file.read_text()) if file.exists() else None
    given = figure.name, figure.l2s, best, figure.solver, SEARCH_S, figure.warm, iterations, figure.threads
    result = probe_peers.path_seconds(*given)
    if iterations is None and result["iterations"]:
        file.write_text(json.dumps(result["iterations"]))
    return result


def described(figure: Figure, rounds: Sequence[Round]) -> list[object]:
    """Returns what both sides did: medians over the rounds, all of ours."""
    ours, theirs = rounds[-1]
    gaps = [gap for ours, _ in rounds for gap in ours["gap"]]
    mine = [statistics.median(sum(ours[count]) for ours, _ in rounds) for count in COUNTS]
    other = [statistics.median(sum(theirs[count]) for _, theirs in rounds) for count in COUNTS]
    converged = sum(gap <= probe_ours.TOLERANCE for gap in ours["gap"])
    passes = [f"{sum(ours['passes']):.0f}", str(ours["counts"]["float64"])]
    solver = [theirs["solver"], *other, sum(theirs["iterations"])]
    reached = f"{sum(theirs['reached'])} of {len(figure.l2s)}"
    return [figure.title, *mine, *passes, max(gaps), f"{converged} of {len(ours['gap'])}", *solver, reached]


def products(figure: Figure, options: Options, tables: Tables) -> None:
    """Adds the share of the solver's time that matrix products alone would take."""
    runs = [probe_ours.solve(figure.name, figure.l2s, products=True) for _ in range(options.rounds)]
    ratios = [Sample(tuple(run["products"][count] / sum(run[count]) for run in runs)) for count in COUNTS]
    title = f"products alone over the whole, {figure.name}"
    tables.add(title, str(len(figure.l2s)), Target(0.45, 0.7), ratios)
    tables.note(
        title, "two products for each pass that the solver made, in the chunks and the dtype that it made them in"
    )


def longer(figure: Figure, count: int, options: Options, tables: Tables) -> None:
    """Adds what a path of many values takes over the figure's, both ours."""
    many = log_path(figure.l2s[0], count)
    runs = [[probe_ours.solve(figure.name, l2s) for l2s in (figure.l2s, many)] for _ in range(options.rounds)]
    ratios = [Sample(tuple(sum(b[which]) / sum(a[which]) for a, b in runs)) for which in COUNTS]
    gap = max(max(b["gap"]) for _, b in runs)
    title = f"{figure.name}, {count} values over {len(figure.l2s)}"
    tables.add(title, str(count), Target(4, 2.5, at_most=True), ratios, gap <= probe_ours.TOLERANCE)
    a, b = runs[-1]
    tables.note(
        title,
        f"{sum(b['cpu']):.3g} over {sum(a['cpu']):.3g} processor seconds, {sum(b['passes']):.0f} over "
        f"{sum(a['passes']):.0f} passes, largest gap {gap:.1e}",
    )


def memory(tables: Tables, samples: int, features: int) -> None:
    """Adds the memory of a run of ``train.py`` on a mapped file."""
    files = probe_data.large(samples, features)
    l2s = [1.0, 0.1, 0.01, 1e-3, 1e-4]
    run = probe_train.train(files, l2s, TRAIN_S)
    title = f"{samples:,} x {features} float16, mapped, K = 10: GB of RssAnon"
    used = Sample((run.memory / GB,))
    tables.add(title, str(len(l2s)), Target(1.5, at_most=True), [used], not run.failure)
    size = files[0].stat().st_size / GB
    end = run.failure or f"ended after {run.wall:.0f} s, {run.cpu:.0f} of the processor"
    tables.note(title, f"`python train.py data=features optimizer=exact`, one run, a file of {size:.3g} GB; {end}")


def whole(figure: Figure, options: Options, tables: Tables) -> None:
    """Adds what ``python train.py`` takes over the solver's call and a run on next to nothing."""
    x, y = probe_data.files("unit_few")
    held_out = [f"data.val={x}", f"data.val_labels={y}"]
    ratios: dict[str, list[float]] = {count: [] for count in COUNTS}
    for _ in range(options.rounds):
        start = probe_train.train((x, y), [1.0], TRAIN_S, *held_out)
        call = probe_ours.solve(figure.name, figure.l2s)
        run = probe_train.train(probe_data.files(figure.name), figure.l2s, TRAIN_S, *held_out)
        if failed := start.failure or run.failure:
            raise RuntimeError(f"train.py: {failed}")
        for count, found in ratios.items():
            found.append(getattr(run, count) / (sum(call[count]) + getattr(start, count)))
    title = f"train.py over the solver's call and start-up, {figure.name}"
    samples = [Sample(tuple(ratios[count])) for count in COUNTS]
    tables.add(title, str(len(figure.l2s)), Target(1.3, at_most=True), samples)
    tables.note(
        title,
        f"the last: {run.cpu:.3g} processor seconds over {sum(call['cpu']):.3g} and {start.cpu:.3g}, "
        "the latter a run on 500 samples with one l2 value",
    )
