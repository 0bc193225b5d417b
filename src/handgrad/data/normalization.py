"""Features normalized by what the training set is like: (x - shift) / scale, or each row to length 1."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from handgrad.errors import InputError

KINDS = {
    "none": None,
    "center": "x - mean over the training set",
    "standardize": "(x - mean) / standard deviation over the training set",
    "l2": "x / length of the row",
}

Transform = Callable[[Tensor], Tensor]


class Statistics(NamedTuple):
    """Of columns, each (D,) float64.

    Attributes:
        mean: of all rows.
        deviation: from the mean, the root of its mean square; 0 of a column whose numbers are all the same.
        low, high: the smallest and the largest number.
    """

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor


def statistics(chunks: Iterable[Tensor]) -> Statistics:
    """Returns those of the rows in all chunks, each (n, D), in one pass.

    All is told from the first row, so that nothing cancels where a mean is large and a deviation small; and the mean
    and the sum of squares about it are merged chunk by chunk (Chan, Golub and LeVeque 1979).
    """
    origin: Tensor | None = None
    count, mean, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for chunk in chunks:
        chunk = chunk.double()
        if origin is None:
            origin = low = high = chunk[0].clone()
        low, high = torch.minimum(low, chunk.amin(0)), torch.maximum(high, chunk.amax(0))
        chunk = chunk - origin
        mean_here = chunk.mean(0)
        squares_here = chunk.sub_(mean_here).square_().sum(0)
        both = count + len(chunk)
        gap = mean_here - mean
        mean = mean + gap * (len(chunk) / both)
        squares = squares + squares_here + gap.square() * (count * len(chunk) / both)
        count = both
    assert origin is not None, "no rows"
    mean = origin + mean
    deviation = (squares / count).sqrt()
    constant = low == high
    mean[constant], deviation[constant] = low[constant], 0
    return Statistics(mean, deviation, low, high)


def shift_and_scale(kind: str, found: Statistics, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns what ``center`` or ``standardize`` subtract and divide by, each (D,) float64.

    They are rounded to ``dtype``, that of the features: then nothing is rounded but the result, and what is folded into
    weights afterwards is what was done.

    Raises:
        InputError: numbers are too large for it.
    """
    shift = found.mean.to(dtype).double()
    scale = found.deviation.to(dtype).double() if kind == "standardize" else torch.ones_like(shift)
    scale[scale == 0] = 1
    fine = scale.isfinite()
    for end in (found.low, found.high):
        fine &= (end - shift).to(dtype).isfinite()
    if not fine.all():
        column = int(fine.logical_not().nonzero()[0])
        raise InputError(
            f"data.normalize={kind}: the numbers of column {column} are too large; accepted is data.normalize=none"
        )
    return shift, scale


def by_columns(shift: Tensor, scale: Tensor) -> Transform:
    """Returns what makes ``(x - shift) / scale`` of ``x (n, D)``, in its dtype."""
    return lambda x: (x - shift.to(x.dtype)).div_(scale.to(x.dtype))


def folded(weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Returns, for features as they are, what ``weight (..., K, D)`` and ``bias (..., K)`` are on normalized ones."""
    raw = weight.cpu().double() / scale
    found = raw, bias.cpu().double() - raw @ shift
    return found[0].to(weight.dtype).to(weight.device), found[1].to(bias.dtype).to(bias.device)


def to_length_one(x: Tensor) -> Tensor:
    """Returns the rows of ``x (n, D)`` divided by their lengths; a row of zeros stays."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64).to(x.dtype)
    return x / torch.where(length == 0, 1, length)
