"""What every loss must satisfy: random cases, the plain formulas as oracles, and the checks that compare.

The checks take the callables they judge, so that a test can hand them a wrong one and see it refused.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from handgrad.functions.linear_binary_cross_entropy import linear_binary_cross_entropy
from handgrad.functions.linear_cross_entropy import linear_cross_entropy

STEP = 4e-3  # of a logit: truncation and rounding of the five-point formula then both stay below 1e-9


@dataclass
class Case:
    """One random problem, and the gradients that arrive for its losses, logits and penalties."""

    parameters: dict[str, Tensor]  # input (N, D), weight (L, K, D) and, in most cases, bias (L, K)
    target: Tensor
    l2: Tensor
    grad_loss: Tensor
    grad_logits: Tensor
    grad_penalty: Tensor
    sample_weight: Tensor | None = None  # (N,), some zeros among them

    @property
    def samples(self) -> dict[str, Tensor | None]:
        """What a loss takes beside the parameters."""
        return {"target": self.target, "sample_weight": self.sample_weight}

    def to(self, dtype: torch.dtype) -> "Case":
        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(dtype)

        parameters = {name: cast(tensor) for name, tensor in self.parameters.items()}
        grads = (cast(self.grad_loss), cast(self.grad_logits), cast(self.grad_penalty))
        sample_weight = None if self.sample_weight is None else cast(self.sample_weight)
        return Case(parameters, self.target, cast(self.l2), *grads, sample_weight)


def softmax_case(seed: int, weighted: bool = False, **sizes: int) -> Case:
    return _random_case(seed, weighted, classes=sizes.pop("K", None), **sizes)


def binary_case(seed: int, weighted: bool = False, **sizes: int) -> Case:
    return _random_case(seed, weighted, classes=1, **sizes)


def multilabel_case(seed: int, weighted: bool = False, **sizes: int) -> Case:
    """Two to six labels, each of which every sample has or lacks."""
    case = _random_case(seed, weighted, classes=sizes.pop("K", None), **sizes)
    size = (len(case.target), case.parameters["weight"].shape[1])
    case.target = torch.randint(0, 2, size, generator=torch.Generator().manual_seed(seed))
    return case


def _random_case(seed: int, weighted: bool, classes: int | None, N=None, D=None, L=None) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def count(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def power(low: float, high: float, *shape: int) -> Tensor:
        return 10 ** (low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    N, D, L, K = N or count(1, 8), D or count(1, 6), L or count(1, 4), classes or count(2, 6)
    input_scale, logit_scale = power(-1, 1), power(-1.5, 0.7)
    parameters = {"input": normal(N, D) * input_scale, "weight": normal(L, K, D) * logit_scale / input_scale / D**0.5}
    if count(0, 4):
        parameters["bias"] = normal(L, K) * logit_scale
    target = torch.randint(0, max(K, 2), (N,), generator=generator)
    grad_logits = normal(L, N, K) * (count(0, 1) / (N * K) ** 0.5)  # none in half of the cases
    case = Case(parameters, target, power(-3, 0.5, L), normal(L), grad_logits, normal(L) * count(0, 1))
    if weighted:
        case.sample_weight = power(-1, 1, N) * (torch.rand(N, generator=generator) > 0.3)
        case.sample_weight[count(0, N - 1)] = float(power(-1, 1))  # never all zero
    return case


# --- oracles: the plain formulas, on tensors that may carry batch axes in front -------------------------------------


def plain_logits(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    logits = torch.einsum("...lkd,...nd->...lnk", weight, input)
    return logits if bias is None else logits + bias.unsqueeze(-2)


def plain_mean(losses: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    if sample_weight is None:
        return losses.mean(-1)
    return (losses * sample_weight).sum(-1) / sample_weight.sum()


def plain_cross_entropy(input: Tensor, weight: Tensor, target: Tensor, bias=None, sample_weight=None):
    logits = plain_logits(input, weight, bias)
    index = target.unsqueeze(-1).expand(*logits.shape[:-1], 1)
    return plain_mean(-logits.log_softmax(-1).gather(-1, index).squeeze(-1), sample_weight), logits


def plain_binary_cross_entropy(input: Tensor, weight: Tensor, target: Tensor, bias=None, sample_weight=None):
    logits = plain_logits(input, weight, bias)
    wanted = target.to(logits.dtype).reshape(len(target), -1)
    losses = F.binary_cross_entropy_with_logits(logits, wanted.expand(logits.shape), reduction="none")
    return plain_mean(losses.sum(-1), sample_weight), logits


def torch_cross_entropy(input: Tensor, weight: Tensor, target: Tensor, bias=None, sample_weight=None):
    """What one would write with torch.nn, one classifier after the other."""
    logits = [F.linear(input, weight[i], None if bias is None else bias[i]) for i in range(weight.shape[0])]
    if sample_weight is None:
        return torch.stack([F.cross_entropy(z, target) for z in logits]), torch.stack(logits)
    losses = torch.stack([F.cross_entropy(z, target, reduction="none") for z in logits])
    return plain_mean(losses, sample_weight), torch.stack(logits)


def torch_binary_cross_entropy(input: Tensor, weight: Tensor, target: Tensor, bias=None, sample_weight=None):
    logits = [F.linear(input, weight[i], None if bias is None else bias[i]) for i in range(weight.shape[0])]
    # Not binary_cross_entropy_with_logits: its backward takes sigmoid - target, which cancels down to 7e-14.
    sign = 2 * target.reshape(len(target), -1).to(input.dtype) - 1
    if sample_weight is None and target.dim() == 1:
        return torch.stack([F.soft_margin_loss(z, sign) for z in logits]), torch.stack(logits)
    losses = torch.stack([F.soft_margin_loss(z, sign, reduction="none").sum(1) for z in logits])
    return plain_mean(losses, sample_weight), torch.stack(logits)


def plain_penalty(parameter: Tensor, l2: Tensor) -> Tensor:
    return 0.5 * l2 * parameter.square().sum((-2, -1))


@dataclass
class Loss:
    """A loss under test with all that tells what it should be."""

    function: Callable
    plain: Callable
    by_torch: Callable
    case: Callable[..., Case]


LOSSES = {
    "softmax": Loss(linear_cross_entropy, plain_cross_entropy, torch_cross_entropy, softmax_case),
    "binary": Loss(linear_binary_cross_entropy, plain_binary_cross_entropy, torch_binary_cross_entropy, binary_case),
    "multilabel": Loss(
        linear_binary_cross_entropy, plain_binary_cross_entropy, torch_binary_cross_entropy, multilabel_case
    ),
}


# --- what is compared ------------------------------------------------------------------------------------------------


def objective(function: Callable, penalty: Callable, case: Case, parameters: dict[str, Tensor]) -> Tensor:
    """J: losses, logits and penalties of weight and bias, weighted at random, so that no gradient arrives as ones."""
    loss, logits = function(**case.samples, **parameters)
    penalties = penalty(parameters["weight"], case.l2)
    if "bias" in parameters:
        penalties = penalties + 0.5 * penalty(parameters["bias"].unsqueeze(-1), case.l2)
    total = (case.grad_loss * loss + case.grad_penalty * penalties).sum(-1)
    return total + (case.grad_logits * logits).sum((-3, -2, -1))


def gradient(function: Callable, penalty: Callable, case: Case) -> dict[str, Tensor]:
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in case.parameters.items()}
    grads = torch.autograd.grad(objective(function, penalty, case, parameters), list(parameters.values()))
    return dict(zip(parameters, grads, strict=True))


def relative_error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    size = expected.norm()
    return float((found - expected).norm() / (size if size > 0 else 1))


def central_difference(plain: Callable, case: Case) -> dict[str, Tensor]:
    """Five-point central difference of the plain formula in every coordinate, all of them in one batch."""
    largest = {name: float(case.parameters[name].abs().max()) for name in ("input", "weight")}
    steps = {"input": STEP / largest["weight"], "weight": STEP / largest["input"], "bias": STEP}
    grads = {}
    for name, tensor in case.parameters.items():
        moves = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64).view(-1, 1, 1) * steps[name]
        moved = tensor + (moves * torch.eye(tensor.numel(), dtype=torch.float64)).view(4, -1, *tensor.shape)
        value = objective(plain, plain_penalty, case, {**case.parameters, name: moved})
        grads[name] = ((value[0] - value[3]) + 8 * (value[2] - value[1])).view(tensor.shape) / (12 * steps[name])
    return grads


def check_central_difference(loss: Loss, function: Callable, penalty: Callable, case: Case) -> None:
    found, expected = gradient(function, penalty, case), central_difference(loss.plain, case)
    for name, value in expected.items():
        assert relative_error(found[name], value) <= 1e-9, f"gradient of {name} is not the central difference"


def check_autograd(loss: Loss, function: Callable, penalty: Callable, case: Case) -> None:
    """Weight and bias count as one vector, as in the bias trick: dbias alone may be one number that cancels."""
    found, expected = gradient(function, penalty, case), gradient(loss.by_torch, plain_penalty, case)
    for names in (("input",), ("weight", "bias")):
        pair = [torch.cat([grads[name].flatten() for name in names if name in grads]) for grads in (found, expected)]
        assert relative_error(*pair) <= 1e-14, f"gradient of {' and '.join(names)} is not autograd's"


def check_forward(loss: Loss, function: Callable, case: Case) -> None:
    for found, expected in zip(*(f(**case.samples, **case.parameters) for f in (function, loss.plain)), strict=True):
        assert relative_error(found, expected) <= 1e-14
