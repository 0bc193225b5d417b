"""The objective of one classifier over a whole training set, in one matrix of parameters, on centred features."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from handgrad.errors import InputError
from handgrad.functions.objective import CACHED, LEAST_ROWS, Objective, moments, targets_by_output

LIGHT, LEAST = 8, 16  # for A one of 8 K / D samples is looked at, a 32nd of a pass or a bit more; 16 K at least
MANY = 256  # outputs; up to so many all samples are looked at, which takes less than to gather a part of them
ONE = torch.ones((), dtype=torch.float64)
ROUNDED = 1e-12  # of a mean of squares, from which another number may have been taken
FLAT = 1e-6  # share of the largest curvature below which a direction of the outputs counts as flat


@dataclass(frozen=True, eq=False)
class Point:
    """Parameters, and what one pass over the data found there.

    Attributes:
        parameters: T = [W, c], (K, D + 1), float64.
        loss: C.
        gradient: of C, (K, D + 1).
        coupling: A, how the gradient for the bias changes with the bias, (K, K); None: not asked for.
        flat: the share of the largest curvature below which a direction of the outputs counts as flat.
        every: of how many samples one was looked at for A, and counts for them all.
        scale: (K,), by which what these gave was multiplied from both sides, so that A's diagonal is that of all.
        spread: sum of ``r |x - m|^2`` over these; None: all were looked at.
        exact: whether sums and products were in float64.
    """

    parameters: Tensor
    loss: float
    gradient: Tensor
    coupling: Tensor | None = None
    flat: float = FLAT
    every: int = 1
    scale: Tensor = ONE
    spread: float | None = None
    exact: bool = True

    @cached_property
    def bends(self) -> tuple[Tensor, Tensor]:
        """A's eigenvalues (K,) and eigenvectors (K, K)."""
        assert self.coupling is not None
        if not self.flat:  # of sigmoids, a diagonal
            return self.coupling.diagonal(), torch.eye(len(self.coupling), dtype=self.coupling.dtype)
        return torch.linalg.eigh(self.coupling)

    @property
    def roughness(self) -> float:
        """How far from all the samples are that were looked at, by A's diagonal: mean square, relative to theirs."""
        return (1 - self.scale.square().reciprocal()).square().mean().item()

    @cached_property
    def bias_step(self) -> Tensor:
        """Newton's step for the bias alone, (K,); it does not change what softmax's biases add up to."""
        step = self.bias_step_for(self.gradient[:, -1])
        return step - step.mean() if self.flat else step

    @cached_property
    def step_of_few(self) -> Tensor:
        """The same where the samples that were looked at take it, and no others."""
        return self.every * self.scale * self.bias_step_for(self.scale * self.gradient[:, -1])

    def moved(self, step: Tensor) -> Tensor:
        """Returns what the mean of p moves by, to first order, where the samples that were looked at take a step."""
        assert self.coupling is not None
        return self.coupling @ (step / self.scale) / self.scale / self.every

    def bias_step_for(self, gradient: Tensor) -> Tensor:
        """Returns Newton's step for a gradient of the bias, both (K,); 0 where numbers have overflown."""
        assert self.coupling is not None
        if not self.coupling.isfinite().all():
            return torch.zeros_like(gradient)
        if not self.flat:  # sigmoids, of which none bends another
            a = self.coupling.diagonal()
            return torch.where(a > 0, -gradient / a, 0.0)
        a, U = self.bends
        return -(U @ torch.where(a > self.flat * a[-1], U.t() @ gradient / a, 0.0))

    def with_bias_step(self) -> Tensor:
        """Returns parameters whose bias went by ``bias_step``."""
        parameters = self.parameters.clone()
        parameters[:, -1] += self.bias_step
        return parameters


class CentredProblem:
    """What is minimized, for any l2: ``J(T) = C(T) + l2/2 |T * penalized|^2`` with T = [W, c], (K, D + 1).

    A free bias takes up any shift of the features: ``z = W x + b = W (x - m) + c`` with ``c = b + W m``. Around the
    mean m the bias and the weights hardly bend one another's gradient, so that both converge. The features themselves
    are not touched: ``dC/dW`` is that of W at b, less ``dC/db m'``. A penalized bias is one more weight, and m is 0.

    Parameters, and all that is returned for them, lie on the CPU; samples where they are given.

    Args:
        objective: its l2 is not used.
        input: (N, D), of any dtype, a tensor or what reads rows as one; target: (N,); sample_weight: (N,) or None.
        outputs: K.
        fit_bias: whether there is a bias; else it stays 0.

    Attributes:
        free: whether the bias is, of the penalty too.
        mean: m, (D,): that of the features where the bias is free, else 0.
        mean_of_all: weighted mean of the features, (D,), in any case.
        mean_square: weighted mean of ``|x|^2``, of ``|[x, 1]|^2`` where the bias is a weight like others.
        spread: weighted mean of ``|x - m|^2``; not asked for where the bias is not free.
        sigmoids: whether the outputs are sigmoids, which have nothing in common, and not one softmax.
        flat: as a point has it: softmax alone has flat directions.
        weight: sum of the samples' weights.
        processes: that share the samples.
        every: of how many samples one is looked at for a coupling: of many of softmax's outputs, more than twice as
            many as the features, it would take longer than the gradient.
        class_shares: weighted mean of y, by output, (K,); class_sums: that of ``y (x - m)'``, (K, D).
        penalized: (D + 1,), 1 where l2 counts a column.
        passes: over the data so far.

    Raises:
        InputError: the loss is none of softmax or sigmoids.
    """

    def __init__(
        self,
        objective: Objective,
        input: Any,
        target: Tensor,
        sample_weight: Tensor | None,
        outputs: int,
        fit_bias: bool = True,
    ) -> None:
        if objective.loss.residual is None:
            name = getattr(objective.loss.function, "__name__", "the loss")
            raise InputError(
                f"{name}: no softmax and no sigmoids, so that no optimum is proven; "
                f"accepted are optimizer=sgd or adam, and l2 in numbers"
            )
        self.fit_bias, self.free = fit_bias, fit_bias and not objective.penalize_bias
        self.objective, self.input, self.target, self.sample_weight = objective, input, target, sample_weight
        self.outputs, self.passes, self.sigmoids = outputs, 0, objective.loss.sigmoids
        self.flat = 0.0 if self.sigmoids else FLAT
        self.total: Callable[[Tensor], Tensor] = objective.total or (lambda tensor: tensor)
        self.penalized = torch.ones(input.shape[1] + 1, dtype=torch.float64)
        self.penalized[-1] = float(not self.free)
        shape = outputs + 1, input.shape[1] + 2
        sums, counts = self.total(self._sums(*shape)).split([shape[0] * shape[1], 2])
        (self.processes, samples), self.weight = counts.tolist(), sums[-1].item()
        every = min(LIGHT * outputs // max(input.shape[1], 1), int(samples) // (LEAST * outputs))
        self.every = 1 if self.sigmoids or outputs <= MANY else max(every, 1)
        means = (sums / self.weight).view(shape)
        self.mean_of_all, squares = means[-1, :-2], means[-1, -2].item()
        self.mean, self.spread, self.mean_square = torch.zeros_like(self.mean_of_all), 0.0, squares + float(fit_bias)
        if self.free:
            self.mean, self.mean_square = self.mean_of_all, squares
            self.spread = self.spread_of(means[-1])
        self.class_shares = means[:-1, -1]
        self.class_sums = means[:-1, :-2] - torch.outer(self.class_shares, self.mean)

    @property
    def coupling_is_dear(self) -> bool:
        """Whether it costs a quarter of a pass or more; of sigmoids it is a diagonal."""
        return not self.sigmoids and self.outputs > len(self.mean) * self.every

    def spread_of(self, sums: Tensor) -> float:
        """Returns the sum of ``r |x - m|^2`` for those of ``r x``, ``r |x|^2`` and r, (D + 2,)."""
        x, squares, share = sums[:-2], sums[-2].item(), sums[-1].item()
        around = squares - 2 * (x @ self.mean).item() + share * self.mean.square().sum().item()
        return max(around, 0.0) + ROUNDED * squares

    def weights(self, index: Tensor | slice) -> Tensor:
        """Returns the sample weights of these samples, in float64, where the target lies."""
        if self.sample_weight is None:
            return torch.ones(len(self.target[index]), dtype=torch.float64, device=self.target.device)
        return self.sample_weight[index].double()

    def _sums(self, rows: int, columns: int) -> Tensor:
        """Returns weighted sums over the samples, of an output's own in a row and of all in the last one; 1 and N.

        The columns are the features, ``|x|^2`` and 1.
        """
        place = self.target.device
        sums = torch.zeros(rows, columns, dtype=torch.float64, device=place)
        many = max(LEAST_ROWS, CACHED // columns)
        for first in range(0, len(self.target), many):
            chunk = slice(first, first + many)
            terms, target = moments(self.input[chunk].double()), self.target[chunk]
            if self.sample_weight is not None:
                terms *= self.weights(chunk).unsqueeze(1)
            sums[-1] += terms.sum(0)
            if self.sigmoids:
                sums[:-1] += targets_by_output(target).double() @ terms
            else:  # not by index_add_, which on a device adds in any order
                sums[:-1].index_put_((target,), terms, accumulate=True)
        return torch.cat((sums.flatten().cpu(), torch.tensor([1.0, len(self.target)], dtype=torch.float64)))

    def start(self) -> Tensor:
        """Returns W = 0 and the bias that alone fits best: the logarithms of the classes' shares (0 if it is not free).

        Of sigmoids they are those of the odds.
        """
        parameters = torch.zeros(self.outputs, len(self.mean) + 1, dtype=torch.float64)
        if self.free:
            logs = self.class_shares.log()
            parameters[:, -1] = logs - ((1 - self.class_shares).log() if self.sigmoids else logs.mean())
        return parameters

    def null_model(self) -> Point:
        """Returns ``start`` with what ``at`` would find there, without a pass: p is the same for all samples."""
        parameters = self.start()
        z = parameters[:, -1]
        if self.sigmoids:
            p, partition = torch.sigmoid(z), -F.logsigmoid(-z).sum()
            A = torch.diag(p * torch.sigmoid(-z))
        else:
            p, partition = torch.softmax(z, 0), z.logsumexp(0)
            A = self.centre_outputs(torch.diag(p) - torch.outer(p, p))
        dweight = torch.outer(p, self.mean_of_all - self.mean) - self.class_sums
        dbias = (p - self.class_shares) * self.fit_bias
        loss = (partition - self.class_shares @ z).item()
        return Point(parameters, loss, torch.cat((dweight, dbias[:, None]), 1), A, self.flat)

    def at(
        self,
        parameters: Tensor,
        dtype: torch.dtype = torch.float64,
        spread: Tensor | None = None,
        coupling: bool = False,
    ) -> Point:
        """Evaluates C and its gradient there: one pass, with products in ``dtype``.

        Args:
            spread: (N,), takes how much each sample bends the loss, as ``Objective.data_term`` has it.
            coupling: whether to ask for it.
        """
        self.passes += 1
        weight, bias = self.uncentred(parameters)
        if dtype == torch.float32:
            weight, bias = weight.float().double(), bias.float().double()
            parameters = self.centred(weight, bias)
        data = self.input, self.target, self.sample_weight
        every = self.every if coupling else 0
        term = self.objective.data_term(weight[None], bias[None], *data, dtype=dtype, spread=spread, every=every)
        dbias = term.dbias[0] * self.fit_bias
        gradient = torch.cat((term.dweight[0] - torch.outer(dbias, self.mean), dbias[:, None]), 1)
        point = Point(parameters, term.loss.item(), gradient, flat=self.flat, exact=dtype == torch.float64)
        if not coupling:
            return point
        A = term.bend[0].diag() if self.sigmoids else self.centre_outputs(term.coupling[0])
        if every == 1:
            return replace(point, coupling=A)
        seen = (A.diagonal() > 0) & (term.bend[0] > 0)
        scale = torch.where(seen, (term.bend[0] / A.diagonal()).sqrt(), 1.0)
        found = self.spread_of(term.seen[0])
        return replace(point, coupling=scale[:, None] * A * scale, every=every, scale=scale, spread=found)

    def centre_outputs(self, A: Tensor) -> Tensor:
        """Takes from a coupling what rounding left of how a shift of all softmax's outputs bends the loss: nothing."""
        A = A - A.mean(0, keepdim=True)
        return A - A.mean(1, keepdim=True)

    def uncentred(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Returns W (K, D) and b (K,) on the features as they are."""
        weight = parameters[:, :-1]
        return weight, parameters[:, -1] - weight @ self.mean

    def centred(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Returns T for W (K, D) and b (K,)."""
        weight = weight.double()
        return torch.cat((weight, (bias.double() + weight @ self.mean)[:, None]), 1)

    def value(self, point: Point, l2: float) -> float:
        """Returns J."""
        return point.loss + l2 / 2 * (point.parameters * self.penalized).square().sum().item()

    def gradient(self, point: Point, l2: float) -> Tensor:
        """Returns dJ/dT (45)."""
        return point.gradient + l2 * self.penalized * point.parameters

    def probabilities(self, logits: Tensor) -> Tensor:
        """Returns p for logits (n, K): the softmax over them, or the sigmoid of each."""
        return torch.sigmoid(logits) if self.sigmoids else torch.softmax(logits, 1)

    def without_shift(self, parameters: Tensor) -> Tensor:
        """Takes from softmax's parameters (K, D + 1) what shifts all outputs alike: the same for less l2."""
        return parameters if self.sigmoids else parameters - parameters.mean(0)

    def rows(self, index: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Returns samples, centred and with a last column of ones, (n, D + 1); of zeros where there is no bias."""
        place = self.target.device
        x = torch.full((len(index), len(self.mean) + 1), float(self.fit_bias), dtype=dtype, device=place)
        torch.sub(self.input.index_select(0, index.to(place)).to(dtype), self.mean.to(place, dtype), out=x[:, :-1])
        return x
