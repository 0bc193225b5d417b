"""What a configuration may say; checked before anything is built or read."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from handgrad.errors import InputError, nearest

CONF = Path(__file__).parents[3] / "conf"

TARGETS = {
    "handgrad.callbacks.checkpoint.ResumableCheckpoint",
    "handgrad.callbacks.curves.Curves",
    "handgrad.callbacks.divergence_check.DivergenceCheck",
    "handgrad.callbacks.early_stopping.PathEarlyStopping",
    "handgrad.callbacks.gradient_check.GradientCheck",
    "handgrad.callbacks.progress_bar.UpdateProgressBar",
    "handgrad.callbacks.results.Results",
    "handgrad.callbacks.threads.Threads",
    "handgrad.callbacks.weight_images.WeightImages",
    "handgrad.data.mnist.MNISTDataModule",
    "handgrad.loggers.tensorboard.TensorBoardPathLogger",
    "handgrad.models.logistic_regression.LogisticRegression",
    "handgrad.models.softmax_regression.SoftmaxRegression",
    "handgrad.training.trainer.block_trainer",
    "torch.optim.Adam",
    "torch.optim.SGD",
}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_penalty(value: Any) -> bool:
    return is_number(value) and value >= 0


PRECISIONS = ("32-true", "64-true", "bf16-true", "bf16-mixed")  # those that need no scaling of the loss

RANGES = {
    "l2": (
        "a number >= 0 or a list of them, like 2.0 or [0,0.02,2]",
        lambda x: all(map(is_penalty, x)) and len(x) > 0 if isinstance(x, list) else is_penalty(x),
    ),
    "lr": ("a number > 0", lambda x: is_number(x) and x > 0),
    "epochs": ("a whole number >= 1", lambda x: is_whole(x) and x >= 1),
    "batch_size": ("a whole number >= 1", lambda x: is_whole(x) and x >= 1),
    "seed": ("a whole number >= 0", lambda x: is_whole(x) and x >= 0),
    "patience": ("a whole number >= 1, or null", lambda x: x is None or (is_whole(x) and x >= 1)),
    "penalize_bias": ("true or false", lambda x: isinstance(x, bool)),
    "threads": ("a whole number >= 1, or auto", lambda x: x == "auto" or (is_whole(x) and x >= 1)),
    "trainer.precision": (f"one of {', '.join(PRECISIONS)}", lambda x: x in PRECISIONS),
    "trainer.strategy": ("auto or ddp", lambda x: x in ("auto", "ddp")),
    "optimizer.momentum": ("a number >= 0 and < 1", lambda x: is_number(x) and 0 <= x < 1),
    "optimizer.betas": (
        "two numbers >= 0 and < 1",
        lambda x: isinstance(x, list) and len(x) == 2 and all(is_number(b) and 0 <= b < 1 for b in x),
    ),
    "callbacks.checkpoint.every_seconds": ("a number >= 0", lambda x: is_number(x) and x >= 0),
    "callbacks.gradient_check.tolerance": ("a number > 0", lambda x: is_number(x) and x > 0),
    "callbacks.gradient_check.directions": ("a whole number >= 1", lambda x: is_whole(x) and x >= 1),
    "callbacks.gradient_check.classifiers": ("a whole number >= 1", lambda x: is_whole(x) and x >= 1),
    "callbacks.weight_images.rows": ("a whole number >= 1", lambda x: is_whole(x) and x >= 1),
}
DEFAULTS = {"data.digits"}  # linked to another key, but may be set by itself
SECTIONS = ("task", "data", "optimizer", "trainer", "callbacks")


def l2_path(cfg: DictConfig) -> list[float]:
    """Returns ``l2`` as a list, a single value as a path of length one."""
    return [float(value) for value in cfg.l2] if isinstance(cfg.l2, ListConfig) else [float(cfg.l2)]


def check(cfg: DictConfig, of_sweep: bool = False) -> None:
    """Checks types, ranges and combinations.

    Raises:
        InputError: one line that names the key, what was found and what is accepted.
    """
    check_targets(OmegaConf.to_container(cfg, resolve=True))
    for name in SECTIONS:
        if not isinstance(cfg.get(name), DictConfig):
            raise InputError(f"{name}={cfg.get(name)}: accepted is an option of the group, by its name in conf/{name}/")
    check_links(cfg)
    for key, (accepted, test) in RANGES.items():
        value = OmegaConf.select(cfg, key)
        if "." in key and value is None:
            continue  # another option of the group is chosen, which has no such key
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if not test(value):
            written = value if isinstance(value, str) else json.dumps(value)
            raise InputError(f"{key}={written}: accepted is {accepted}")
    path = l2_path(cfg)
    if len(set(path)) < len(path):
        raise InputError(f"l2={path}: the values of a path must differ from one another")
    if cfg.optimizer.get("momentum") == 0 and cfg.lr * max(path) >= 2:
        raise InputError(
            f"lr={cfg.lr:g} with l2={max(path):g}: an SGD step multiplies the weights by 1 - lr * l2 = "
            f"{1 - cfg.lr * max(path):g} and diverges; accepted is lr * l2 < 2"
        )
    if is_whole(cfg.trainer.devices) and cfg.batch_size < cfg.trainer.devices:
        raise InputError(
            f"batch_size={cfg.batch_size}: accepted with trainer.devices={cfg.trainer.devices} is that or more; "
            f"each mini-batch is shared out"
        )
    if of_sweep and cfg.trainer.devices != 1:
        raise InputError(
            f"trainer.devices={cfg.trainer.devices}: accepted in a sweep is 1; each process would run it all"
        )


def check_links(cfg: DictConfig) -> None:
    """Raises an InputError if a key that conf/ links to another one, like ``optimizer.lr`` to ``lr``, is set by itself.

    Otherwise a run would not be what its results say it is, or leave its folder.
    """
    found = dict(leaves(OmegaConf.to_container(cfg)))
    for file in sorted(CONF.glob("*/*.yaml")):
        for key, link in leaves(OmegaConf.to_container(OmegaConf.load(file)), f"{file.parent.name}."):
            if str(link).startswith("${") and key not in DEFAULTS and found.get(key, link) != link:
                source = link.strip("${}")
                instead = "" if source.startswith("hydra") else f"; set {source} instead"
                raise InputError(f"{key}={found[key]}: not to be set by itself{instead}")


def leaves(node: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of everything in ``node`` that is no dictionary itself."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def check_targets(node: Any, place: str = "") -> None:
    """Raises an InputError if a resolved configuration names a class other than those of this project."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            check_targets(value, f"{place}.{key}".lstrip("."))
    elif (place.rpartition(".")[2] == "_target_" and node not in TARGETS) or "${" in str(node):
        raise InputError(f"{place}={node}: accepted is a class of this project{nearest(node, TARGETS)}")
