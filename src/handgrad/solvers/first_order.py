"""Solvers that make an update per mini-batch by an optimizer of torch's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from handgrad.compat import bare_step
from handgrad.functions.objective import Objective
from handgrad.solvers.protocol import Block, Progress


@dataclass(frozen=True)
class FirstOrderState:
    """The parameters and torch's optimizer over them; what it remembers is there from the start, as zeros."""

    weight: Tensor
    bias: Tensor
    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        named = {"weight": self.weight, "bias": self.bias}
        memories = {name: self.optimizer.state[parameter] for name, parameter in named.items()}
        return named | {f"{name}.{key}": memory[key] for name, memory in memories.items() for key in memory}


class FirstOrderSolver:
    """What SGD and Adam share: the walk through a block. All entries of a path make their updates at once.

    Sample weights, of mean 1 over the training set, count in a mini-batch as they are: its loss is their sum over B.
    """

    one_at_a_time = False

    def optimizer(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Returns torch's optimizer of ``parameters``."""
        raise NotImplementedError

    def memory(self, parameter: Tensor) -> dict[str, Tensor]:
        """Returns what the optimizer remembers of a parameter before its first update, by torch's names."""
        raise NotImplementedError

    def init(self, weight: Tensor, bias: Tensor) -> FirstOrderState:
        optimizer = self.optimizer([weight, bias])
        for parameter in (weight, bias):
            optimizer.state[parameter] = self.memory(parameter)
        return FirstOrderState(weight, bias, optimizer)

    def step(self, objective: Objective, state: FirstOrderState, block: Block, active: Tensor) -> Progress:
        weight, bias, update = state.weight, state.bias, bare_step(state.optimizer)
        share = block.share if objective.total else None
        losses = []
        with unchanged((weight, bias), active == 0):
            for input, target, sample_weight in block:
                if sample_weight is not None:
                    share, sample_weight = weighted_share(sample_weight, block.share)
                loss, weight.grad, bias.grad = objective.gradient(
                    weight, bias, input, target, sample_weight, active=active, share=share
                )
                losses.append(loss)
                update()
                del input, target  # the next ones then take their place in memory, which is still in the cache
        moved = active > 0
        return Progress({"loss": torch.stack(losses)}, len(losses) * moved.to(torch.int64), moved)

    def done(self, state: FirstOrderState) -> Tensor:
        """Returns false for every entry: what ends these solvers is a number of epochs, or early stopping."""
        return torch.zeros(len(state.weight), dtype=torch.bool, device=state.weight.device)

    def report(self, state: FirstOrderState) -> dict[str, Tensor]:
        """Returns nothing: these solvers do not know how far they are."""
        return {}


def weighted_share(sample_weight: Tensor, of_process: float) -> tuple[float, Tensor | None]:
    """Returns what a mini-batch's samples count in the mean over B, and the weights; None where all of them are 0."""
    whole = sample_weight.sum().item()
    return whole * of_process / len(sample_weight), sample_weight if whole else None


@contextmanager
def unchanged(parameters: Sequence[Tensor], stopped: Tensor) -> Iterator[None]:
    """Keeps the rows of ``stopped`` entries as they are: a zero gradient alone does not, once momentum moves them."""
    kept = [parameter.detach()[stopped] for parameter in parameters] if stopped.any() else []
    yield
    for parameter, rows in zip(parameters, kept, strict=False):
        parameter.data[stopped] = rows
