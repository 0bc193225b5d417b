"""Stochastic gradient descent."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handgrad.solvers.first_order import FirstOrderSolver


@dataclass(frozen=True)
class SGD(FirstOrderSolver):
    """``m = momentum m + dJ/dw``, ``w = w - lr m``, for every mini-batch."""

    lr: float
    momentum: float = 0.0

    def optimizer(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        # Not foreach: there is nothing to gain from grouping two parameters.
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, foreach=False)

    def memory(self, parameter: Tensor) -> dict[str, Tensor]:
        return {"momentum_buffer": torch.zeros_like(parameter)} if self.momentum else {}
