"""``docs/add_a_loss.md``: the files that stand on the page, put where it says, are proven and train."""

import re
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import handgrad.functions
import handgrad.models
from handgrad.callbacks.divergence_check import loss_of_zero
from handgrad.cli import configuration
from handgrad.cli.configuration import CONF, TARGETS
from handgrad.errors import GradientError, InputError
from handgrad.functions.proof import central_difference
from tests.conftest import results
from tests.data.idx_samples import images_and_labels, write
from tests.functions import contract

PAGE = (Path(__file__).parents[1] / "docs/add_a_loss.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
(TARGET,) = re.findall(r'`"([\w.]+)",` in `TARGETS`', PAGE)
MODULES = ("handgrad.functions.linear_poisson", "handgrad.models.poisson_regression")


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Iterator[Path]:
    """The page's files in a tree of their own, which is searched behind the package's."""
    shutil.copytree(CONF, tmp_path / "conf")
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    for package in (handgrad.functions, handgrad.models):
        room = package.__name__.rpartition(".")[2]
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "src/handgrad" / room)])
    monkeypatch.setattr(configuration, "CONF", tmp_path / "conf")
    monkeypatch.setattr(configuration, "TARGETS", {*TARGETS, TARGET})
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)
    for package, name in ((handgrad.functions, "linear_poisson"), (handgrad.models, "poisson_regression")):
        vars(package).pop(name, None)


def test_the_page_has_the_files_that_it_speaks_of():
    assert [*FILES] == [
        "src/handgrad/functions/linear_poisson.py",
        "src/handgrad/models/poisson_regression.py",
        "conf/task/poisson.yaml",
    ]
    assert TARGET in FILES["conf/task/poisson.yaml"]


def by_torch(input, weight, target, bias=None, sample_weight=None):
    """torch's own Poisson loss of the counts, whose gradient is autograd's."""
    logits = contract.plain_logits(input, weight, bias)
    counts = F.one_hot(target, logits.shape[-1]).to(logits.dtype).expand(logits.shape)
    losses = F.poisson_nll_loss(logits, counts, log_input=True, reduction="none").sum(-1)
    return contract.plain_mean(losses, sample_weight), logits


@pytest.mark.parametrize("weighted", [False, True])
def test_its_loss_keeps_the_contract_of_ours(weighted, tree):
    function = import_module("handgrad.functions.linear_poisson").linear_poisson
    loss = contract.Loss(function, by_torch, by_torch, contract.softmax_case)
    for seed in range(20):
        case = contract.softmax_case(seed, weighted)
        contract.check_forward(loss, function, case)
        contract.check_central_difference(loss, function, contract.plain_penalty, case)
        contract.check_autograd(loss, function, contract.plain_penalty, case)


def test_its_curvature_is_the_derivative_of_its_residual(tree):
    module = import_module("handgrad.functions.linear_poisson")
    z, u = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 2, 1, 1])

    def residual(z):
        return torch.func.grad(lambda z: module.plain_poisson(z, target).sum())(z)

    expected = central_difference(residual, [z], [u])
    assert torch.allclose(module.poisson_curvature(z, u), expected, rtol=1e-9)


def test_its_loss_of_weights_that_are_zero_is_known(tree):
    """So that a run is not told that it is worse than that: a rate of one for each of three classes."""
    model = import_module("handgrad.models.poisson_regression").PoissonRegression
    assert loss_of_zero(model(num_features=4, num_classes=3, l2=[0])) == 3


@pytest.fixture
def words(tmp_path) -> list[str]:
    write(tmp_path / "letters", train=images_and_labels(200, 5), test=images_and_labels(50, 5, seed=1))
    data = ["data=idx", f"data.folder={tmp_path}/letters", "batch_size=20", "logger=none"]
    return ["task=poisson", *data, "epochs=8", "lr=0.05", "l2=[0,0.01]"]


def test_the_command_line_trains_it(tree, run, words):
    rows = results(run(*words))
    assert [row["l2"] for row in rows] == [0, 0.01]
    assert {row["task"] for row in rows} == {"poisson"}
    assert all(row["test_accuracy"] > 0.9 for row in rows)


def test_the_mistake_that_the_page_plants_is_found(tree, run, words):
    path = tree / "src/handgrad/functions/linear_poisson.py"
    text = path.read_text()
    assert text.count("(rate - y)") == 1
    path.write_text(text.replace("(rate - y)", "rate"))
    with pytest.raises(GradientError, match="linear_poisson"):
        run(*words)


@pytest.mark.parametrize("asked", ["optimizer=exact", "l2=auto"])
def test_a_proof_that_there_is_none_of_is_refused_as_the_page_says(asked, tree, run, words):
    words = [word for word in words if not word.startswith(("batch_size", "epochs", "lr"))]
    with pytest.raises(InputError, match=r"^linear_poisson: .*; accepted are optimizer=sgd or adam") as error:
        run(*words, asked)
    assert "\n" not in str(error.value)
