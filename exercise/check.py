"""Which terms of a student's gradients are right: each is compared with differences of the student's own forward."""

import runpy
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from handgrad.errors import InputError
from handgrad.functions.objective import plain_binary_cross_entropy, plain_cross_entropy
from handgrad.functions.proof import DIFFERENCES, FORMULA, Term, central_difference, plain_square_norm

SAMPLES, FEATURES, CLASSES = 7, 4, 3  # numbers that differ, so that a wrong axis or a wrong 1/N shows
TOLERANCE = 1e-6  # relative: differences are good to 1e-9, a student's float32 to 1e-7
RIGHT, WRONG, NOT_YET = "right", "wrong", "not yet"

Slope = tuple[Callable[[Tensor], Tensor], Tensor]  # of a function of one tensor, and where


class Verdict(NamedTuple):
    """What is said of a term: ``RIGHT``, ``WRONG`` or ``NOT_YET``, and more in words."""

    part: str
    term: str
    word: str
    said: str = ""


class Part(NamedTuple):
    """A forward of the student's at random numbers, and what its derivatives are.

    Attributes:
        arguments: of the student's gradient.
        value, plain: what the forward gives, and what its formula gives.
        slopes: of each term.
        chain: returns what slopes follow from a dz of the student's, right or wrong; None: there is no dz.
    """

    arguments: Mapping[str, Tensor]
    value: Tensor
    plain: Tensor
    slopes: Mapping[str, Slope]
    chain: Callable[[Tensor], Mapping[str, Slope]] | None = None


def load(path: Path) -> dict[str, Any]:
    """Returns what a student's file defines.

    Raises:
        InputError: it is no Python, or stops where it is read.
    """
    try:
        return runpy.run_path(str(path))
    except Exception as error:
        raise InputError(stop(error, path)) from error


def verdicts(given: Mapping[str, Any], path: Path) -> Iterator[Verdict]:
    """Yields what is to be said of each term of what the student's file ``path`` defines, part by part."""
    for name, (make, terms) in PARTS.items():
        try:
            with torch.inference_mode():  # autograd, which would do the exercise, is off
                found = judged(name, make(given), function(given, f"{name}_gradient"))
        except Exception as error:
            found = [Verdict(name, term, WRONG, stop(error, path)) for term in terms]
        yield from found


def stop(error: Exception, path: Path) -> str:
    """Returns where a student's file stopped, and why, in a line."""
    if isinstance(error, InputError):
        return f"{path}: {error}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    lines += [error.lineno] if isinstance(error, SyntaxError) else []
    place = f"{path}, line {lines[-1]}" if lines else str(path)
    return f"{place}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def function(given: Mapping[str, Any], name: str) -> Callable[..., Any]:
    if not callable(found := given.get(name)):
        raise InputError(f"no function {name}; accepted is the one of exercise/blank.py, filled in")
    return found


# --- The parts --------------------------------------------------------------------------------------------------------


def normal(*shape: int) -> Tensor:
    """Returns numbers that are the same at each call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def logistic(given: Mapping[str, Any]) -> Part:
    arguments = {"input": normal(SAMPLES, FEATURES), "weight": normal(FEATURES), "bias": normal()}

    def plain(z: Tensor, target: Tensor) -> Tensor:
        return plain_binary_cross_entropy(z[None, None], target).mean()

    return loss_part("logistic", given, arguments, torch.arange(SAMPLES) % 2, plain)


def softmax(given: Mapping[str, Any]) -> Part:
    arguments = {"input": normal(SAMPLES, FEATURES), "weight": normal(CLASSES, FEATURES), "bias": normal(CLASSES)}

    def plain(z: Tensor, target: Tensor) -> Tensor:
        return plain_cross_entropy(z.t()[None], target).mean()

    return loss_part("softmax", given, arguments, torch.arange(SAMPLES) % CLASSES, plain)


def loss_part(
    name: str,
    given: Mapping[str, Any],
    arguments: Mapping[str, Tensor],
    target: Tensor,
    plain: Callable[[Tensor, Tensor], Tensor],
) -> Part:
    """Returns a loss of a linear map's logits; ``plain`` is its formula, of the same logits and target."""
    logits, loss = (function(given, f"{name}_{of}") for of in ("logits", "loss"))
    input, weight, bias = arguments.values()
    z = input @ weight.t() + bias if weight.dim() == 2 else input @ weight + bias

    def chain(of_logits: Callable[[Tensor], Tensor]) -> dict[str, Slope]:
        """Returns the slopes of a function of the logits for what the logits are made of."""
        return {
            f"d{key}": (lambda x, key=key: of_logits(logits(**{**arguments, key: x})), tensor)
            for key, tensor in arguments.items()
        }

    def loss_of(z: Tensor) -> Tensor:
        return loss(z, target)

    return Part(
        arguments={**arguments, "target": target},
        value=loss_of(logits(**arguments)),
        plain=plain(z, target),
        slopes={"dz": (loss_of, z), **chain(loss_of)},
        chain=lambda dz: chain(lambda z: (dz * z).sum()),
    )


def l2(given: Mapping[str, Any]) -> Part:
    penalty, weight, strength = function(given, "l2_penalty"), normal(CLASSES, FEATURES), normal().exp()
    return Part(
        arguments={"weight": weight, "l2": strength},
        value=penalty(weight, strength),
        plain=strength * plain_square_norm(weight[None])[0] / 2,
        slopes={
            "dweight": (lambda x: penalty(x, strength), weight),
            "dl2": (lambda x: penalty(weight, x), strength),
        },
    )


OF_LOSS = ("dz", "dweight", "dbias", "dinput")
PARTS = {"logistic": (logistic, OF_LOSS), "softmax": (softmax, OF_LOSS), "l2": (l2, ("dweight", "dl2"))}


# --- What is said -----------------------------------------------------------------------------------------------------


def judged(name: str, part: Part, gradient: Callable[..., Any]) -> list[Verdict]:
    """Returns the verdicts on each term of a student's gradient."""
    if not Term("value of", name, FORMULA, part.value, part.plain).relative_error() <= TOLERANCE:
        raise InputError(f"the forward of {name} differs from its formula; accepted is that of exercise/blank.py")
    terms = PARTS[name][1]
    found = gradient(**{key: tensor.clone() for key, tensor in part.arguments.items()})  # it may work in place
    if not isinstance(found, dict) or {*found} != {*terms}:
        raise InputError(f"{name}_gradient returns something else than {', '.join(terms)} by their names")
    verdicts = {term: compared(term, found[term], part.slopes[term]) for term in terms}
    if part.chain and verdicts["dz"].word == WRONG and is_like(found["dz"], part.slopes["dz"][1]):
        for term, slope in part.chain(found["dz"].double()).items():
            if verdicts[term].word == WRONG and compared(term, found[term], slope).word == RIGHT:
                verdicts[term] = verdicts[term]._replace(said="as follows from this dz: right once dz is")
    return [verdict._replace(part=name) for verdict in verdicts.values()]


def is_like(found: Any, tensor: Tensor) -> bool:
    return isinstance(found, Tensor) and found.shape == tensor.shape


def compared(term: str, found: Any, slope: Slope) -> Verdict:
    """Returns the verdict on a term, beside what differences give."""
    value, point = slope
    if found is ...:
        return Verdict("", term, NOT_YET)
    if isinstance(found, int | float):
        found = torch.tensor(found)
    if not isinstance(found, Tensor):
        return Verdict("", term, WRONG, f"a {type(found).__name__}; accepted is a tensor")
    if found.shape != point.shape:
        return Verdict("", term, WRONG, f"shape {tuple(found.shape)}; accepted is {tuple(point.shape)}")
    basis = torch.eye(point.numel(), dtype=point.dtype).view(-1, *point.shape)
    expected = torch.stack([central_difference(value, [point], [along]) for along in basis]).view(point.shape)
    compared = Term("derived gradient for", term, DIFFERENCES, found.double(), expected)
    if (error := compared.relative_error()) <= TOLERANCE:
        return Verdict("", term, RIGHT)
    return Verdict("", term, WRONG, ratio(compared) or f"differs from {DIFFERENCES} by {error:.2g} of their size")


def ratio(term: Term) -> str | None:
    """Returns how many times as large as it should be a term is, in words; None where that is not one number."""
    found, expected = term.found, term.expected
    times = float((found * expected).sum() / expected.square().sum())
    if not Term(*term[:3], found, times * expected).relative_error() <= TOLERANCE:
        return None
    words = {
        0: "zero",
        -1: "the sign is wrong",
        2: "twice what it should be",
        1 / 2: "half of what it should be",
        SAMPLES: "N times what it should be: the 1/N is missing",
        1 / SAMPLES: "an N-th of what it should be: there is one 1/N too many",
    }
    told = [words[known] for known in words if abs(times - known) <= TOLERANCE]
    return told[0] if told else f"{times:.4g} times what it should be"
