"""What is minimized: a mean loss and an L2 penalty; its value, its gradient and its Hessian-vector product."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from handgrad.compat import quick_grad
from handgrad.functions.l2_penalty import add_l2_gradient, l2_penalty
from handgrad.functions.linear_binary_cross_entropy import linear_binary_cross_entropy
from handgrad.functions.linear_cross_entropy import linear_cross_entropy
from handgrad.functions.linear_map import linear_map
from handgrad.functions.samples import at_least_float32, sample_shares, widest


def softmax_curvature(z: Tensor, u: Tensor) -> Tensor:
    """Returns ``dp[l, k, n] = p (u - sum_k p u)``, (L, K, N): how p - y moves as the logits z move along u."""
    p = torch.softmax(z, 1, dtype=at_least_float32(z))
    return p * (u - (p * u).sum(1, keepdim=True))


def sigmoid_curvature(z: Tensor, u: Tensor) -> Tensor:
    """Returns ``dp[l, k, n] = p (1 - p) u``, (L, K, N), with p(-z) for 1 - p, which would cancel where p is near 1."""
    z = z.to(at_least_float32(z))
    return torch.sigmoid(z) * torch.sigmoid(-z) * u


def softmax_residual(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the samples' losses (L, N) and p - y (L, K, N) (16, 33), by one softmax, in the memory of one."""
    log_p = torch.log_softmax(z, 1)
    index = target.expand(len(z), 1, -1)
    losses = -log_p.gather(1, index).squeeze(1)
    return losses, log_p.exp_().scatter_add_(1, index, log_p.new_full(index.shape, -1.0))


def sigmoid_residual(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the samples' losses sum_k ln(1 + exp(t z)), (L, N), and p - y = t p(t z), (L, K, N), with t = 1 - 2 y."""
    t = (1 - 2 * targets_by_output(target)).to(z.dtype)
    tz = z * t
    return F.softplus(tz, threshold=50).sum(1), torch.sigmoid(tz) * t


def plain_cross_entropy(z: Tensor, target: Tensor) -> Tensor:
    """Returns ``-ln p[l, target[n], n] = ln sum_k exp z[l, k, n] - z[l, target[n], n]``, (L, N) (15, 22)."""
    return z.logsumexp(1) - z[:, target, torch.arange(len(target), device=z.device)]


def plain_binary_cross_entropy(z: Tensor, target: Tensor) -> Tensor:
    """Returns ``-sum_k (y ln p + (1 - y) ln(1 - p))``, (L, N) (2), with ln p(-z) for ln(1 - p)."""
    y = target.reshape(len(target), -1).t().to(z.dtype)
    return -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)).sum(1)


def targets_by_output(target: Tensor) -> Tensor:
    """Returns what sigmoids are to give, (K, N), for ``target`` (N,) or (N, K)."""
    return target.t() if target.dim() == 2 else target.unsqueeze(0)


class Loss(NamedTuple):
    """A loss as the objective needs it.

    Shapes: function (input (N, D), weight (L, K, D), target, bias (L, K), sample_weight (N,) or None) -> C (L,),
    logits (L, N, K); curvature (z (L, K, N), u (L, K, N)) -> the derivative of p - y along u, (L, K, N); plain
    (z (L, K, N), target) -> the samples' losses (L, N), of which C is the mean; residual (z, target) -> the same
    losses and p - y (L, K, N), None where p is no softmax or sigmoid: then no optimum is proven. The target is (N,), of
    several sigmoids (N, K). Every run compares function, and residual where it is used, with plain: it is written as
    the formula stands and calls nothing that these call.

    Attributes:
        sigmoids: whether p are K sigmoids, whose losses are added up and which have nothing else in common; else one
            softmax.
    """

    function: Callable[..., tuple[Tensor, Tensor]]
    curvature: Callable[[Tensor, Tensor], Tensor]
    plain: Callable[[Tensor, Tensor], Tensor]
    residual: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    sigmoids: bool = False


SOFTMAX = Loss(linear_cross_entropy, softmax_curvature, plain_cross_entropy, softmax_residual)
LOGISTIC = Loss(linear_binary_cross_entropy, sigmoid_curvature, plain_binary_cross_entropy, sigmoid_residual, True)
MULTILABEL = LOGISTIC  # of several outputs: C is the sum of their losses


CACHED, LEAST_ROWS, PARTS = 2**19, 64, 16  # numbers of a chunk, its least rows, and the parts that threads share
BLOCK = 64  # rows of a symmetric product that are made at once
HALF = (torch.float16, torch.bfloat16)
ON_DEVICE = 2**26  # numbers of a chunk on anything but a processor: what it starts is to be worth the start


class DataTerm(NamedTuple):
    """C of L classifiers over all samples, and its gradient, in float64; see ``Objective.data_term``.

    Attributes:
        loss: (L,).
        dweight, dbias: (L, K, D) and (L, K).
        coupling: (L, K, K), the derivative of dbias for the bias, where it was asked for; of sigmoids, which have none
            but bend, and else, of no number.
        bend: (L, K), the diagonal of coupling, from all samples; of a softmax's coupling from all of them of no number.
        seen: (L, D + 2), sums of ``r x``, ``r |x|^2`` and r over the samples of the part, with r[n] as in the mean of
            all; where there is no part, of no number.
    """

    loss: Tensor
    dweight: Tensor
    dbias: Tensor
    coupling: Tensor
    bend: Tensor
    seen: Tensor


class Drawn:
    """One in ``every`` row of each chunk, drawn once; of the next chunk others, so that no order of samples hides any.

    Args:
        rows: of a chunk.
    """

    def __init__(self, rows: int, every: int, device: torch.device) -> None:
        order = torch.randperm(rows if every > 1 else 0, generator=torch.Generator().manual_seed(0))
        self.here = [order[first::every].sort().values for first in range(every)]
        self.there = [own.to(device) for own in self.here]

    def rows(self, chunk: int, count: int) -> Tensor | slice:
        """Returns those of a chunk, by its number, of so many rows; a slice where they are all."""
        if len(self.here) == 1:
            return slice(None)
        number = chunk % len(self.here)
        return self.there[number][: int(torch.searchsorted(self.here[number], count))]


class Chunk(NamedTuple):
    """Rows that are evaluated at once, and what they count in the mean over all rows of all processes."""

    fraction: float
    sample_weight: Tensor | None
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Objective:
    r"""The objectives of L classifiers that look at the same samples: J[l] = C[l] + l2[l] R[l] (seed eq. 38).

    Shapes: N samples, D features, K outputs, counted by n, i and k; l counts the classifiers. r[n] is 1/N, or
    s[n] / sum_n s[n] with s the sample weights, the sum running over the samples of all processes. R[l] is
    1/2 sum weight[l]^2, and 1/2 sum bias[l]^2 more if the bias is penalized.

    Gradient: that of C is the loss's own derived backward, that of R is (45). With g[l] what arrives for J[l]::

        dweight[l, k, i] = g[l] (sum_n r[n] (p[l, k, n] - y[k, n]) input[n, i] + l2[l] weight[l, k, i])
        dbias[l, k]      = g[l] sum_n r[n] (p[l, k, n] - y[k, n])                        (+ l2[l] bias[l, k] inside)

    Hessian-vector product: the gradient's derivative along v for the weight and c for the bias. Of its terms p and the
    penalty's depend on them; p through the logits, which move by u::

        u[l, k, n]  = sum_i v[l, k, i] input[n, i] + c[l, k]
        dp[l, k, n] = p (u - sum_k p u)   softmax;        p (1 - p) u   sigmoid
        Hv[l, k, i] = sum_n r[n] dp[l, k, n] input[n, i] + l2[l] v[l, k, i]
        Hc[l, k]    = sum_n r[n] dp[l, k, n]                                              (+ l2[l] c[l, k])

    Chunks and processes: each sum over n is the sum of those over parts of the samples. A loss of a part divides by the
    part's own weights, hence counts by their fraction of all.

    Every method takes weight (L, K, D), bias (L, K), input (N, D) of any floating dtype (cast to that of weight, chunk
    by chunk), target of int64, (N,) or of several sigmoids (N, K), and sample_weight (N,) of any floating dtype or
    None. All results are of the samples of all processes, the same in each. A method raises what the loss raises, and a
    ValueError where sample weights of several chunks or processes add up to 0; in one chunk they are not looked at, and
    J is NaN. The widest type is float64, or float32 where a device has nothing wider.

    Args:
        loss: SOFTMAX, LOGISTIC or MULTILABEL.
        l2: (L,), each >= 0, floating point. Where all are 0 as the objective is made, the penalty is left out.
        penalize_bias: whether R counts the bias too.
        rows: samples per chunk, which bounds the memory; None: all at once.
        total: adds a tensor up over the processes that share the samples, in place or not, and returns the sum; each
            process calls a method with its own samples. None: one process.
        run: makes calls, side by side if it likes, and returns what they return, in order; for ``data_term``. None:
            one after another.

    Raises:
        ValueError: l2 is not of shape (L,), or rows is below 1.
    """

    loss: Loss
    l2: Tensor
    penalize_bias: bool = False
    rows: int | None = None
    total: Callable[[Tensor], Tensor] | None = None
    run: Callable[[Sequence[Callable[[], Any]]], list[Any]] | None = None
    penalized: bool = field(init=False)  # whether any l2 is not 0

    def __post_init__(self) -> None:
        if self.l2.dim() != 1:
            raise ValueError(f"l2 has shape {tuple(self.l2.shape)}; expected (L,)")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows is {self.rows}; expected at least one sample per chunk")
        object.__setattr__(self, "penalized", bool(self.l2.any()))

    def penalty(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Returns ``l2 R`` (L,), in the dtype of ``weight``; differentiable."""
        l2 = self.l2.to(weight.dtype)
        penalty = l2_penalty(weight, l2)
        return penalty + l2_penalty(bias, l2) if self.penalize_bias else penalty

    @torch.no_grad()
    def value(
        self, weight: Tensor, bias: Tensor, input: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Returns ``J`` (L,) in the widest type; not differentiable, see ``gradient``."""
        chunks = self._chunks(None, sample_weight, input, target)
        sums = _added_up(self._loss(weight, bias, chunk) for chunk in chunks)
        (loss,) = sums or (weight.new_zeros(len(weight), dtype=widest(weight.device)),)
        loss = loss if self.total is None else self.total(loss)
        return loss + self.penalty(weight, bias).to(loss.dtype) if self.penalized else loss

    def _loss(self, weight: Tensor, bias: Tensor, chunk: Chunk) -> tuple[Tensor]:
        input, target = chunk.tensors
        loss, _ = self.loss.function(input.to(weight.dtype), weight, target, bias, _like(chunk.sample_weight, weight))
        return (loss.to(widest(loss.device)) * chunk.fraction,)

    def gradient(
        self,
        weight: Tensor,
        bias: Tensor,
        input: Tensor,
        target: Tensor,
        sample_weight: Tensor | None = None,
        *,
        active: Tensor | None = None,
        share: float | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns ``C`` (L,) in the widest type, ``dJ/dweight`` (L, K, D) and ``dJ/dbias`` (L, K).

        Autograd executes the losses' derived backward, whether or not it is switched on where this is called; the
        penalty's gradient is added in place, once. With several processes one call of ``total`` adds up the three of
        them before that, in the dtype of ``weight`` but at least in float32: C too is of all samples, and nothing is
        left to be added up.

        Args:
            active: (L,), the gradient that arrives for J: 1, or 0 for a gradient of zeros; None: ones.
            share: what the samples of this call count in the mean over those of all processes. C and its gradient are
                scaled by it, the penalty is not. None: 1 for one process; for several, their share of the samples or of
                the sample weights, which takes one more call of ``total``.
        """
        weight, bias = weight.detach().requires_grad_(), bias.detach().requires_grad_()
        active = torch.ones_like(self.l2, dtype=weight.dtype) if active is None else active
        chunks = self._chunks(share, sample_weight, input, target)
        sums = _added_up(self._loss_and_gradient(weight, bias, active, chunk) for chunk in chunks)
        loss, dweight, dbias = sums or (
            weight.new_zeros(len(weight), dtype=widest(weight.device)),
            torch.zeros_like(weight),
            torch.zeros_like(bias),
        )
        if self.total is not None:
            dweight, dbias, loss = self._over_processes(dweight.to(at_least_float32(weight)), dbias, loss)
        dweight, dbias = dweight.to(weight.dtype), dbias.to(bias.dtype)
        self._add_penalty_gradient(dweight, dbias, weight, bias, active)
        return loss, dweight, dbias

    def _loss_and_gradient(self, weight: Tensor, bias: Tensor, active: Tensor, chunk: Chunk) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            input, target = chunk.tensors
            sample_weight = _like(chunk.sample_weight, weight)
            loss, _ = self.loss.function(input.to(weight.dtype), weight, target, bias, sample_weight)
        value, fraction = loss.detach().to(widest(loss.device)), chunk.fraction
        if fraction == 1:
            return value, *quick_grad(loss, (weight, bias), active)
        if weight.dtype in HALF:  # which would round the fraction: no gradient would be the mean any more
            gradients = quick_grad(loss, (weight, bias), active)
            return value * fraction, *(gradient.float() * fraction for gradient in gradients)
        return value * fraction, *quick_grad(loss, (weight, bias), active * fraction)

    @torch.no_grad()
    def data_term(
        self,
        weight: Tensor,
        bias: Tensor,
        input: Any,
        target: Tensor,
        sample_weight: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        spread: Tensor | None = None,
        every: int = 0,
    ) -> DataTerm:
        """Returns C and its gradient over all samples, by one pass over them: two products, and one softmax between.

        The same derivative as ``gradient``'s, without autograd and in chunks that stay in the processor's cache, for
        solvers that look at all samples at once. Sums over samples are taken in float64, where the target lies: the
        parameters are sent there, and what is returned comes from there, once for all chunks, to the CPU.

        Args:
            sample_weight: (N,), or (L, N): weights of each classifier's own, 0 for a sample that it leaves out.
            dtype: of the products.
            spread: (N,), takes ``1 - sum_k p^2`` of each sample, of sigmoids ``2 sum_k p (1 - p)``: how much the sample
                bends the loss; for one classifier.
            every: of how many samples one is looked at for the coupling, and counts for them all; 0: not asked for.
        """
        samples, features = input.shape
        shares = None if sample_weight is None else torch.atleast_2d(sample_weight.double())
        place = target.device
        numbers = CACHED if place.type == "cpu" else ON_DEVICE
        rows = max(LEAST_ROWS, numbers // max(features, bias.numel() // 2))  # logits are not read from memory
        size = -(-samples // (PARTS * rows)) * rows  # of a part, which is a whole number of chunks
        starts = range(0, samples, size) if samples else [0]
        parts = [slice(first, min(first + size, samples)) for first in starts]
        # Where a row begins decides about last bits on some processors: it is the same on all devices.
        there = weight.to(place, dtype).contiguous(), bias.to(place, dtype).contiguous()
        drawn = Drawn(rows, every, place) if every and not self.loss.sigmoids else None
        part = partial(self._data_term_of_part, *there, input, target, shares, spread, every, drawn, rows)
        added = InOrder()
        calls = [partial(added.take, number, partial(part, rows)) for number, rows in enumerate(parts)]
        (self.run or in_turn)(calls)
        sums = list(added.sums)
        if drawn is not None:  # dp/dz = diag(p) - p p': p p' are added up, and p is what a row of them adds up to
            products = sums[3].triu() + sums[3].triu(1).transpose(1, 2)
            sums[3] = every * (torch.diag_embed(products.sum(2)) - products)
        sums = _at_once(Tensor.cpu, sums)  # here, and not before, a device is waited for
        whole = torch.tensor([samples], dtype=torch.float64) if shares is None else shares.sum(1).cpu()
        if self.total is not None:
            whole, sums = self.total(whole), self._over_processes(*sums)
        return DataTerm(*(term / whole.view(-1, *[1] * (term.dim() - 1)) for term in sums))

    def _data_term_of_part(
        self,
        weight: Tensor,
        bias: Tensor,
        input: Any,
        target: Tensor,
        shares: Tensor | None,
        spread: Tensor | None,
        every: int,
        drawn: Drawn | None,
        rows: int,
        part: slice,
    ) -> DataTerm:
        """Returns the sums over the samples of ``part``, ``rows`` of them at a time."""
        flat, offset, dtype = weight.flatten(0, 1), bias.flatten().unsqueeze(1), weight.dtype
        residual = self.loss.residual
        assert residual is not None
        dweight, dbias = torch.zeros_like(flat, dtype=torch.float64), torch.zeros_like(bias, dtype=torch.float64)
        loss = dbias.new_zeros(len(weight))
        side = 0 if drawn is None else bias.shape[1]
        products = dbias.new_zeros(len(bias), side, side)  # the sum of p p', of softmax
        bend = dbias.new_zeros(len(bias), bias.shape[1] if every > 1 or (every and self.loss.sigmoids) else 0)
        seen = dbias.new_zeros(len(bias), input.shape[1] + 2 if every > 1 and side else 0)
        looked_at: list[Tensor] = []
        cast = weight.new_empty(0 if input.dtype == dtype else min(rows, part.stop - part.start), input.shape[1])
        for first in range(part.start, part.stop, rows):
            chunk = slice(first, min(first + rows, part.stop))
            x, y = input[chunk], target[chunk]
            if x.dtype != dtype:  # into the same memory, which is mapped and in the cache
                x = cast[: len(x)].copy_(x)
            z = torch.addmm(offset, flat, x.t()).view(*bias.shape, len(x))
            losses, dz = residual(z, y)
            share = torch.empty(0) if shares is None else shares[:, chunk]
            if spread is not None:
                spread[chunk] = 2 * sigmoid_bend(dz[0]).sum(0) if self.loss.sigmoids else softmax_spread(dz[0], y)
            if bend.numel():
                for sums, few in zip(bend.split(BLOCK, 1), dz.split(BLOCK, 1), strict=True):
                    own = sigmoid_bend(few)
                    sums += (own if shares is None else own.mul_(share.unsqueeze(1))).sum(2)
            if drawn is not None:
                these = drawn.rows(first // rows, len(x))
                p = softmax_probabilities(dz[..., these], y[these])
                if seen.numel():
                    terms = moments(x[these].double())
                    seen += terms.sum(0) if shares is None else share[:, these] @ terms
                looked_at.append(p if shares is None else p.mul_(share[:, None, these].to(dtype).sqrt()))
                if len(looked_at) == every or chunk.stop == part.stop:
                    add_upper(products, torch.cat(looked_at, 2) if every > 1 else p)
                    looked_at.clear()
            if shares is not None:
                losses, dz = losses * share, dz.mul_(share.unsqueeze(1))
            loss += losses.sum(1, dtype=torch.float64)
            dweight += dz.flatten(0, 1) @ x
            for sums, few in zip(dbias.split(BLOCK, 1), dz.split(BLOCK, 1), strict=True):
                sums += few.sum(2, dtype=torch.float64)
        return DataTerm(loss, dweight.view_as(weight), dbias, products, bend, seen)

    @torch.no_grad()
    def hessian_vector_product(
        self, weight: Tensor, bias: Tensor, v: Tensor, c: Tensor, input: Tensor, sample_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns ``Hv`` (L, K, D) and ``Hc`` (L, K), the two parts of the Hessian of J times (v, c).

        No target is asked for: the Hessian does not depend on it.
        """
        chunks = self._chunks(None, sample_weight, input)
        sums = _added_up(self._loss_curvature(weight, bias, v, c, chunk) for chunk in chunks)
        hv, hc = sums or (torch.zeros_like(v), torch.zeros_like(c))
        if self.total is not None:
            hv, hc = self._over_processes(hv, hc)
        self._add_penalty_gradient(hv, hc, v, c, torch.ones_like(self.l2, dtype=v.dtype))  # linear: its own derivative
        return hv, hc

    def _loss_curvature(
        self, weight: Tensor, bias: Tensor, v: Tensor, c: Tensor, chunk: Chunk
    ) -> tuple[Tensor, Tensor]:
        x, s = chunk.tensors[0].to(weight.dtype), _like(chunk.sample_weight, weight)
        z = linear_map(x, weight) + bias.unsqueeze(2)
        u = linear_map(x, v) + c.unsqueeze(2)
        dp = self.loss.curvature(z, u) * (chunk.fraction * (1 / len(x) if s is None else sample_shares(s)))
        dp = dp.to(weight.dtype)
        return dp @ x, dp.sum(2)

    def _add_penalty_gradient(
        self, dweight: Tensor, dbias: Tensor, weight: Tensor, bias: Tensor, active: Tensor
    ) -> None:
        if not self.penalized:
            return
        l2 = self.l2.to(weight.dtype)
        add_l2_gradient(dweight, weight, l2, active)
        if self.penalize_bias:
            add_l2_gradient(dbias, bias, l2, active)

    def _chunks(self, share: float | None, sample_weight: Tensor | None, *tensors: Tensor) -> Iterable[Chunk]:
        """Returns the chunks that have a weight."""
        samples = len(tensors[0])
        if sample_weight is not None and sample_weight.shape != (samples,):
            raise ValueError(f"sample_weight has shape {tuple(sample_weight.shape)}; expected (N,) with N = {samples}")
        if (self.rows is None or samples <= self.rows) and (self.total is None or share is not None):
            return (Chunk(1.0 if share is None else share, sample_weight, tensors),)
        return self._weighed_chunks(share, sample_weight, *tensors)

    def _weighed_chunks(self, share: float | None, sample_weight: Tensor | None, *tensors: Tensor) -> Iterator[Chunk]:
        rows = self.rows or max(len(tensors[0]), 1)
        chunks = list(zip(*(tensor.split(rows) for tensor in tensors), strict=True))
        weights: Sequence[Tensor | None] = [None] * len(chunks)
        counts = [float(len(chunk[0])) for chunk in chunks]
        if sample_weight is not None:
            weights = sample_weight.split(rows)
            wide = widest(sample_weight.device)
            counts = torch.stack([weight.sum(dtype=wide) for weight in sample_weight.split(rows)]).tolist()
        whole = sum(counts)
        if share is None and self.total is not None:
            device = tensors[0].device
            whole = self.total(torch.tensor([whole], dtype=widest(device), device=device)).item()
        if whole == 0 and share is None:
            raise ValueError("the samples' weights add up to 0; the mean over samples without weight does not exist")
        for chunk, weight, count in zip(chunks, weights, counts, strict=True):
            if count:
                yield Chunk((1.0 if share is None else share) * count / whole, weight, chunk)

    def _over_processes(self, *terms: Tensor) -> list[Tensor]:
        """Adds all terms up over the processes by one call."""
        assert self.total is not None
        return _at_once(self.total, terms)


def sigmoid_bend(residual: Tensor) -> Tensor:
    """Returns dp/dz = p (1 - p) of sigmoids from p - y, of any shape; it does not cancel, since y is 0 or 1."""
    size = residual.abs()
    return size * (1 - size)


def softmax_probabilities(residual: Tensor, target: Tensor) -> Tensor:
    """Returns p (L, K, N) for p - y."""
    index = target.expand(len(residual), 1, -1)
    return residual.scatter_add(1, index, residual.new_ones(index.shape))


def moments(input: Tensor) -> Tensor:
    """Returns ``[x, |x|^2, 1]`` (N, D + 2) for each row of an input (N, D)."""
    return torch.cat((input, input.square().sum(1, keepdim=True), input.new_ones(len(input), 1)), 1)


def add_upper(sums: Tensor, p: Tensor) -> None:
    """Adds the upper triangle of ``p p'`` to (L, K, K), block by block, for p (L, K, n)."""
    for first in range(0, p.shape[1], BLOCK):
        rows = slice(first, first + BLOCK)
        sums[:, rows, first:] += p[:, rows] @ p[:, first:].transpose(1, 2)


def softmax_spread(residual: Tensor, target: Tensor) -> Tensor:
    """Returns ``1 - sum_k p^2`` (N,) of softmax from p - y (K, N): it does not cancel."""
    return -2 * residual.gather(0, target.unsqueeze(0))[0] - residual.square().sum(0)


def _added_up(terms: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...] | None:
    """Adds tuples up, in place of the first; returns None for none."""
    sums = None
    for term in terms:
        sums = _added(sums, term)
    return sums


def _added(sums: tuple[Tensor, ...] | None, more: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Adds a tuple to another one, in its place, if there is one yet; returns the sums."""
    if sums is None:
        return more
    for so_far, term in zip(sums, more, strict=True):
        so_far.add_(term)
    return sums


def in_turn(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Makes all calls, one after another."""
    return [call() for call in calls]


class InOrder:
    """Adds up tuples in the order of their numbers, whoever makes them when; keeps those alone that came too early.

    Small tensors that stayed, one for each part, would lie between the large ones that come and go, and the C library's
    heap would grow by as many holes.
    """

    def __init__(self) -> None:
        self.sums: tuple[Tensor, ...] = ()
        self.early: dict[int, tuple[Tensor, ...]] = {}
        self.added, self.lock = 0, threading.Lock()

    def take(self, number: int, call: Callable[[], tuple[Tensor, ...]]) -> None:
        """Makes a call, and takes what it returns."""
        found = call()
        with self.lock:
            self.early[number] = found
            while self.added in self.early:
                with torch.inference_mode():  # where these may be made, and only there be added to
                    self.sums = _added(self.sums or None, self.early.pop(self.added))
                self.added += 1


def _at_once(function: Callable[[Tensor], Tensor], terms: Sequence[Tensor]) -> list[Tensor]:
    """Returns what a function does to the terms, by one call of it for all of them, in the dtype of the first."""
    flat = function(torch.cat([term.flatten().to(terms[0].dtype) for term in terms]))
    parts = flat.split([term.numel() for term in terms])
    return [part.view(term.shape).to(term.dtype) for part, term in zip(parts, terms, strict=True)]


def _like(sample_weight: Tensor | None, weight: Tensor) -> Tensor | None:
    return None if sample_weight is None else sample_weight.to(weight.dtype)
