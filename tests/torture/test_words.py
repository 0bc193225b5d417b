"""Random words of the command line: each is refused in one line, or accepted as what it says, and nothing else."""

import random
from typing import Any

import pytest

from handgrad.cli.command_line import check_arguments, split
from handgrad.cli.configuration import check, leaves, plain, settle
from handgrad.cli.messages import one_line
from handgrad.cli.names import ALSO, CALLBACKS, GROUPS, owners, takes
from handgrad.cli.settings import SETTINGS
from handgrad.runs.overrides import split_words
from tests.torture.trials import trials

WORDS = 100  # in a trial
KEYS = [*SETTINGS, *SETTINGS, *CALLBACKS, *GROUPS, *ALSO, "hydra.run.dir", "hydra/launcher", "hydra.verbose", "resume"]
KEYS += ["task.lr", "data.seed", "optimizer.lr", "task.model", "select", "optimizer._partial_", "hydra.job.name", ""]
VALUES = ["0", "1", "2", "-1", ".5", "0.1", "1e-5", "1_000", "1e400", "nan", "inf", "-inf", "0x10", "012", "1/2", "٣"]
VALUES += ["true", "False", "null", "none", "off", "yes", "auto", "", " ", "a b", "'1'", '"x"', "a.npz", "feats/*.npy"]
VALUES += ["[0,1]", "[3,2]", "[]", "[[1]]", "[a,'b,c']", "{a:1}", "{}", "0,1", "0,02", "range(0,3)", "choice(1,2)"]
VALUES += [
    "interval(0,1)",
    "glob(*)",
    "sort(1,0)",
    "int(1)",
    "${lr}",
    "${oc.env:HOME}",
    "$(ls)",
    "outputs/x",
    "../x",
    "/",
]
VALUES += [
    "outputs/${lr}",
    "latest",
    "true,false",
    "softmax,logistic",
    *(name for names in GROUPS.values() for name in names),
]
OPTIONS = [
    "-m",
    "--multirun",
    "--cfg",
    "-c",
    "job",
    "hydra",
    "-p",
    "trainer",
    "--resolve",
    "--info",
    "-r",
    "--lr=.1",
    "-x",
]
LETTERS = "abcxyzL01259_.,=+-~@:/\\[]{}()'\"$*?%#! \té‖\u202e"


def random_words(draw: random.Random) -> list[str]:
    """Returns a command line of one to three words: settings with values, half of them with slips, options, noise."""
    words = []
    for _ in range(draw.choice((1, 1, 2, 3))):
        kind = draw.random()
        if kind < 0.1:
            words.append("".join(draw.choices(LETTERS, k=draw.randrange(9))))
        elif kind < 0.2:
            words.append(draw.choice(OPTIONS))
        else:
            key = draw.choice(KEYS)
            fitting = FITTING.get(key) if draw.random() < 0.6 else None
            words.append(f"{key}={draw.choice(fitting or VALUES)}")
        if draw.random() < 0.3:
            words[-1] = slipped(words[-1], draw)
    return words


def fits(key: str, text: str) -> bool:
    return (key in SETTINGS or key in GROUPS or key in CALLBACKS) and takes(key, whole(meant(text)))


def slipped(word: str, draw: random.Random) -> str:
    """Returns a word with a letter too many, too few or another one, or two that have changed places."""
    at = draw.randrange(len(word) + 1)
    left, right = word[:at], word[at:]
    right = draw.choice((f"{draw.choice(LETTERS)}{right}", right[1:], f"{draw.choice(LETTERS)}{right[1:]}"))
    return left + draw.choice((right, right[1:2] + right[:1] + right[2:]))


def meant(text: str) -> Any:
    """Returns what a value says to a person, read without Hydra."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.startswith("[") and text.endswith("]") and "[" not in text[1:] and not {*"'\"{("} & {*text}:
        return [meant(part) for part in text[1:-1].split(",")] if text[1:-1].strip() else []
    if text.lower() in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text.lower()]
    try:
        return float(text) if text.isascii() and not text.startswith("0x") and not text.startswith("01") else text
    except ValueError:
        return text


def whole(value: Any) -> Any:
    """Returns a value in which numbers like 2.0 are whole ones, as settings that take numbers take both."""
    if isinstance(value, list):
        return [whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


FITTING = {key: [text for text in VALUES if fits(key, text)] for key in KEYS}


@pytest.mark.slow
@pytest.mark.parametrize("trial", trials(3, 100))
def test_random_words_are_refused_or_are_what_they_say(trial, composed):
    draw, ordinary, refused = random.Random(trial), {}, []
    count = accepted = 0
    while count < WORDS:
        words = random_words(draw)
        count += len(words)
        try:
            check_arguments(words)
            overrides = [word for word in split(words)[1] if not word.startswith(("hydra", "resume="))]
            jobs = split_words(overrides)[:2]
            found = [composed(*job, *pinned(job)) for job in jobs]
            for cfg in found:
                check(cfg)
        except Exception as error:
            refused.append((words, one_line(error)))
            continue
        for job, cfg in zip(jobs, found, strict=True):
            accepted += 1
            assert_says(job, cfg, composed, ordinary)
    for words, line in refused:
        assert line, (words, "would be a traceback")
        assert "\n" not in line, words
    assert accepted, "all were refused"


def pinned(job: list[str]) -> list[str]:
    """Returns words that give features of one's own, which have no default, something to be read later."""
    return ["data.train=a.npz"] if "data=features" in job and not any("data.train=" in word for word in job) else []


def assert_says(job: list[str], cfg: Any, composed: Any, ordinary: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """Checks that a configuration is the one of the same options but for the keys that the words name."""
    groups = tuple(word for word in job if word.partition("=")[0] in GROUPS)
    if groups not in ordinary:
        settle(usual := composed(*groups, *pinned(list(groups))))
        ordinary[groups] = dict(leaves(plain(usual)))
    named = {word.partition("=")[0]: word.partition("=")[2] for word in job if word not in groups}
    for key, value in leaves(plain(cfg)):
        above = {key, key.rpartition(".")[0]}  # of a callback that is switched off, or a table of weights
        if not above & named.keys() and key not in ("data.train", "data.root", "threads"):
            assert value == ordinary[groups][key], (job, key)
    for key, text in named.items():
        assert key in SETTINGS or key in CALLBACKS, job
        assert not owners(key) or any(owner in (*groups, "data=mnist", "optimizer=sgd") for owner in owners(key)), job
        said = meant(text)
        if not isinstance(said, str) or said.isalnum():
            assert key in CALLBACKS or SETTINGS[key].accepts(whole(said)), (job, said)
