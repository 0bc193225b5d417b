"""Reads what a run wrote: its curves from TensorBoard's event files, its results from ``results.csv``."""

from collections import defaultdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog

from handgrad.runs.folder import RunFolder
from handgrad.runs.results import Row


class Curve(NamedTuple):
    """A scalar over the run: ``step (T,)`` is the number of updates so far, ``value (T,)`` what was measured."""

    step: np.ndarray
    value: np.ndarray

    def at(self, step: int) -> float:
        """Returns the value that was measured after ``step`` updates."""
        return float(self.value[np.flatnonzero(self.step == step)[-1]])

    def tail(self, count: int) -> np.ndarray:
        """Returns the last ``count`` values."""
        return self.value[-count:]


def read_scalars(folder: Path) -> dict[str, Curve]:
    """Returns the curves that the event files in ``folder`` hold, by tag.

    Files are read in the order of their creation. A session that starts at a step makes void what was written for
    that step and later ones before, as it does in TensorBoard.
    """
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            if event.session_log.status == SessionLog.START:
                points = purged(points, event.step)
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    points[value.tag].append((event.step, value.simple_value))
    return {tag: Curve(*map(np.array, zip(*pairs, strict=True))) for tag, pairs in points.items() if pairs}


def purged(points: dict[str, list[tuple[int, float]]], step: int) -> dict[str, list[tuple[int, float]]]:
    """Returns ``points`` without those at ``step`` and later."""
    kept = {tag: [pair for pair in pairs if pair[0] < step] for tag, pairs in points.items()}
    return defaultdict(list, kept)


def block_mean(curve: Curve, size: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean step, the mean and the standard deviation of each ``size`` points in a row; the rest, if any,
    makes a last, shorter block, so that no point is left out."""
    starts = np.arange(0, len(curve.step), size)
    blocks = [slice(start, start + size) for start in starts]
    mean = np.array([curve.value[block].mean() for block in blocks])
    spread = np.array([curve.value[block].std() for block in blocks])
    return np.array([curve.step[block].mean() for block in blocks]), mean, spread


class Run:
    """A finished run: everything is read from its folder, when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def results(self) -> list[Row]:
        return RunFolder(self.folder).results()

    @cached_property
    def config(self) -> dict[str, Any]:
        return RunFolder(self.folder).config()

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """What ``weights.py`` found out about the final weights."""
        with np.load(self.folder / "weights.npz") as file:
            return dict(file)

    @property
    def l2(self) -> list[float]:
        return [row["l2"] for row in self.results]

    def row(self, l2: float = 0.0) -> Row:
        """Returns the results of the classifier with this ``l2``."""
        return next(row for row in self.results if row["l2"] == l2)

    @cache  # noqa: B019  there is a fixed, small number of runs
    def curves(self, l2: float = 0.0) -> dict[str, Curve]:
        """Returns the curves of the classifier with this ``l2``, by tag."""
        return read_scalars(self.folder / f"l2={l2}" if len(self.results) > 1 else self.folder)
