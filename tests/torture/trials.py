"""How often something is tried, and whether what came of it is the same to the bit."""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from handgrad.runs.checkpoint import WholeCheckpointIO

OF_THE_PROCESS = {"gradient_error"}  # curves of how often a run was begun: each process proves the gradient anew


def trials(short: int, long: int) -> list[Any]:
    """Returns the trials' numbers: those from ``short`` on run in the long form only."""
    return [*range(short), *(pytest.param(number, marks=pytest.mark.torture) for number in range(short, long))]


def leaves(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields what a checkpoint holds, each with its place in it."""
    if isinstance(node, dict | list | tuple):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, f"{place}/{key}")
    else:
        yield place, node


def state_digest(run: Path) -> str:
    """Returns the SHA-256 of all that training has made of a run.

    That is: weights, best weights, optimizer, early stopping, results and curves. A run without results differs from
    one that has some, and a run without curves, as ``logger=none`` leaves it, from one that has some.
    """
    digest = hashlib.sha256()
    made = {name: checkpoint_state(run / "checkpoints" / name) for name in ("last.ckpt", "best.ckpt")}
    made |= {"results": results(run), "curves": curves(run, made["last.ckpt"]["global_step"])}
    made["curves.csv"] = (run / "curves.csv").read_bytes()
    for place, leaf in leaves(made):
        content = leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else repr(leaf).encode()
        digest.update(place.encode() + content)
    return digest.hexdigest()


def checkpoint_state(path: Path) -> dict[str, Any]:
    """Returns what training has made of a checkpoint; the seconds it took are not among it."""
    checkpoint = WholeCheckpointIO().load_checkpoint(path)
    kept = {key: checkpoint.get(key) for key in ("global_step", "state_dict", "best_loss")}
    kept["solver"] = checkpoint.get("solver", {}).get("memory")
    kept["early_stopping"] = checkpoint.get("callbacks", {}).get("PathEarlyStopping")
    return kept


def results(run: Path) -> list[dict[str, str]] | str:
    """Returns the rows of ``results.csv`` without the seconds that it took, or ``"absent"``."""
    if not (run / "results.csv").exists():
        return "absent"
    with open(run / "results.csv", newline="", encoding="utf-8") as file:
        return [{key: text for key, text in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def curves(run: Path, end: int) -> dict[str, Any] | str:
    """Returns what TensorBoard shows of each folder with events, without the times of day, or ``"absent"``.

    Args:
        end: the run's last update.
    """
    folders = sorted({path.parent for path in run.rglob("events.out.tfevents.*")})
    return {str(folder.relative_to(run)): shown(folder, end) for folder in folders} or "absent"


def shown(folder: Path, end: int) -> dict[str, Any]:
    """Returns the scalars, pictures and hyperparameters that TensorBoard is left with once it has dropped the void.

    Not the pictures after the last update: one drawn when training ends is missing in a run that was killed between its
    last check and that, and is there twice in one that was killed after it had stopped early.
    """
    events = EventAccumulator(str(folder), {"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    scalars = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags["scalars"]}
    pictures = {tag: [(it.step, it.encoded_image_string) for it in events.Images(tag)] for tag in tags["images"]}
    return {
        "scalars": {tag: once(points) for tag, points in scalars.items() if tag not in OF_THE_PROCESS},
        "pictures": {tag: [found for found in drawn if found[0] < end] for tag, drawn in pictures.items()},
        "hparams": hparams(events),
    }


def once(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Returns ``points``, equal ones at step 0 once.

    There stands what has no step: the results. A run that is killed after them, but before its ``results.csv``, logs
    them again, and TensorBoard draws both on one spot. At any other step a second point is one that was not voided.
    """
    return [*dict.fromkeys(point for point in points if point[0] == 0), *(point for point in points if point[0] > 0)]


def hparams(events: EventAccumulator) -> dict[str, str]:
    """Returns what the HParams tab is told, in an order of its own: the file's differs from process to process."""
    try:
        found = events.PluginTagToContent("hparams")
    except KeyError:  # what is not there
        return {}
    parsed = {tag: HParamsPluginData.FromString(content) for tag, content in sorted(found.items())}
    return {tag: data.SerializeToString(deterministic=True).hex() for tag, data in parsed.items()}
