"""Errors as one line for the user: what, found, accepted."""

import re
import traceback

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from handgrad.cli.configuration import refusal, written
from handgrad.cli.names import foreign, lacking, owners
from handgrad.cli.settings import SETTINGS
from handgrad.errors import InputError, line_of, nearest, one_line_of
from handgrad.runs.overrides import parse_overrides


def one_line(error: BaseException) -> str | None:
    """Returns what the user has to know of ``error`` in one line; None if it is none of the user's making."""
    told = said_of(error)
    return told if told is None else one_line_of(told)


def said_of(error: BaseException) -> str | None:
    """Returns the same, of which a value that was typed may make several lines."""
    if isinstance(error, InstantiationException):
        key, cause = str(error).rpartition("full_key: ")[2], innermost(error)
        return line_of(cause) or f"{key}: {place(cause)}"
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


def innermost(error: BaseException) -> BaseException:
    """Returns what an error comes from, below all that only pass it on; an error of ours says it already."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def place(error: BaseException) -> str:
    """Returns an error's first line, with the file and the line where it is."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({type(error).__name__}, {error.filename}, line {error.lineno})"
    *_, frame = traceback.extract_tb(error.__traceback__)
    return f"{first_line(error)} ({type(error).__name__}, {frame.filename}, line {frame.lineno})"


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def unknown_key(message: str) -> str | None:
    """Returns the line for Hydra's message about a key that is not there."""
    if not (found := re.match(r"Could not override '([^']+)'", message)):
        return None
    key = found[1]
    return f"{key}: {lacking(key, {})}" if owners(key) else foreign(key, key, (), {})


def wrong_type(message: str) -> str | None:
    """Returns the line for Hydra's message about a value that its key's type does not take."""
    if not (found := re.match(r"Error merging override (([^=]+)=.*)", message, re.DOTALL)):
        return None
    key, value = found[2], parse_overrides([found[1]])[found[2]]
    if key in SETTINGS:
        return refusal(key, value)
    return f"{key}={written(value)}: not of the type that {key} has; --cfg job shows its default"


def unknown_option(message: str) -> str | None:
    """Returns the line for Hydra's message about a group's option that is not there."""
    if not (found := re.search(r"Could not find '([^']+)/([^'/]+)'", message)):
        return None
    options = re.findall(r"^\t(\S+)$", message, re.MULTILINE)
    return f"{found[1]}={found[2]}: accepted are {', '.join(options)}{nearest(found[2], options)}"
