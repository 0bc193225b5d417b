"""The names that may stand on the command line, and which of them is meant by one that may not.

What is suggested would be accepted in that place, with the value that was typed; where nothing would, nothing is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from shutil import which
from typing import Any

from omegaconf import OmegaConf

from handgrad.cli.configuration import CONF, refusal, written
from handgrad.cli.settings import ENTRIES, LAUNCHER_SETTINGS, OPTIONS, SETTINGS, Callbacks
from handgrad.errors import InputError, nearest, slip, spelled
from handgrad.runs.overrides import values_of

Options = Mapping[str, Collection[str]]  # by group: those that are chosen, in a sweep maybe several

GROUPS: dict[str, list[str]] = {}
for _path in sorted(CONF.glob("*/*.yaml")):
    GROUPS.setdefault(_path.parent.name, []).append(_path.stem)
CALLBACKS = [f"callbacks.{callback.name}" for callback in fields(Callbacks)]
LAUNCHER = "hydra/launcher"
SUBMITIT_LAUNCHER = "hydra_plugins.hydra_submitit_launcher"
# What other programs call the same thing.
ALSO = {
    **dict.fromkeys(("learning_rate", "learningrate", "eta0"), "lr"),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs"), "epochs"),
    **dict.fromkeys(("batch", "bs"), "batch_size"),
    **dict.fromkeys(("num_threads", "n_threads"), "threads"),
    "weight_decay": "l2",
    "random_state": "seed",
    "model": "task",
    "dataset": "data",
    "solver": "optimizer",
    "device": "trainer.accelerator",
    "cv": "data.folds",
}


def chosen(words: Mapping[str, Sequence[Any]]) -> Options:
    """Returns the options of the groups whose options have settings of their own, launchers too, as far as known.

    Args:
        words: the values that each key is given; an experiment may choose what they do not.
    """
    groups = {group for group, _ in OPTIONS}
    defaults: dict[str, list[Any]] = {}
    if "experiment" not in words:
        for entry in OmegaConf.load(CONF / "config.yaml").defaults:
            defaults |= {str(group): [option] for group, option in entry.items()} if OmegaConf.is_dict(entry) else {}
    found = {
        group: [str(option) for option in (defaults | dict(words))[group]] for group in groups & {*defaults, *words}
    }
    return found | {LAUNCHER: [str(name) for name in words.get(LAUNCHER, ["basic"])]}


def check_key(key: str, word: str, values: Sequence[Any], options: Options) -> None:
    """Raises an InputError unless ``word`` sets what may be set: a setting, or a callback to null.

    Whether a setting accepts a value is asked when a run is composed, so that a sweep's other runs go on. But null
    would be taken for the lack of a key there, and OmegaConf makes numbers of texts like ``'1'`` and ``012``.

    Args:
        values: that it gives the key, several in a sweep.
    """
    if key in CALLBACKS:
        if any(value is not None for value in values):
            more = [name for name in SETTINGS if name.startswith(f"{key}.")]
            raise InputError(f"{word}: accepted is null, which switches it off{listing(more)}")
        return
    if key not in SETTINGS:
        raise InputError(foreign(key, word, values, options))
    if not has(options, key):
        raise InputError(f"{key}: {lacking(key, options)}")
    for value in values:
        if (value is None or is_text_for_number(key, value)) and not SETTINGS[key].accepts(value):
            raise InputError(refusal(key, value))


def is_text_for_number(key: str, value: Any) -> bool:
    return isinstance(value, str) and ENTRIES[key].type in (int, float, int | None)


def check_option(group: str, values: Sequence[Any]) -> None:
    """Raises an InputError unless all values are options of a group."""
    for value in values:
        if value not in GROUPS[group]:
            hint = nearest(str(value), GROUPS[group])
            raise InputError(f"{group}={value}: accepted are {', '.join(GROUPS[group])}{hint}")


def check_launcher(launcher: str, of_sweep: bool) -> None:
    """Raises an InputError unless a launcher of sweeps is there; for a sweep also where it cannot start anything."""
    if launcher not in LAUNCHER_SETTINGS:
        hint = nearest(launcher, LAUNCHER_SETTINGS)
        raise InputError(f"hydra/launcher={launcher}: accepted is one of {', '.join(LAUNCHER_SETTINGS)}{hint}")
    if launcher.startswith("submitit") and not (find_spec("submitit") and find_spec(SUBMITIT_LAUNCHER)):
        raise InputError(f"hydra/launcher={launcher}: submitit is not installed: pip install '.[cluster]'")
    missing = [name for name in ("sbatch", "srun") if which(name) is None]
    if launcher == "submitit_slurm" and of_sweep and missing:
        raise InputError(
            f"hydra/launcher={launcher}: no command {missing[0]} here; accepted on a host of a SLURM cluster"
        )


def check_launcher_setting(word: str, launcher: str) -> None:
    """Raises an InputError unless ``word`` gives one value, which it accepts, to a setting that a launcher has."""
    key, settings = word.partition("=")[0], LAUNCHER_SETTINGS[launcher]
    if key not in settings:
        others = [f"hydra/launcher={name}" for name, theirs in LAUNCHER_SETTINGS.items() if key in theirs]
        more = f"; {having('it', others)}" if others else nearest(key, settings) or listing([*settings])
        raise InputError(f"{key}: no such key with hydra/launcher={launcher}{more}")
    values = values_of(word)
    if len(values) > 1:
        raise InputError(f"{word}: several values; accepted is {settings[key].accepted}")
    if not settings[key].accepts(values[0]):
        raise InputError(f"{key}={written(values[0])}: accepted is {settings[key].accepted}")


def has(options: Options, key: str) -> bool:
    """Tells whether a setting is there with all options that are chosen, as far as they are known."""
    group = key.partition(".")[0]
    return not owners(key) or {f"{group}={option}" for option in options.get(group, ())} <= {*owners(key)}


def owners(key: str) -> list[str]:
    """Returns the options that have a setting, as ``group=option``; none of one that depends on no option."""
    group, _, name = key.partition(".")
    return [
        f"{of}={option}"
        for (of, option), node in OPTIONS.items()
        if of == group and name in {entry.name for entry in fields(node)}
    ]


def lacking(key: str, options: Options) -> str:
    """Returns what is told of a setting that the chosen option of its group does not have."""
    group = key.partition(".")[0]
    own = [f"{group}={option}" for option in options.get(group, ())]
    told = " or ".join(own) or f"the option that is chosen for {group}"
    return f"no such key with {told}; {having('it', owners(key))}"


def having(what: str, options: Sequence[str]) -> str:
    """Returns the words that options, one at least, have something."""
    *first, last = options
    return f"{', '.join(first)} and {last} have {what}" if first else f"{last} has {what}"


def foreign(key: str, word: str, values: Sequence[Any], options: Options) -> str:
    """Returns what is told of a key that is no setting: of those that conf/ links, or that hold settings, which are."""
    if not key:
        return f"{word}: no word of key=value, like l2=2.0"
    if key not in {*ENTRIES, *(name.rpartition(".")[0] for name in ENTRIES)}:
        return f"{key}: no such key{meant(key, values, options) or '; --help lists those there are'}"
    if more := [name for name in SETTINGS if name.startswith(f"{key}.")]:
        return f"{word}: not to be set as a whole{listing(more)}"
    name = key.rpartition(".")[2]
    instead = next((found for found in (name, f"data.{name}") if found in SETTINGS), "")
    return f"{word}: not to be set by itself; set {instead or key.partition('.')[0]} instead"


def listing(names: Sequence[str]) -> str:
    return f"; its settings are {', '.join(names)}" if names else ""


def meant(key: str, values: Sequence[Any], options: Options) -> str:
    """Returns a suggestion for an unknown key, to be put behind what is told of it; empty where there is none."""
    name = key.rpartition(".")[2]
    inner = key.startswith("callback")  # else a name that is a callback's own is not what is meant
    known = [*SETTINGS, *GROUPS, *CALLBACKS] if inner else [*(k for k in SETTINGS if "callbacks." not in k), *GROUPS]
    sizes = {each: (slip(key, each), slip(name, each.rpartition(".")[2])) for each in known}
    found = {each: min(size for size in of if size is not None) for each, of in sizes.items() if any_of(of)}
    near = [each for each, size in found.items() if size == min(found.values())]
    if spelled(name) in ALSO and not (near and "." in key):
        near = [ALSO[spelled(name)]]
    there = [each for each in near if has(options, each)]
    if len(near) == 1 and not there:
        return f"; {having(near[0], owners(near[0]))}"
    if len(there) != 1:
        return ""
    if all(takes(there[0], value) for value in values):
        return f"; did you mean '{there[0]}'?"
    return f"; {there[0]} accepts {SETTINGS[there[0]].accepted}" if there[0] in SETTINGS else ""


def any_of(sizes: Sequence[int | None]) -> bool:
    return any(size is not None for size in sizes)


def takes(key: str, value: Any) -> bool:
    """Tells whether a setting, a group or a callback accepts a value."""
    if key in GROUPS:
        return value in GROUPS[key]
    return value is None if key in CALLBACKS else SETTINGS[key].accepts(value)


def bare(word: str) -> str:
    """Returns what is told of a word without ``=``."""
    if owning := [group for group, options in GROUPS.items() if word in options and group != "hydra"]:
        hint = "; did you mean " + " or ".join(f"'{group}={word}'" for group in owning) + "?"
    elif word in SETTINGS or word in GROUPS:
        hint = f"; accepted in {word}= is {SETTINGS[word].accepted if word in SETTINGS else ' or '.join(GROUPS[word])}"
    else:
        hint = "; did you mean 'resume=latest'?" if word == "resume" else ""
    return f"{word}: no word of key=value, like l2=2.0{hint}"


def several(key: str, word: str, values: Sequence[Any]) -> str:
    """Returns what is told of several values where one is accepted: a list, a sweep, or a decimal comma."""
    typed = word.partition("=")[2]
    found = []
    if key in SETTINGS and SETTINGS[key].accepts([*values]):
        as_list = typed if "(" not in typed else ",".join(map(str, values))
        found.append(f"'{key}=[{as_list}]'" + (", a path in one run" if key == "l2" else ""))
    known = key in {*SETTINGS, *GROUPS, *CALLBACKS}
    if known and all(takes(key, value) for value in values):
        found.append(f"-m {word}, a sweep with a run for each")
    whole, _, decimals = typed.partition(",")
    if key in SETTINGS and not found and f"{whole}{decimals}".isdecimal():
        number = f"{whole}.{decimals}"
        found = [f"{key}={number}, with a decimal point"] if SETTINGS[key].accepts(float(number)) else []
    told = ", or ".join(found) or (f"{SETTINGS[key].accepted}" if key in SETTINGS else "one value")
    return f"{word}: several values; accepted {'are' if len(found) > 1 else 'is'} {told}"
