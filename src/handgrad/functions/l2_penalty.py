"""L2 regularization, one strength per classifier, with a gradient derived by hand."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from handgrad.compat import functorch_is_active
from handgrad.functions.samples import at_least_float32
from handgrad.functions.transforms import differentiable_jvp, eager_version


def l2_penalty(parameter: Tensor, l2: Tensor) -> Tensor:
    r"""The penalty that L classifiers pay for the size of their parameters.

    Shapes: L classifiers (the path axis), counted by l; the other axes, whatever they are, are counted together by i.
    Equation numbers are the course report's (seed, task 4a).

    Forward::

        R[l]       = 1/2 sum_i parameter[l, i]^2                    (41, without the ||w||^2 it is set equal to)
        penalty[l] = l2[l] R[l]                                     (38)

    Gradient: of the sum's terms only parameter[l, i]^2 depends on parameter[l, i], and the 2 of its derivative meets
    the 1/2 (44, 45). With g[l] the gradient that arrives for penalty[l]::

        dparameter[l, i] = g[l] l2[l] parameter[l, i]               (45)
        dl2[l]           = g[l] R[l]

    Args:
        parameter: (L, *) with at least one more axis, floating point.
        l2: (L,), same dtype as ``parameter``.

    Returns:
        (L,), in the dtype of ``parameter``. Half precision is evaluated in float32.

    Raises:
        ValueError: a shape does not fit.
        TypeError: a dtype does not fit.
    """
    for name, tensor in (("parameter", parameter), ("l2", l2)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor")
    if parameter.dim() < 2 or parameter.shape[0] == 0:
        raise ValueError(f"parameter has shape {tuple(parameter.shape)}; expected (L, *) with L >= 1 and one more axis")
    if l2.shape != parameter.shape[:1]:
        raise ValueError(f"l2 has shape {tuple(l2.shape)}; expected (L,) with L = {parameter.shape[0]} as in parameter")
    if not parameter.dtype.is_floating_point:
        raise TypeError(f"parameter has dtype {parameter.dtype}; expected a floating-point dtype")
    if l2.dtype != parameter.dtype:
        raise TypeError(f"l2 has dtype {l2.dtype}; expected {parameter.dtype} as parameter")
    function = _L2Penalty if functorch_is_active() else _L2PenaltyEager
    return function.apply(parameter, l2)


def add_l2_gradient(gradient: Tensor, parameter: Tensor, l2: Tensor, grad_output: Tensor) -> None:
    """Adds to ``gradient`` what backward from ``l2_penalty(parameter, l2)`` would: ``g[l] l2[l] parameter`` (45).

    It does so in place and in one pass, and the penalty itself need not be known: penalized updates take half the time.

    Args:
        gradient: (L, *), as ``parameter``.
        parameter: (L, *).
        l2: (L,).
        grad_output: (L,), the gradient that arrives for the penalty.
    """
    gradient.addcmul_(_like(parameter, grad_output * l2), parameter.detach())


class _L2Penalty(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(parameter: Tensor, l2: Tensor) -> Tensor:
        return (l2 * _half_square_norm(parameter)).to(parameter.dtype)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
        parameter, l2 = ctx.saved_tensors
        needs_parameter, needs_l2 = ctx.needs_input_grad
        dparameter = _like(parameter, grad_output * l2) * parameter if needs_parameter else None
        dl2 = (grad_output * _half_square_norm(parameter)).to(l2.dtype) if needs_l2 else None
        return dparameter, dl2

    @staticmethod
    @differentiable_jvp
    def jvp(saved_tensors: list[Tensor], d_parameter: Tensor, d_l2: Tensor) -> Tensor:
        parameter, l2 = saved_tensors
        d_penalty = l2 * (parameter * d_parameter).reshape(l2.shape[0], -1).sum(1) + d_l2 * _half_square_norm(parameter)
        return d_penalty.to(parameter.dtype)


_Eager: Any = eager_version(_L2Penalty)


class _L2PenaltyEager(_Eager):
    @staticmethod
    def forward(ctx: FunctionCtx, parameter: Tensor, l2: Tensor) -> Tensor:
        # Norms read the parameter once, where squares are first written. Nothing differentiates them, as torch.compile
        # would under torch.func: they have a kink at 0.
        norms = torch.linalg.vector_norm(parameter, dim=-1, dtype=at_least_float32(parameter))
        penalty = (l2 * norms.square().reshape(l2.shape[0], -1).sum(1) * 0.5).to(parameter.dtype)
        _L2Penalty.setup_context(ctx, (parameter, l2), penalty)
        return penalty


def _like(parameter: Tensor, scale: Tensor) -> Tensor:
    """``scale (L,)`` with as many axes as the parameter."""
    return scale.reshape(-1, *[1] * (parameter.dim() - 1))


def _half_square_norm(parameter: Tensor) -> Tensor:
    """R, at least in float32: squares of float16 overflow from 256 on."""
    return parameter.to(at_least_float32(parameter)).square().reshape(parameter.shape[0], -1).sum(1) * 0.5
