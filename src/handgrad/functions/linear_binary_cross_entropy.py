"""Logistic regression: linear map, sigmoid and mean cross-entropy as one function with a gradient derived by hand."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from handgrad.functions.checks import check_linear_arguments, check_target_range
from handgrad.functions.linear_map import linear_map
from handgrad.functions.transforms import differentiable_jvp, eager_version, vmap_linear_loss


def linear_binary_cross_entropy(
    input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Mean binary cross-entropy of L logistic classifiers that look at the same batch, and their logits.

    Shapes: N samples, D features, L independent classifiers (the path axis). Below, n, i and l count them, and y[n] is
    target[n]. Equation numbers are the course report's (seed, task 1a).

    Forward::

        z[l, n] = sum_i weight[l, 0, i] input[n, i] + bias[l, 0]                       logits    (1)
        p[l, n] = 1 / (1 + exp(-z[l, n]))                                              sigmoid   (1)
        C[l]    = 1/N sum_n -(y[n] ln p[l, n] + (1 - y[n]) ln(1 - p[l, n]))            loss      (2, 3)

    Since 1 - p(z) = p(-z), the factor t[n] = 1 - 2 y[n], 1 or -1, merges both cases: -ln(1 - p(t z)) = softplus(t z) is
    the loss of a sample.

    Gradient: d ln p / dz = 1 - p (6, 8) and d ln(1 - p) / dz = -p, a minus that (10) and (11) drop. Together
    -y (1 - p) + (1 - y) p = p - y (12), which is t p(t z) without the cancellation between p and y. With g[l] the
    gradient that arrives for C[l], and G[l, n] the one that arrives for the logits::

        dz[l, n]      = g[l]/N (p[l, n] - y[n]) + G[l, n]
        dweight[l, i] = sum_n dz[l, n] input[n, i]                                               (13)
        dbias[l]      = sum_n dz[l, n]
        dinput[n, i]  = sum_l dz[l, n] weight[l, 0, i]

    dz[l] depends on g[l] alone: the classifiers never mix, except in dinput, since they share the input.

    Args:
        input: (N, D), floating point.
        weight: (L, 1, D), same dtype as ``input``.
        target: (N,), int64, 0 or 1.
        bias: (L, 1) or None.

    Returns:
        loss (L,) in nats, and logits (L, N, 1); both are differentiable. Half precision is evaluated in float32 from
        the logits on.

    Raises:
        ValueError: a shape does not fit, or the batch is empty.
        TypeError: a dtype does not fit.
        IndexError: a target is neither 0 nor 1; a RuntimeError in compiled code and on a GPU.
    """
    check_linear_arguments(input, weight, target, bias)
    if weight.shape[1] != 1:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected (L, 1, D), one logit per classifier")
    active = torch._C._are_functorch_transforms_active()
    function = _LinearBinaryCrossEntropy if active else _LinearBinaryCrossEntropyEager
    try:
        loss, z = function.apply(input, weight, target, bias)
    except RuntimeError:
        check_target_range(target, 2)
        raise
    return loss, z.unsqueeze(2)


class _LinearBinaryCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        z = linear_map(input, weight).squeeze(1)  # the class axis of length 1 goes
        if bias is not None:
            z = z + bias
        # From 50 on, softplus(x) is x to the last bit of float64; torch's own threshold of 20 costs 2e-9.
        loss = F.softplus(_one_minus_2y(target, z) * z, threshold=50).mean(1)
        return loss.to(weight.dtype), z

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: tuple) -> None:
        input, weight, target, _ = inputs
        ctx.set_materialize_grads(False)
        # The logits are an output: differentiated again, p leads back to them and from there to weight, input and bias.
        ctx.save_for_backward(input, weight, target, output[1])
        ctx.save_for_forward(input, weight, target, output[1])

    @staticmethod
    def backward(ctx: FunctionCtx, grad_loss: Tensor | None, grad_z: Tensor | None) -> tuple[Tensor | None, ...]:
        input, weight, target, z = ctx.saved_tensors
        if grad_loss is None and grad_z is None:
            return None, None, None, None
        dz = 0
        if grad_loss is not None:
            dz = _sigmoid_minus_target(z, target) * (grad_loss.unsqueeze(1) * (1 / input.shape[0]))
        if grad_z is not None:
            dz = dz + grad_z
        dz = dz.to(weight.dtype)
        needs_input, needs_weight, _, needs_bias = ctx.needs_input_grad
        dweight = (dz @ input.to(weight.dtype)).unsqueeze(1) if needs_weight else None
        dbias = dz.sum(1, keepdim=True) if needs_bias else None
        dinput = dz.t() @ weight.squeeze(1) if needs_input else None
        return dinput, dweight, None, dbias

    @staticmethod
    @differentiable_jvp
    def jvp(saved_tensors: list[Tensor], d_input: Tensor | None, d_weight: Tensor | None, _, d_bias: Tensor | None):
        input, weight, target, z = saved_tensors
        dz = torch.zeros_like(z)
        if d_weight is not None:
            dz = dz + d_weight.squeeze(1) @ input.t()
        if d_input is not None:
            dz = dz + weight.squeeze(1) @ d_input.t()
        if d_bias is not None:
            dz = dz + d_bias
        d_loss = (_sigmoid_minus_target(z, target) * dz).mean(1)
        return d_loss.to(weight.dtype), dz

    @staticmethod
    def vmap(info, in_dims: tuple, *arguments: Tensor | None):
        return vmap_linear_loss(_LinearBinaryCrossEntropy, info, in_dims, *arguments)


_LinearBinaryCrossEntropyEager = eager_version(_LinearBinaryCrossEntropy)


def _sigmoid_minus_target(z: Tensor, target: Tensor) -> Tensor:
    """p - y in the layout (L, N), as t p(t z): where p rounds to 1 the difference is still right."""
    t = _one_minus_2y(target, z)
    return t * torch.sigmoid(t * z)


def _one_minus_2y(target: Tensor, z: Tensor) -> Tensor:
    """1 - 2 y, at least in float32; looked up, so that a target other than 0 and 1 is refused, not computed with."""
    dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
    return torch.arange(1, -2, -2, dtype=dtype, device=z.device).gather(0, target)
