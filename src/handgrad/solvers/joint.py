"""Several fits on the same samples, each with weights of its own: their points are evaluated together."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from handgrad.functions.objective import DataTerm, Objective


class Question(NamedTuple):
    """A point that a fit asks for: what ``Objective.data_term`` is called with, of one classifier."""

    weight: Tensor
    bias: Tensor
    dtype: torch.dtype
    every: int


class Joint:
    """Runs several fits by turns, and evaluates their points by one pass over the samples, which are read once for all.

    A fit runs until it asks for a point, and goes on when it is answered. When all fits ask, those that want products
    in the smallest dtype are answered; the others wait, so that in time they too are answered together. The order of
    all this follows from the fits alone.

    Args:
        objective: of all fits.
        input, target: (N, D), a tensor or what reads rows as one, and (N,).
        weights: (F, N), what each sample weighs in each fit: 0 where it is left out.
    """

    def __init__(self, objective: Objective, input: Any, target: Tensor, weights: Tensor) -> None:
        self.objective, self.input, self.target, self.weights = objective, input, target, weights
        self.turn = threading.Condition()  # held by the fit that runs, or by the pass for all
        self.questions: dict[int, Question] = {}
        self.answers: dict[int, DataTerm] = {}
        self.present = 0
        self.error: BaseException | None = None

    def member(self, fit: int) -> "Member":
        """Returns the objective for a fit."""
        of_all = {field.name: getattr(self.objective, field.name) for field in fields(Objective) if field.init}
        return Member(**of_all, joint=self, fit=fit)

    def run(self, fits: Sequence[Callable[[], Any]]) -> list[Any]:
        """Makes all calls, of which each asks its own member; returns what they return, or raises their first error."""
        self.present = len(fits)
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(len(fits), initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            futures = [pool.submit(self._take_part, fit) for fit in fits]
            try:
                return [future.result() for future in futures]
            except BaseException as error:  # a signal's too, which comes to this thread
                with self.turn:
                    self.error = self.error or error
                    self.turn.notify_all()
                raise self.error from None

    def _take_part(self, fit: Callable[[], Any]) -> Any:
        with self.turn:
            try:
                return fit()
            except BaseException as error:
                self.error = self.error or error
                raise
            finally:
                self.present -= 1
                self._answer()

    def ask(self, fit: int, question: Question) -> DataTerm:
        """Returns the data term at a point of one fit, whose turn it is.

        Raises:
            CancelledError: another fit ended by an error.
        """
        self.questions[fit] = question
        self._answer()
        self.turn.wait_for(lambda: fit in self.answers or self.error is not None)
        if self.error:
            raise CancelledError
        return self.answers.pop(fit)

    def _answer(self) -> None:
        """Answers, where all fits ask."""
        if not self.error and self.questions and len(self.questions) == self.present:
            dtype = min((question.dtype for question in self.questions.values()), key=lambda dtype: dtype.itemsize)
            fits = sorted(fit for fit, question in self.questions.items() if question.dtype == dtype)
            self.answers |= zip(fits, self._evaluated([self.questions.pop(fit) for fit in fits], fits), strict=True)
        self.turn.notify_all()

    def _evaluated(self, asked: Sequence[Question], fits: list[int]) -> list[DataTerm]:
        term = self.objective.data_term(
            torch.cat([question.weight for question in asked]),
            torch.cat([question.bias for question in asked]),
            self.input,
            self.target,
            self.weights if len(fits) == len(self.weights) else self.weights[fits],
            dtype=asked[0].dtype,
            every=max(question.every for question in asked),
        )
        return [DataTerm(*parts) for parts in zip(*(part.split(1) for part in term), strict=True)]


@dataclass(frozen=True, eq=False)
class Member(Objective):
    """The objective of one of the fits of a ``Joint``, whose samples and weights it has, whatever it is given."""

    joint: Joint | None = None
    fit: int = 0

    def data_term(
        self,
        weight: Tensor,
        bias: Tensor,
        input: Any,
        target: Tensor,
        sample_weight: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        spread: Tensor | None = None,
        every: int = 0,
    ) -> DataTerm:
        """Returns what ``Objective.data_term`` does, when all other fits ask too; for one classifier, of no spread."""
        assert self.joint is not None
        assert spread is None
        return self.joint.ask(self.fit, Question(weight, bias, dtype, every))
