"""Adam (Kingma and Ba, 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handgrad.solvers.first_order import FirstOrderSolver


@dataclass(frozen=True)
class Adam(FirstOrderSolver):
    """Adam by torch, with its default epsilon; ``betas`` are the decay rates of both moments."""

    lr: float
    betas: Sequence[float] = (0.9, 0.999)

    def optimizer(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        first, second = self.betas
        return torch.optim.Adam(parameters, lr=self.lr, betas=(first, second))

    def memory(self, parameter: Tensor) -> dict[str, Tensor]:
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), dtype=torch.float32), **moments}
