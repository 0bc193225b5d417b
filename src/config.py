"""What a configuration may say; checked before anything is built or read."""

import math
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from src.errors import InputError, nearest

TARGETS = {
    "src.callbacks.checkpoint.ResumableCheckpoint",
    "src.callbacks.curves.Curves",
    "src.callbacks.divergence_check.DivergenceCheck",
    "src.callbacks.early_stopping.PathEarlyStopping",
    "src.callbacks.gradient_check.GradientCheck",
    "src.callbacks.progress_bar.UpdateProgressBar",
    "src.callbacks.results.Results",
    "src.callbacks.threads.Threads",
    "src.callbacks.weight_images.WeightImages",
    "src.data.mnist.MNISTDataModule",
    "src.loggers.tensorboard.TensorBoardPathLogger",
    "src.models.logistic_regression.LogisticRegression",
    "src.models.softmax_regression.SoftmaxRegression",
    "src.trainer.block_trainer",
    "torch.optim.Adam",
    "torch.optim.SGD",
}


def l2_path(cfg: DictConfig) -> list[float]:
    """Returns ``l2`` as a list, a single value as a path of length one."""
    return [float(value) for value in cfg.l2] if isinstance(cfg.l2, ListConfig) else [float(cfg.l2)]


def check(cfg: DictConfig) -> None:
    """Checks types, ranges and combinations.

    Raises:
        InputError: one line that names the key, what was found and what is accepted.
    """
    check_targets(cfg)
    check_l2(cfg.l2)
    accept(cfg, "lr", "a number > 0", lambda x: is_number(x) and x > 0)
    for key in ("epochs", "batch_size"):
        accept(cfg, key, "a whole number >= 1", lambda x: is_whole(x) and x >= 1)
    accept(cfg, "seed", "a whole number >= 0", lambda x: is_whole(x) and x >= 0)
    accept(cfg, "patience", "a whole number >= 1, or null", lambda x: x is None or (is_whole(x) and x >= 1))
    accept(cfg, "penalize_bias", "true or false", lambda x: isinstance(x, bool))
    accept(cfg, "threads", "a whole number >= 1, or auto", lambda x: x == "auto" or (is_whole(x) and x >= 1))
    momentum = accept_momentum(cfg)
    largest = max(l2_path(cfg))
    if momentum == 0 and cfg.lr * largest >= 2:
        raise InputError(
            f"lr={cfg.lr:g} with l2={largest:g}: an SGD step multiplies the weights by 1 - lr * l2 = "
            f"{1 - cfg.lr * largest:g} and diverges; accepted is lr * l2 < 2"
        )


def accept_momentum(cfg: DictConfig) -> float | None:
    """Checks and returns SGD's momentum; None for another optimizer."""
    if "momentum" not in cfg.optimizer:
        return None
    accept(cfg, "optimizer.momentum", "a number >= 0 and < 1", lambda x: is_number(x) and 0 <= x < 1)
    return cfg.optimizer.momentum


def accept(cfg: DictConfig, key: str, accepted: str, test: Callable[[Any], bool]) -> None:
    """Raises an InputError unless the value of ``key`` passes ``test``."""
    value = OmegaConf.select(cfg, key)
    if not test(value):
        raise InputError(f"{key}={value}: accepted is {accepted}")


def check_l2(l2: Any) -> None:
    """Raises an InputError unless ``l2`` is a penalty or a list of different ones."""
    values = list(l2) if isinstance(l2, ListConfig) else [l2]
    if not values or not all(is_number(value) and value >= 0 for value in values):
        raise InputError(f"l2={l2}: accepted is a number >= 0 or a list of them, like 2.0 or [0,0.02,2]")
    if len(set(map(float, values))) < len(values):
        raise InputError(f"l2={l2}: the values of a path must differ from one another")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_targets(node: Any, path: str = "") -> None:
    """Raises an InputError if any ``_target_`` below ``node`` is not one that this project means to build."""
    if isinstance(node, DictConfig):
        for key in node:
            value = node._get_node(key)
            place = f"{path}.{key}".lstrip(".")
            if key == "_target_" and value._value() not in TARGETS:
                raise InputError(
                    f"{place}={value._value()}: not a class of this project{nearest(value._value(), TARGETS)}"
                )
            check_targets(value, place)
    elif isinstance(node, ListConfig):
        for index, value in enumerate(node._iter_ex(resolve=False)):
            check_targets(value, f"{path}.{index}")
