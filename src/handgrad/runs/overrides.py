"""Override words such as ``data.shuffle=true``, read by Hydra's own parser, which is loaded when it is asked for."""

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from handgrad.errors import InputError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

Overrides = dict[str, Any]
MOST_RUNS = 10_000  # of a sweep


def parsed(words: Iterable[str]) -> "list[Override]":
    """Returns what Hydra reads in each word.

    Raises:
        OverrideParseException: (of Hydra) a word cannot be read.
    """
    return [read(word) for word in words]


@lru_cache(maxsize=64)
def read(word: str) -> "Override":
    """Returns the same of one word; once, for a path of 20,000 values takes seconds."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        (found,) = OverridesParser.create().parse_overrides([word])
    except RecursionError as error:
        raise InputError(f"{word[:60]}…: nested too deeply") from error
    return found


def quoted(value: str) -> str:
    """Returns text as a word's value, whatever is in it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single).with_quotes()


def parse_overrides(words: Iterable[str]) -> Overrides:
    """Returns the value of each key; raises what ``parsed`` raises."""
    return {override.key_or_group: override.value() for override in parsed(words)}


def values_of(word: str) -> list[Any]:
    """Returns the values that a word gives its key: several, in a sweep.

    Raises:
        InputError: it has a sweep without values of its own, or with more than a sweep can have.
        OverrideParseException: (of Hydra) it cannot be read.
    """
    from hydra.core.override_parser.types import ValueType

    (override,) = parsed([word])
    if override.value_type in (ValueType.INTERVAL_SWEEP, ValueType.GLOB_CHOICE_SWEEP):
        raise InputError(f"{word}: accepted in a sweep are values like 0,1, choice(0,1) or range(0,1,0.1)")
    if not override.is_sweep_override():
        return [override.value()]
    texts = list(itertools.islice(override.sweep_string_iterator(), MOST_RUNS + 1))
    if len(texts) > MOST_RUNS:
        raise InputError(f"{word}: more than {MOST_RUNS:,} values; accepted are fewer")
    return [each.value() for each in parsed(f"{override.get_key_element()}={text}" for text in texts)]


def split_words(words: Sequence[str]) -> list[list[str]]:
    """Returns the words of each job of a sweep, as Hydra's basic sweeper splits them."""
    choices = []
    for override in parsed(words):
        key = override.get_key_element()
        swept = override.is_sweep_override()
        values = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
        choices.append([f"{key}={value}" for value in values])
    return [list(job) for job in itertools.product(*choices)]
