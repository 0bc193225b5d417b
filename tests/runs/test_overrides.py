"""Words are read by Hydra's grammar, which is not YAML's."""

import math

import pytest
from hydra.errors import OverrideParseException

from handgrad.runs.overrides import parse_overrides, parsed, quoted

VALUES = [
    ("1", 1),
    ("-1", -1),
    ("1.0", 1.0),
    ("1e-5", 1e-5),  # text to YAML 1.1
    ("1e-05", 1e-5),
    ("1_000", 1000),
    ("inf", math.inf),
    ("true", True),
    ("False", False),
    ("null", None),
    ("yes", "yes"),  # true to YAML 1.1
    ("0x10", "0x10"),
    ("012", "012"),  # 10 to YAML 1.1
    ("softmax", "softmax"),
    ("", ""),
    ("'1'", "1"),
    ("'null'", "null"),
    ('"two words"', "two words"),
    ("'[0,1]'", "[0,1]"),
    (r"a\,b", "a,b"),
    ("[]", []),
    ("[0,0.02,2]", [0, 0.02, 2]),
    ("[ 0 , 1e-3 ]", [0, 1e-3]),
    ("[a,'b,c',null]", ["a", "b,c", None]),
    ("[[1],[2,3]]", [[1], [2, 3]]),
    ("{a:1,b:[x]}", {"a": 1, "b": ["x"]}),
    ("data/../elsewhere", "data/../elsewhere"),
    ("${lr}", "${lr}"),
]


@pytest.mark.parametrize(("text", "value"), VALUES, ids=[text or "empty" for text, _ in VALUES])
def test_values(text, value):
    (found,) = parse_overrides([f"key={text}"]).values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["a b", "it's", "a,b", "[x]", "a\\", "a\\'", "{", "", "1", "a=b"])
def test_any_text_can_be_quoted(text):
    assert parse_overrides([f"key={quoted(text)}"]) == {"key": text}


def test_keys_keep_their_order_and_the_last_value_counts():
    found = parse_overrides(["optimizer.momentum=0.9", "task=softmax", "lr=1", "task=logistic"])
    assert list(found.items()) == [("optimizer.momentum", 0.9), ("task", "logistic"), ("lr", 1)]


def test_no_words_are_no_values():
    assert parse_overrides(iter(())) == {}


@pytest.mark.parametrize("word", ["l2=[0,1", "lr", "", "a b=1", "x={a:}b", "data.root=a=b", "lr='1"])
def test_a_word_that_cannot_be_read_is_named(word):
    with pytest.raises(OverrideParseException) as caught:
        parse_overrides(["epochs=1", word])
    assert caught.value.override == word


def test_a_word_is_read_once_and_its_values_are_not_shared():
    """A path of many values takes seconds to read, and several checks ask for it."""
    assert parsed(["l2=[0,1]"])[0] is parsed(["l2=[0,1]"])[0]
    parse_overrides(["l2=[0,1]"])["l2"].append(2)
    assert parse_overrides(["l2=[0,1]"]) == {"l2": [0, 1]}
