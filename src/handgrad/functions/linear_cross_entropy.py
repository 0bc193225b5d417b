"""Softmax regression: linear map, softmax and mean cross-entropy as one function with a gradient derived by hand."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from handgrad.functions.checks import check_linear_arguments, check_target_range
from handgrad.functions.linear_map import linear_map
from handgrad.functions.transforms import differentiable_jvp, eager_version, vmap_linear_loss


def linear_cross_entropy(
    input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Mean cross-entropy of L softmax classifiers that look at the same batch, and their logits.

    Shapes: N samples, D features, K classes, L independent classifiers (the path axis); n, i, k and l count them, and
    y[n, k] is 1 where k = target[n], else 0. Equation numbers are the course report's (seed, tasks 1a to 1b).

    Forward::

        z[l, k, n] = sum_i weight[l, k, i] input[n, i] + bias[l, k]             logits          (14)
        p[l, k, n] = exp(z[l, k, n]) / sum_k' exp(z[l, k', n])                  softmax         (14)
        C[l]       = 1/N sum_n -ln p[l, target[n], n]                           loss            (15, 16)

    Gradient: only the term k' = k of the normalizer's sum depends on z[k], so -ln p = -sum_k y z + ln sum_k' exp z (22)
    differentiates to p - y, for every class alike (33, 34). The chain rule through the linear map does the rest. With
    g[l] the gradient that arrives for C[l], and G[l, k, n] the one that arrives for the logits::

        dz[l, k, n]     = g[l]/N (p[l, k, n] - y[n, k]) + G[l, k, n]
        dweight[l, k, i] = sum_n dz[l, k, n] input[n, i]                                         (17, 37)
        dbias[l, k]     = sum_n dz[l, k, n]
        dinput[n, i]    = sum_l sum_k dz[l, k, n] weight[l, k, i]

    dz[l] depends on g[l] alone: the classifiers never mix, except in dinput, since they share the input.

    The second derivative follows from the same lines, because `backward` consists of differentiable operations and
    takes the logits as this function's own output; see docs/derivation.md for the Hessian-vector product.

    Args:
        input: (N, D), floating point.
        weight: (L, K, D), same dtype as ``input``.
        target: (N,), int64, class indices from 0 to K - 1. No index is ignored, -100 neither.
        bias: (L, K) or None.

    Returns:
        loss (L,) in nats, and logits (L, N, K); both are differentiable. Half precision is evaluated in float32 from
        the logits on.

    Raises:
        ValueError: a shape does not fit, or the batch is empty.
        TypeError: a dtype does not fit.
        IndexError: a class index is out of range; a RuntimeError in compiled code and on a GPU.
    """
    check_linear_arguments(input, weight, target, bias)
    function = _LinearCrossEntropy if torch._C._are_functorch_transforms_active() else _LinearCrossEntropyEager
    try:
        loss, z = function.apply(input, weight, target, bias)
    except RuntimeError:
        check_target_range(target, weight.shape[1])
        raise
    return loss, z.transpose(1, 2)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        z = linear_map(input, weight)
        if bias is not None:
            z = z + bias.unsqueeze(2)
        log_p = torch.log_softmax(z, 1, dtype=_at_least_float32(z))
        # `gather` refuses every index out of range, also when compiled; nll_loss ignores -100, indexing wraps -1.
        loss = log_p.gather(1, _index(target, z)).sum((1, 2)) * (-1 / input.shape[0])
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
            dz = _softmax_minus_target(z, target) * (grad_loss.reshape(-1, 1, 1) * (1 / input.shape[0]))
        if grad_z is not None:
            dz = dz + grad_z
        dz = dz.to(weight.dtype)
        needs_input, needs_weight, _, needs_bias = ctx.needs_input_grad
        dweight = dz @ input.to(weight.dtype) if needs_weight else None
        dbias = dz.sum(2) if needs_bias else None
        dinput = dz.reshape(-1, z.shape[2]).t() @ weight.reshape(-1, weight.shape[2]) if needs_input else None
        return dinput, dweight, None, dbias

    @staticmethod
    @differentiable_jvp
    def jvp(saved_tensors: list[Tensor], d_input: Tensor | None, d_weight: Tensor | None, _, d_bias: Tensor | None):
        input, weight, target, z = saved_tensors
        dz = torch.zeros_like(z)
        if d_weight is not None:
            dz = dz + d_weight @ input.t()
        if d_input is not None:
            dz = dz + weight @ d_input.t()
        if d_bias is not None:
            dz = dz + d_bias.unsqueeze(2)
        d_loss = (_softmax_minus_target(z, target) * dz).sum(1).mean(1)
        return d_loss.to(weight.dtype), dz

    @staticmethod
    def vmap(info, in_dims: tuple, *arguments: Tensor | None):
        return vmap_linear_loss(_LinearCrossEntropy, info, in_dims, *arguments)


_LinearCrossEntropyEager = eager_version(_LinearCrossEntropy)


def _softmax_minus_target(z: Tensor, target: Tensor) -> Tensor:
    """p - y in the layout (L, K, N); y is never built, 1 is subtracted where y is 1."""
    p = torch.softmax(z, 1, dtype=_at_least_float32(z))
    index = _index(target, z)
    return p.scatter_add(1, index, p.new_full(index.shape, -1.0))


def _index(target: Tensor, z: Tensor) -> Tensor:
    return target.expand(z.shape[0], 1, z.shape[2])


def _at_least_float32(z: Tensor) -> torch.dtype:
    return torch.float64 if z.dtype == torch.float64 else torch.float32
