"""The penalty by itself; in the objective, beside a loss, it is tested in test_contract.py."""

import pytest
import torch
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

from handgrad.functions.l2_penalty import add_l2_gradient, l2_penalty
from tests.functions.contract import plain_penalty, relative_error

# torch's own forward-mode tables are built with the deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def random_arguments(*shape: int, dtype=torch.float64, seed=3):
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return parameter, torch.rand(shape[0], generator=generator, dtype=torch.float64).to(dtype)


def test_by_hand():
    parameter = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    l2 = torch.tensor([2.0, 0.5], dtype=torch.float64, requires_grad=True)
    penalty = l2_penalty(parameter, l2)
    assert penalty.tolist() == [25.0, 0.25]
    grads = torch.autograd.grad(penalty, (parameter, l2), torch.tensor([1.0, 3.0], dtype=torch.float64))
    assert grads[0].tolist() == [[6.0, 8.0], [1.5, 0.0]]
    assert grads[1].tolist() == [12.5, 1.5]


@pytest.mark.parametrize("shape", [(3, 4), (1, 2, 5), (2, 3, 2, 2)])
def test_accumulated_is_what_backward_adds(shape):
    generator = torch.Generator().manual_seed(4)
    for seed in range(100):
        parameter, l2 = random_arguments(*shape, seed=seed)
        grad_output = torch.randn(shape[0], generator=generator, dtype=torch.float64)
        before = torch.randn(shape, generator=generator, dtype=torch.float64)
        gradient = before.clone()
        parameter.requires_grad_()
        add_l2_gradient(gradient, parameter, l2, grad_output)
        (expected,) = torch.autograd.grad(plain_penalty(parameter.flatten(1)[:, None], l2), parameter, grad_output)
        assert relative_error(gradient, before + expected) <= 1e-15


@pytest.mark.parametrize("shape", [(3, 4), (1, 2, 5), (2, 3, 2, 2)])
def test_gradcheck(shape):
    arguments = [argument.requires_grad_() for argument in random_arguments(*shape)]
    assert torch.autograd.gradcheck(
        l2_penalty, arguments, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(l2_penalty, arguments, check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 0])
def test_second_derivatives(scale):
    parameter, l2 = random_arguments(2, 3, 2)
    arguments = parameter * scale, l2
    both = (0, 1)
    expected = jacrev(jacrev(plain_penalty, both), both)(*arguments)
    for derivative in (
        hessian(l2_penalty, both),
        jacfwd(jacfwd(l2_penalty, both), both),
        jacrev(jacrev(l2_penalty, both), both),
        jacrev(jacfwd(l2_penalty, both), both),
        torch.compile(hessian(l2_penalty, both), backend="eager"),
    ):
        for row, wanted in zip(derivative(*arguments), expected, strict=True):
            for found, value in zip(row, wanted, strict=True):
                assert relative_error(found, value) <= 1e-14


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)])
def test_vmap(dims):
    parameter, l2 = random_arguments(4, 2, 3, 2)[0], torch.rand(4, 2, dtype=torch.float64)
    arguments = [tensor if dim == 0 else tensor[0] for tensor, dim in zip((parameter, l2), dims, strict=True)]
    for transform in (lambda f: f, lambda f: jacrev(f, 0), lambda f: jacfwd(f, 1), lambda f: hessian(f, 0)):
        found, expected = (vmap(transform(f), dims)(*arguments) for f in (l2_penalty, plain_penalty))
        assert relative_error(found, expected) <= 1e-14


def test_forward_mode_around_vmap_is_refused_by_torch():
    parameter, l2 = random_arguments(4, 2, 3, 2)[0], torch.rand(2, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="Batching rule not implemented"):
        jvp(lambda parameter: vmap(l2_penalty, (0, None))(parameter, l2), (parameter,), (parameter.cos(),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_rounds_once(dtype):
    parameter, l2 = random_arguments(3, 10, 50, dtype=dtype)
    expected = plain_penalty(parameter.double(), l2.double())
    found = l2_penalty(parameter, l2)
    assert found.dtype == dtype
    assert relative_error(found.double(), expected) <= torch.finfo(dtype).eps


def test_float16_squares_do_not_overflow():
    parameter = torch.full((1, 4), 256.0, dtype=torch.float16)
    assert l2_penalty(parameter, torch.tensor([0.25], dtype=torch.float16)).item() == 32768.0


def test_non_contiguous_parameter():
    parameter, l2 = random_arguments(2, 3, 4)
    transposed = parameter.transpose(1, 2).contiguous().transpose(1, 2)
    assert not transposed.is_contiguous()
    assert relative_error(l2_penalty(transposed, l2), plain_penalty(parameter, l2)) <= 1e-15


@pytest.mark.parametrize(
    ("parameter", "l2", "error", "message"),
    [
        ([[1.0]], torch.ones(1), TypeError, "parameter is a list; expected a torch.Tensor"),
        (torch.ones(1, 2), 2.0, TypeError, "l2 is a float; expected a torch.Tensor"),
        (torch.ones(2), torch.ones(2), ValueError, r"parameter has shape \(2,\); expected \(L, \*\)"),
        (torch.ones(0, 2), torch.ones(0), ValueError, r"parameter has shape \(0, 2\)"),
        (torch.ones(2, 3), torch.ones(3), ValueError, r"l2 has shape \(3,\); expected \(L,\) with L = 2"),
        (torch.ones(2, 3), torch.tensor(1.0), ValueError, r"l2 has shape \(\); expected \(L,\) with L = 2"),
        (torch.ones(2, 3).int(), torch.ones(2), TypeError, "parameter has dtype torch.int32"),
        (torch.ones(2, 3), torch.ones(2).double(), TypeError, "l2 has dtype torch.float64; expected torch.float32"),
    ],
)
def test_refused(parameter, l2, error, message):
    with pytest.raises(error, match=message):
        l2_penalty(parameter, l2)
