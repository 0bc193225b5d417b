"""Override words such as ``data.shuffle=true``, read by Hydra's own parser, which is loaded when it is asked for."""

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

Overrides = dict[str, Any]


def parsed(words: Iterable[str]) -> "list[Override]":
    """Returns what Hydra reads in each word.

    Raises:
        OverrideParseException: (of Hydra) a word cannot be read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(list(words))


def quoted(value: str) -> str:
    """Returns text as a word's value, whatever is in it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single).with_quotes()


def parse_overrides(words: Iterable[str]) -> Overrides:
    """Returns the value of each key; raises what ``parsed`` raises."""
    return {override.key_or_group: override.value() for override in parsed(words)}


def split_words(words: Sequence[str]) -> list[list[str]]:
    """Returns the words of each job of a sweep, as Hydra's basic sweeper splits them."""
    choices = []
    for override in parsed(words):
        key = override.get_key_element()
        swept = override.is_sweep_override()
        values = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
        choices.append([f"{key}={value}" for value in values])
    return [list(job) for job in itertools.product(*choices)]
