"""Where a term is computed, and where its derivation stands."""

import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PAGE = "docs/derivation.md"
SECTIONS = {  # of the page, by what is derived there
    "linear_cross_entropy": "softmax-regression-task-1b",
    "linear_binary_cross_entropy": "logistic-regression-task-1a",
    "several labels": "several-labels",
    "sample weights": "sample-weights",
    "l2_penalty": "l2-regularization-task-4a",
    "Hessian": "second-derivatives",
}

Code = Callable[..., Any]


def methods(owner: type | None, name: str) -> list[Code]:
    """Returns the methods of that name that a class has and inherits, in the order they count; not those of torch."""
    found = [inspect.unwrap(getattr(kind, name)) for kind in getattr(owner, "__mro__", ()) if name in vars(kind)]
    return [method for method in found if inspect.isfunction(method) and not method.__module__.startswith("torch")]


def place(functions: Iterable[Code], *codes: str) -> str:
    """Returns ``file:line`` where a line begins with one of ``codes``, the first that is found.

    Args:
        functions: are looked through in order, each with the functions of its own module that it calls.
        codes: such as ``"dweight ="``. Where none is found, it is the head of the first function.

    Returns:
        An empty string where the source is not known.
    """
    functions = [function for function in functions if inspect.isfunction(function)]
    looked_through = [called for function in functions for called in with_calls(function)]
    for code in codes:
        for function in looked_through:
            if found := line(function, rf"\s*(?:return )?{re.escape(code)}"):
                return found
    return next((found for function in functions if (found := line(function, r"\s*def |.*\blambda\b"))), "")


def with_calls(function: Code) -> list[Code]:
    """Returns a function and those of its module that it calls, and those that they call."""
    found = [function]
    for caller in found:
        for name in caller.__code__.co_names:
            called = caller.__globals__.get(name)
            if inspect.isfunction(called) and called.__module__ == caller.__module__ and called not in found:
                found.append(called)
    return found


def line(function: Code, pattern: str) -> str:
    """Returns ``file:line`` of the first line of a function that ``pattern`` matches, or an empty string."""
    try:
        file, (lines, first) = Path(inspect.getsourcefile(function) or ""), inspect.getsourcelines(function)
    except (OSError, TypeError):  # typed in, or not Python's
        return ""
    here = Path.cwd()
    numbers = (number for number, text in enumerate(lines, first) if re.match(pattern, text))
    return next((f"{file.relative_to(here) if file.is_relative_to(here) else file}:{n}" for n in numbers), "")
