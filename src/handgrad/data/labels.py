"""Labels as classes, what a sample weighs, and which samples are held out."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from handgrad.errors import InputError, nearest

SHOWN = 8


def plain_labels(values: np.ndarray, name: str) -> np.ndarray:
    """Returns labels (N,) as int64 or text.

    Raises:
        InputError: a label is neither a whole number nor text; the message begins with ``name``.
    """
    if values.dtype.kind == "U":
        if (empty := np.flatnonzero(values == "")).size:
            raise InputError(f"{name}: the label of row {empty[0]} is empty; accepted are integers or text")
        return values
    if values.dtype.kind not in "biuf":
        raise InputError(f"{name}: labels of type {values.dtype}; accepted are integers or text")
    if (wrong := np.flatnonzero(~is_integer(values))).size:
        raise InputError(f"{name}: the label of row {wrong[0]} is {values[wrong[0]]}; accepted are integers or text")
    return values.astype(np.int64)


def is_integer(values: np.ndarray) -> np.ndarray:
    """Tells for each number (N,) whether it is an integer such as int64 holds."""
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        return (np.floor(values) == values) & (np.abs(values) < 2.0**63)
    return values <= np.iinfo(np.int64).max if values.dtype == np.uint64 else np.ones(len(values), dtype=bool)


def one_kind(shards: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Returns the labels of all shards, one after another; an InputError tells of numbers beside text."""
    for values, name in zip(shards, names, strict=True):
        if values.dtype.kind != shards[0].dtype.kind:
            found, expected = ("text" if part.dtype.kind == "U" else "integers" for part in (values, shards[0]))
            raise InputError(f"{name}: labels are {found}; accepted are {expected}, as in {names[0]}")
    return np.concatenate(shards)


def classes_of(labels: np.ndarray, name: str) -> list[int] | list[str]:
    """Returns the different labels, sorted; an InputError tells if there is one alone."""
    found = np.unique(labels).tolist()
    if len(found) < 2:
        raise InputError(f"{name}: all labels are {found[0]!r}; accepted are two classes or more")
    return found


def is_whole(value: object) -> TypeGuard[int | np.integer]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def chosen_classes(setting: str, chosen: Any, known: Collection[int], accepted: str) -> list[int]:
    """Returns the classes to tell apart; raises an InputError unless they are two or more different ones of ``known``.

    Args:
        setting: that has them, and what is ``accepted`` there, for the error's line.
    """
    found = list(chosen) if isinstance(chosen, Iterable) else []
    if not all(is_whole(each) and each in known for each in found) or not 2 <= len(set(found)) == len(found):
        raise InputError(f"{setting}={chosen!r}: accepted are {accepted}")
    return [int(each) for each in found]


def encoded(labels: np.ndarray, classes: Sequence[int | str], name: str) -> Tensor:
    """Returns the numbers (N,) int64 of the classes that ``labels (N,)`` name.

    Raises:
        InputError: a label is no class.
    """
    known = np.array(classes)
    strange = np.unique(labels) if labels.dtype.kind != known.dtype.kind else np.setdiff1d(labels, known)
    if strange.size:
        raise InputError(
            f"{name}: labels that the training set does not have: {listed(strange.tolist())}; accepted are "
            f"{listed(classes)}"
        )
    order = np.argsort(known)
    return torch.from_numpy(order[np.searchsorted(known, labels, sorter=order)])


def listed(values: Iterable[object]) -> str:
    """Returns values as text, the first ones of many."""
    words = [repr(value) for value in values]
    return ", ".join(words[:SHOWN]) + (f", … ({len(words)})" if len(words) > SHOWN else "")


def held_out(target: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Returns which samples train and which are held out, both ascending.

    Of each class ``share`` is held out, rounded, but at least one sample of two or more, and never all. Which ones
    follows from ``target (N,)``, ``share`` and ``seed`` alone.

    Raises:
        InputError: no class has two samples.
    """
    (mixed,) = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(mixed))
    out = torch.zeros(len(target), dtype=torch.bool)
    order = target.argsort(stable=True)
    for members in order.split(target.bincount().tolist()):
        count = len(members)
        held = min(max(int(share * count + 0.5), 1), count - 1) if count else 0
        out[members[torch.randperm(count, generator=generator)[:held]]] = True
    if not out.any():
        raise InputError("data.val=null: no class has two samples, one of which could be held out; accepted is a file")
    return torch.where(~out)[0], torch.where(out)[0]


# --- Weights ----------------------------------------------------------------------------------------------------------


def plain_weights(values: np.ndarray, name: str) -> np.ndarray:
    """Returns sample weights (N,) as float64; an InputError tells of one that is negative or no number."""
    if values.dtype.kind not in "biuf":
        raise InputError(f"{name}: sample weights of type {values.dtype}; accepted are numbers >= 0")
    found = values.astype(np.float64)
    if (wrong := np.flatnonzero(~(np.isfinite(found) & (found >= 0)))).size:
        raise InputError(
            f"{name}: the sample weight of row {wrong[0]} is {values[wrong[0]]}; accepted are numbers >= 0"
        )
    return found


def class_weights(given: Any, classes: Sequence[int | str], target: Tensor, setting: str = "class_weight") -> Tensor:
    """Returns a weight (C,) float64 for each class.

    Args:
        given: ``balanced``: N / (C * count); a table of some classes' weights, by their names, 1 for the others; or
            None: 1 for all.
        target: ``(N,)`` of the training set.
        setting: what ``given`` is called where it was given.

    Raises:
        InputError: ``given`` is none of these.
    """
    if given is None:
        return torch.ones(len(classes), dtype=torch.float64)
    if given == "balanced":
        counts = target.bincount(minlength=len(classes)).double()
        return len(target) / (len(classes) * counts)
    if not isinstance(given, Mapping):
        raise InputError(f"{setting}={given!r}: accepted are null, balanced, or a table like {{a: 1, b: 2}}")
    names = {str(name): number for number, name in enumerate(classes)}
    weights = torch.ones(len(classes), dtype=torch.float64)
    for name, weight in given.items():
        if str(name) not in names:
            hint = nearest(str(name), names)
            raise InputError(f"{setting}: no class {name!r}; accepted are {listed(classes)}{hint}")
        known = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
        if not known or not 0 <= weight < float("inf"):
            raise InputError(f"{setting}: {name}: {weight!r}; accepted is a number >= 0")
        weights[names[str(name)]] = float(weight)
    return weights


def weights_of(samples: Tensor | None, of_class: Tensor, target: Tensor) -> Tensor | None:
    """Returns what each sample weighs (N,) float64, the product of both; None if all weigh alike.

    Raises:
        InputError: all weigh nothing.
    """
    whole = of_class[target] if samples is None else of_class[target] * samples
    if not whole.any():
        raise InputError("data.sample_weight: all weights are 0; accepted is a number > 0 among them")
    return None if bool((whole == whole[0]).all()) else whole


def check_classes(weight: Tensor | None, target: Tensor, classes: Sequence[int | str]) -> None:
    """Raises an InputError if a class has no sample in the training set, or none that weighs anything."""
    counts = target.bincount(weight, minlength=len(classes))
    if missing := [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]:
        told = "no sample that weighs anything" if weight is not None else "no sample"
        raise InputError(
            f"class {listed(missing)}: {told} in the training set; accepted is one or more of each class"
            + ("" if weight is not None else " (data.train_size takes the first ones)")
        )
