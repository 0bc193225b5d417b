"""Proves the derived gradients on the run's own first mini-batch before the first update."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.diagnosis.diagnosis import Verdict, diagnosed, told
from handgrad.diagnosis.places import methods, place
from handgrad.errors import GradientError
from handgrad.functions.objective import Objective
from handgrad.functions.proof import Term, terms
from handgrad.functions.samples import widest
from handgrad.models.linear_classifier import LinearClassifier

log = logging.getLogger(__name__)
SAMPLES = 1024  # of a larger mini-batch


class GradientCheck(pl.Callback):
    """Compares losses with plain formulas, and derived gradients with 5-point central differences, in float64.

    Each Function is tried by itself, every argument of it, and then the very objective that trains; see
    ``handgrad.functions.proof``. What is wrong is named by ``handgrad.diagnosis.diagnosis``, which is asked then alone.
    Several processes prove the sum over them, each with its share of the mini-batch. It is done where the samples lie,
    or on the CPU where their device has no float64.

    Args:
        tolerance: largest relative error accepted.
        directions: number of random directions along which the objective is differentiated.
        classifiers: largest number of classifiers of a path that are checked, evenly spread over it.
        hessian: whether the Hessian-vector product and the data term are checked too; always where the solver looks at
            the whole training set, which takes both. They play no part in SGD and Adam.

    Raises:
        GradientError: (on_train_start) a loss or a gradient is wrong.
    """

    def __init__(self, tolerance: float, directions: int, classifiers: int, hessian: bool = False) -> None:
        self.tolerance = tolerance
        self.directions = directions
        self.classifiers = classifiers
        self.hessian = hessian

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        assert trainer.train_dataloader is not None
        block = next(iter(trainer.train_dataloader))
        input, target = next(iter(block))[:2]
        objective, outputs = self.checked(pl_module.objective(pl_module.pipeline.total)), pl_module.bias.shape[1]
        # As a solver's step; where samples are left out, their share is counted, which all processes have to do.
        share = block.share if objective.total and round(len(target) / block.share) <= SAMPLES else None
        input, target = some(input, target)
        if widest(input.device) != torch.float64:
            input, target = input.cpu(), target.cpu()
        objective = replace(objective, l2=objective.l2.to(input.device))
        hessian, worst = self.hessian or pl_module.pipeline.one_at_a_time, 0.0
        with shapes_told():
            compared = terms(objective, outputs, input, target, self.directions, share, hessian)
            for term in compared if objective.total is None else list(compared):  # none leaves while others wait for it
                error = term.relative_error()
                if not error <= self.tolerance:
                    verdicts = diagnosed(objective, outputs, input, target, self.tolerance, hessian)
                    raise refusal(term, self.tolerance, verdicts, objective.total is not None)
                worst = max(worst, error)
        log.info("Gradient proven on the first mini-batch: relative error %.1e against finite differences", worst)
        if trainer.logger:
            trainer.logger.log_metrics({"gradient_error": worst}, step=trainer.global_step)

    def checked(self, objective: Objective) -> Objective:
        """Returns the objective that trains, of the classifiers that are checked, in float64 on the CPU."""
        paths = len(objective.l2)
        chosen = torch.linspace(0, paths - 1, min(paths, self.classifiers)).round().long()
        return replace(objective, l2=objective.l2.cpu()[chosen].double())


@contextmanager
def shapes_told() -> Iterator[None]:
    """Raises a GradientError that names the place if a backward returns a gradient of another shape.

    torch notices that when the backward has returned: no line of it is among those that led to the error.
    """
    try:
        yield
    except RuntimeError as error:
        found = re.search(r"Function (\w+)Backward returned an invalid gradient at index (\d+) - (.*)", str(error))
        named = (kind for kind in subclasses(torch.autograd.Function) if found and kind.__name__ == found[1])
        if not found or (function := next(named, None)) is None:
            raise
        heads = ([*signature(forward).parameters] for forward in methods(function, "forward"))
        names = max(([name for name in head if name != "ctx"] for head in heads), key=len)
        number = int(found[2])
        name = names[number] if number < len(names) else f"argument {number + 1}"
        raise GradientError(
            f"{name}: of another shape, {found[3]}, in the backward of {found[1]}; "
            f"see {place(methods(function, 'backward'), f'd{name} =')}; nothing was trained"
        ) from error


def subclasses(kind: Any) -> Iterator[Any]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def refusal(term: Term, tolerance: float, verdicts: list[Verdict], over_processes: bool) -> GradientError:
    """Returns the error that a term is wrong: a line that begins with what is wrong, and notes that tell the rest."""
    found, *notes = told(verdicts)
    if all(verdict.mistake is None for verdict in verdicts):
        whole = "the sum over the processes is wrong" if over_processes else "what is made of them is wrong"
        found, notes = f"each part is right by itself, {whole}", []
    error = GradientError(
        f"{found}; the {term.subject} {term.part} differs from {term.source} "
        f"by {term.relative_error():.1e} (relative); at most {tolerance:.0e} is accepted; nothing was trained"
    )
    for note in notes:
        error.add_note(f"  {note}")
    return error


def some(input: Any, target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a mini-batch; of one that is large, which may be a training set on disk, evenly spaced samples."""
    if len(target) <= SAMPLES:
        return input[:], target
    index = torch.linspace(0, len(target) - 1, SAMPLES, dtype=torch.float64).long().to(target.device)
    return input.index_select(0, index), target.index_select(0, index)
