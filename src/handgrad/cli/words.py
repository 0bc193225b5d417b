"""The words of ``predict.py`` and ``python -m handgrad.export``: ``key=value``, each read and checked by itself.

They are few and have no configuration behind them, so that Hydra, and the time it takes, is not needed.
"""

import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from handgrad import __version__
from handgrad.cli.streams import standard_streams
from handgrad.errors import InputError, line_of, nearest

FILES = "a file, a list like [a.npy,b.npy], or a pattern like features/*.npy"
NAME = re.compile(  # of a list: in quotes, or without commas and quotes that have no backslash
    r"""\s*(?:'(?:\\.|[^'\\])+'|"(?:\\.|[^"\\])+"|(?:\\.|[^,'"\\\s])(?:\\.|[^,'"\\])*)\s*"""
)
FORMATS = ("onnx", "sklearn", "npz", "torch")
PRINTING = {"--help", "-h", "--version"}


class Word(NamedTuple):
    """What a key means.

    Attributes:
        help: in a line.
        read: returns the value of what was typed; a ValueError tells that it is none.
        accepted: what it takes, in words.
        needed: whether it has to be given; else it is None where it is not.
        names: that it takes, of which the nearest is told to who mistypes one.
    """

    help: str
    read: Callable[[str], Any]
    accepted: str
    needed: bool = False
    names: Sequence[str] = ()


def one(text: str) -> str:
    return text


def several(text: str) -> list[str]:
    """Returns what ``[a,'b, c']`` lists, as ``train.py`` reads it, or what is typed as the only one.

    A file may be called so itself.
    """
    if not (text.startswith("[") and text.endswith("]")) or os.path.exists(text):
        return [text]
    if not (found := re.fullmatch(rf"{NAME.pattern}(,{NAME.pattern})*", text[1:-1])):
        raise ValueError(text)
    names = (match[0].strip() for match in NAME.finditer(found[0]))
    return [re.sub(r"\\(.)", r"\1", name[1:-1] if name[0] in "'\"" else name) for name in names]


def penalty(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


def format_name(text: str) -> str:
    return FORMATS[FORMATS.index(text)]


def truth(text: str) -> bool:
    return {"true": True, "false": False}[text]


RUN = Word("folder of a finished run, or of a job of a sweep", one, "a folder like outputs/<run>", needed=True)
L2 = Word("another l2 value of the run than the selected one", penalty, "a number >= 0")
OVERWRITE = Word("replace out where it is there already", truth, "true or false")

PREDICT = {
    "run": RUN,
    "features": Word("new features: .npy, .npz, .safetensors, .pt, .parquet or .csv", several, FILES, needed=True),
    "out": Word(
        "predictions: .csv or .parquet (prediction, then p_<class>), .npy (probabilities) or .npz (both, and classes)",
        one,
        "a file like predictions.csv",
        needed=True,
    ),
    "labels": Word("labels in files of their own, also .txt: measures too", several, FILES),
    "x": Word("array of the features, or columns of a table", several, "a name, or a list like [a,b]"),
    "y": Word(
        "array or column of the labels, of several also columns; null: measure nothing; unset: y, if there is one",
        several,
        "a name, a list like [a,b], or null",
    ),
    "l2": L2,
    "overwrite": OVERWRITE,
}
EXPORT = {
    "run": RUN,
    "format": Word("what to write", format_name, f"one of {', '.join(FORMATS)}", needed=True, names=FORMATS),
    "out": Word("file to write; unset: model.<format's ending> in the run's folder", one, "a file"),
    "l2": L2,
    "overwrite": OVERWRITE,
}


def read_words(words: Sequence[str], accepted: Mapping[str, Word]) -> dict[str, Any]:
    """Returns the value of each accepted key; None of those that are not given.

    Raises:
        InputError: a word is no ``key=value``, a key is unknown, given twice or missing, or does not accept its value.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, is_set, text = word.partition("=")
        if key not in accepted:
            raise InputError(f"{key}: no such key; accepted are {', '.join(accepted)}{nearest(key, accepted)}")
        if not is_set or not text:
            raise InputError(f"{word}: accepted is {key}=<{accepted[key].accepted}>")
        if key in found:
            raise InputError(f"{word}: {key} is given twice; accepted is one value")
        try:
            found[key] = accepted[key].read(text)
        except (ValueError, KeyError) as error:
            hint = nearest(text, accepted[key].names)
            raise InputError(f"{word}: accepted is {accepted[key].accepted}{hint}") from error
    if missing := [key for key, word in accepted.items() if word.needed and key not in found]:
        raise InputError(
            f"{missing[0]}: missing; accepted is {missing[0]}=<{accepted[missing[0]].accepted}>; --help tells"
        )
    return {key: found.get(key) for key in accepted}


def help_of(usage: str, accepted: Mapping[str, Word]) -> str:
    """Returns what ``--help`` prints."""
    width = max(map(len, accepted))
    lines = [f"  {key:{width}}  {word.help} ({word.accepted})" for key, word in accepted.items()]
    return "\n".join([usage.strip(), "", *lines])


@contextmanager
def command(usage: str, accepted: Mapping[str, Word]) -> Iterator[dict[str, Any]]:
    """Lends out the words of the command line; turns errors into a line and an exit code.

    The exit code is 1, or 128 + the number of the signal that stopped the program, which leaves no half-written file.
    ``--help`` prints ``usage`` and the words, and ends; ``--version`` the version.
    """
    with standard_streams(printing=bool(PRINTING & set(sys.argv[1:]))), reported(usage, accepted) as given:
        yield given


@contextmanager
def reported(usage: str, accepted: Mapping[str, Word]) -> Iterator[dict[str, Any]]:
    """Does the same, with standard output and standard error as they are."""
    before = signal.signal(signal.SIGTERM, terminated)
    try:
        if PRINTING & set(sys.argv[1:]):
            print(f"handgrad {__version__}" if "--version" in sys.argv[1:] else help_of(usage, accepted))
            sys.exit(0)
        yield read_words(sys.argv[1:], accepted)
    except KeyboardInterrupt:
        print("\nStopped; nothing was written", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if (line := line_of(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def terminated(number: int, frame: Any) -> None:
    sys.exit(128 + number)
