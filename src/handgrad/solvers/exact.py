"""The exact solver: one l2 value after another, the largest first, each to a certified optimum."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from handgrad.errors import GradientError
from handgrad.functions.objective import Objective
from handgrad.solvers.centred import CentredProblem, Point
from handgrad.solvers.certificate import Certificate, bias_part, certificate, weight_part
from handgrad.solvers.line_search import Found, search
from handgrad.solvers.newton import NewtonMetric
from handgrad.solvers.protocol import Block, Progress
from handgrad.solvers.quasi_newton import REFRESH, Eigen, QuasiNewtonMetric

ENOUGH = 0.5  # of the tolerance: where an entry's own numbers, which are no proof, call for the certificate
REFUSALS, BIAS_STEPS = 8, 3  # certificates that are asked for, and steps of the bias for each
LEAST_RISE = 0.05  # of the gradient along a step, relative to its slope; else L-BFGS does not remember it
CLOSE = 1e3  # times the tolerance: the last iterations, of which one may be followed by a step of the bias
NEXT = 10.0  # the same where the coupling is dear
FAR = 0.2  # a step of the bias about squares its gap: below that many tolerances it is taken for enough
RESTS = 4.0  # times gap / the gap before it is what a step by the Hessian before it leaves of the gap
ROUGH = 0.05  # times the roughness of A is what a step of the bias leaves of its gap
AGREE = 1e-8  # as far as two evaluations in float64 may differ, relative to their terms
PATIENCE = 25  # iterations in float32 without a gap that is smaller by a third; then rounding is what is left
NOISE = {torch.float32: 3e-8, torch.float64: 1e-10}
NUMBERS = ("objective", "gap", "gradient_norm", "iterations", "passes")


class Solution(NamedTuple):
    """One of an l2: T (K, D + 1), and the passes that led to it."""

    l2: float
    parameters: Tensor
    passes: float


@dataclass
class ExactState:
    """The parameters of the path, in float64, and what the entries solved so far leave to the next one.

    Attributes:
        centred_bias: (L, K), to the bit: ``bias`` has what is left of it on features as they are.
        numbers: (L, 5), ``NUMBERS`` of each solved entry; NaN before.
        memory: of the metric, by name; tensors of a fixed shape.
    """

    weight: Tensor
    bias: Tensor
    centred_bias: Tensor
    numbers: Tensor
    memory: dict[str, Tensor]
    problem: CentredProblem | None = None
    metric: NewtonMetric | QuasiNewtonMetric | None = None
    point: Point | None = None  # the latest solution

    def tensors(self) -> dict[str, Tensor]:
        named = {"weight": self.weight, "bias": self.bias, "centred_bias": self.centred_bias, "numbers": self.numbers}
        return named | {f"memory.{name}": tensor for name, tensor in self.memory.items()}

    @property
    def solved(self) -> Tensor:
        return ~self.numbers[:, NUMBERS.index("iterations")].isnan()


@dataclass(frozen=True)
class Exact:
    """Solves each entry of a path to a duality gap of ``tolerance``, relative to its objective.

    A step solves one entry, the one with the largest l2 that is left: solutions change slowly along the path, and the
    last three, extrapolated, are where the next one begins. Small problems by Newton's method in float64; large ones by
    L-BFGS with products in float32 while these suffice, then in float64. docs/solver.md has the algorithm.

    Args:
        tolerance: of the relative gap; its bound decides, see ``Certificate``.
        max_iterations: of an entry.
        products: dtype of the first products.
        fit_bias: whether there is a bias; else it stays 0.
        refine: steps beyond the certificate, by the last Hessian of Newton's method; on small problems.
        grams: what large problems are preconditioned by, for an l2; None: by what they find in their own samples.
    """

    tolerance: float
    max_iterations: int
    products: torch.dtype = torch.float32
    fit_bias: bool = True
    refine: int = 0
    grams: Callable[[float], Eigen] | None = None

    one_at_a_time = True

    def init(self, weight: Tensor, bias: Tensor) -> ExactState:
        entries, outputs, features = weight.shape
        numbers = torch.full((entries, len(NUMBERS)), torch.nan, dtype=torch.float64)
        return ExactState(
            weight, bias, bias.detach().cpu().clone(), numbers, QuasiNewtonMetric.empty_memory(outputs, features)
        )

    @torch.no_grad()
    def step(self, objective: Objective, state: ExactState, block: Block, active: Tensor) -> Progress:
        """Solves the next entry; ``block`` is the whole training set, as one mini-batch."""
        if state.problem is None:
            self.prepare(objective, state, block, active)
        entry = self.following(objective, state, active)
        run = EntryRun(self, state, objective.l2[entry].item(), self.past(objective, state))
        point, found = run.solve()
        state.point = point
        state.weight[entry], state.bias[entry] = run.problem.uncentred(point.parameters)
        state.centred_bias[entry] = point.parameters[:, -1]
        run.metric.save(state.memory)
        values = [found.objective, found.gap, found.gradient_norm, run.iterations, run.passes]
        state.numbers[entry] = torch.tensor(values, dtype=torch.float64)
        moved = torch.zeros(len(state.numbers), dtype=torch.bool)
        moved[entry] = True
        curves = {name: spread_out(values, entry, len(moved)) for name, values in run.curves.items()}
        return Progress(curves, moved * run.iterations, moved)

    def following(self, objective: Objective, state: ExactState, active: Tensor) -> int:
        """Returns the entry with the largest l2 of those that are left."""
        left = (~state.solved & (active.cpu() > 0)).nonzero().flatten().tolist()
        return max(left, key=objective.l2.tolist().__getitem__)

    def prepare(self, objective: Objective, state: ExactState, block: Block, active: Tensor) -> None:
        """Looks at the data: its mean, what the certificate needs, and whether it is small.

        The first entry begins at its parameters, or where there are none yet at those of the null model.
        """
        ((input, target, sample_weight),) = block
        samples, (_, outputs, features) = torch.tensor([len(target)]), state.weight.shape
        samples = samples if objective.total is None else objective.total(samples)
        small = NewtonMetric.suits(int(samples.item()), features, outputs, objective.loss.sigmoids)
        if small and target.device.type != "cpu":  # a device would wait for what little there is to do
            input, target = input.to("cpu"), target.cpu()
            sample_weight = None if sample_weight is None else sample_weight.cpu()
        state.problem = problem = CentredProblem(objective, input, target, sample_weight, outputs, self.fit_bias)
        state.metric = NewtonMetric(problem) if small else QuasiNewtonMetric(problem, self.grams)
        state.metric.load(state.memory)
        state.point = problem.null_model()
        entry = self.following(objective, state, active)
        if past := self.past(objective, state):
            if not torch.equal(past[-1].parameters, state.point.parameters):
                state.point = state.metric.exactly(past[-1].parameters)
        elif state.weight[entry].any():
            here = state.weight[entry].cpu(), state.bias[entry].cpu()
            state.point = state.metric.exactly(problem.centred(*here))

    def past(self, objective: Objective, state: ExactState) -> list[Solution]:
        """Returns the last three solutions, the latest last."""
        assert state.problem is not None
        l2 = objective.l2.tolist()
        solved = sorted(state.solved.nonzero().flatten().tolist(), key=l2.__getitem__)[2::-1]
        parameters = (torch.cat((state.weight[i].cpu(), state.centred_bias[i, :, None]), 1) for i in solved)
        passes = state.numbers[solved, NUMBERS.index("passes")].tolist()
        return list(map(Solution, [l2[i] for i in solved], parameters, passes))

    def done(self, state: ExactState) -> Tensor:
        return state.solved

    def report(self, state: ExactState) -> dict[str, Tensor]:
        """Returns what is known of each entry, by the names of the results, each (L,)."""
        found = dict(zip(NUMBERS, state.numbers.unbind(1), strict=True))
        found |= {name: found[name].nan_to_num(0).long() for name in ("iterations", "passes")}
        return found | {"converged": found["gap"] <= self.tolerance}


class EntryRun:
    """One entry, from the solutions before it to its own.

    Args:
        past: the latest solutions, the last of which ``state.point`` evaluates.

    Attributes:
        iterations: so far; passes: over the data.
        curves: ``objective`` and ``gap`` before each iteration and at the end; before the end the gap is
            that of the weights alone, from products in the present precision.
    """

    def __init__(self, solver: Exact, state: ExactState, l2: float, past: Sequence[Solution]) -> None:
        assert state.problem is not None
        assert state.metric is not None
        self.problem, self.metric = state.problem, state.metric
        self.tolerance, self.max_iterations = solver.tolerance, solver.max_iterations
        self.state, self.l2, self.past = state, l2, past
        self.refine = solver.refine if isinstance(self.metric, NewtonMetric) else 0
        self.iterations, self.first_pass = 0, self.problem.passes
        self.curves: dict[str, list[float]] = {"objective": [], "gap": []}
        self.dtype = torch.float64 if isinstance(self.metric, NewtonMetric) else solver.products
        self.enough, self.refusals = ENOUGH * self.tolerance, 0
        self.least, self.least_at, self.gap_before = math.inf, 0, math.inf
        self.spread = torch.zeros(len(self.problem.target), device=self.problem.target.device)

    @property
    def passes(self) -> int:
        return self.problem.passes - self.first_pass

    @property
    def may_go_on(self) -> bool:
        return self.iterations < self.max_iterations and self.refusals < REFUSALS

    def solve(self) -> tuple[Point, Certificate]:
        """Returns the point where the entry ends, evaluated in float64, and its certificate."""
        self.metric.begin(self.l2)
        point = self.start()
        while True:
            gradient = self.problem.gradient(point, self.l2)
            gap = self.observe(point, gradient)
            if gap > self.enough and self.may_go_on and not self.stalls():
                found = self.search(Found(point, gradient, 0.0), gap)
                self.gap_before = gap
                if found is not None:
                    point = found.point
                    continue
            point, proof = self.certified(point)
            proven = proof.gap <= self.tolerance or (self.l2 == 0 and self.dtype == torch.float64)
            if proven or not self.may_go_on:
                point, proof = self.refined(point, proof) if proven else (point, proof)
                self.note(proof.objective, proof.gap)
                return point, proof
            self.be_stricter(gap)

    def start(self) -> Point:
        """Returns the last solution, or the extrapolated one where J is lower there."""
        point, gram = self.state.point, self.metric.wants_gram(0, self.l2)
        assert point is not None
        if gram and not point.parameters[:, :-1].any():  # all samples bend the loss alike
            self.spread.fill_(1.0)
            return point
        if self.l2 and len(self.past) > 1:
            candidate = self.at(self.problem.without_shift(extrapolated(self.past, self.l2)), gram, coupling=True)
            better = self.problem.value(candidate, self.l2) < self.problem.value(point, self.l2)
            return candidate if better else point
        return self.at(point.parameters, gram, coupling=True) if gram else point

    def at(self, parameters: Tensor, gram: bool, coupling: bool, dtype: torch.dtype | None = None) -> Point:
        if isinstance(self.metric, NewtonMetric):
            return self.metric.at(parameters)
        return self.problem.at(parameters, dtype or self.dtype, self.spread if gram else None, coupling)

    def observe(self, point: Point, gradient: Tensor) -> float:
        """Notes where the entry is; returns an estimate of the gap, without penalty that of a quadratic J."""
        J = self.problem.value(point, self.l2)
        if self.l2:
            gap = weight_part(self.problem, gradient, self.l2) / J
        else:
            gap = (gradient * self.direction(point, gradient, math.inf)).sum().item() / 2 / max(J, 1e-300)
        self.note(J, gap)
        if gap < self.least / 1.5:
            self.least, self.least_at = gap, self.iterations
        return gap

    def note(self, objective: float, gap: float) -> None:
        """Writes both down for the present iteration; what comes last counts."""
        for name, value in (("objective", objective), ("gap", gap)):
            self.curves[name][self.iterations :] = [value]

    def stalls(self) -> bool:
        """Tells whether the gap has not fallen for long."""
        return self.dtype == torch.float32 and self.iterations - self.least_at > PATIENCE

    def direction(self, point: Point, gradient: Tensor, gap: float) -> Tensor:
        last = self.rest(gap) * gap <= self.enough
        self.metric.refresh(point, self.l2, self.iterations, self.spread, last)
        return self.metric.direction(gradient, self.l2)

    def rest(self, gap: float) -> float:
        """Returns what a step is expected to leave of a gap."""
        return RESTS * gap / self.gap_before if self.iterations else math.inf

    def would_do(self, point: Point, gap: float) -> bool:
        """Tells whether a step is expected to lead to where the certificate passes; the first one, if it did before."""
        if not self.iterations:
            return bool(self.past) and self.past[-1].passes <= 2
        if self.rest(gap) * gap > self.enough:
            return False
        bias_gap = 0.0 if point.coupling is None else self.bias_gap(point)
        return gap / self.gap_before * bias_gap <= ENOUGH * self.tolerance

    def search(self, here: Found, gap: float) -> Found | None:
        """Makes an iteration; None: no step was found."""
        direction, following = self.direction(here.point, here.gradient, gap), self.iterations + 1
        gram = self.metric.wants_gram(following, self.l2)
        close = NEXT if self.problem.coupling_is_dear else CLOSE
        coupling = gram or following in REFRESH or gap <= close * self.tolerance
        first = [torch.float64] if self.would_do(here.point, gap) else []

        def evaluate(parameters: Tensor) -> Point:
            return self.at(parameters, gram, coupling or bool(first), first.pop() if first else self.dtype)

        found = search(self.problem, self.l2, here, direction, NOISE[self.dtype], evaluate)
        self.iterations += 1
        if found is not None:
            self.learn(here, direction, found)
        return found

    def learn(self, before: Found, direction: Tensor, after: Found) -> None:
        """Gives the metric a step that was taken, with whether J's gradient rose enough along it."""
        step, change = after.point.parameters - before.point.parameters, after.gradient - before.gradient
        least = LEAST_RISE * after.size * (before.gradient * direction).sum().abs().item()
        self.metric.learn(step, change, curved=(step * change).sum().item() > least)

    def certified(self, point: Point) -> tuple[Point, Certificate]:
        """Returns the point that is saved, evaluated in float64, and its certificate.

        Where a free bias is what keeps the gap open it makes steps of Newton's, which hardly move the rest.
        """
        parameters, exact = point.parameters, point.exact and point.coupling is not None
        if not point.exact and self.bias_gap(point) > self.enough / 5:
            if point.coupling is None:
                point = self.at(point.parameters, False, coupling=True)
            for _ in range(BIAS_STEPS):
                gap, step = self.bias_gap(point), point.bias_step.abs().max().item()
                if gap * max(min(gap, step**2), ROUGH * point.roughness) <= FAR * self.tolerance:
                    break
                point = self.at(point.with_bias_step(), False, coupling=True)
            parameters, exact = point.with_bias_step(), False
        if isinstance(self.metric, NewtonMetric) and not exact:
            point = self.metric.with_coupling(point)
            exact = self.was_compared or self.is_proven(point, self.metric)
        for _ in range(BIAS_STEPS):
            if not exact:
                point = self.metric.exactly(parameters)
            proof = certificate(self.problem, point, self.l2)
            if not proof.gap > self.tolerance or self.bias_gap(point) < proof.gap / 5:
                break
            parameters, exact = point.with_bias_step(), False
        return point, proof

    @property
    def was_compared(self) -> bool:
        """Whether an entry before this one has gone through ``is_proven``: one that moved has."""
        return bool((self.state.numbers[:, NUMBERS.index("iterations")] > 0).any())

    def is_proven(self, point: Point, metric: NewtonMetric) -> bool:
        """Compares Newton's evaluation of a point, with its coupling, with the derivative that every run proves.

        Raises:
            GradientError: they differ.
            InputError: they differ, and a column has few digits left once it is centred.
        """
        proven = self.problem.at(point.parameters, coupling=True)
        assert proven.coupling is not None
        assert point.coupling is not None
        terms = self.problem.class_sums, proven.gradient  # which a gradient is made of
        compared = {
            "loss": (proven.loss - point.loss, max(proven.loss, 1.0)),
            "gradient": (largest(proven.gradient - point.gradient), sum(map(largest, terms))),
            "coupling": (largest(proven.coupling - point.coupling), 1.0),  # of probabilities
        }
        for name, (far, scale) in compared.items():
            if abs(far) > AGREE * scale:
                metric.check_digits()
                raise GradientError(f"Newton's {name} differs from the proven one by {abs(far):.1e}, of {scale:.1e}")
        return True

    def refined(self, point: Point, proof: Certificate) -> tuple[Point, Certificate]:
        """Makes steps beyond the certificate, as long as they lower the gap."""
        for _ in range(self.refine):
            gradient = self.problem.gradient(point, self.l2)
            if not self.iterations:  # the Hessian of the entry's last iteration will do
                self.metric.refresh(point, self.l2, 0, self.spread, False)
            step = self.metric.direction(gradient, self.l2)
            further = self.metric.exactly(point.parameters - step)
            better = certificate(self.problem, further, self.l2)
            if not better.gradient_norm < proof.gradient_norm:
                break
            point, proof = further, better
        return point, proof

    def bias_gap(self, point: Point) -> float:
        if self.l2 == 0:
            return 0.0
        return bias_part(self.problem, point, self.l2) / self.problem.value(point, self.l2)

    def be_stricter(self, gap: float) -> None:
        """Asks for more before the next certificate, and from the second refusal on for products in float64."""
        self.refusals += 1
        self.enough /= 2
        if self.dtype == torch.float32 and (self.refusals > 1 or gap > self.enough):
            self.dtype = torch.float64
            self.enough = ENOUGH * self.tolerance


def extrapolated(past: Sequence[Solution], l2: float) -> Tensor:
    """Returns, at ``l2``, the polynomial in log l2 through solutions at other values, (K, D + 1).

    What rounding leaves to all outputs of a softmax in common is to be taken from it: from value to value extrapolation
    would make a multiple of it, and no step brings it down.
    """
    x = [math.log(solution.l2) for solution in past]
    found = torch.zeros_like(past[0].parameters)
    for a, solution in zip(x, past, strict=True):
        found += math.prod((math.log(l2) - b) / (a - b) for b in x if b != a) * solution.parameters
    return found


def largest(tensor: Tensor) -> float:
    return tensor.abs().max().item()


def spread_out(values: Sequence[float], entry: int, entries: int) -> Tensor:
    """Returns the values of one entry as (B, L), NaN for the others."""
    column = torch.full((len(values), entries), torch.nan, dtype=torch.float64)
    column[:, entry] = torch.tensor(values, dtype=torch.float64)
    return column
