"""The numbers that the report states, each worked out from what the runs wrote."""

import math
from typing import Any

import numpy as np

from report.events import Curve, Run, block_mean
from report.splits import Split
from report.stops import read_stops

LATE = 25  # checks in the mean that stands for a noisy end point: five epochs

Facts = dict[str, Any]


def split_facts(split: Split) -> Facts:
    """Returns every number the report states about one split."""
    return {
        "split": split.name,
        "tolerance": split.optimum.config["optimizer"]["tolerance"],
        **size_facts(split.path),
        **{f"logistic_{key}": value for key, value in end_facts(split.logistic).items()},
        **{f"softmax_{key}": value for key, value in end_facts(split.path).items()},
        **stop_facts(split),
        **shuffle_facts(split),
        "l2": [l2_facts(split.path, l2) | optimum_facts(split, l2) for l2 in sorted(split.path.l2)],
    }


def size_facts(path: Run) -> Facts:
    """Returns the numbers of images: all digits, and 2 and 3 only."""
    sets = {name: path.weights[f"{name}_count"] for name in ("train", "val")}
    return {f"{name}_images": int(count.sum()) for name, count in sets.items()} | {
        f"{name}_images_binary": int(count[2] + count[3]) for name, count in sets.items()
    }


def end_facts(run: Run) -> Facts:
    """Returns where a run without penalty ended, and how often its curves lie in the range of the seed's figures."""
    row, curves = run.row(0.0), run.curves(0.0)
    return {
        **{name: row[f"last_{name}"] for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy")},
        **{key: run.config[key] for key in ("lr", "batch_size", "epochs")},
        "steps": int(row["steps"]),
        "best_step": int(row["best_step"]),
        "best_val_loss": row["val_loss"],
        "late_gap": float((curves["accuracy/val"].tail(LATE) - curves["accuracy/train"].tail(LATE)).mean()),
        "late_val_accuracy": float(curves["accuracy/val"].tail(LATE).mean()),
        "losses": [block_mean(curves["loss/train"])[1], curves["loss/val"].value],
        "accuracies": [curves["accuracy/train"].value, curves["accuracy/val"].value],
    }


def standard_error(accuracy: float, images: int) -> float:
    """Returns the standard error of an accuracy that was measured on ``images`` independent images."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


def stop_facts(split: Split) -> Facts:
    """Returns where early stopping stopped the run that is not shuffled (task 2d)."""
    row, curve = split.stopped.row(), split.stopped.curves()["accuracy/val"]
    return {
        "stop_steps": int(row["steps"]),
        "stop_epoch": int(row["epoch"]),
        "stop_best_step": int(row["best_step"]),
        "stop_best_loss": row["val_loss"],
        "stop_epochs": split.stopped.config["epochs"],
        "check_interval": int(curve.step[0]),
        "batches": batches(split.logistic),
    }


def batches(run: Run) -> int:
    """Returns the updates per epoch of a run that trained all its epochs."""
    return round(run.row()["steps"] / run.config["epochs"])


def shuffle_facts(split: Split) -> Facts:
    """Returns what shuffling changes under early stopping (task 2e)."""
    plain = split.stopped.curves()["accuracy/val"]
    mixed = [run.curves()["accuracy/val"] for run in split.shuffled.values()]
    spikes = find_spikes(plain, batches(split.logistic))
    late = [float(curve.tail(LATE).mean()) for curve in mixed]
    return {
        "seeds": len(mixed),
        "shuffled_stops": [int(run.row()["steps"]) for run in split.shuffled.values()],
        "orders": order_facts(split.name),
        "shuffled_best_losses": [run.row()["val_loss"] for run in split.shuffled.values()],
        "shuffled_late": late,
        "unshuffled_late": float(plain.tail(LATE).mean()),
        "spikes": spikes,
        "spike_period": math.lcm(batches(split.logistic), int(plain.step[0])),
        "spike_drop": float(-deviation(plain)[np.isin(plain.step[1:-1], spikes)].mean()) if len(spikes) else 0.0,
        "spike_batch": int(spikes[0] % batches(split.logistic)) if len(spikes) else 0,
        "typical_move": float(np.median(np.abs(np.diff(plain.value[len(plain.value) // 2 :])))),
    }


def order_facts(split: str) -> Facts:
    """Returns when early stopping stops on many orders of the training set (see ``stops.py``).

    ``errors`` is by how many standard errors the mean over kept orders lies above that over reshuffled ones.
    """
    stops = read_stops(split)
    (given,) = stops["given"]
    kinds = {name: stops[name] for name in ("reshuffled", "kept")}
    earlier = {f"{name}_earlier": sum(stop < given for stop in found) for name, found in kinds.items()}
    means, variances = zip(
        *((np.mean(found), np.var(found, ddof=1) / len(found)) for found in kinds.values()), strict=True
    )
    errors = float((means[1] - means[0]) / math.sqrt(sum(variances)))
    return {"given": given, "count": len(stops["kept"]), "errors": errors} | kinds | earlier


def deviation(curve: Curve) -> np.ndarray:
    """Returns how far each value but the first and the last lies from the mean of its two neighbours."""
    return curve.value[1:-1] - (curve.value[:-2] + curve.value[2:]) / 2


def find_spikes(curve: Curve, batches: int, settled: int = 3, ratio: float = 4.0) -> np.ndarray:
    """Returns the steps at which ``curve`` drops each time that a check follows one certain batch of the epoch.

    Args:
        curve: an accuracy at the checks.
        batches: updates per epoch.
        settled: epochs that are left out at the start, where the curve still climbs.
        ratio: least mean drop, in standard deviations of the checks that are neither a drop nor beside one.
    """
    step, drop = curve.step[1:-1], -deviation(curve)
    late = step > settled * batches
    step, drop = step[late], drop[late]
    means = {place: drop[step % batches == place].mean() for place in np.unique(step % batches)}
    if not means:
        return np.array([], dtype=int)
    chosen = step % batches == max(means, key=means.get)
    beside = chosen | np.roll(chosen, 1) | np.roll(chosen, -1)
    rest = drop[~beside].std() if (~beside).any() else np.inf
    return step[chosen] if drop[chosen].mean() > ratio * rest else np.array([], dtype=int)


def l2_facts(path: Run, l2: float) -> Facts:
    """Returns where the classifier with this ``l2`` ended (task 4)."""
    row, weights = path.row(l2), path.weights
    place = int(np.argmin(np.abs(weights["l2"] - l2)))
    return {
        "l2": l2,
        "train_loss": row["last_train_loss"],
        "val_loss": row["last_val_loss"],
        "gap": row["last_val_loss"] - row["last_train_loss"],
        "train_accuracy": row["last_train_accuracy"],
        "val_accuracy": row["last_val_accuracy"],
        "late_accuracy": float(path.curves(l2)["accuracy/val"].tail(LATE).mean()),
        "norm": math.sqrt(row["last_weight_norm_squared"]),
        "norm_squared": row["last_weight_norm_squared"],
        **{name: float(weights[name][place]) for name in ("correlation", "rounded_share")},
    }


def optimum_facts(split: Split, l2: float) -> Facts:
    """Returns how far the last weights lie above the certified optimum at this ``l2``; None where none is proven.

    ``left`` is ``(J - J*) / J``, the same share that ``last_gap`` of the results bounds from above.
    """
    row, optimum = split.path.row(l2), split.certified().get(l2)
    objective = row["last_train_loss"] + l2 / 2 * row["last_weight_norm_squared"]
    if optimum is None:
        return {"objective": objective, "optimum": None}
    names = ("objective", "gap", "train_loss", "val_loss", "val_accuracy")
    left = (objective - optimum["objective"]) / objective
    found = {name: optimum[name] for name in names} | {"left": left, "proven_left": row.get("last_gap")}
    return {"objective": objective, "optimum": found}


def small_facts(small: Run) -> Facts:
    """Returns how the runs on few training images went (task 4d)."""

    def one(l2: float) -> Facts:
        row = small.row(l2)
        return {
            "l2": l2,
            "val_loss": row["last_val_loss"],
            "val_accuracy": row["last_val_accuracy"],
            "train_loss": row["last_train_loss"],
            "best_val_loss": row["val_loss"],
            "best_step": int(row["best_step"]),
            "steps": int(row["steps"]),
        }

    images = small.config["data"]["train_size"]
    return {"images": images, "lr": small.config["lr"], "none": one(0.0), "some": one(max(small.l2))}


def inside(values: np.ndarray, low: float, high: float) -> float:
    """Returns the share of ``values`` from ``low`` to ``high``."""
    return float(((values >= low) & (values <= high)).mean())
