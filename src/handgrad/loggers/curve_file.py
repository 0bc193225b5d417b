"""``curves.csv`` of a run: all its curves as ``step, l2, metric, value``, for figures of one's own."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from torch import Tensor

from handgrad.errors import InputError

HEAD = b"step,l2,metric,value\n"
BUFFERED = 1 << 20  # characters that wait for the next save


class CurveFile:
    """Rows are appended to ``<name>.part``, which takes its name when training has ended: that is whole or absent.

    A checkpoint remembers how many bytes belong to it; what was appended later is cut off when the run goes on.

    Args:
        path: of the file.
        l2: the L penalties.
    """

    def __init__(self, path: Path, l2: Sequence[float]) -> None:
        self.path, self.part = path, path.with_name(f"{path.name}.part")
        self.l2 = [float(value) for value in l2]
        self.size = 0  # of what is on disk
        self.rows: list[str] = []
        self.waiting = 0  # characters

    def resume(self, size: int) -> None:
        """Begins anew, or goes on after the first ``size`` bytes; where they are not there, with what follows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            os.replace(self.path, self.part)
        there = self.part.stat().st_size if self.part.exists() else 0
        self.size = size if size <= there else 0
        if there:
            os.truncate(self.part, self.size)

    def log_path(self, first_step: int, metrics: Mapping[str, Tensor], running: Tensor) -> None:
        """Takes ``metrics``, each (T, L), at T steps from ``first_step`` on, of the ``running (L,)`` classifiers."""
        for name, values in metrics.items():
            steps = range(first_step, first_step + len(values))
            for l2, runs, column in zip(self.l2, running.tolist(), values.t().tolist(), strict=True):
                if runs:
                    row = f"%d,{l2},{name},%r\n"
                    self.rows.append(row * len(column) % tuple(chain.from_iterable(zip(steps, column, strict=True))))
                    self.waiting += len(self.rows[-1])
        if self.waiting > BUFFERED:
            self.save()

    def save(self) -> int:
        """Appends what waits; returns how many bytes there are.

        Raises:
            InputError: it could not be written; what was there before is whole.
        """
        content = "".join(self.rows).encode()
        try:
            with open(self.part, "ab") as file:
                file.write(content if self.size else HEAD + content)
        except OSError as error:
            with suppress(OSError):  # it may not even be there
                os.truncate(self.part, self.size)
            raise InputError(f"{self.part}: curves not written ({error.strerror})") from error
        self.size += len(content) if self.size else len(HEAD + content)
        self.rows, self.waiting = [], 0
        return self.size

    def finish(self) -> None:
        """Gives the file its name."""
        self.save()
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)
