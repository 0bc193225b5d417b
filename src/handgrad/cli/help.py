"""``train.py --help``: what may be typed, for people.

What a setting means and accepts stands in ``cli/settings.py``, its default in conf/; here are the words around them.
"""

import shlex
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from handgrad.cli.configuration import CONF, is_link, leaves, plain, written
from handgrad.cli.settings import LAUNCHER_SETTINGS, OPTIONS, SETTINGS, UNUSED, Setting

ABOUT = "Trains linear classifiers whose gradients are derived by hand, and proven before they train."
MORE = "README.md has examples of whole commands. A page at a time: python train.py --help | less"
WIDEST, USUAL = 100, 80  # columns of a text that is good to read, and of a pager
# Each group of conf/ that has several options: what it decides, and one of them.
GROUPS = {
    "task": ("what is told apart: two classes, several, or any number of labels a sample", "logistic"),
    "data": ("digits, other images of their shape, or features of one's own", "features"),
    "optimizer": ("stochastic gradient descent, Adam, or the proven optimum of every l2", "exact"),
    "logger": ("curves and pictures for TensorBoard, or none", "none"),
    "experiment": ("all settings of an experiment of the course report", "course_l2"),
}
# What is neither a setting nor a group.
OTHERS = {
    "resume=latest": "go on with the run that was stopped last, alone on the command line; or resume=outputs/<run>",
    "-m resume=true": "do what is left of the latest sweep with the same words",
    "hydra.run.dir=outputs/my_run": "folder of a run, below outputs/; without it one is named by the time",
    "hydra.sweep.dir=outputs/my_sweep": "folder of a sweep, likewise",
    "hydra/launcher=joblib": "what starts the runs of a sweep: basic, as by default, one after the other; joblib, side "
    "by side; submitit_slurm, each as a job of a SLURM cluster; submitit_local, as such a job but here, all at once. "
    "What they take for granted is shown with --cfg hydra -p hydra.launcher",
    "hydra.verbose=true": "tell what is logged for developers, too",
}
FLAGS = {
    "-m, --multirun": "a sweep: one run for each combination of the values a,b,c",
    "-c, --cfg job": "print the settings as they are composed, and train nothing",
    "-p, --package KEY": "with --cfg: a part of them",
    "--resolve": "with --cfg: what a setting is linked to, in place of the link",
    "-h, --help": "this text",
    "--version": "the version",
    "-r, --run": "one run, which is what happens anyway",
    "-i, --info": "what Hydra, which composes the settings, tells of itself",
    "--hydra-help": "Hydra's own help",
    "-sc, --shell-completion": "completion of words in a shell; --hydra-help tells how",
}


def help_text(width: int | None = None) -> str:
    """Returns what ``--help`` prints, for a terminal of ``width`` columns."""
    return "\n".join(lines(max(40, min(width or USUAL, WIDEST))))


def lines(width: int) -> Iterator[str]:
    """Yields the lines of the help."""
    yield from textwrap.wrap(ABOUT, width)
    yield from ("", "  python train.py task=softmax l2=2.0")
    found = defaults()
    for title, keys in sections().items():
        yield from ("", f"{title}:")
        for key in keys:
            setting = SETTINGS[key]
            unused = "".join(f" (not with optimizer={name})" for name, keys in UNUSED.items() if key in keys)
            default = found[key, title] if (key, title) in found else found[key, ""]
            told = (f"{setting.help}{unused}", f"Accepted: {setting.accepted}. Default: {default}")
            yield from entry(shlex.quote(f"{key}={setting.example}"), *told, width=width)
    off = ", ".join(name for name, value in plain(OmegaConf.load(CONF / "callbacks" / "default.yaml")).items() if value)
    yield from entry("callbacks.figures=null", f"switches a callback off, of {off}", width=width)
    yield from ("", "Groups, as group=option:")
    for group, (decides, option) in GROUPS.items():
        told = (decides, f"Accepted: {', '.join(options(group))}. Default: {written(chosen(group))}")
        yield from entry(f"{group}={option}", *told, width=width)
    yield from listed("Runs and sweeps", OTHERS, width)
    for title, settings in launchers().items():
        yield from listed(
            title, {shlex.quote(f"{key}={it.example}"): meaning(it) for key, it in settings.items()}, width
        )
    yield from listed("Flags", FLAGS, width)
    yield ""
    yield from textwrap.wrap(MORE, width)


def listed(title: str, words: Mapping[str, str], width: int) -> Iterator[str]:
    """Yields a title, and words with what they mean."""
    yield from ("", f"{title}:")
    for word, meaning in words.items():
        yield from entry(word, meaning, width=width)


def meaning(setting: Setting) -> str:
    return f"{setting.help}. Accepted: {setting.accepted}"


def launchers() -> dict[str, dict[str, Setting]]:
    """Returns the settings of what starts a sweep's jobs, by title, each where it is there first."""
    found: dict[str, dict[str, Setting]] = {}
    for launcher, settings in LAUNCHER_SETTINGS.items():
        known = [key for others in found.values() for key in others]
        if own := {key: setting for key, setting in settings.items() if key not in known}:
            more = ", beside those of submitit_local" if len(own) < len(settings) else ""
            found[f"With hydra/launcher={launcher}{more}"] = own
    return found


def entry(word: str, *told: str, width: int) -> Iterator[str]:
    """Yields a word and, below, what it means."""
    yield f"  {word}"
    for text in told:
        yield from textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def sections() -> dict[str, list[str]]:
    """Returns the settings' keys by title: those of no group, then those of each option, trainer and callbacks."""
    grouped = ("data.", "optimizer.", "trainer.", "callbacks.")
    found = {"Settings, as key=value": [key for key in SETTINGS if not key.startswith(grouped)]}
    for (group, option), node in OPTIONS.items():
        names = [f"{group}.{name}" for name in node.__annotations__]
        found[title(group, option)] = [name for name in names if name in SETTINGS]
    for group in ("trainer", "callbacks"):
        found[group.capitalize()] = [key for key in SETTINGS if key.startswith(f"{group}.")]
    return found


def title(group: str, option: str) -> str:
    """Returns what stands above the settings of an option, and of others that have the same ones."""
    node = OPTIONS.get((group, option))
    alike = [other for (of, other), theirs in OPTIONS.items() if of == group and theirs is node]
    return f"With {group}={' or '.join(alike or [option])}"


def defaults() -> dict[tuple[str, str], str]:
    """Returns each default by key and the title of its section, "" where any has it."""
    top = plain(OmegaConf.load(CONF / "config.yaml"))
    values = {(key, ""): value for key, value in leaves(top)}
    for path in sorted(CONF.glob("*/*.yaml")):
        group, option = path.parent.name, path.stem
        for key, value in leaves(plain(OmegaConf.load(path)), f"{group}."):
            values[key, "" if option == "default" else title(group, option)] = value
    return {place: linked(value, values) if is_link(value) else written(value) for place, value in values.items()}


def linked(link: str, values: dict[tuple[str, str], Any]) -> str:
    """Returns what stands where a default links to, for each option."""
    key = link.strip("${}")
    return "; ".join(
        f"{written(value)} {title.lower()}" for (name, title), value in values.items() if name == key and value
    )


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def chosen(group: str) -> str | None:
    """Returns which option of a group is taken where none is named."""
    return next(entry[group] for entry in OmegaConf.load(CONF / "config.yaml").defaults if group in entry)
