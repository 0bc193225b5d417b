"""Which term of an objective is wrong, and by what mistake: asked once the proof has failed, never before."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from handgrad.compat import function_of
from handgrad.diagnosis.mistakes import (
    MATCH,
    ROUNDING,
    Guess,
    Guesses,
    Sizes,
    explained,
    factor_between,
    factor_text,
    factors_between,
    gradient_of_losses,
    left_out,
    named,
    norm,
    residuals,
    wrong_losses,
    wrong_penalties,
    wrong_penalty_gradients,
    wrong_weights,
)
from handgrad.diagnosis.places import PAGE, SECTIONS, methods, place
from handgrad.functions.l2_penalty import add_l2_gradient, l2_penalty
from handgrad.functions.objective import Objective
from handgrad.functions.proof import data_term_there, plain_logits, plain_square_norm

CLASSIFIERS = 3  # at which a Function is tried by itself: three numbers are the bias of logistic regression then
TRIALS = 6  # at least so many points at which the calls that train are
PARTS = ("logits", "loss", "weight", "bias", "input", "l2", "Hessian")
MISSING = "backward returns None"
PARAMETERS = ("weight", "bias")
L2_SECTION = SECTIONS["l2_penalty"]
ALONE = Sizes(1, 1, 1)  # of what adds nothing up over samples
AXES = {
    "logits": ("classifier", "class", "sample"),
    "weight": ("classifier", "class", "feature"),
    "bias": ("classifier", "class"),
    "input": ("sample", "feature"),
}


class Verdict(NamedTuple):
    """What was found of a part.

    Attributes:
        part: one of PARTS.
        mistake: in words; None where it is right.
        place: the line of code, as file:line; empty where it is not known.
        section: of the derivation; empty where there is none.
    """

    part: str
    mistake: str | None
    place: str = ""
    section: str = ""


def told(verdicts: Iterable[Verdict]) -> list[str]:
    """Returns lines that say what is wrong, each with its place below it, and what is right."""
    verdicts, lines = list(verdicts), []
    groups: dict[tuple[str, str, str], dict[str, None]] = {}
    for part, mistake, line, section in verdicts:
        if mistake is not None:
            groups.setdefault((mistake, line, section), {})[part] = None
    for (mistake, line, section), parts in groups.items():
        lines.append(f"{', '.join(parts)}: {mistake}")
        places = [*([line] if line else []), *([f"{PAGE}#{section}"] if section else [])]
        lines += [f"  see {' and '.join(places)}"] if places else []
    wrong = {verdict.part for verdict in verdicts if verdict.mistake is not None}
    right = [part for part in PARTS if part in {verdict.part for verdict in verdicts} - wrong]
    return [*lines, *([f"{', '.join(right)}: right"] if right else [])]


def diagnosed(
    objective: Objective, outputs: int, input: Tensor, target: Tensor, tolerance: float, hessian: bool = False
) -> list[Verdict]:
    """Compares each part with what its formula gives, and where they differ, with what mistakes would give.

    The Functions are tried by themselves, and the calls that train given what the Functions say. Of several processes
    each looks at its own samples and waits for no other, so that a wrong sum over them is not seen.

    Args:
        objective: of L classifiers, ``l2`` in float64.
        outputs: K.
        input: (N, D), of any floating dtype.
        target: (N,) or (N, K).
        tolerance: largest relative error of what is right.
        hessian: whether to look at the Hessian-vector product and the data term too.
    """
    judge = Judge(Draws(outputs, input.double(), target), tolerance)
    training = OfTraining(objective, judge)
    verdicts = [*OfLoss(objective, judge).verdicts(), *penalty_verdicts(judge)]
    if any(verdict.mistake == MISSING for verdict in verdicts):  # what trains asks for it
        return verdicts
    verdicts += [*training.gradient_verdicts(), *training.value_verdicts()]
    if hessian:
        verdicts += training.hessian_verdicts()
        verdicts += training.data_verdicts() if objective.loss.residual else ()
    return verdicts


class Draws:
    """The samples, and random numbers for them: weights are drawn for logits of about 1."""

    def __init__(self, outputs: int, input: Tensor, target: Tensor) -> None:
        self.outputs, self.input, self.target = outputs, input, target
        self.generator = torch.Generator().manual_seed(0)
        self.size = input.square().mean().sqrt().item() or 1.0  # of a feature

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.input.device)

    def parameters(self, classifiers: int) -> tuple[Tensor, Tensor]:
        features = self.input.shape[1]
        weight = self.normal(classifiers, self.outputs, features) / (self.size * features**0.5)
        return weight, self.normal(classifiers, self.outputs)

    def sizes(self, classifiers: int = CLASSIFIERS) -> Sizes:
        return Sizes(len(self.target), self.outputs, classifiers)


class Judge(NamedTuple):
    """Compares numbers with those that are expected, and guesses only where they differ."""

    draws: Draws
    tolerance: float

    def wrong(self, found: Tensor, expected: Tensor) -> bool:
        return not norm(found - expected) <= self.tolerance * norm(expected)  # neither is what is not a number

    def verdict(
        self,
        part: str,
        found: Tensor,
        expected: Tensor,
        guesses: Guesses,
        where: str = "",
        line: str = "",
        section: str = "",
        sizes: Sizes | None = None,
    ) -> Verdict:
        """Returns the verdict; ``where`` is added to a mistake's name. ``sizes`` are the samples', if not given."""
        if not self.wrong(found, expected):
            return Verdict(part, None)
        axes = AXES.get(part, ("classifier", "class", "feature"))[: found.dim()]
        return Verdict(
            part, explained(found, expected, sizes or self.draws.sizes(), guesses, axes) + where, line, section
        )


class Arrived(NamedTuple):
    """What arrives for backward.

    Attributes:
        g: (L,), for the loss, or None.
        G: (L, K, N), for the logits, or None.
        s: (N,), sample weights, or None.
        where: in words.
    """

    g: Tensor | None = None
    G: Tensor | None = None
    s: Tensor | None = None
    where: str = ""


class OfLoss:
    """Judges a loss: its logits, its value, and what its backward gives for weight, bias and input."""

    def __init__(self, objective: Objective, judge: Judge) -> None:
        self.loss, self.judge, self.draws = objective.loss, judge, judge.draws
        self.weight, self.bias = self.draws.parameters(CLASSIFIERS)
        loss, logits, _ = self.called(None)
        function = function_of(loss)
        self.forward, self.backward = (methods(function, of) or [self.loss.function] for of in ("forward", "backward"))
        name = getattr(self.loss.function, "__name__", "")
        several = name == "linear_binary_cross_entropy" and self.draws.outputs > 1
        self.section = SECTIONS.get("several labels" if several else name, "")
        self.z = logits.detach().transpose(1, 2)

    def called(self, s: Tensor | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Returns loss, logits, and the arguments they can be differentiated for: input, weight and bias."""
        with torch.enable_grad():
            leaves = [tensor.clone().requires_grad_() for tensor in (self.draws.input, self.weight, self.bias)]
            weighted = () if s is None else (s,)
            return *self.loss.function(leaves[0], leaves[1], self.draws.target, leaves[2], *weighted), leaves

    def verdicts(self) -> Iterator[Verdict]:
        """Yields what is found of all parts; with logits and sample weights only where it is right without them."""
        draws, samples = self.draws, len(self.draws.target)
        z, bias = plain_logits(draws.input, self.weight, self.bias), self.bias.unsqueeze(2)
        guesses = [("the bias is missing", z - bias), ("the bias counts twice", z + bias)]
        yield self.judge.verdict("logits", self.z, z, lambda: guesses, "", place(self.forward, "z ="), self.section)
        yield self.of_value(None)  # what follows is judged by the logits there are
        g, G, s = draws.normal(CLASSIFIERS), draws.normal(*self.z.shape) / samples, draws.normal(samples).exp()
        for arrived in (
            Arrived(g),
            Arrived(None, G, None, ", in what arrives for the logits"),
            Arrived(g, G, None, ", where gradients arrive for loss and logits"),
            Arrived(g, None, s, ", in the weighted mean"),
        ):
            if arrived.s is not None:
                yield self.of_value(arrived.s)
            verdicts = list(self.of_backward(arrived))
            yield from verdicts
            if any(verdict.mistake is not None for verdict in verdicts):
                return

    def of_value(self, s: Tensor | None) -> Verdict:
        found, losses = self.called(s)[0].detach(), self.loss.plain(self.z, self.draws.target)
        line = place(self.forward, "loss =")
        if s is None:
            wrong = partial(wrong_losses, self.loss, self.z, self.draws.target)
            return self.judge.verdict("loss", found, losses.mean(1), wrong, "", line, self.section)
        expected = (s * losses).sum(1) / s.sum()
        guesses, section = partial(wrong_weights, expected, losses.mean(1), s), SECTIONS["sample weights"]
        return self.judge.verdict("loss", found, expected, guesses, ", in the weighted mean", line, section)

    def of_backward(self, arrived: Arrived) -> Iterator[Verdict]:
        """Yields what is found of weight, bias and input; a mistake that they share is one of dz."""
        loss, logits, leaves = self.called(arrived.s)
        sent = {loss: arrived.g, logits: None if arrived.G is None else arrived.G.transpose(1, 2)}
        outputs = {output: grad for output, grad in sent.items() if grad is not None}
        found = torch.autograd.grad([*outputs], leaves, [*outputs.values()], allow_unused=True)
        expected = {part: self.argument(part, self.dz(arrived)) for part in ("input", "weight", "bias")}
        verdicts = [
            self.judge.verdict(part, of, expected[part], partial(self.guesses, part, of, arrived), arrived.where)
            if of is not None
            else Verdict(part, MISSING)
            for part, of in zip(expected, found, strict=True)
        ]
        mistakes = [verdict.mistake for verdict in verdicts if verdict.mistake is not None]
        pairs = [] if found[1] is None else list(zip(found[1], expected["weight"], strict=True))
        if arrived.G is not None:
            shared = ("through_loss if", "dz =")
        elif arrived.s is not None or all(factor_between(*pair) is not None for pair in pairs):
            shared = ("scale =", "dz =")
        else:
            shared = ("through_loss =", "dz =")
        section = self.section if arrived.s is None else SECTIONS["sample weights"]
        for verdict in (*verdicts[1:], verdicts[0]):
            if verdict.mistake is None:
                yield verdict
            else:
                codes = shared if mistakes.count(verdict.mistake) > 1 else (f"d{verdict.part} =",)
                yield verdict._replace(place=place(self.backward, *codes), section=section)

    def dz(self, arrived: Arrived) -> Tensor:
        """Returns g r (p - y) + G, (L, K, N)."""
        g, G, s, _ = arrived
        if g is None:
            assert G is not None
            return G
        scale = g.reshape(-1, 1, 1) * (1 / len(self.draws.target) if s is None else s / s.sum())
        through_loss = gradient_of_losses(self.loss, self.z, self.draws.target) * scale
        return through_loss if G is None else through_loss + G

    def argument(self, part: str, dz: Tensor) -> Tensor:
        """Returns what the linear map makes of dz (L, K, N) for an argument."""
        if part == "weight":
            return dz @ self.draws.input
        return dz.sum(2) if part == "bias" else dz.flatten(0, 1).t() @ self.weight.flatten(0, 1)

    def guesses(self, part: str, found: Tensor, arrived: Arrived) -> Iterator[Guess]:
        """Yields what mistakes would give for an argument."""
        (g, G, s, _), of, dz = arrived, partial(self.argument, part), self.dz(arrived)
        if g is None or G is not None:
            if g is not None and G is not None:
                yield "what arrives for the logits is dropped", of(self.dz(Arrived(g)))
                yield "what arrives for the loss is dropped", of(G)
            return
        if s is not None:
            yield from wrong_weights(of(dz), of(self.dz(Arrived(g))), s)
            return
        scale = g.reshape(-1, 1, 1) / len(self.draws.target)
        for name, residual in residuals(self.loss, self.z, self.draws.target):
            yield name, of(residual * scale)
        yield "what arrives from above is left out", of(dz / g.reshape(-1, 1, 1))
        yield "what arrives from above is squared", of(dz * g.reshape(-1, 1, 1))
        yield from self.of_sums(part, found, dz)

    def of_sums(self, part: str, found: Tensor, dz: Tensor) -> Iterator[Guess]:
        """Yields what mistakes in the sums over samples, or over classifiers, would give."""
        expected, input = self.argument(part, dz), self.draws.input
        if part == "weight":
            yield from left_out(found, expected, dz, input)
            yield "the input is not a factor", dz.sum(2, keepdim=True).expand_as(expected)
        elif part == "bias":
            ones = torch.ones_like(input[:, :1])
            for name, guess in left_out(found.unsqueeze(2), expected.unsqueeze(2), dz, ones):
                yield name, guess.squeeze(2)
        else:
            shares = (found * expected).sum(1) / expected.square().sum(1).clamp_min(1e-300)
            n = int((shares - shares.median()).abs().argmax())
            left = (torch.arange(len(expected), device=expected.device) != n).unsqueeze(1)
            yield f"sample {n} is left out", expected * left
            yield f"sample {n} counts twice", expected * (2 - left.long())
            for of in range(len(dz)):
                yield f"of classifier {of} alone, not the sum over all", dz[of].t() @ self.weight[of]


def penalty_verdicts(judge: Judge) -> Iterator[Verdict]:
    """Judges ``l2_penalty``: its value, and its backward for the parameter and for l2."""
    (weight, _), (l2, g) = judge.draws.parameters(CLASSIFIERS), judge.draws.normal(2, CLASSIFIERS)
    with torch.enable_grad():
        leaves = [weight.clone().requires_grad_(), l2.clone().requires_grad_()]
        penalty = l2_penalty(*leaves)
    forward, backward = (methods(function_of(penalty), of) or [l2_penalty] for of in ("forward", "backward"))
    dparameter, dl2 = torch.autograd.grad(penalty, leaves, g, materialize_grads=True)
    half = plain_square_norm(weight) / 2

    def values() -> list[Guess]:
        return [*wrong_penalties(l2, weight), ("l2 is not a factor", half), ("l2 is squared", l2.square() * half)]

    def of_l2() -> list[Guess]:
        return [
            *wrong_penalties(g, weight),
            ("l2 is still a factor", g * l2 * half),
            ("what arrives from above is left out", half),
        ]

    gradients = partial(wrong_penalty_gradients, g, l2, weight)
    for found, expected, guesses, where, line in (
        (penalty.detach(), l2 * half, values, "value", place(forward, "penalty =")),
        (dparameter, (g * l2).reshape(-1, 1, 1) * weight, gradients, "gradient", place(backward, "dparameter =")),
        (dl2, g * half, of_l2, "gradient for l2", place(backward, "dl2 =")),
    ):
        yield judge.verdict("l2", found, expected, guesses, f", in the {where} of l2_penalty", line, L2_SECTION, ALONE)


class Summand(NamedTuple):
    """A part of a sum.

    Attributes:
        part, place, section: as in a verdict.
        expected: (L, *).
        guesses: what mistakes would give in its place, (L, *) each.
        where: is added to a mistake's name.
    """

    part: str
    expected: Tensor
    guesses: Guesses
    where: str
    place: str
    section: str = ""


class OfTraining:
    """Judges the calls that train, given what the Functions say: what is of the loss, and what is of the penalty."""

    def __init__(self, objective: Objective, judge: Judge) -> None:
        repeats = -(-TRIALS // len(objective.l2))  # enough numbers to tell mistakes apart
        self.objective = replace(objective, total=None, l2=objective.l2.repeat(repeats))
        self.judge, self.draws, self.l2 = judge, judge.draws, self.objective.l2
        self.weight, self.bias = self.draws.parameters(len(self.l2))
        self.methods = partial(methods, type(objective))

    def gradient_verdicts(self) -> Iterator[Verdict]:
        """Judges ``Objective.gradient``, and the loss that it returns."""
        active, (input, target) = self.draws.normal(len(self.l2)), (self.draws.input, self.draws.target)
        with torch.enable_grad():
            leaves = [self.weight.clone().requires_grad_(), self.bias.clone().requires_grad_()]
            loss, _ = self.objective.loss.function(input, leaves[0], target, leaves[1])
        through_loss = torch.autograd.grad(loss, leaves, active, materialize_grads=True)
        loss = loss.detach()
        found_loss, *found = self.objective.gradient(self.weight, self.bias, input, target, active=active)
        line, where, value = place(self.methods("gradient")), ", in the gradient that trains", self.penalty_values()
        counted = partial(iter, [("the penalty is counted in", loss + value)])
        yield self.judge.verdict("loss", found_loss, loss, counted, where, line)
        for part, parameter, of, of_loss in zip(PARAMETERS, (self.weight, self.bias), found, through_loss, strict=True):
            unscaled = partial(iter, [("what arrives from above is left out", of_loss / rows(active, of_loss))])
            data = Summand(part, of_loss, unscaled, where, line)
            yield from self.of_sum(of, data, self.penalty(part, parameter, active, where))

    def value_verdicts(self) -> Iterator[Verdict]:
        """Judges ``Objective.value``."""
        point, where = (self.weight, self.bias, self.draws.input, self.draws.target), ", in the objective's value"
        loss, _ = self.objective.loss.function(self.draws.input, self.weight, self.draws.target, self.bias)
        both = torch.cat((self.weight.flatten(1), self.bias * self.objective.penalize_bias), 1)
        wrong = [
            ("the bias is left out", l2_penalty(self.weight, self.l2)),
            ("l2 is not a factor", plain_square_norm(both) / 2),
            *wrong_penalties(self.l2, both),
        ]
        line = place(self.methods("penalty"))
        penalty = Summand("l2", self.penalty_values(), partial(iter, wrong), where, line, L2_SECTION)
        data = Summand("loss", loss.detach(), tuple, where, place(self.methods("value")))
        yield from self.of_sum(self.objective.value(*point), data, penalty)

    def hessian_verdicts(self) -> Iterator[Verdict]:
        """Judges ``Objective.hessian_vector_product`` by what autograd makes of the plain formula, twice."""
        v, c = self.draws.parameters(len(self.l2))
        found = self.objective.hessian_vector_product(self.weight, self.bias, v, c, self.draws.input)
        with torch.enable_grad():
            leaves = [self.weight.clone().requires_grad_(), self.bias.clone().requires_grad_()]
            losses = self.objective.loss.plain(plain_logits(self.draws.input, *leaves), self.draws.target)
            gradient = torch.autograd.grad(losses.mean(1).sum(), leaves, create_graph=True)
            slope = torch.stack([(g * along).sum() for g, along in zip(gradient, (v, c), strict=True)]).sum()
        expected = torch.autograd.grad(slope, leaves, materialize_grads=True)
        line, where = place([self.objective.loss.curvature]), ", in the Hessian-vector product"
        for part, along, of, of_loss in zip(PARAMETERS, (v, c), found, expected, strict=True):
            data = Summand("Hessian", of_loss, tuple, where, line, SECTIONS["Hessian"])
            yield from self.of_sum(of, data, self.penalty(part, along, torch.ones_like(self.l2), where))

    def data_verdicts(self) -> Iterator[Verdict]:
        """Judges ``Objective.data_term``."""
        loss, (input, target) = self.objective.loss, (self.draws.input, self.draws.target)
        found = data_term_there(self.objective, self.weight, self.bias, input, target)
        z, where = plain_logits(input, self.weight, self.bias), ", in the data term"
        section = SECTIONS.get(getattr(loss.function, "__name__", ""), "")
        assert loss.residual is not None
        verdict = partial(self.judge.verdict, where=where, line=place([loss.residual]), section=section)
        yield verdict("loss", found.loss, loss.plain(z, target).mean(1), partial(wrong_losses, loss, z, target))

        def of(part: str, residual: Tensor) -> Tensor:
            return (residual @ input if part == "weight" else residual.sum(2)) / len(target)

        def guesses(part: str) -> Iterator[Guess]:
            return ((name, of(part, dz)) for name, dz in residuals(loss, z, target))

        dz = gradient_of_losses(loss, z, target)
        yield verdict("weight", found.dweight, of("weight", dz), partial(guesses, "weight"))
        yield verdict("bias", found.dbias, of("bias", dz), partial(guesses, "bias"))

    def penalty(self, part: str, parameter: Tensor, active: Tensor, where: str) -> Summand:
        """Returns what the penalty adds to the gradient for a parameter."""
        expected = rows(active * self.l2, parameter) * parameter
        line = place(self.methods("_add_penalty_gradient"), f"add_l2_gradient(d{part}")
        if part == "bias" and not self.objective.penalize_bias:
            wrongly = partial(iter, [("the bias is penalized, though penalize_bias is false", expected)])
            return Summand("l2", torch.zeros_like(expected), wrongly, where, line, L2_SECTION)
        added = torch.zeros_like(parameter)
        add_l2_gradient(added, parameter, self.l2, active)
        if self.judge.wrong(added, expected):
            line = place([add_l2_gradient], "gradient.addcmul_")
        guesses = partial(wrong_penalty_gradients, active, self.l2, parameter)
        return Summand("l2", expected, guesses, f" for the {part}{where}", line, L2_SECTION)

    def penalty_values(self) -> Tensor:
        """Returns the penalty as the Function has it."""
        penalty = l2_penalty(self.weight, self.l2)
        return penalty + l2_penalty(self.bias, self.l2) if self.objective.penalize_bias else penalty

    def of_sum(self, found: Tensor, data: Summand, penalty: Summand) -> Iterator[Verdict]:
        """Tells which part of a sum is wrong by trying the one, the other, and both."""
        pairs = zip(found, data.expected + penalty.expected, strict=True)
        # A Function that gives no number is blamed itself.
        bad = torch.tensor([self.judge.wrong(f, e) and bool(e.isfinite().all()) for f, e in pairs], device=found.device)
        mistakes = self.of_summands(found, data, penalty, bad) if bad.any() else (None, None)
        penalized = self.l2 != 0
        for summand, mistake, right in zip((data, penalty), mistakes, (~bad, ~bad & penalized), strict=True):
            if mistake is None:
                yield Verdict(summand.part, None)
                continue
            text = "dropped" if mistake == "zero" and summand is penalty else mistake
            if right.any():
                text += f" at l2={', '.join(f'{l2:g}' for l2 in self.l2[bad].unique().tolist())} alone"
            yield Verdict(summand.part, text + summand.where, summand.place, summand.section)

    def of_summands(self, found: Tensor, data: Summand, penalty: Summand, bad: Tensor) -> tuple[str | None, str | None]:
        """Returns the mistakes of both parts, of which one may be right, where entries are ``bad (L,)``."""

        def guesses(summand: Summand) -> Iterator[Guess]:
            return ((name, guess[bad]) for name, guess in summand.guesses())

        f, c, p = (x[bad] for x in (found, data.expected, penalty.expected))
        sizes, axes = self.draws.sizes(), AXES["weight"][: found.dim()]
        if mistake := named(f - c, p, sizes, partial(guesses, penalty), axes, ROUNDING * norm(c)):
            return None, mistake
        if mistake := named(f - p, c, sizes, partial(guesses, data), axes, ROUNDING * norm(p)):
            return mistake, None
        if factors := factors_between(f, c, p):
            a, b = ("zero" if abs(x) < MATCH else factor_text(x, sizes) for x in factors)
            return a, b
        unpenalized = self.l2 == 0
        if unpenalized.any() and not bad[unpenalized].any():
            return None, explained(f - c, p, sizes, partial(guesses, penalty), axes)
        return explained(f - p, c, sizes, partial(guesses, data), axes), None


def rows(scale: Tensor, like: Tensor) -> Tensor:
    """Returns ``scale (L,)`` with as many axes as ``like (L, *)``."""
    return scale.reshape(-1, *[1] * (like.dim() - 1))
