"""A run's configuration: composed from conf/ and words, and checked before anything is built or read."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from handgrad.cli import settings
from handgrad.cli.settings import ASIDE, ONE_OF, SETTINGS, UNUSED
from handgrad.errors import InputError, nearest
from handgrad.runs.launch import launched
from handgrad.runs.overrides import parsed

CONF = Path(__file__).parents[3] / "conf"

TARGETS = {
    "handgrad.callbacks.checkpointing.Checkpointing",
    "handgrad.callbacks.curves.Curves",
    "handgrad.callbacks.divergence_check.DivergenceCheck",
    "handgrad.callbacks.early_stopping.PathEarlyStopping",
    "handgrad.callbacks.figures.Figures",
    "handgrad.callbacks.gradient_check.GradientCheck",
    "handgrad.callbacks.progress_bar.UpdateProgressBar",
    "handgrad.callbacks.weight_images.WeightImages",
    "handgrad.data.features.FeatureDataModule",
    "handgrad.data.idx.IDXDataModule",
    "handgrad.data.mnist.FashionMNISTDataModule",
    "handgrad.data.mnist.KMNISTDataModule",
    "handgrad.data.mnist.MNISTDataModule",
    "handgrad.loggers.tensorboard.TensorBoardPathLogger",
    "handgrad.models.logistic_regression.LogisticRegression",
    "handgrad.models.multilabel_regression.MultilabelRegression",
    "handgrad.models.softmax_regression.SoftmaxRegression",
    "handgrad.selection.Selection",
    "handgrad.solvers.adam.Adam",
    "handgrad.solvers.exact.Exact",
    "handgrad.solvers.sgd.SGD",
}
DEFAULTS = {"data.digits"}  # linked to another key, but may be set by itself
# Keys, and what tells the setting that leaves them without use, if there is one.
USELESS: dict[str, Callable[[DictConfig], str]] = {
    "data.holdout": lambda cfg: next(
        (f"data.{name}" for name in ("folds", "val") if cfg.data.get(name) is not None), ""
    ),
    "data.draws": lambda cfg: "data.shots=null" if cfg.data.shots is None else "",
    "data.label_separator": lambda cfg: "" if cfg.task.multilabel else "one label per sample",
}
OPTION_GROUPS = ("task", "data", "optimizer")
SECTIONS = ("task", "data", "optimizer", "trainer", "callbacks", "select")


def folder_name(name: str) -> str:
    """Returns ``name`` as the name of one folder: no separators, at most 120 bytes, of its own for each name.

    Also where capitals and small letters are the same. What is changed, or could be taken for it, ends with a digest.
    Of a path it keeps the last folder and the name: what stands before is alike for all jobs, and long.
    """
    ends = re.sub(r"[^,=\[\]]*/(?=[^,/\]]+/[^,/\]]+)", "", name)
    kept = re.sub(r"[^\w.,=+\-\[\]]", "_", ends, flags=re.ASCII)
    if name == kept.lower() and len(name) <= 120 and not re.search(r"_[0-9a-f]{9}$", name):
        return name or "defaults"
    if len(kept) > 110:  # what is typed most tells runs apart best, and is not to be cut off
        kept = ",".join(sorted(re.split(r",(?=[\w./]+=)", kept), key=lambda word: "." in word.partition("=")[0]))
    return f"{kept[:110]}_{sha256(name.encode()).hexdigest()[:9]}"


def run_name(task: str, words: str) -> str:
    """Returns what tells a run apart by its settings, in TensorBoard too: its task and the other words."""
    others = re.sub(r"(^|,)task=[^,]*", "", words).strip(",")
    return folder_name(f"{task},{others}" if others else task)


def register() -> None:
    """Tells Hydra what conf/ uses: the settings' classes; ``unique``, ``folder_name`` and ``run_name``."""
    settings.register()
    OmegaConf.register_new_resolver("unique", lambda: uuid4().hex[:6], use_cache=True, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)


def composed(words: Sequence[str], folder: Path, log: bool = False) -> DictConfig:
    """Returns the configuration that ``words`` make of conf/, for a run in ``folder``, and tells Hydra of it.

    Args:
        log: whether to log into the folder from now on.
    """
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(words), return_hydra_config=True)
    cfg.hydra.runtime.output_dir = cfg.hydra.run.dir = str(folder)
    cfg.hydra.runtime.cwd = str(Path.cwd())  # where Lightning starts the others of a distributed run
    HydraConfig.instance().set_config(cfg)
    if log:
        configure_log(cfg.hydra.job_logging)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Returns the whole configuration as plain values."""
    return plain(cfg, resolve=True)


def plain(cfg: Any, resolve: bool = False) -> dict[str, Any]:
    """Returns a configuration, of which the top is a dictionary, as plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=resolve))


def identity(cfg: DictConfig) -> dict[str, Any]:
    """Returns what a run's result follows from: the options of the groups, then every value by dotted key.

    Left out is what the settings' classes put aside, and what conf/ links to the key of its name. Those that are typed
    most, without a dot, come first.
    """
    choices = HydraConfig.get().runtime.choices
    written = dict(leaves(plain(cfg)))
    unused = UNUSED.get(choices["optimizer"], ())
    values = {key: value for key, value in leaves(resolved(cfg)) if makes_result(key, unused)}
    links = {key: value.strip("${}") for key, value in written.items() if is_link(value)}
    said = {key for key, link in links.items() if link in values and link == key.rpartition(".")[2]}
    own = sorted((entry for entry in values.items() if entry[0] not in said), key=lambda entry: "." in entry[0])
    return {group: choices[group] for group in OPTION_GROUPS} | dict(own)


def makes_result(key: str, unused: Sequence[str] = ()) -> bool:
    """Tells whether the value of a dotted key may change a result; a class is told by the group's option.

    Args:
        unused: keys that the optimizer has no use for.
    """
    parts = key.split(".")
    above = {".".join(parts[: i + 1]) for i in range(len(parts))}
    return parts[-1] != "_target_" and not above & (ASIDE | {*unused})


def is_link(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("${")


def l2_path(cfg: DictConfig) -> list[float] | None:
    """Returns ``l2`` as a list, a single value as a path of length one; None for values that follow from the data."""
    if cfg.l2 == "auto":
        return None
    return [float(value) for value in cfg.l2] if isinstance(cfg.l2, ListConfig) else [float(cfg.l2)]


def check(cfg: DictConfig, of_sweep: bool = False) -> None:
    """Settles the configuration, and checks ranges and combinations; types are OmegaConf's.

    Raises:
        InputError: one line that names the key, what was found and what is accepted.
    """
    settle(cfg)
    check_targets(resolved(cfg))
    for name in SECTIONS:
        if not isinstance(cfg.get(name), DictConfig):
            raise InputError(f"{name}={cfg.get(name)}: accepted is an option of the group, by its name in conf/{name}/")
    check_links(cfg)
    check_task(cfg)  # before the ranges: of several labels there are no digits
    check_ranges(cfg)
    check_combinations(cfg, of_sweep)


def check_ranges(cfg: DictConfig) -> None:
    """Raises an InputError if a setting does not accept its value."""
    for key, found in SETTINGS.items():
        above, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, above) if above else cfg
        if node is None or name not in node:
            continue  # another option of the group is chosen, or the callback is switched off
        value = node[name]
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if not found.accepts(value):
            raise InputError(refusal(key, value))


def refusal(key: str, value: Any) -> str:
    """Returns the line that says what a setting accepts."""
    accepted = SETTINGS[key].accepted
    names = accepted.removeprefix(ONE_OF).split(", ") if accepted.startswith(ONE_OF) else []
    whole = "whole" in accepted and isinstance(value, float) and math.isfinite(value)
    told = str(value) if whole else written(value)  # 1.0 is no whole number, and is not to be told as 1
    return f"{key}={told}: accepted is {accepted}{nearest(str(value), names)}"


def written(value: Any) -> str:
    """Returns a value as a user would type it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def check_combinations(cfg: DictConfig, of_sweep: bool) -> None:
    check_optimizer(cfg)
    check_useless(cfg)
    if cfg.select.refit and optimizer_of() != "exact":
        raise InputError("select.refit=true: accepted with optimizer=exact; others stop by the validation set")
    if (path := l2_path(cfg)) is not None:
        check_path(cfg, path)
    check_launched(cfg)
    if cfg.batch_size < (processes := processes_of(cfg)):
        raise InputError(
            f"batch_size={cfg.batch_size}: accepted with {processes} processes is that or more; each mini-batch is "
            f"shared out"
        )
    if of_sweep and launched() is None and cfg.trainer.devices != 1:  # a job of a cluster may have been given several
        raise InputError(
            f"trainer.devices={cfg.trainer.devices}: accepted in a sweep is 1; each process would run it all"
        )


def check_task(cfg: DictConfig) -> None:
    """Raises an InputError if the labels are not such as the task tells apart."""
    choices = HydraConfig.get().runtime.choices
    several = choices["task"] == "multilabel"
    if cfg.task.multilabel is not several:
        raise InputError(f"task.multilabel={written(cfg.task.multilabel)}: not to be set; accepted is task=multilabel")
    if several and choices["data"] != "features":
        raise InputError(
            f"data={choices['data']}: a sample has one label; accepted with task=multilabel is data=features"
        )


def check_optimizer(cfg: DictConfig) -> None:
    """Raises an InputError if something is set that the optimizer has no use for."""
    optimizer = optimizer_of()
    unused = UNUSED.get(optimizer, ())
    for override in parsed(HydraConfig.get().overrides.task):
        key = override.get_key_element()
        if any(key == name or key.startswith(f"{name}.") for name in unused):
            raise InputError(f"{key}: optimizer={optimizer} has no use for it; accepted is the command without it")
    if unused and cfg.trainer.precision not in ("32-true", "64-true"):
        raise InputError(
            f"trainer.precision={cfg.trainer.precision}: accepted with optimizer={optimizer} are 32-true, of the first "
            f"products, and 64-true, of all"
        )


def check_useless(cfg: DictConfig) -> None:
    """Raises an InputError if a word sets what other settings leave without use; what conf/ sets there is none."""
    given = {override.get_key_element() for override in parsed(HydraConfig.get().overrides.task)}
    for key, found in USELESS.items():
        if key in given and (other := found(cfg)):
            raise InputError(f"{key}: of no use with {other}; accepted is the command without it")


def optimizer_of() -> str:
    """Returns the option that is chosen for the optimizer."""
    return str(HydraConfig.get().runtime.choices["optimizer"])


def check_path(cfg: DictConfig, path: Sequence[float]) -> None:
    """Raises an InputError unless the l2 values can be trained."""
    if len(set(path)) < len(path):
        raise InputError(f"l2={list(path)}: the values of a path must differ from one another")
    if cfg.optimizer.get("momentum") == 0 and cfg.lr * max(path) >= 2:
        raise InputError(
            f"lr={cfg.lr:g} with l2={max(path):g}: an SGD step multiplies the weights by 1 - lr * l2 = "
            f"{1 - cfg.lr * max(path):g} and diverges; accepted is lr * l2 < 2"
        )


def settle(cfg: DictConfig) -> None:
    """Puts what was launched in the place of ``auto``: processes on each host, and hosts."""
    found, trainer = launched(), cfg.get("trainer")
    if isinstance(trainer, DictConfig):
        trainer.devices = (found.local_processes if found else 1) if trainer.devices == "auto" else trainer.devices
        trainer.num_nodes = (found.nodes if found else 1) if trainer.num_nodes == "auto" else trainer.num_nodes


def processes_of(cfg: DictConfig) -> int:
    """Returns how many processes a settled configuration has on all hosts."""
    devices = cfg.trainer.devices
    return (len(devices) if isinstance(devices, ListConfig) else devices) * cfg.trainer.get("num_nodes", 1)


def check_launched(cfg: DictConfig) -> None:
    """Raises an InputError unless the processes that were launched are those that train together."""
    hosts, devices = cfg.trainer.num_nodes, cfg.trainer.devices
    each = processes_of(cfg) // hosts
    if (found := launched()) is None:
        if hosts != 1:
            raise InputError(
                f"trainer.num_nodes={hosts}: this process was launched alone; accepted with several hosts is a start "
                f"by torchrun or srun, which tell how many there are"
            )
        return
    if (each, hosts) != (found.local_processes, found.nodes):
        key = f"trainer.devices={written(OmegaConf.to_container(devices) if OmegaConf.is_config(devices) else devices)}"
        key = key if each != found.local_processes else f"trainer.num_nodes={hosts}"
        raise InputError(
            f"{key}: {found.processes} processes were launched ({found.variable}), {found.local_processes} per host; "
            f"accepted is trainer.devices={found.local_processes} "
            f"trainer.num_nodes={found.nodes}, or the command without both"
        )


def check_links(cfg: DictConfig) -> None:
    """Raises an InputError if a key that conf/ links to another one, like ``optimizer.lr`` to ``lr``, is set by itself.

    Otherwise a run would not be what its results say it is.
    """
    found = dict(leaves(plain(cfg)))
    links: dict[str, list[str]] = {}  # of each key, in the files of all options that have it
    for file in sorted(CONF.glob("*/*.yaml")):
        for key, link in leaves(plain(OmegaConf.load(file)), f"{file.parent.name}."):
            if is_link(link) and key not in DEFAULTS:
                links.setdefault(key, []).append(link)
    for key, own in links.items():
        if key in found and found[key] not in own:
            raise InputError(f"{key}={written(found[key])}: not to be set by itself; set {own[0].strip('${}')} instead")


def leaves(node: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of everything in ``node`` that is no dictionary itself."""
    for key, value in node.items():
        if isinstance(value, Mapping):
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
