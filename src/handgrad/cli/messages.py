"""Errors as one line for the user: what, found, accepted."""

import re
from dataclasses import fields
from difflib import get_close_matches

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from handgrad.cli.configuration import refusal, written
from handgrad.cli.settings import OPTIONS, SETTINGS, Callbacks
from handgrad.errors import InputError, line_of, nearest, one_line_of
from handgrad.runs.overrides import parse_overrides


def one_line(error: BaseException) -> str | None:
    """Returns what the user has to know of ``error`` in one line; None if it is none of the user's making."""
    told = said_of(error)
    return told if told is None else one_line_of(told)


def said_of(error: BaseException) -> str | None:
    """Returns the same, of which a value that was typed may make several lines."""
    if isinstance(error, InstantiationException):
        key = str(error).rpartition("full_key: ")[2]
        cause = error.__cause__ or error
        return str(cause) if isinstance(cause, InputError) else f"{key}: {first_line(cause)}"
    if line := line_of(error):
        return line
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read: {first_line(error)}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        told = str(error)
        return unknown_key(told) or unknown_option(told) or wrong_type(told) or first_line(error)
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, which is not imported for that
        return f"trainer: {first_line(error)}"
    return None


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def unknown_key(message: str) -> str | None:
    """Returns the line for Hydra's message about a key that is not there."""
    if not (found := re.match(r"Could not override '([^']+)'", message)):
        return None
    key = found[1]
    if key in SETTINGS:
        group, _, name = key.partition(".")
        owners = [f"{group}={option}" for (of, option), node in OPTIONS.items() if of == group and has(node, name)]
        hint = f"; {' and '.join(owners)} has it" if owners else ""
        return f"{key}: no such key with the option that is chosen for {group}{hint}"
    keys = [*SETTINGS, *(f"callbacks.{callback.name}" for callback in fields(Callbacks))]
    names = {key.rpartition(".")[2]: key for key in sorted(keys, key=lambda key: -key.count("."))}
    close = get_close_matches(key.rpartition(".")[2], names, n=1, cutoff=0.75)  # the name alone, wherever it stands
    hint = f"; did you mean '{names[close[0]]}'?" if close else nearest(key, keys)
    return f"{key}: no such key{hint or '; --cfg job shows those there are'}"


def has(node: type, name: str) -> bool:
    """Tells whether an option's class of settings has one of that name."""
    return any(entry.name == name for entry in fields(node))


def wrong_type(message: str) -> str | None:
    """Returns the line for Hydra's message about a value that its key's type does not take."""
    if not (found := re.match(r"Error merging override (([^=]+)=.*)", message, re.DOTALL)):
        return None
    key, value = found[2], parse_overrides([found[1]])[found[2]]
    if key in SETTINGS and SETTINGS[key].accepted:
        return refusal(key, value)
    return f"{key}={written(value)}: not of the type that {key} has; --cfg job shows its default"


def unknown_option(message: str) -> str | None:
    """Returns the line for Hydra's message about a group's option that is not there."""
    if not (found := re.search(r"Could not find '([^']+)/([^'/]+)'", message)):
        return None
    options = re.findall(r"^\t(\S+)$", message, re.MULTILINE)
    return f"{found[1]}={found[2]}: accepted are {', '.join(options)}{nearest(found[2], options)}"
