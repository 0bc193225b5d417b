"""What the linear losses ask of their arguments; a few microseconds, and no look at the tensors' values."""

import torch
from torch import Tensor


def check_linear_arguments(
    input: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    sample_weight: Tensor | None,
    labels: bool = False,
) -> None:
    """Raises TypeError or ValueError with one line when shapes or dtypes do not fit together.

    Shapes: input (N, D), weight (L, K, D), target (N,) of int64, bias (L, K) or None, sample_weight (N,) or None; N, L
    and K at least 1.

    Args:
        labels: whether target is (N, K) where K is more than 1.
    """
    for name, tensor in (("input", input), ("weight", weight), ("target", target), ("bias", bias)):
        if not isinstance(tensor, Tensor) and not (tensor is None and name == "bias"):
            raise TypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor")
    if input.dim() != 2:
        raise ValueError(f"input has shape {tuple(input.shape)}; expected (N, D)")
    samples, features = input.shape
    if weight.dim() != 3 or weight.shape[2] != features:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected (L, K, D) with D = {features} as in input")
    if samples == 0:
        raise ValueError("input has no rows; the mean loss of an empty batch does not exist")
    if weight.shape[0] == 0 or weight.shape[1] == 0:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected at least one classifier and one class")
    _check_target_shape(target, samples, weight.shape[1] if labels else 1)
    if bias is not None and bias.shape != weight.shape[:2]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; expected {tuple(weight.shape[:2])} as weight's (L, K)")
    _check_dtypes(input, weight, target, bias)
    if sample_weight is not None:
        _check_sample_weight(sample_weight, weight, samples)


def _check_target_shape(target: Tensor, samples: int, outputs: int) -> None:
    if target.shape != ((samples, outputs) if outputs > 1 else (samples,)):
        expected = f"(N, K) with K = {outputs} as in weight and" if outputs > 1 else "(N,) with"
        raise ValueError(f"target has shape {tuple(target.shape)}; expected {expected} N = {samples} as in input")


def _check_dtypes(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None) -> None:
    if target.dtype != torch.int64:
        raise TypeError(f"target has dtype {target.dtype}; expected torch.int64 class indices")
    if not weight.dtype.is_floating_point:
        raise TypeError(f"weight has dtype {weight.dtype}; expected a floating-point dtype")
    for name, tensor in (("input", input), ("bias", bias)):
        if tensor is not None and tensor.dtype != weight.dtype:
            _check_autocast(name, tensor, weight)


def _check_autocast(name: str, tensor: Tensor, weight: Tensor) -> None:
    """Autocast casts the operands of the product itself, so there only it may mix floating-point dtypes."""
    if not (tensor.dtype.is_floating_point and torch.is_autocast_enabled(tensor.device.type)):
        raise TypeError(f"{name} has dtype {tensor.dtype}; expected {weight.dtype} as weight")


def _check_sample_weight(sample_weight: Tensor, weight: Tensor, samples: int) -> None:
    if not isinstance(sample_weight, Tensor):
        raise TypeError(f"sample_weight is a {type(sample_weight).__name__}; expected a torch.Tensor")
    if sample_weight.dim() != 1 or sample_weight.shape[0] != samples:
        shape = tuple(sample_weight.shape)
        raise ValueError(f"sample_weight has shape {shape}; expected (N,) with N = {samples} as in input")
    if sample_weight.dtype != weight.dtype:
        _check_autocast("sample_weight", sample_weight, weight)
    check_constant(not sample_weight.requires_grad)


def check_constant(constant: bool) -> None:
    """Raises ValueError unless the sample weights are constant: their derivative would silently be zero."""
    if not constant:
        raise ValueError("sample_weight is to be differentiated, and no gradient is derived for it; detach it")


def check_target_range(target: Tensor, classes: int) -> None:
    """Raises IndexError when a class index lies outside 0 .. classes - 1; called once torch has refused an index."""
    for value in (target.min().item(), target.max().item()):
        if not 0 <= value < classes:
            raise IndexError(f"target holds {value}; expected class indices from 0 to {classes - 1}")
