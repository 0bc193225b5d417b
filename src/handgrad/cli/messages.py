"""Errors as one line for the user: what, found, accepted."""

import errno
import re
from collections.abc import Iterator

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from handgrad.cli.settings import CONF
from handgrad.errors import GradientError, InputError, nearest

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def one_line(error: BaseException) -> str | None:
    """Returns what the user has to know of ``error`` in one line; None if it is none of the user's making."""
    if isinstance(error, InstantiationException):
        key = str(error).rpartition("full_key: ")[2]
        cause = error.__cause__ or error
        return str(cause) if isinstance(cause, InputError) else f"{key}: {first_line(cause)}"
    if isinstance(error, InputError | GradientError):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK:
        return f"{error.filename or 'a file of the run'}: cannot be read or written ({error.strerror})"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read: {first_line(error)}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return unknown_key(str(error)) or unknown_option(str(error)) or first_line(error)
    return None


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def unknown_key(message: str) -> str | None:
    """Returns the line for Hydra's message about a key that is not there."""
    if not (found := re.match(r"Could not override '([^']+)'", message)):
        return None
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        keys = list(dotted_keys(compose("config")))
    key = found[1]
    short = {name.rpartition(".")[2]: name for name in reversed(keys)}  # the name alone, wherever it stands
    close = nearest(key, keys) or nearest(key.rpartition(".")[2], short)
    return f"{key}: no such key{close or '; --cfg job shows those there are'}"


def dotted_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        yield prefix + key
        if isinstance(child := node._get_node(key), DictConfig):
            yield from dotted_keys(child, f"{prefix}{key}.")


def unknown_option(message: str) -> str | None:
    """Returns the line for Hydra's message about a group's option that is not there."""
    if not (found := re.search(r"Could not find '([^']+)/([^'/]+)'", message)):
        return None
    options = re.findall(r"^\t(\S+)$", message, re.MULTILINE)
    return f"{found[1]}={found[2]}: accepted are {', '.join(options)}{nearest(found[2], options)}"
