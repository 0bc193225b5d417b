"""Forward and gradient of every loss against central differences, autograd, torch's fused loss and wrong versions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handgrad.functions.l2_penalty import l2_penalty
from handgrad.functions.linear_cross_entropy import linear_cross_entropy
from tests.functions.contract import (
    LOSSES,
    Case,
    Loss,
    check_autograd,
    check_central_difference,
    check_forward,
    gradient,
    plain_mean,
    plain_penalty,
    relative_error,
)

CASES = range(1000)  # of each loss, half of them with sample weights

pytestmark = [pytest.mark.slow, pytest.mark.no_cover]


WEIGHTED = pytest.mark.parametrize("weighted", [False, True], ids=["equal weights", "sample weights"])


@pytest.fixture(params=LOSSES)
def loss(request) -> Loss:
    return LOSSES[request.param]


@WEIGHTED
def test_forward_is_the_plain_formula(loss, weighted):
    for seed in CASES[weighted::2]:
        check_forward(loss, loss.function, loss.case(seed, weighted))


@WEIGHTED
def test_gradient_is_the_central_difference(loss, weighted):
    for seed in CASES[weighted::2]:
        check_central_difference(loss, loss.function, l2_penalty, loss.case(seed, weighted))


@WEIGHTED
def test_gradient_is_autograds(loss, weighted):
    for seed in CASES[weighted::2]:
        check_autograd(loss, loss.function, l2_penalty, loss.case(seed, weighted))
    for seed in range(20):
        case = loss.case(seed, weighted, N=128, D=100, L=5, **({} if loss is LOSSES["binary"] else {"K": 10}))
        check_autograd(loss, loss.function, l2_penalty, case)


def test_some_weights_are_zero_but_never_all(loss):
    weights = [loss.case(seed, weighted=True).sample_weight for seed in CASES]
    assert all(weight.any() for weight in weights)
    assert sum(bool((weight == 0).any()) for weight in weights) > 500


# --- wrong versions: each check must refuse each of them -------------------------------------------------------------


def tampered(tensor: Tensor, change) -> Tensor:
    """The same values, with ``change`` applied to the gradient that comes back."""
    copy = tensor.view_as(tensor)
    if copy.requires_grad:
        copy.register_hook(change)
    return copy


def with_wrong_gradient(name: str, change):
    def mutant(function, penalty):
        def wrong(**arguments):
            return function(**{**arguments, name: tampered(arguments[name], change)})

        return wrong, penalty

    return mutant


def with_wrong_loss_gradient(change):
    def mutant(function, penalty):
        def wrong(target, **arguments):
            loss, logits = function(target=target, **arguments)
            return tampered(loss, lambda grad: change(grad, target.shape[0])), logits

        return wrong, penalty

    return mutant


class _Replaced(torch.autograd.Function):
    """The values of the first argument with the gradient of the second."""

    @staticmethod
    def forward(ctx, value: Tensor, other: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def with_gradient_of_other_weights(other_mean):
    """The right loss, with the gradient of another mean in place of its own."""

    def mutant(function, penalty):
        def wrong(sample_weight, **arguments):
            loss, logits = function(sample_weight=sample_weight, **arguments)
            ones = torch.ones_like(sample_weight)
            return _Replaced.apply(loss.detach(), other_mean(function, arguments, sample_weight, ones)), logits

        return wrong, penalty

    return mutant


def weights_ignored(function, arguments, sample_weight, ones):
    return function(sample_weight=ones, **arguments)[0]


def divided_by_n(function, arguments, sample_weight, ones):
    return function(sample_weight=sample_weight, **arguments)[0] * sample_weight.sum() / len(sample_weight)


def with_wrong_penalty_gradient(factor: float):
    def mutant(function, penalty):
        return function, lambda parameter, l2: penalty(tampered(parameter, lambda grad: factor * grad), l2)

    return mutant


MUTANTS = {
    f"{name} x {factor}": with_wrong_gradient(name, lambda grad, factor=factor: factor * grad)
    for name in ("input", "weight", "bias")
    for factor in (1.0005, -1.0)
} | {
    "weight + 9e-6": with_wrong_gradient("weight", lambda grad: grad + 9e-6),
    "input + 9e-6": with_wrong_gradient("input", lambda grad: grad + 9e-6),
    "bias + 9e-6": with_wrong_gradient("bias", lambda grad: grad + 9e-6),
    "grad_output ignored": with_wrong_loss_gradient(lambda grad, n: torch.ones_like(grad)),
    "sum for mean": with_wrong_loss_gradient(lambda grad, n: grad * n),
    "1/(N + 1) for 1/N": with_wrong_loss_gradient(lambda grad, n: grad * n / (n + 1)),
    "losses mixed": with_wrong_loss_gradient(lambda grad, n: grad.mean().expand_as(grad)),
    "l2 dropped": with_wrong_penalty_gradient(0.0),
    "l2 doubled": with_wrong_penalty_gradient(2.0),
    "l2 x 1.0005": with_wrong_penalty_gradient(1.0005),
}


WEIGHT_MUTANTS = {
    "weights ignored": with_gradient_of_other_weights(weights_ignored),
    "divided by N for sum s": with_gradient_of_other_weights(divided_by_n),
}


@pytest.mark.parametrize("check", [check_central_difference, check_autograd])
@pytest.mark.parametrize("mutant", WEIGHT_MUTANTS)
def test_wrong_weighting_is_refused(loss, check, mutant):
    case = next(case for case in (loss.case(seed, True, N=5, D=4, L=3) for seed in CASES) if "bias" in case.parameters)
    check(loss, loss.function, l2_penalty, case)
    with pytest.raises(AssertionError):
        check(loss, *WEIGHT_MUTANTS[mutant](loss.function, l2_penalty), case)


@WEIGHTED
@pytest.mark.parametrize("check", [check_central_difference, check_autograd])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_wrong_gradient_is_refused(loss, check, mutant, weighted):
    cases = (loss.case(seed, weighted, N=5, D=4, L=3) for seed in CASES)
    case = next(case for case in cases if case.grad_penalty.any() and "bias" in case.parameters)
    check(loss, loss.function, l2_penalty, case)
    with pytest.raises(AssertionError):
        check(loss, *MUTANTS[mutant](loss.function, l2_penalty), case)


def test_gradient_with_respect_to_logits_dropped_is_refused(loss):
    def wrong(**arguments):
        found, logits = loss.function(**arguments)
        return found, logits.detach()

    case = next(case for case in map(loss.case, CASES) if case.grad_logits.any())
    with pytest.raises(AssertionError):
        check_central_difference(loss, wrong, l2_penalty, case)


# --- torch's own fused loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_bias", [True, False])
def test_linear_cross_entropy_is_torchs(with_bias):
    case = LOSSES["softmax"].case(5, N=32, D=20, K=10, L=1)
    bias = torch.randn(1, 10, dtype=torch.float64, requires_grad=True) if with_bias else None
    input, weight = (case.parameters[name].requires_grad_() for name in ("input", "weight"))
    wanted = [tensor for tensor in (input, weight, bias) if tensor is not None]
    found, _ = linear_cross_entropy(input, weight, case.target, bias)
    expected = F.linear_cross_entropy(input, weight[0], case.target, linear_bias=bias[0] if with_bias else None)
    assert relative_error(found[0].detach(), expected.detach()) <= 1e-14
    pairs = (torch.autograd.grad(-1.7 * value, wanted) for value in (found[0], expected))
    for mine, theirs in zip(*pairs, strict=True):
        assert relative_error(mine, theirs) <= 1e-14


# --- accuracy in single and half precision ---------------------------------------------------------------------------


def by_torch_with_bce(input, weight, target, bias=None, sample_weight=None):
    """Logistic regression as usually written; its cancellation is part of what float32 is compared with."""
    logits = [F.linear(input, w, None if bias is None else bias[i]) for i, w in enumerate(weight)]
    wanted = target.reshape(len(target), -1).to(input.dtype)
    if sample_weight is None and target.dim() == 1:
        return torch.stack([F.binary_cross_entropy_with_logits(z, wanted) for z in logits]), torch.stack(logits)
    losses = [F.binary_cross_entropy_with_logits(z, wanted, reduction="none").sum(1) for z in logits]
    return plain_mean(torch.stack(losses), sample_weight), torch.stack(logits)


def root_mean_square_errors(loss: Loss, dtype: torch.dtype, cases: list[Case]) -> dict[str, tuple[float, float]]:
    """Norm-relative errors of loss and gradients against float64 on the same rounded numbers: (ours, torch's)."""
    peer = loss.by_torch if loss is LOSSES["softmax"] else by_torch_with_bce
    squares = {}
    for case in (case.to(dtype) for case in cases):
        truth = case.to(torch.float64)
        expected = gradient(loss.plain, plain_penalty, truth) | {
            "loss": loss.plain(**truth.samples, **truth.parameters)[0]
        }
        for who, (function, penalty) in enumerate(((loss.function, l2_penalty), (peer, plain_penalty))):
            found = gradient(function, penalty, case) | {"loss": function(**case.samples, **case.parameters)[0]}
            for name, value in found.items():
                assert value.dtype == dtype
                error = relative_error(value.double(), expected[name]) ** 2
                squares.setdefault(name, ([], []))[who].append(error)
    return {name: tuple((sum(e) / len(e)) ** 0.5 for e in pair) for name, pair in squares.items()}


@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.float32, 2), (torch.bfloat16, 1.02), (torch.float16, 1.02)], ids=str
)
@WEIGHTED
def test_low_precision_is_as_accurate_as_torchs(loss, dtype, factor, weighted):
    cases = [loss.case(seed, weighted, N=16, D=12, L=3) for seed in range(150)]
    for name, (ours, torchs) in root_mean_square_errors(loss, dtype, cases).items():
        assert ours <= factor * torchs, f"{name}: {ours} against {torchs}"
