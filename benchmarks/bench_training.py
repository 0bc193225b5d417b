"""An epoch of softmax regression: peers and this project, with the same data, updates and evaluations.

Ours is the whole thing: ``python train.py experiment=course_softmax`` with TensorBoard, checkpoints, early stopping,
weight images, gradient check and progress bar, timed from the start of ``Trainer.fit`` to its end, data in memory.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import torch.nn.functional as F
from torch import as_tensor

from benchmarks import ours, peers
from benchmarks.harness import (
    DEFAULT,
    ONE,
    ROOT,
    Options,
    Sample,
    Table,
    alternate,
    has,
    scratch,
    spread,
    target_row,
    threads,
    timed,
)
from benchmarks.peers import End, Problem

OURS = "ours, everything on"
LIGHTNING = "Lightning, the usual way"
PEERS: dict[str, tuple[Callable[[Problem], End | None], float | None]] = {  # and the largest accepted ours / peer
    "NumPy loop of the course": (peers.numpy_loop, 0.65),
    "PyTorch loop": (peers.torch_loop, 0.9),
    "PyTorch loop, F.linear_cross_entropy": (peers.torch_fused_loop, None),
    "closed-form update by hand": (peers.closed_form_loop, 1.4),
    "matrix products only": (peers.products_only, None),
}
LIGHTNING_TARGET = 0.04
AGREE = 1e-4, 5e-4  # in validation loss and accuracy: the five samples of 10,000 that rounding may move
COURSE = ["experiment=course_softmax", "patience=1000"]  # early stopping is on, and does not stop
ITERATIONS = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)  # of lbfgs
QUICK = ["data.train_size=2560"]


@dataclass
class Ours:
    """Runs of this project, kept for their breakdown."""

    overrides: list[str]
    epochs: int
    runs: list[ours.Run] = field(default_factory=list)

    def __call__(self) -> float:
        self.runs.append(ours.run(self.overrides))
        return self.runs[-1].fit / self.epochs


def run(options: Options) -> list[Table]:
    epochs, short_epochs = (1, 1) if options.quick else (10, 1)
    overrides = [*COURSE, f"epochs={epochs}", *(QUICK if options.quick else [])]
    problem = ours.problem(overrides)
    short = problem.first(short_epochs)
    our = Ours(overrides, epochs)
    contestants = {(OURS, "auto"): our}
    for name, (peer, _) in PEERS.items():
        contestants[name, DEFAULT] = contestant(name, peer, short, DEFAULT)
        contestants[name, ONE] = contestant(name, peer, problem, ONE)
    for count in (DEFAULT, ONE):
        contestants[LIGHTNING, count] = lightning(problem, count)
    samples = alternate(contestants, options)
    check_end(OURS, our.runs[-1].end, reference(problem))
    if our.runs[-1].checks != problem.checks:
        raise RuntimeError(f"ours evaluated {our.runs[-1].checks} times, the peers {problem.checks} times")
    tables = [times(samples, problem, short_epochs), targets(samples)]
    tables += [breakdown(our, options.rounds), inside(our), sklearn_table(our, options)]
    return tables


@cache
def reference(problem: Problem) -> End:
    """Returns what all who solve ``problem`` are to end at."""
    with threads(ONE):
        return peers.numpy_loop(problem)


def check_end(name: str, end: End, expected: End) -> None:
    """Raises a RuntimeError unless loss and accuracy agree: a contestant that does something else proves nothing."""
    if any(abs(a - b) > accepted for a, b, accepted in zip(end, expected, AGREE, strict=True)):
        raise RuntimeError(f"{name} ends at validation loss, accuracy {end}; expected {expected}")


def contestant(name: str, peer: Callable[[Problem], End | None], problem: Problem, count: str) -> Callable[[], float]:
    """Returns what runs a peer once with ``count`` threads, checks where it ends and tells its seconds per epoch."""
    expected = reference(problem)
    problem.numpy_batches  # noqa: B018 - built before the clock runs

    def once() -> float:
        with threads(count):
            start = time.perf_counter()
            end = peer(problem)
            seconds = time.perf_counter() - start
        if end is not None:
            check_end(name, end, expected)
        return seconds / problem.epochs

    return once


def lightning(problem: Problem, count: str) -> Callable[[], float]:
    """Returns what trains one epoch the usual way; its order is the others', it validates at the epoch's end only."""
    from benchmarks import peer_lightning

    one = problem.first(1)
    one = replace(one, last_check=len(one.batches))
    expected = reference(one)

    def once() -> float:
        with threads(count), scratch() as folder:
            end, seconds = peer_lightning.fit(one, ROOT / "data", folder)
        check_end(LIGHTNING, end, expected)
        return seconds

    return once


def times(samples: dict[tuple[str, str], Sample], problem: Problem, short: int) -> Table:
    rows = [[name, count, *spread(sample, 1e-3)] for (name, count), sample in samples.items()]
    train, val = len(problem.train[1]), len(problem.val[1])
    updates = len(problem.batches) // problem.epochs
    notes = [
        f"Softmax regression, {train:,} training and {val:,} validation samples, {updates} updates an epoch, a check "
        f"every {problem.check_interval}: validation loss and accuracy, training accuracy.",
        f"A round is {problem.epochs} epochs ({short} with the default number of threads), divided by their number. "
        f"All contestants end at the same validation loss to {AGREE[0]:.0e}; that is checked in every round.",
        "Ours: from the start of `Trainer.fit` to its end, with gradient check, TensorBoard, checkpoints, weight "
        "images, early stopping and progress bar; the data is in memory, as it is for the peers. `last.ckpt` is saved "
        "at most every 5 s and at the end: here once in a round.",
        "The peers take mini-batches with `index_select` and evaluate each set in one call; the NumPy loop evaluates "
        "loss and accuracy from one forward pass.",
        "Lightning: one epoch, from its first batch to the end of training; it validates once per epoch, and its "
        "training accuracy is the mini-batches'; `DataLoader` without workers.",
        "Matrix products only: two products an update and those of the evaluations; learns nothing.",
    ]
    return Table("times", "One epoch", ["contestant", "threads", "median ms", "min", "max"], rows, notes)


def targets(samples: dict[tuple[str, str], Sample]) -> Table:
    """Ours over each peer: against its better number of threads, and against the default one."""
    accepted = {name: at_most for name, (_, at_most) in PEERS.items()} | {LIGHTNING: LIGHTNING_TARGET}
    rows = []
    for name, at_most in accepted.items():
        both = [samples[name, count] for count in (ONE, DEFAULT)]
        better = min(both, key=lambda sample: sample.median)
        ratios = [samples[OURS, "auto"].over(sample) for sample in (better, samples[name, DEFAULT])]
        rows.append(target_row(name, at_most, *ratios))
    columns = ["ours over", "target", "better threads", "min", "max", "", "default threads", "min", "max", ""]
    note = "Median of the rounds' ratios; better threads: the peer's faster column of the table above."
    return Table("targets", "Ours over the peers", columns, rows, [note])


def breakdown(our: Ours, rounds: int) -> Table:
    """Where the time of ours goes, measured in the rounds above."""
    runs = our.runs[-rounds:]
    names = sorted(runs[0].profile, key=lambda name: -runs[0].profile[name])
    whole = Sample(tuple(r.fit / our.epochs for r in runs))
    rows = []
    for name in names:
        sample = Sample(tuple(r.profile.get(name, 0.0) / our.epochs for r in runs))
        rows.append([name, *spread(sample, 1e-3), 100 * sample.median / whole.median])
    rows.append(["all", *spread(whole, 1e-3), 100.0])
    note = (
        "Per epoch, in the main thread, which mostly makes the updates while another evaluates; `evaluation` is what "
        "it then waits or does itself. Callbacks by class, the gradient check and last saves divided too."
    )
    return Table("breakdown", "Where ours spends its time", ["part", "median ms", "min", "max", "%"], rows, [note])


def inside(our: Ours) -> Table:
    """What updates and evaluations consist of, from one more run with one thread and more stopwatches."""
    detailed = ours.run([*our.overrides, "threads=1"], detail=True)
    parts = sorted(item for item in detailed.profile.items() if item[0].startswith(("updates", "evaluation")))
    rows = [[name, 1e3 * seconds / our.epochs] for name, seconds in parts]
    rows.append(["all of the run", 1e3 * detailed.fit / our.epochs])
    note = "One run with threads=1, per epoch; stopwatches slow it down a little. Each line without the lines below it."
    return Table("inside", "Inside our updates and evaluations", ["part", "ms"], rows, [note])


def sklearn_table(our: Ours, options: Options) -> Table:
    """The time scikit-learn's lbfgs takes to the validation loss that the whole run of ours ends at."""
    epochs = our.epochs if options.quick else 50
    overrides = [*our.overrides, f"epochs={epochs}"]
    loss = ours.run(overrides).end[0]
    name, sklearn = f"ours, {epochs} epochs in one run", "LogisticRegression, lbfgs, no penalty"
    contestants = {(name, "auto"): lambda: ours.run(overrides).fit}
    reached = {name: [None, loss]}
    if has("sklearn"):
        problem = ours.problem(overrides)
        with threads(ONE):
            iterations = iterations_to(problem, loss)
            reached[sklearn] = [iterations, fit_sklearn(problem, iterations)]
        for count in (DEFAULT, ONE):
            contestants[sklearn, count] = sklearn_fit(problem, iterations, count)
    samples = alternate(contestants, options)
    rows = [[who, count, *spread(sample), *reached[who]] for (who, count), sample in samples.items()]
    if not has("sklearn"):
        rows.append([sklearn, "", "not installed", None, None, None, None])
    note = (
        "Report only; float32 input, no penalty. Iterations: the first of "
        f"{', '.join(map(str, ITERATIONS))} that reaches our last validation loss, or else the one with the least."
    )
    columns = ["contestant", "threads", "median s", "min", "max", "iterations", "validation loss"]
    return Table("sklearn", "scikit-learn to the same validation loss", columns, rows, [note])


def sklearn_fit(problem: Problem, iterations: int, count: str) -> Callable[[], float]:
    def fit() -> float:
        with threads(count):
            return timed(lambda: fit_sklearn(problem, iterations))

    return fit


def fit_sklearn(problem: Problem, iterations: int) -> float:
    """Fits and returns the validation loss."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=np.inf, max_iter=iterations, tol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        model.fit(*(tensor.numpy() for tensor in problem.train))
    input, target = problem.val
    logits = as_tensor(model.decision_function(input.numpy()))
    return F.cross_entropy(logits, target).item()


def iterations_to(problem: Problem, loss: float) -> int:
    """Returns the iterations after which the validation loss is first reached, or, where it never is, is least."""
    losses = {}
    for iterations in ITERATIONS:
        losses[iterations] = fit_sklearn(problem, iterations)
        if losses[iterations] <= loss:
            return iterations
    return min(losses, key=losses.get)
