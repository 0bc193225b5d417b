"""Lines of code are found where they stand, and none is invented."""

from functools import partial
from pathlib import Path

import torch

from handgrad.diagnosis.places import methods, place

HERE = Path(__file__)


def helper(x):
    scale = 2
    return scale * x


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return helper(x)

    @staticmethod
    def backward(ctx, grad):
        dx = 2 * grad
        return dx


class Derived(Doubled):
    @staticmethod
    def forward(ctx, x):
        return Doubled.forward(ctx, x)


def code(found: str) -> str:
    """Returns the line that a place names."""
    file, _, number = found.rpartition(":")
    return Path(file).read_text(encoding="utf-8").splitlines()[int(number) - 1].strip()


def test_methods_are_those_of_the_class_then_those_it_inherits_and_none_of_torch():
    assert methods(Derived, "forward") == [Derived.forward, Doubled.forward]
    assert methods(Derived, "backward") == [Doubled.backward]
    assert methods(torch.autograd.Function, "backward") == methods(None, "backward") == []


def test_a_line_is_found_by_how_it_begins_in_the_function_or_in_what_it_calls():
    assert code(place([Doubled.backward], "dx =")) == "dx = 2 * grad"
    assert code(place([Doubled.forward], "scale =")) == "scale = 2"
    assert code(place([Derived.forward, Doubled.forward], "scale =")) == "scale = 2"
    assert code(place([helper], "scale * x")) == "return scale * x"


def test_the_first_code_that_is_there_counts_and_else_the_head():
    assert code(place([Doubled.backward], "dz =", "dx =")) == "dx = 2 * grad"
    assert code(place([Doubled.backward], "dz =")) == "def backward(ctx, grad):"


def test_a_file_below_the_current_folder_is_named_from_there(monkeypatch, tmp_path):
    monkeypatch.chdir(HERE.parent)
    assert place([helper]).partition(":")[0] == HERE.name
    monkeypatch.chdir(tmp_path)
    assert place([helper]).rpartition(":")[0] == str(HERE)


def test_of_what_has_no_source_there_is_no_place():
    typed: dict = {}
    exec("def typed(x):\n    y = x\n    return y", typed)
    assert place([typed["typed"]], "y =") == place([len], "y =") == place([partial(helper, 1)]) == place([]) == ""
