"""The linear map that both losses and the models begin with."""

import torch
from torch import Tensor

GROUP = 250  # samples that MKL multiplies at once


def linear_map(input: Tensor, weight: Tensor) -> Tensor:
    """Returns ``z[l, k, n] = sum_i weight[l, k, i] input[n, i]``, (L, K, N), for input (N, D) and weight (L, K, D).

    Samples come last: sums over classes then add whole vectors, several times as fast as summing rows of K.
    """
    samples, outputs = input.shape[0], weight.shape[0] * weight.shape[1]
    if torch.compiler.is_exporting():  # what depends on N would stand in the way of a batch of any size
        return weight @ input.t()
    if samples <= 2 * GROUP or not 3 < outputs < 16 or input.device.type != "cpu":
        return weight @ input.t()
    # Of that shape, MKL's one large product takes twice as long as the same in groups of samples.
    rows, rest = weight.flatten(0, 1), samples % GROUP
    groups = input[: samples - rest].unflatten(0, (-1, GROUP)).transpose(1, 2)
    z = torch.bmm(rows.expand(len(groups), -1, -1), groups).transpose(0, 1).flatten(1)
    if rest:
        z = torch.cat((z, rows @ input[samples - rest :].t()), 1)
    return z.unflatten(0, weight.shape[:2])
