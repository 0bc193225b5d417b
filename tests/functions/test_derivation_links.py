"""Every link from the derivation into the code names the line that holds the code quoted in it; that line is run."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from handgrad.functions import l2_penalty
from handgrad.functions.objective import LOGISTIC, MULTILABEL, SOFTMAX, Objective
from handgrad.solvers.first_order import weighted_share
from tests.functions.contract import binary_case, multilabel_case, softmax_case

# torch's own forward-mode tables are built with the deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

PAGE = Path(__file__).parents[2] / "docs" / "derivation.md"
LINK = re.compile(r"\[`(?P<name>[\w.]+): (?P<code>[^`]+)`\]\((?P<path>\.\./src/[\w./]+)#L(?P<line>\d+)\)")
LINKS = list(LINK.finditer(PAGE.read_text(encoding="utf-8")))


def test_links_lead_to_the_code_they_quote():
    assert len(LINKS) >= 50
    wrong = []
    for link in LINKS:
        file = PAGE.parent / link["path"]
        assert file.name == link["name"]
        lines = file.read_text(encoding="utf-8").splitlines()
        if link["code"] not in lines[int(link["line"]) - 1]:
            right = [number for number, line in enumerate(lines, 1) if link["code"] in line]
            wrong.append(f"{link['path']}#L{link['line']}: {link['code']!r} is now in lines {right}")
    assert not wrong, "\n".join(wrong)


def test_no_link_into_the_code_goes_unchecked():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("](../") == len(LINKS)


def test_display_formulas_are_single_lines():
    """GitHub and latex2mathml both read a formula whose two $$ stand on one line."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        assert line.count("$$") in (0, 2), line
        assert line.count("$") % 2 == 0, line


def lines_run(call: Callable[[], None]) -> set[tuple[str, int]]:
    """Returns the lines, by file and number, that ``call`` goes through in the linked files."""
    files = {str((PAGE.parent / link["path"]).resolve()) for link in LINKS}
    found: set[tuple[str, int]] = set()

    def trace(frame, event, _):
        if frame.f_code.co_filename not in files:
            return None
        found.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return found


def differentiate() -> None:
    """Takes all derivatives of the page, of each loss and the penalty, with and without sample weights."""
    cases = ((SOFTMAX, softmax_case(0, True, N=501, K=4, L=1)), (SOFTMAX, softmax_case(0, N=5)))
    cases += ((LOGISTIC, binary_case(0, True)), (MULTILABEL, multilabel_case(0)))
    for loss, case in cases:
        x, w = case.parameters["input"], case.parameters["weight"]
        b = case.parameters.get("bias", w.new_zeros(w.shape[:2]))
        objective = Objective(loss, case.l2.clamp(min=0.1), rows=3 if len(x) < 9 else None)
        objective.gradient(w, b, x, case.target, case.sample_weight)
        objective.penalty(w, b)
        objective.hessian_vector_product(w, b, w, b, x, case.sample_weight)
        objective.data_term(w, b, x, case.target, case.sample_weight)
        loss.plain(w @ x.t() + b.unsqueeze(2), case.target)

        def both(x, w, b, y=case.target, case=case, loss=loss):
            return loss.function(x, w, y, b, case.sample_weight)

        (total, logits), back = torch.func.vjp(both, x, w, b)
        back((torch.ones_like(total), torch.ones_like(logits)))
        torch.func.jvp(both, (x, w, b), (x, w, b))
        penalty, back = torch.func.vjp(l2_penalty, w, case.l2)
        back(torch.ones_like(penalty))
        torch.func.jvp(l2_penalty, (w, case.l2), (w, case.l2))
        torch.func.vmap(both, (None, None, None, 0))(x, w, b, case.target.expand(2, *case.target.shape))
    weighted_share(torch.ones(3), 1.0)


@pytest.mark.no_cover  # it traces lines by itself
def test_each_linked_line_is_run():
    """A formula's line computes it: none is a comment, or a branch that nothing takes."""
    torch.func.jvp(
        torch.sin, (torch.ones(1),), (torch.ones(1),)
    )  # reads torch's own tables, which is long to be traced
    run = lines_run(differentiate)
    linked = {(str((PAGE.parent / link["path"]).resolve()), int(link["line"])): link["code"] for link in LINKS}
    assert not {code for place, code in linked.items() if place not in run and not code.startswith("@")}
