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
    plain_penalty,
    relative_error,
)

CASES = range(1000)


@pytest.fixture(params=LOSSES)
def loss(request) -> Loss:
    return LOSSES[request.param]


def test_forward_is_the_plain_formula(loss):
    for seed in CASES:
        check_forward(loss, loss.function, loss.case(seed))


def test_gradient_is_the_central_difference(loss):
    for seed in CASES:
        check_central_difference(loss, loss.function, l2_penalty, loss.case(seed))


def test_gradient_is_autograds(loss):
    for seed in CASES:
        check_autograd(loss, loss.function, l2_penalty, loss.case(seed))
    for seed in range(20):
        case = loss.case(seed, N=128, D=100, L=5, **({"K": 10} if loss is LOSSES["softmax"] else {}))
        check_autograd(loss, loss.function, l2_penalty, case)


# --- wrong versions: each check must refuse each of them -------------------------------------------------------------


def tampered(tensor: Tensor, change) -> Tensor:
    """The same values, with ``change`` applied to the gradient that comes back."""
    copy = tensor.view_as(tensor)
    if copy.requires_grad:
        copy.register_hook(change)
    return copy


def with_wrong_gradient(name: str, change):
    def mutant(function, penalty):
        def wrong(target, **parameters):
            return function(target=target, **{**parameters, name: tampered(parameters[name], change)})

        return wrong, penalty

    return mutant


def with_wrong_loss_gradient(change):
    def mutant(function, penalty):
        def wrong(target, **parameters):
            loss, logits = function(target=target, **parameters)
            return tampered(loss, lambda grad: change(grad, target.shape[0])), logits

        return wrong, penalty

    return mutant


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


@pytest.mark.parametrize("check", [check_central_difference, check_autograd])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_wrong_gradient_is_refused(loss, check, mutant):
    cases = (loss.case(seed, N=5, D=4, L=3) for seed in CASES)
    case = next(case for case in cases if case.grad_penalty.any() and "bias" in case.parameters)
    check(loss, loss.function, l2_penalty, case)
    with pytest.raises(AssertionError):
        check(loss, *MUTANTS[mutant](loss.function, l2_penalty), case)


def test_gradient_with_respect_to_logits_dropped_is_refused(loss):
    def wrong(target, **parameters):
        found, logits = loss.function(target=target, **parameters)
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


def by_torch_with_bce(input, weight, target, bias=None):
    """Logistic regression as usually written; its cancellation is part of what float32 is compared with."""
    logits = [F.linear(input, w, None if bias is None else bias[i]) for i, w in enumerate(weight)]
    wanted = target.unsqueeze(1).to(input.dtype)
    return torch.stack([F.binary_cross_entropy_with_logits(z, wanted) for z in logits]), torch.stack(logits)


def root_mean_square_errors(loss: Loss, dtype: torch.dtype, cases: list[Case]) -> dict[str, tuple[float, float]]:
    """Norm-relative errors of loss and gradients against float64 on the same rounded numbers: (ours, torch's)."""
    peer = by_torch_with_bce if loss is LOSSES["binary"] else loss.by_torch
    squares = {}
    for case in (case.to(dtype) for case in cases):
        truth = case.to(torch.float64)
        expected = gradient(loss.plain, plain_penalty, truth) | {
            "loss": loss.plain(target=case.target, **truth.parameters)[0]
        }
        for who, (function, penalty) in enumerate(((loss.function, l2_penalty), (peer, plain_penalty))):
            found = gradient(function, penalty, case) | {"loss": function(target=case.target, **case.parameters)[0]}
            for name, value in found.items():
                assert value.dtype == dtype
                error = relative_error(value.double(), expected[name]) ** 2
                squares.setdefault(name, ([], []))[who].append(error)
    return {name: tuple((sum(e) / len(e)) ** 0.5 for e in pair) for name, pair in squares.items()}


@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.float32, 2), (torch.bfloat16, 1.02), (torch.float16, 1.02)], ids=str
)
def test_low_precision_is_as_accurate_as_torchs(loss, dtype, factor):
    cases = [loss.case(seed, N=16, D=12, L=3) for seed in range(150)]
    for name, (ours, torchs) in root_mean_square_errors(loss, dtype, cases).items():
        assert ours <= factor * torchs, f"{name}: {ours} against {torchs}"
