"""One more fit, of the chosen l2 on the training and the validation set together."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from handgrad.data.base import LinearDataModule
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.solvers.protocol import Solver
from handgrad.solvers.solve import WholeSet, solve


@dataclass(frozen=True)
class Refit:
    """An optimum of one l2 value on both sets.

    Attributes:
        weight, bias: (K, D) and (K,), on the features as the sets have them.
        proof: what the solver knows of it, by the names of the results.
        samples: the sum of the samples' weights.
    """

    weight: Tensor
    bias: Tensor
    proof: dict[str, Any]
    samples: float


def refit(model: LinearClassifier, data: LinearDataModule, solver: Solver, entry: int) -> Refit:
    """Solves for one l2 value of the path on train + val, from its solution on train alone, to the same tolerance."""
    input, target, sample_weight = data.train_and_val()
    l2 = torch.tensor([model.hparams["l2"][entry]], dtype=torch.float64)
    objective = replace(model.objective(), l2=l2, run=model.pipeline.run)
    start = model.best_weight[entry, None].double().cpu(), model.best_bias[entry, None].double().cpu()
    state = solve(solver, objective, *start, [WholeSet(input, target, sample_weight)]).state
    proof = {name: values[0].item() for name, values in solver.report(state).items()}
    samples = len(target) if sample_weight is None else sample_weight.sum().item()
    return Refit(state.weight[0], state.bias[0], proof, samples)
