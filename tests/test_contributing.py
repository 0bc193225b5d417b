"""What CONTRIBUTING.md tells works: a loss, a solver and a data source that the package does not have."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handgrad.callbacks.gradient_check import GradientCheck
from handgrad.data.base import LinearDataModule
from handgrad.errors import GradientError
from handgrad.fit import fit
from handgrad.functions.linear_map import linear_map
from handgrad.functions.objective import Loss
from handgrad.functions.samples import sample_shares
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.solvers.protocol import Progress
from handgrad.solvers.sgd import SGD

FACTOR = 1.0  # of the gradient; a test makes it wrong


class LeastSquares(torch.autograd.Function):
    """C[l] = sum_n r[n] 1/2 sum_k (z[l, k, n] - y[n, k])^2, hence dz = g r (z - y); r is 1/N."""

    @staticmethod
    def forward(ctx, input: Tensor, weight: Tensor, target: Tensor, bias: Tensor, share: Tensor):
        z = linear_map(input, weight) + bias.unsqueeze(2)
        residual = z - F.one_hot(target, weight.shape[1]).t()
        ctx.save_for_backward(input, weight, residual, share)
        return (residual.square().sum(1) * share).sum(1) / 2, z

    @staticmethod
    def backward(ctx, grad_loss: Tensor, grad_z: Tensor):
        input, weight, residual, share = ctx.saved_tensors
        dz = grad_loss.reshape(-1, 1, 1) * residual * share * FACTOR + grad_z
        dweight = dz @ input
        dbias = dz.sum(2)
        dinput = dz.flatten(0, 1).t() @ weight.flatten(0, 1)
        return dinput, dweight, None, dbias, None


def least_squares(input, weight, target, bias=None, sample_weight=None):
    sample_weight = weight.new_ones(len(input)) if sample_weight is None else sample_weight
    loss, z = LeastSquares.apply(input, weight, target, bias, sample_shares(sample_weight))
    return loss, z.transpose(1, 2)


def plain_least_squares(z: Tensor, target: Tensor) -> Tensor:
    return (z - F.one_hot(target, z.shape[1]).t()).square().sum(1) / 2


class LeastSquaresClassifier(SoftmaxRegression):
    task = "least_squares"
    criterion = Loss(least_squares, lambda z, u: u, plain_least_squares)


@dataclass(frozen=True)
class GradientState:
    weight: Tensor
    bias: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "bias": self.bias}


class NormalizedGradient:
    """A step of fixed length against the gradient, which is halved by none but shrinks with 1 / (updates so far)."""

    one_at_a_time = False

    def init(self, weight: Tensor, bias: Tensor) -> GradientState:
        return GradientState(weight, bias)

    @torch.no_grad()
    def step(self, objective, state: GradientState, block, active: Tensor) -> Progress:
        losses = []
        for update, (input, target, sample_weight) in enumerate(block, block.first + 1):
            loss, dweight, dbias = objective.gradient(
                state.weight, state.bias, input, target, sample_weight, active=active
            )
            length = (dweight.square().sum((1, 2)) + dbias.square().sum(1)).sqrt().clamp_min(1e-12) * update
            state.weight.sub_(dweight / length.reshape(-1, 1, 1))
            state.bias.sub_(dbias / length.reshape(-1, 1))
            losses.append(loss)
        moved = active > 0
        return Progress({"loss": torch.stack(losses)}, len(losses) * moved.long(), moved)

    def done(self, state: GradientState) -> Tensor:
        return torch.zeros(len(state.weight), dtype=torch.bool)

    def report(self, state: GradientState) -> dict[str, Tensor]:
        return {}


class Clouds(LinearDataModule):
    """Three clouds of points in four dimensions."""

    classes = ("left", "right", "above")
    num_features = 4

    def read(self):
        generator = torch.Generator().manual_seed(0)
        centres = 3 * torch.randn(3, 4, generator=generator)
        sets = {}
        for name, samples in (("train", 300), ("val", 90)):
            target = torch.arange(samples) % 3
            sets[name] = centres[target] + torch.randn(samples, 4, generator=generator), target
        return sets


def trained(solver, model=LeastSquaresClassifier, batch_size=20, epochs=6, **settings):
    data = Clouds(shuffle=True, batch_size=batch_size, seed=0, epochs=epochs)
    model = model(num_features=data.num_features, num_classes=data.num_classes, l2=[0.0, 0.1])
    check = GradientCheck(tolerance=1e-8, directions=2, classifiers=2)
    return fit(data, model, solver, [check], accelerator="cpu", **settings)


@pytest.mark.parametrize("model", [LeastSquaresClassifier, SoftmaxRegression])
@pytest.mark.parametrize("solver", [SGD(lr=0.05), NormalizedGradient()])
def test_they_learn_together(solver, model):
    result = trained(solver, model, threads=2)
    assert [row["l2"] for row in result.rows] == [0.0, 0.1]
    assert all(row["val_accuracy"] > 0.9 for row in result.rows)
    assert result.rows[0]["classes"] == "left right above"
    assert result.selected["val_loss"] == min(row["val_loss"] for row in result.rows)


@pytest.mark.slow
def test_least_squares_finds_what_linear_algebra_finds():
    result = trained(SGD(lr=0.1, momentum=0.9), batch_size=300, epochs=400, precision="64-true")
    data = Clouds(shuffle=False, batch_size=20, seed=0, epochs=1)
    data.setup()
    input, target = data.train
    design = torch.cat((input, torch.ones(len(input), 1)), 1)
    exact = torch.linalg.lstsq(design, F.one_hot(target, 3).float()).solution
    assert torch.allclose(result.model.weight[0].detach().float(), exact[:4].t(), atol=1e-5)


def test_a_wrong_loss_of_ones_own_is_found_out(monkeypatch):
    monkeypatch.setattr("tests.test_contributing.FACTOR", 1.001)
    with pytest.raises(GradientError, match="differs from finite differences"):
        trained(SGD(lr=0.05))
