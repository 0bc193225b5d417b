"""Override words such as ``data.shuffle=true`` as values by key, read by Hydra's own parser."""

from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

Overrides = dict[str, Any]


def parse_overrides(words: Iterable[str]) -> Overrides:
    """Returns the value of each key.

    Raises:
        OverrideParseException: (of Hydra) a word cannot be read.
    """
    return {found.key_or_group: found.value() for found in OverridesParser.create().parse_overrides(list(words))}
