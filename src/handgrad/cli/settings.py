"""Every setting: its type, what it accepts, what it means, an example. Its default stands in conf/ and nowhere else.

Hydra gets these classes as structured configs, which conf/ names in its defaults lists. Where a field is ``Any``,
OmegaConf has no such type (a number or a list of them) or would take too much for it (``1`` and ``yes`` for true): then
``accepts`` alone checks it. This module loads neither torch nor Lightning.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


class Setting(NamedTuple):
    """What stands in a field's metadata.

    Attributes:
        help: what it means.
        accepted: the values it takes, in words.
        accepts: tells whether it takes a value; ``by_owner``: the class that gets it does.
        example: of a value, as it is typed.
    """

    help: str
    accepted: str
    accepts: Callable[[Any], bool]
    example: str


def setting(help: str, kind: tuple[str, Callable[[Any], bool]], example: str, *, of_result: bool = True) -> Any:
    """Returns a field without default that carries what a ``Setting`` has, and whether it may change a result."""
    return field(default=MISSING, metadata={"setting": Setting(help, *kind, example), "of_result": of_result})


def aside(default: Any = MISSING) -> Any:
    """Returns a field that changes no result: it watches, or another key has its value."""
    return field(default=default, metadata={"of_result": False})


def by_owner(value: Any) -> bool:
    return True


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_penalty(value: Any) -> bool:
    return is_number(value) and value >= 0


def is_text_or_null(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value != "")


def is_name_or_names(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return value is None or (len(names) > 0 and all(isinstance(name, str) and name for name in names))


def whole(least: int) -> tuple[str, Callable[[Any], bool]]:
    return f"a whole number >= {least}", lambda x: is_whole(x) and x >= least


def whole_or_null(least: int) -> tuple[str, Callable[[Any], bool]]:
    return f"a whole number >= {least}, or null", lambda x: x is None or (is_whole(x) and x >= least)


def one_of(*names: str) -> tuple[str, Callable[[Any], bool]]:
    return f"{ONE_OF}{', '.join(names)}", lambda x: x in names


ONE_OF = "one of "
POSITIVE = ("a number > 0", lambda x: is_number(x) and x > 0)
AUTO_OR_DDP = ("auto or ddp", lambda x: x in ("auto", "ddp"))
FILES = ("a file, a list of files, a pattern like features/*.npy, or null", is_name_or_names)
FOLDER = ("a folder", by_owner)
ARRAY = ("a name, a file, or null", by_owner)
TRUTH = ("true or false", lambda x: isinstance(x, bool))


@dataclass
class Model:
    _target_: str = MISSING
    penalize_bias: Any = MISSING


@dataclass
class Task:
    name: str = aside()  # what the option is called
    lr: float = aside()  # where lr is not set
    digits: Any = aside()  # where data.digits is not set
    multilabel: bool = aside()  # whether a sample may have several labels
    model: Model = field(default_factory=Model)


def shuffle() -> Any:
    return setting("a new order in every epoch", TRUTH, "false")


def train_size() -> Any:
    return setting(
        "use only the first samples of the training set; null: all",
        ("a whole number from 1, or null", lambda x: x is None or (is_whole(x) and x >= 1)),
        "1000",
    )


def holdout() -> Any:
    return setting(
        "share of each class that is held out for validation",
        ("a number > 0 and < 1", lambda x: is_number(x) and 0 < x < 1),
        "0.2",
    )


def numbers_to(last: int, more: str, null: bool = False) -> tuple[str, Callable[[Any], bool]]:
    """Returns the kind of a setting that lists classes by their numbers, or may be null."""

    def accepts(x: Any) -> bool:
        are_numbers = isinstance(x, list) and all(is_whole(number) and 0 <= number <= last for number in x)
        return (null and x is None) or (are_numbers and 2 <= len(set(x)) == len(x))

    return f"a list of two or more different whole numbers from 0 to {last}, {more}", accepts


@dataclass
class MNIST:
    _target_: str = MISSING
    root: str = setting("folder with MNIST/raw, FashionMNIST/raw or KMNIST/raw", FOLDER, "../data", of_result=False)
    split: str = setting(
        "full: 50,000 / 10,000 / 10,000; course, report: validated on MNIST's test set",
        one_of("full", "course", "report"),
        "course",
    )
    digits: Any = setting(
        "the digits to tell apart; the index in the list is the class", numbers_to(9, "like [3,2]"), "[3,2]"
    )
    shuffle: Any = shuffle()
    batch_size: int = MISSING
    seed: int = MISSING
    epochs: int = MISSING
    train_size: int | None = train_size()


@dataclass
class IDX:
    _target_: str = MISSING
    folder: str | None = setting(
        "folder of IDX files called like MNIST's: to be given", ("a folder", is_text_or_null), "letters"
    )
    labels: Any = setting(
        "those to tell apart, the index in the list is the class; null: all",
        numbers_to(255, "or null", null=True),
        "[3,0]",
    )
    holdout: float = holdout()
    md5: str | None = setting(
        "a file as md5sum writes it, to verify them by; null: they are not",
        ("a file, or null", is_text_or_null),
        "MD5SUMS",
        of_result=False,
    )
    shuffle: Any = shuffle()
    batch_size: int = MISSING
    seed: int = MISSING
    epochs: int = MISSING
    train_size: int | None = train_size()


@dataclass
class Features:
    _target_: str = MISSING
    train: Any = setting(
        "features to train on, to be given: .npy, .npz, .safetensors, .pt, .parquet or .csv", FILES, "train.npz"
    )
    val: Any = setting("features to validate on; null: a share, data.holdout, of the training set", FILES, "val.npz")
    test: Any = setting("features to test on; null: there is no test set", FILES, "test.npz")
    train_labels: Any = setting(
        "labels of data.train, also .txt; null: they stand beside the features", FILES, "labels.txt"
    )
    val_labels: Any = setting("labels of data.val", FILES, "val_labels.txt")
    test_labels: Any = setting("labels of data.test", FILES, "test_labels.txt")
    x: Any = setting(
        "array of the features, or columns of a table; null: x or the only matrix, all columns but labels and weights",
        ("a name, a list of columns, or null", is_name_or_names),
        "[width,height]",
    )
    y: Any = setting(
        "array or column of the labels, of several labels also columns; null: y, or the only array that can be meant",
        ("a name, a list of columns, or null", is_name_or_names),
        "species",
    )
    multilabel: bool = aside()  # follows from the task
    label_names: Any = setting(
        "names of several labels, in the order of the columns; null: 0 to K - 1, the columns, or the names in the rows",
        ("a list of names, or null", lambda x: x is None or (isinstance(x, list) and is_name_or_names(x))),
        "[cat,dog]",
    )
    label_separator: str = setting("what stands between the names of a sample's labels", ("text", bool), "/")
    holdout: float = holdout()
    normalize: str = setting(
        "by the mean, or mean and standard deviation, of the training set; l2: each row to length 1",
        one_of("none", "center", "standardize", "l2"),
        "standardize",
    )
    class_weight: Any = setting(
        "what a class weighs in training; balanced: N / (classes * samples of the class)",
        (
            "null, balanced, or a table of numbers >= 0 like {a: 1, b: 2}",
            lambda x: x in (None, "balanced") or (isinstance(x, dict) and all(map(is_penalty, x.values()))),
        ),
        "balanced",
    )
    sample_weight: str | None = setting(
        "what a sample weighs in training: an array or a column, or a file of its own", ARRAY, "weights.npy"
    )
    folds: int | None = setting(
        "number of folds of a cross-validation, in place of data.val; for optimizer=exact", whole_or_null(2), "5"
    )
    groups: str | None = setting(
        "whose samples are in one fold: an array or a column, or a file of its own", ARRAY, "patient"
    )
    shots: Any = setting(
        "fit so many samples of each class too, drawn data.draws times; for optimizer=exact",
        (
            "a list of different whole numbers >= 1 like [1,2,4,8,16], or null",
            lambda x: (
                x is None
                or (
                    isinstance(x, list)
                    and len(x) > 0
                    and all(is_whole(n) and n >= 1 for n in x)
                    and len(set(x)) == len(x)
                )
            ),
        ),
        "[1,2,4,8,16]",
    )
    draws: int = setting("how often few-shot samples are drawn, for each number of data.shots", whole(1), "20")
    bootstrap: int | None = setting(
        "number of draws of the test set, for 95 % intervals of its figures", whole_or_null(20), "1000"
    )
    shuffle: Any = shuffle()
    batch_size: int = MISSING
    seed: int = MISSING
    epochs: int = MISSING
    train_size: int | None = train_size()


@dataclass
class SGD:
    _target_: str = MISSING
    lr: float = MISSING
    momentum: float = setting(
        "share of the last step that the next one takes along",
        ("a number >= 0 and < 1", lambda x: is_number(x) and 0 <= x < 1),
        "0.9",
    )


@dataclass
class Adam:
    _target_: str = MISSING
    lr: float = MISSING
    betas: Any = setting(
        "decay rates of the two moments",
        (
            "two numbers >= 0 and < 1",
            lambda x: isinstance(x, list) and len(x) == 2 and all(is_number(b) and 0 <= b < 1 for b in x),
        ),
        "[0.9,0.99]",
    )


@dataclass
class Exact:
    _target_: str = MISSING
    tolerance: float = setting(
        "largest gap to the optimum, relative to the objective, that counts as converged", POSITIVE, "1e-9"
    )
    max_iterations: int = setting("largest number of iterations for an l2 value", whole(1), "5000")


@dataclass
class Trainer:
    accelerator: str = setting("what it runs on", one_of("auto", "cpu", "gpu", "cuda", "mps"), "gpu")
    devices: Any = setting(
        "processes on each host, each with a device or its share of the cores; a list: these devices; auto: as many as "
        "were launched, else 1",
        (
            "a whole number >= 1, auto, or a list of devices' numbers",
            lambda x: (
                x == "auto" or (x != [] and all(map(is_whole, x)) if isinstance(x, list) else is_whole(x) and x >= 1)
            ),
        ),
        "2",
    )
    num_nodes: Any = setting(
        "hosts; auto: as many as torchrun or srun tell, else 1",
        ("a whole number >= 1, or auto", lambda x: x == "auto" or (is_whole(x) and x >= 1)),
        "2",
        of_result=False,
    )
    strategy: str = setting("ddp: several processes share each mini-batch", AUTO_OR_DDP, "ddp")
    # Those that need no scaling of the loss.
    precision: str = setting(
        "number format of parameters and products", one_of("32-true", "64-true", "bf16-true", "bf16-mixed"), "64-true"
    )
    peer_timeout: float = setting(
        "seconds after which a process that is not heard of is given up, by all others",
        ("a number of seconds >= 1", lambda x: is_number(x) and x >= 1),
        "120",
        of_result=False,
    )


@dataclass
class GradientCheck:
    _target_: str = MISSING
    tolerance: float = setting("largest relative error of the gradient that is accepted", POSITIVE, "1e-6")
    directions: int = setting("random directions that are tried", whole(1), "4")
    classifiers: int = setting("largest number of a path's classifiers that are checked", whole(1), "4")


@dataclass
class EarlyStopping:
    _target_: str = MISSING
    patience: int | None = MISSING


@dataclass
class WeightImages:
    _target_: str = MISSING
    rows: int = setting("largest number of l2 values in the picture", whole(1), "5")


@dataclass
class Checkpointing:
    _target_: str = MISSING
    every_seconds: float = setting(
        "least seconds between two saves; 0: after every check",
        ("a number >= 0", lambda x: is_number(x) and x >= 0),
        "60",
    )


@dataclass
class Plain:
    """A callback without settings."""

    _target_: str = MISSING


@dataclass
class Callbacks:
    curves: Plain | None = aside()
    gradient_check: GradientCheck | None = aside()
    divergence_check: Plain | None = aside()
    early_stopping: EarlyStopping | None = MISSING
    weight_images: WeightImages | None = aside()
    figures: Plain | None = aside()
    progress_bar: Plain | None = aside()
    checkpoint: Checkpointing | None = aside()


@dataclass
class Select:
    _target_: str = MISSING
    metric: str = setting(
        "what the l2 value is chosen by, on the validation set",
        one_of("loss", "accuracy", "mean_per_class", "f1_macro", "auroc"),
        "accuracy",
    )
    rule: str = setting(
        "best, or the largest l2 within one standard error of the best",
        one_of("best", "one_standard_error"),
        "one_standard_error",
    )
    refit: Any = setting("fit the chosen l2 once more, on train + val; for optimizer=exact", TRUTH, "true")


@dataclass
class Settings:
    """The whole of a run's configuration."""

    task: Task = MISSING
    data: Any = MISSING
    optimizer: Any = MISSING
    trainer: Trainer = MISSING
    callbacks: Callbacks = MISSING
    logger: Any = aside(None)  # conf/logger/none.yaml is empty
    l2: Any = setting(
        "L2 penalty, or a list of them: the whole path is trained in one run; auto: 20 values that suit the data",
        (
            "a number >= 0 or a list of them, like 2.0 or [0,0.02,2], or auto",
            lambda x: all(map(is_penalty, x)) and len(x) > 0 if isinstance(x, list) else x == "auto" or is_penalty(x),
        ),
        "[0,0.02,2]",
    )
    lr: float = setting("learning rate", POSITIVE, "0.1")
    epochs: int = setting("passes over the training set", whole(1), "5")
    batch_size: int = setting("samples per update", whole(1), "64")
    seed: int = setting("what chance follows from: order of the samples, hold-out, folds, draws", whole(0), "1")
    patience: int | None = setting(
        "checks, five per epoch, without a smaller validation loss before early stopping; null: no early stopping",
        ("a whole number >= 1, or null", lambda x: x is None or (is_whole(x) and x >= 1)),
        "null",
    )
    select: Select = field(default_factory=Select)
    penalize_bias: Any = setting("whether the penalty counts the bias, as the course's bias trick does", TRUTH, "true")
    threads: Any = setting(
        "processor threads; auto: one per core",
        ("a whole number >= 1, or auto", lambda x: x == "auto" or (is_whole(x) and x >= 1)),
        "2",
        of_result=False,
    )


def text_like(pattern: str, *examples: str) -> tuple[str, Callable[[Any], bool]]:
    """Returns the kind of a setting that is text, or a number that is meant as text, of a pattern."""

    def accepts(x: Any) -> bool:
        return (isinstance(x, str) or is_whole(x)) and re.fullmatch(pattern, str(x), re.ASCII) is not None

    return f"text like {' or '.join(examples)}", accepts


MEMORY = text_like("[0-9]+[KMGT]?B?", "16GB")
WORD = r"[\w.+][\w.,:+@%=-]*"  # sbatch gets it in a line of a shell's script: nothing that a shell knows is in it
JOBS = ("a number of processes >= 1, or -1 for one per core", lambda x: is_whole(x) and (x >= 1 or x == -1))


@dataclass
class Joblib:
    n_jobs: int = setting("so many runs of the sweep at a time", JOBS, "2")


@dataclass
class Submitit:
    """What a job of either of submitit's launchers is given."""

    timeout_min: int = setting("minutes that a job may take", whole(1), "240")
    cpus_per_task: int | None = setting("processor cores of a job, and so many threads", whole(1), "4")
    gpus_per_node: int | None = setting("GPUs of a job on each node", whole(1), "1")
    stderr_to_stdout: Any = setting("one file for all that a job prints", TRUTH, "true")


@dataclass
class SubmititSlurm(Submitit):
    nodes: int = setting("nodes of a job", whole(1), "2")
    tasks_per_node: int = setting("processes of a job on each node, which train one run together", whole(1), "2")
    mem_gb: int | None = setting("GB of memory of a job on each node", whole(1), "16")
    name: str = setting("what the jobs are called", text_like(WORD, "my_sweep"), "my_sweep")
    partition: str | None = setting("SLURM's partition", text_like(WORD, "gpu"), "gpu")
    account: str | None = setting("SLURM's account", text_like(WORD, "my_group"), "my_group")
    qos: str | None = setting("SLURM's quality of service", text_like(WORD, "normal"), "normal")
    constraint: str | None = setting(
        "features that a node must have", text_like(r"[\w\[(][\w.,&|*()\[\]-]*", "a100", "'intel&gpu'"), "a100"
    )
    exclude: str | None = setting("nodes to leave out", text_like(r"[\w][\w.,\[\]-]*", "'node[01-04]'"), "node01")
    gres: str | None = setting("generic resources of a node", text_like(r"[\w.:,()=-]+", "gpu:a100:1"), "gpu:a100:1")
    cpus_per_gpu: int | None = setting("processor cores for each GPU", whole(1), "8")
    gpus_per_task: int | None = setting("GPUs of each process", whole(1), "1")
    mem_per_gpu: str | None = setting("memory for each GPU", MEMORY, "32GB")
    mem_per_cpu: str | None = setting("memory for each processor core", MEMORY, "4GB")
    comment: str | None = setting("a remark for the scheduler", text_like(r"[\w.,:+@%= -]+", "'a probe'"), "probe")
    signal_delay_s: int = setting("seconds before its end at which a job is told to save", whole(1), "300")
    max_num_timeout: int = setting("times that a job that ran out of time is queued again", whole(0), "10")
    array_parallelism: int = setting("so many jobs of the sweep at a time", whole(1), "8")


# What starts the jobs of a sweep, by Hydra's name, and what may be set of it. Its defaults are the launcher's own.
LAUNCHERS: dict[str, type | None] = {
    "basic": None,
    "joblib": Joblib,
    "submitit_local": Submitit,
    "submitit_slurm": SubmititSlurm,
}


# The options of groups whose options have settings of their own; conf/ names them as settings/<group>/<option>, or
# takes those of another option.
OPTIONS: dict[tuple[str, str], type] = {
    ("data", "mnist"): MNIST,
    ("data", "fashion_mnist"): MNIST,
    ("data", "kmnist"): MNIST,
    ("data", "idx"): IDX,
    ("data", "features"): Features,
    ("optimizer", "sgd"): SGD,
    ("optimizer", "adam"): Adam,
    ("optimizer", "exact"): Exact,
}

# What an optimizer has no use for: refused when it is typed, and no part of what its results follow from.
UNUSED: dict[str, tuple[str, ...]] = {
    "exact": ("lr", "batch_size", "epochs", "patience", "data.shuffle", "callbacks.early_stopping"),
}


def register() -> None:
    """Gives the classes to Hydra."""
    store = ConfigStore.instance()
    store.store(name="settings", node=Settings)
    for (group, option), node in OPTIONS.items():
        store.store(group=f"settings/{group}", name=option, node=node)


def entries(node: type, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Yields every field of a class with its dotted key, those of a class within it after its own."""
    for entry in fields(node):
        yield prefix + entry.name, entry
        if (inner := nested(entry)) is not None:
            yield from entries(inner, f"{prefix}{entry.name}.")


def nested(entry: Field) -> type | None:
    """Returns the class of a field that holds settings itself."""
    return next(
        (kind for kind in (entry.type, *get_args(entry.type)) if isinstance(kind, type) and is_dataclass(kind)), None
    )


ENTRIES = dict(entries(Settings))
for (_group, _option), _node in OPTIONS.items():
    ENTRIES |= entries(_node, f"{_group}.")
SETTINGS: dict[str, Setting] = {
    key: entry.metadata["setting"] for key, entry in ENTRIES.items() if "setting" in entry.metadata
}
ASIDE = {key for key, entry in ENTRIES.items() if not entry.metadata.get("of_result", True)}

LAUNCHER_SETTINGS: dict[str, dict[str, Setting]] = {
    launcher: {f"hydra.launcher.{entry.name}": entry.metadata["setting"] for entry in fields(node)} if node else {}
    for launcher, node in LAUNCHERS.items()
}
