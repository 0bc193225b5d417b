"""Softmax regression: linear map, softmax and mean cross-entropy as one function with a gradient derived by hand."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from handgrad.compat import functorch_is_active
from handgrad.functions.checks import check_constant, check_linear_arguments, check_target_range
from handgrad.functions.linear_map import linear_map
from handgrad.functions.samples import at_least_float32, sample_shares
from handgrad.functions.transforms import differentiable_jvp, eager_version, vmap_linear_loss


def linear_cross_entropy(
    input: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Mean cross-entropy of L softmax classifiers that look at the same batch, and their logits.

    Shapes: N samples, D features, K classes, L independent classifiers (the path axis); n, i, k and l count them, and
    y[k, n] is 1 where k = target[n], else 0, and r[n] is 1/N, or s[n] / sum_n s[n] with s the sample weights. Equation
    numbers are the course report's (seed, tasks 1a to 1b).

    Forward::

        z[l, k, n] = sum_i weight[l, k, i] input[n, i] + bias[l, k]             logits          (14)
        p[l, k, n] = exp(z[l, k, n]) / sum_k' exp(z[l, k', n])                  softmax         (14)
        C[l]       = sum_n r[n] (-ln p[l, target[n], n])                        loss            (15, 16)

    Gradient: only the term k' = k of the normalizer's sum depends on z[k], so -ln p = -sum_k y z + ln sum_k' exp z (22)
    differentiates to p - y, for every class alike (33, 34). The chain rule through the linear map does the rest. With
    g[l] the gradient that arrives for C[l], and G[l, k, n] the one that arrives for the logits::

        dz[l, k, n]      = g[l] r[n] (p[l, k, n] - y[k, n]) + G[l, k, n]
        dweight[l, k, i] = sum_n dz[l, k, n] input[n, i]                                         (17, 37)
        dbias[l, k]      = sum_n dz[l, k, n]
        dinput[n, i]     = sum_l sum_k dz[l, k, n] weight[l, k, i]

    dz[l] depends on g[l] alone: the classifiers never mix, except in dinput, since they share the input.

    The second derivative follows from the same lines, because `backward` consists of differentiable operations and
    takes the logits as this function's own output; `objective.py` has the Hessian-vector product by hand.

    Args:
        input: (N, D), floating point.
        weight: (L, K, D), same dtype as ``input``.
        target: (N,), int64, class indices from 0 to K - 1. No index is ignored, -100 neither.
        bias: (L, K) or None.
        sample_weight: (N,), same dtype as ``weight``, or None for equal ones. Not differentiated. Not looked at either:
            with weights that add up to 0 the loss is NaN.

    Returns:
        loss (L,) in nats, and logits (L, N, K); both are differentiable. Half precision is evaluated in float32 from
        the logits on.

    Raises:
        ValueError: a shape does not fit, the batch is empty, or a gradient is wanted for the sample weights.
        TypeError: a dtype does not fit.
        IndexError: a class index is out of range; a RuntimeError in compiled code and on a GPU.
    """
    check_linear_arguments(input, weight, target, bias, sample_weight)
    function = _LinearCrossEntropy if functorch_is_active() else _LinearCrossEntropyEager
    try:
        shares = None if sample_weight is None else sample_shares(sample_weight)
        loss, z = function.apply(input, weight, target, bias, shares)
    except RuntimeError:
        check_target_range(target, weight.shape[1])
        raise
    return loss, z.transpose(1, 2)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, shares: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        z = linear_map(input, weight)
        if bias is not None:
            z = z + bias.unsqueeze(2)
        # `gather` refuses every index out of range, also when compiled; nll_loss ignores -100, indexing wraps -1.
        log_p = torch.log_softmax(z, 1, dtype=at_least_float32(z)).gather(1, _index(target, z))
        loss = log_p.sum((1, 2)) * (-1 / input.shape[0]) if shares is None else (log_p * -shares).sum((1, 2))
        return loss.to(weight.dtype), z

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: tuple) -> None:
        input, weight, target, _, shares = inputs
        ctx.set_materialize_grads(False)
        # The logits are an output: differentiated again, p leads back to them and from there to weight, input and bias.
        ctx.save_for_backward(input, weight, target, output[1], shares)
        ctx.save_for_forward(input, weight, target, output[1], shares)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, grad_z: Tensor | None) -> tuple[Tensor | None, ...]:
        input, weight, target, z, shares = ctx.saved_tensors
        needs_input, needs_weight, _, needs_bias, needs_shares = ctx.needs_input_grad
        check_constant(not needs_shares)  # a vmap inside grad hides from the first check that they are differentiated
        if grad_loss is None and grad_z is None:
            return None, None, None, None, None
        dz = _logit_gradient(z, target, shares, grad_loss, grad_z).to(weight.dtype)
        dweight = dz @ input.to(weight.dtype) if needs_weight else None
        dbias = dz.sum(2) if needs_bias else None
        dinput = dz.reshape(-1, z.shape[2]).t() @ weight.flatten(0, 1) if needs_input else None
        return dinput, dweight, None, dbias, None

    @staticmethod
    @differentiable_jvp
    def jvp(
        saved_tensors: list[Tensor],
        d_input: Tensor | None,
        d_weight: Tensor | None,
        _: None,
        d_bias: Tensor | None,
        d_shares: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        check_constant(d_shares is None)
        input, weight, target, z, shares = saved_tensors
        dz = torch.zeros_like(z)
        if d_weight is not None:
            dz = dz + d_weight @ input.t()
        if d_input is not None:
            dz = dz + weight @ d_input.t()
        if d_bias is not None:
            dz = dz + d_bias.unsqueeze(2)
        d_losses = (_softmax_minus_target(z, target) * dz).sum(1)
        d_loss = d_losses.mean(1) if shares is None else (d_losses * shares).sum(1)
        return d_loss.to(weight.dtype), dz

    @staticmethod
    def vmap(info, in_dims: tuple, input: Tensor, *others: Tensor | None):
        return vmap_linear_loss(_LinearCrossEntropy, info, in_dims, input, *others)


_LinearCrossEntropyEager = eager_version(_LinearCrossEntropy)


def _logit_gradient(
    z: Tensor, target: Tensor, shares: Tensor | None, grad_loss: Tensor | None, grad_z: Tensor | None
) -> Tensor:
    """g r (p - y) + G in the layout (L, K, N); None stands for a gradient that does not arrive, not for both."""
    if grad_loss is None:
        assert grad_z is not None
        return grad_z
    scale = grad_loss.reshape(-1, 1, 1) * (1 / z.shape[2] if shares is None else shares)
    through_loss = _softmax_minus_target(z, target) * scale
    return through_loss if grad_z is None else through_loss + grad_z


def _softmax_minus_target(z: Tensor, target: Tensor) -> Tensor:
    """p - y in the layout (L, K, N); y is never built, 1 is subtracted where y is 1."""
    p = torch.softmax(z, 1, dtype=at_least_float32(z))
    index = _index(target, z)
    return p.scatter_add(1, index, p.new_full(index.shape, -1.0))


def _index(target: Tensor, z: Tensor) -> Tensor:
    return target.expand(z.shape[0], 1, z.shape[2])
