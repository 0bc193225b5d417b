"""Logistic and multi-label regression: linear map, sigmoids and mean cross-entropy, with a gradient derived by hand."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from handgrad.compat import functorch_is_active
from handgrad.functions.checks import check_constant, check_linear_arguments, check_target_range
from handgrad.functions.linear_map import linear_map
from handgrad.functions.samples import at_least_float32, sample_shares
from handgrad.functions.transforms import differentiable_jvp, eager_version, vmap_linear_loss


def linear_binary_cross_entropy(
    input: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Mean binary cross-entropy of L classifiers of K sigmoids each that look at the same batch, and their logits.

    Shapes: N samples, D features, K labels, each of which a sample has or lacks by itself (K = 1 tells two classes
    apart), L independent classifiers (the path axis). Below, n, i, k and l count them, y[k, n] is target[n, k], or
    target[n] where K = 1, and r[n] is 1/N, or s[n] / sum_n s[n] with s the sample weights. Equation numbers are the
    course report's (seed, task 1a, which has K = 1).

    Forward::

        z[l, k, n] = sum_i weight[l, k, i] input[n, i] + bias[l, k]                    logits    (1)
        p[l, k, n] = 1 / (1 + exp(-z[l, k, n]))                                        sigmoid   (1)
        C[l]       = sum_n -r[n] sum_k (y[k, n] ln p[l, k, n] + (1 - y[k, n]) ln(1 - p[l, k, n]))    loss (2, 3)

    Since 1 - p(z) = p(-z), the factor t[k, n] = 1 - 2 y[k, n], 1 or -1, merges both cases: -ln(1 - p(t z)) =
    softplus(t z) is what a label adds to the loss of a sample. As ln(1 + exp(z)) - ln(1 + exp(-z)) = z, that is
    softplus(z) - y z too.

    Gradient: d ln p / dz = 1 - p (6, 8) and d ln(1 - p) / dz = -p, a minus that (10) and (11) drop. Together
    -y (1 - p) + (1 - y) p = p - y (12), which is t p(t z) without the cancellation between p and y. Only the term k of
    the sum over labels depends on z[k]. With g[l] the gradient that arrives for C[l], and G[l, k, n] the one that
    arrives for the logits::

        dz[l, k, n]      = g[l] r[n] (p[l, k, n] - y[k, n]) + G[l, k, n]
        dweight[l, k, i] = sum_n dz[l, k, n] input[n, i]                                         (13)
        dbias[l, k]      = sum_n dz[l, k, n]
        dinput[n, i]     = sum_l sum_k dz[l, k, n] weight[l, k, i]

    dz[l] depends on g[l] alone: the classifiers never mix, except in dinput, since they share the input.

    Args:
        input: (N, D), floating point.
        weight: (L, K, D), same dtype as ``input``.
        target: (N,) where K = 1, else (N, K); int64, 0 or 1.
        bias: (L, K) or None.
        sample_weight: (N,), same dtype as ``weight``, or None for equal ones. Not differentiated. Not looked at either:
            with weights that add up to 0 the loss is NaN.

    Returns:
        loss (L,) in nats, the sum over labels, and logits (L, N, K); both are differentiable. Half precision is
        evaluated in float32 from the logits on.

    Raises:
        ValueError: a shape does not fit, the batch is empty, or a gradient is wanted for the sample weights.
        TypeError: a dtype does not fit.
        IndexError: a target is neither 0 nor 1; a RuntimeError in compiled code and on a GPU.
    """
    check_linear_arguments(input, weight, target, bias, sample_weight, labels=True)
    active = functorch_is_active()
    function = _LinearBinaryCrossEntropy if active else _LinearBinaryCrossEntropyEager
    try:
        shares = None if sample_weight is None else sample_shares(sample_weight)
        loss, z = function.apply(input, weight, target, bias, shares)
    except RuntimeError:
        check_target_range(target, 2)
        raise
    return loss, z.transpose(1, 2)


class _LinearBinaryCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, shares: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        z = linear_map(input, weight)
        if bias is not None:
            z = z + bias.unsqueeze(2)
        # From 50 on, softplus(x) is x to the last bit of float64; torch's own threshold of 20 costs 2e-9.
        losses = F.softplus(_one_minus_2y(target, z) * z, threshold=50)
        loss = losses.sum((1, 2)) / input.shape[0] if shares is None else (losses * shares).sum((1, 2))
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
        d_losses = (_sigmoid_minus_target(z, target) * dz).sum(1)
        d_loss = d_losses.mean(1) if shares is None else (d_losses * shares).sum(1)
        return d_loss.to(weight.dtype), dz

    @staticmethod
    def vmap(info, in_dims: tuple, input: Tensor, *others: Tensor | None):
        return vmap_linear_loss(_LinearBinaryCrossEntropy, info, in_dims, input, *others)


_LinearBinaryCrossEntropyEager = eager_version(_LinearBinaryCrossEntropy)


def _logit_gradient(
    z: Tensor, target: Tensor, shares: Tensor | None, grad_loss: Tensor | None, grad_z: Tensor | None
) -> Tensor:
    """g r (p - y) + G in the layout (L, K, N); None stands for a gradient that does not arrive, not for both."""
    if grad_loss is None:
        assert grad_z is not None
        return grad_z
    scale = grad_loss.reshape(-1, 1, 1) * (1 / z.shape[2] if shares is None else shares)
    through_loss = _sigmoid_minus_target(z, target) * scale
    return through_loss if grad_z is None else through_loss + grad_z


def _sigmoid_minus_target(z: Tensor, target: Tensor) -> Tensor:
    """p - y in the layout (L, K, N), as t p(t z): where p rounds to 1 the difference is still right."""
    t = _one_minus_2y(target, z)
    return t * torch.sigmoid(t * z)


def _one_minus_2y(target: Tensor, z: Tensor) -> Tensor:
    """1 - 2 y, (N,) or (K, N), at least in float32; looked up: a target other than 0 and 1 is refused, not used."""
    t = torch.arange(1, -2, -2, dtype=at_least_float32(z), device=z.device)
    return t.gather(0, target) if target.dim() == 1 else t.gather(0, target.t().reshape(-1)).view(z.shape[1:])
