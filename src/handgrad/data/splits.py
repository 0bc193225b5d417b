"""Which samples train: folds of a cross-validation, and few-shot draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handgrad.errors import InputError


def fold_index(
    target: Tensor,
    names: Sequence[int | str],
    folds: int,
    seed: int,
    groups: np.ndarray | None = None,
    *,
    setting: str = "folds",
) -> Tensor:
    """Returns the fold that holds each sample out, (N,) int64 from 0 to ``folds - 1``.

    Every class is spread evenly over the folds; with groups, all samples of one are in the same fold, and classes are
    spread as well as that allows.

    Args:
        target: (N,) classes, of which ``names`` are the names; of (N, K) labels nothing is spread evenly.
        groups: (N,), of any kind that can be compared.
        setting: what ``folds`` is called where it was given.

    Raises:
        InputError: there are fewer samples or groups than folds, or a fold has all samples of a class.
    """
    things, whole = ("samples", len(target)) if groups is None else ("groups", len(np.unique(groups)))
    if folds > whole:
        raise InputError(f"{setting}={folds}: accepted are 2 to {whole}, the number of {things}")
    classes = target if target.dim() == 1 else torch.zeros(len(target), dtype=torch.int64)
    fold = spread(classes, folds, seed) if groups is None else grouped(classes, folds, seed, groups)
    for number in range(folds):
        missing = torch.where((classes[fold != number].bincount(minlength=len(names)) == 0)[: int(classes.max()) + 1])[
            0
        ]
        if len(missing):
            told = f"all samples of class {names[int(missing[0])]!r} are in one fold"
            raise InputError(f"{setting}={folds}: {told}; accepted are two {things} or more of each class")
    return fold


def spread(target: Tensor, folds: int, seed: int) -> Tensor:
    """Returns ``fold_index`` without groups: samples in random order, class by class, are dealt out like cards."""
    order = torch.randperm(len(target), generator=generator(seed))
    order = order[target[order].argsort(stable=True)]
    fold = torch.empty(len(target), dtype=torch.int64)
    fold[order] = torch.arange(len(target)) % folds
    return fold


def grouped(target: Tensor, folds: int, seed: int, groups: np.ndarray) -> Tensor:
    """Returns ``fold_index`` with groups."""
    from sklearn.model_selection import StratifiedGroupKFold  # here: it takes a second to import

    (state,) = np.random.SeedSequence(seed).generate_state(1)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=int(state))
    fold = torch.empty(len(target), dtype=torch.int64)
    for number, (_, held) in enumerate(splitter.split(np.zeros(len(target)), target.numpy(), groups)):
        fold[torch.from_numpy(held)] = number
    return fold


def split_of(split: Any, count: int, name: str) -> tuple[Tensor, Tensor]:
    """Returns the samples that train, and those held out, as ``split`` has them: two arrays of indices or masks.

    Args:
        count: N.

    Raises:
        InputError: it has something else; the message begins with ``name``.
    """
    try:
        train, held = split
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: accepted is a pair: the samples that train, and those held out") from error
    return samples_of(train, count, f"{name} to train on"), samples_of(held, count, f"{name} to hold out")


def samples_of(index: Any, count: int, name: str) -> Tensor:
    """Returns samples, ascending, that ``index`` names as NumPy does: negative ones from the end, or by a mask (N,)."""
    found = np.asarray(index)
    if found.dtype == bool and found.shape == (count,):
        found = np.flatnonzero(found)
    if not found.size:
        raise InputError(f"{name}: no sample; accepted is one or more")
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InputError(f"{name}: {found.dtype} {found.shape}; accepted are indices, or a mask of {count} samples")
    if (wrong := found[(found < -count) | (found >= count)]).size:
        raise InputError(f"{name}: index {wrong[0]}; accepted are {-count} to {count - 1}")
    unique = np.unique(found.astype(np.int64) % count)
    if len(unique) < len(found):
        raise InputError(f"{name}: a sample stands there twice; accepted is each once")
    return torch.from_numpy(unique)


def few_shots(target: Tensor, shots: int, *seed: int) -> Tensor:
    """Returns ``shots`` samples of each class, drawn without replacement: ascending indices.

    Args:
        target: (N,), in which each class has at least so many.
        seed: numbers from which the draw follows.
    """
    order = torch.randperm(len(target), generator=generator(*seed))
    order = order[target[order].argsort(stable=True)]
    ends = target.bincount().cumsum(0)
    place = torch.arange(len(target)) - (ends - target.bincount())[target[order]]
    return order[place < shots].sort().values


def generator(*seed: int) -> torch.Generator:
    """Returns one that follows from all of these numbers."""
    (mixed,) = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed))
