"""A TensorBoard logger for a whole path: one run folder per l2 value, without a thread or an open file for each."""

import io
import os
import re
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import google_crc32c
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

from handgrad.errors import InputError
from handgrad.runs.results import MEASURES, SCORES

EVENTS = "events.out.tfevents."  # how TensorBoard knows its files
LAYOUT = {"handgrad": {name: ["Multiline", [f"{name}/train", f"{name}/val"]] for name in ("loss", "accuracy")}}


class EventFile:
    """One run's event file, opened only while buffered events are appended to it."""

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{EVENTS}{next_microsecond(folder):017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.events: list[bytes] = []
        self.add(Event(file_version="brain.Event:2"))
        # What a resumed run wrote before from `first_step` on is void: TensorBoard drops it.
        self.add(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, event: Event) -> None:
        event.wall_time = time.time()
        self.events.append(event.SerializeToString())

    def flush(self) -> None:
        """Appends the buffered events to the file; raises an InputError if that cannot be done."""
        try:
            with open(self.path, "ab") as file:
                file.writelines(map(record, self.events))
        except OSError as error:
            raise InputError(f"{self.path}: curves not written ({error.strerror})") from error
        self.events.clear()


def next_microsecond(folder: Path) -> float:
    """Returns the time for the name of a folder's next event file, in seconds: TensorBoard reads files by their names.

    It is the present, or where the clock has been set back since, just after the latest file's.
    """
    times = (re.match(r"\d{10}\.\d{6}", path.name.removeprefix(EVENTS)) for path in folder.glob(f"{EVENTS}*"))
    return max([time.time_ns() / 1e9, *(float(found[0]) + 1e-6 for found in times if found)])


def record(event: bytes) -> bytes:
    """Returns ``event`` as TensorBoard's file format frames it: length, checksum, event, checksum.

    What tensorboard's own writer does, but for its CRC-32C in pure Python, 7 % of a path's time.
    """
    length = struct.pack("<Q", len(event))
    return length + checksum(length) + event + checksum(event)


def checksum(data: bytes) -> bytes:
    """Returns the masked CRC-32C of ``data``."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class TensorBoardPathLogger(Logger):
    """Writes the metrics of L classifiers so that TensorBoard overlays them like the runs of a sweep.

    A path of L > 1 values gets one run folder ``l2=<value>`` per classifier below ``save_dir``; a single classifier
    writes to ``save_dir`` itself, where pictures of the whole path go too.

    Args:
        save_dir: the run's folder.
        l2: the L penalties.
    """

    def __init__(self, save_dir: str | Path, l2: Sequence[float]) -> None:
        super().__init__()
        self._save_dir = Path(save_dir)
        self.folders = [self._save_dir / f"l2={value}" for value in l2] if len(l2) > 1 else [self._save_dir]
        self.first_step = self.first_of_path = 0  # of what is logged from now on, for pictures and for classifiers
        self._files: dict[Path, EventFile] = {}

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._save_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> "TensorBoardPathLogger":
        return self

    def _file(self, folder: Path) -> EventFile:
        if folder not in self._files:
            from torch.utils.tensorboard.summary import custom_scalars

            self._files[folder] = EventFile(folder, self.first_step if folder == self._save_dir else self.first_of_path)
            self._files[folder].add(Event(summary=custom_scalars(LAYOUT)))
        return self._files[folder]

    @rank_zero_only
    def resume(self, step: int, step_of_path: int | None = None) -> None:
        """Declares what was logged after update ``step`` void; call it before anything is logged.

        Args:
            step_of_path: the same for the curves of a classifier that is logged again, if it counts updates of its own.
        """
        self.first_step = step + 1
        self.first_of_path = self.first_step if step_of_path is None else step_of_path + 1

    @rank_zero_only
    def log_path(self, first_step: int, metrics: Mapping[str, Tensor], running: Tensor) -> None:
        """Logs ``metrics``, each (T, L), at the T steps from ``first_step`` on, of the ``running (L,)`` classifiers."""
        rows = torch.stack(tuple(metrics.values()), 2).transpose(0, 1).tolist()
        for folder, steps, runs in zip(self.folders, rows, running.tolist(), strict=True):
            for step, row in enumerate(steps if runs else (), first_step):
                values = [Summary.Value(tag=tag, simple_value=x) for tag, x in zip(metrics, row, strict=True)]
                self._file(folder).add(Event(step=step, summary=Summary(value=values)))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        self._file(self._save_dir).add(Event(step=step or 0, summary=Summary(value=values)))

    @rank_zero_only
    def log_image(self, tag: str, png: bytes, size: tuple[int, int], step: int) -> None:
        """Logs an encoded PNG of ``size`` (height, width)."""
        image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=png)
        self._file(self._save_dir).add(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])))

    @rank_zero_only
    def log_picture(self, tag: str, png: bytes) -> None:
        """Logs a PNG of any kind, as RGB, after the last update: a run that is evaluated again makes it void."""
        from PIL import Image

        image, buffer = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
        image.save(buffer, "PNG")
        self.log_image(tag, buffer.getvalue(), (image.height, image.width), self.first_step)

    @rank_zero_only
    def log_end(self, settings: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Logs each classifier's settings, of these names and l2, with its results, for the HParams tab, and saves."""
        of_choice = [name for name in SCORES if not name.endswith("_se") and rows[0].get(name) is not None]
        names = [*MEASURES, *of_choice]
        metrics = [{f"final/{name}": row[name] for name in names if name in row} for row in rows]
        self.log_results([{name: row[name] for name in [*settings, "l2"]} for row in rows], metrics)
        self.save()

    @rank_zero_only
    def log_results(self, hparams: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, float]]) -> None:
        """Logs each classifier's hyperparameters with its final metrics, for the HParams tab."""
        from torch.utils.tensorboard.summary import hparams as summaries

        for folder, hparam, metric in zip(self.folders, hparams, metrics, strict=True):
            for summary in summaries(dict(hparam), dict(metric)):
                self._file(folder).add(Event(summary=summary))
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metric.items()]
            self._file(folder).add(Event(summary=Summary(value=values)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the hyperparameters are logged once, with the real metrics (``log_results``)."""

    @rank_zero_only
    def save(self) -> None:
        for file in self._files.values():
            file.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()


def path_logger_of(trainer: pl.Trainer) -> TensorBoardPathLogger | None:
    """Returns the logger that ``handgrad.fit.fit`` gave a Trainer, which accepts no other kind."""
    return cast(TensorBoardPathLogger | None, trainer.logger)
