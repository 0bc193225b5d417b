"""A run on a device finds what a run on the CPU finds: on one that is none, and on a GPU where there is one."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from handgrad.callbacks.gradient_check import GradientCheck
from handgrad.errors import InputError
from handgrad.evaluation import outcome_of
from handgrad.fit import check_float64
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.runs.checkpoint_file import read_checkpoint, sealed
from handgrad.solvers.adam import Adam
from handgrad.solvers.exact import Exact
from handgrad.solvers.sgd import SGD
from handgrad.training.pipeline import Pipeline
from tests.data.test_base import clouds
from tests.pretended_device import DEVICE, pretended

ROOT = Path(__file__).parents[1]
L2 = (0.02, 0.5)
SOLVERS = {"sgd": SGD(lr=0.1, momentum=0.5), "adam": Adam(lr=0.01), "exact": Exact(1e-6, 100)}


def sent(model: LinearClassifier, device: torch.device) -> LinearClassifier:
    """Moves parameters and buffers as Lightning does."""
    for name, parameter in model.named_parameters():
        model._parameters[name] = torch.nn.Parameter(parameter.detach().to(device))
    for name, buffer in model.named_buffers():
        model._buffers[name] = buffer.to(device)
    return model


def trained(solver: Any, device: torch.device, tmp_path: Any) -> dict[str, Tensor]:
    """Trains, checks and saves as a run does; returns all that it finds, on the CPU."""
    data = clouds()
    model = SoftmaxRegression(num_features=2, num_classes=3, l2=L2)
    if solver.one_at_a_time:
        data.serve_whole(len(L2))
        model.double()
    data.setup()
    strategy = SimpleNamespace(root_device=device)
    trainer = SimpleNamespace(
        strategy=strategy, global_step=0, global_rank=0, world_size=1, should_stop=False, callback_metrics={}
    )
    data.trainer = model._trainer = trainer
    model = sent(model, device)
    trainer.train_dataloader = data.train_dataloader()
    trainer.logger = None
    with Pipeline(solver, 1, side_by_side=False) as model.pipeline:
        model.on_fit_start()
        GradientCheck(tolerance=1e-6, directions=1, classifiers=2).on_train_start(trainer, model)
        for block in trainer.train_dataloader:
            curves = model.training_step(block, 0)
            (batch,) = data.val_dataloader()
            model.validation_step(batch, 0)
            model.on_validation_epoch_end()
        checkpoint: dict[str, Any] = {"state_dict": model.state_dict(), "callbacks": {}}
        model.on_save_checkpoint(checkpoint)
        (tmp_path / "last.ckpt").write_bytes(sealed(checkpoint))
        outcome = outcome_of(model, model.best_weight[0], model.best_bias[0], data.val, keep=True)
    assert all(values.device.type == "cpu" for values in (*model.metrics.values(), model.best_loss, model.moved))
    found = {f"curve {name}": values.cpu() for name, values in curves.items()} | model.metrics
    found |= {name: tensor for name, tensor in outcome._asdict().items() if isinstance(tensor, Tensor)}
    return found | {"weight": model.weight.detach().cpu(), "best": model.best_weight.cpu(), "steps": model.steps.cpu()}


@pytest.fixture(autouse=True)
def updates(monkeypatch):
    monkeypatch.setattr("handgrad.models.linear_classifier.count_updates", lambda trainer, n: None)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_on_a_device_finds_the_same_bits(name, tmp_path):
    expected = trained(SOLVERS[name], torch.device("cpu"), tmp_path)
    with pretended() as device:
        found = trained(SOLVERS[name], DEVICE, tmp_path)
    assert device.waits
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert torch.equal(found[key].nan_to_num(-1.0), values.nan_to_num(-1.0)), key
    saved = read_checkpoint(tmp_path / "last.ckpt")
    tensors = [*saved["state_dict"].values(), *saved["solver"]["memory"].values(), saved["best_loss"]]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert torch.equal(saved["state_dict"]["weight"], expected["weight"])
    assert saved["solver"]["device"] == "meta"


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_run_makes_no_float64_where_a_device_has_none(name, tmp_path, monkeypatch):
    expected = trained(SOLVERS[name], torch.device("cpu"), tmp_path)
    monkeypatch.setattr("handgrad.functions.samples.WITHOUT_FLOAT64", ("meta",))
    with pretended(float64=False):
        found = trained(SOLVERS[name], DEVICE, tmp_path)
    assert torch.equal(found["weight"], expected["weight"])
    assert found["loss/val"].dtype == torch.float64
    torch.testing.assert_close(found["loss/val"], expected["loss/val"], rtol=1e-6, atol=0)


def test_updates_wait_for_no_device(tmp_path, monkeypatch):
    """Between two checks nothing does, but to see once which entries have stopped and to say what moved."""
    waits = []
    step = SGD.step

    def watched(self, objective, state, block, active):
        device.waits.clear()
        found = step(self, objective, state, block, active)
        waits.append((len(block), sum(device.waits.values())))
        return found

    monkeypatch.setattr(SGD, "step", watched)
    with pretended() as device:
        trained(SOLVERS["sgd"], DEVICE, tmp_path)
    assert max(updates for updates, _ in waits) >= 5
    assert {count for _, count in waits} == {1}


@pytest.mark.parametrize(("name", "then"), [("device", "NVIDIA H100"), ("number of processes", "4"), ("torch", "1.0")])
def test_a_run_that_goes_on_elsewhere_says_that_bits_may_differ(name, then, caplog):
    model = SoftmaxRegression(num_features=2, num_classes=3, l2=L2)
    with Pipeline(SOLVERS["sgd"], 1) as pipeline:
        pipeline.start(model.objective(), model.weight, model.bias, model.active)
        saved = pipeline.state_dict()
    for state, told in ((saved, 0), (saved | {name: then}, 1)):
        with Pipeline(SOLVERS["sgd"], 1) as pipeline:
            pipeline.load_state_dict(state)
            pipeline.start(model.objective(), model.weight, model.bias, model.active)
        assert caplog.text.count("bits may differ") == told
    assert f"{name} was {then} when the run was saved, is {saved[name]} now: bits may differ" in caplog.text


def test_an_optimum_is_not_proven_where_a_device_has_no_float64():
    with pytest.raises(InputError, match=r"trainer\.accelerator=mps: has no float64; accepted .* is cpu"):
        check_float64(SOLVERS["exact"], torch.device("mps"))
    check_float64(SOLVERS["exact"], torch.device("cuda"))
    check_float64(SOLVERS["sgd"], torch.device("mps"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", SOLVERS)
def test_a_gpu_finds_what_the_cpu_finds(name, tmp_path):
    expected = trained(SOLVERS[name], torch.device("cpu"), tmp_path)
    found = trained(SOLVERS[name], torch.device("cuda", 0), tmp_path)
    assert found.keys() == expected.keys()
    for key in ("weight", "loss/val", "loss"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-5)


# --- the page ---------------------------------------------------------------------------------------------------------

WORDS = re.compile(r"device|root_device|cuda|mps|widest|pin_memory|ON_DEVICE|WITHOUT_FLOAT64|cpu")
STRINGS = {'"cpu"', '"cuda"', '"mps"', '"nccl"'}
ROW = re.compile(r"^\| `(?P<file>[\w/]+\.py)` \| (?P<names>[^|]+) \| [^|]+ \|$", re.MULTILINE)


def device_lines(package: Path) -> dict[str, list[str]]:
    """Returns, for each file in which a line depends on the device, the functions (or names) that have such lines."""
    found: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        lines = {
            token.start[0]
            for token in tokens
            if (token.type == tokenize.NAME and WORDS.fullmatch(token.string)) or token.string in STRINGS
        }
        if names := [name for name, first, last in places(ast.parse(text)) if lines & {*range(first, last + 1)}]:
            found[str(path.relative_to(package))] = names
    return found


def places(node: ast.AST, within: str = "") -> Iterator[tuple[str, int, int]]:
    """Yields functions by their names, classes' own fields and assignments of a module, each with its lines."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from places(child, f"{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            yield within + child.name, child.lineno, child.end_lineno or child.lineno
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            yield within + ast.unparse(targets[0]).strip("()"), child.lineno, child.end_lineno or child.lineno


def test_the_page_lists_every_line_that_depends_on_the_device():
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    listed = {row["file"]: re.findall(r"`([\w.]+)`", row["names"]) for row in ROW.finditer(page)}
    assert listed == device_lines(ROOT / "src" / "handgrad")
