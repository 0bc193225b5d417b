"""Each private name that is used still does what it is used for; if not, a sentence says what to do."""

import inspect
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.loops.progress import _OptimizerProgress

from handgrad import compat

PACKAGE = Path(__file__).parents[1] / "src" / "handgrad"
# Private names: an attribute or an import that begins with one underscore, of a module that is not ours.
PRIVATE = re.compile(
    r"\b(?:torch|pl|pytorch_lightning|lightning_fabric|hydra|omegaconf)(?:\.\w+)*(?:\.| import )_[a-z]\w*"
)
HIDDEN = re.compile(r"__wrapped__|optim_step_progress|strategy\.launcher|_get_node|hydra\._internal")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_stand_in_compat_alone(path):
    if path.name != "compat.py":
        text = path.read_text(encoding="utf-8")
        assert not PRIVATE.findall(text) + HIDDEN.findall(text), "name it in compat.py, with a reason and a test"


def test_the_function_that_an_output_came_from_is_known():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * x

        @staticmethod
        def backward(ctx, grad_output):
            return grad_output

    x = torch.ones(2, requires_grad=True)
    found = [compat.function_of(y) for y in (Square.apply(x), 2 * Square.apply(x).sum().exp(), x.exp(), x)]
    assert found == [Square, Square, None, None], (
        "torch no longer keeps the Function in the class of its node: the gradient check would name what is wrong "
        "without the line of code. Find the new name, or let function_of return None."
    )


def test_functorch_is_active():
    told = []

    def function(x):
        told.append(compat.functorch_is_active())
        return x.sum()

    function(torch.ones(2))
    torch.func.grad(function)(torch.ones(2))
    torch.func.vmap(function)(torch.ones(2, 2))
    assert told == [False, True, True], (
        "torch no longer tells by this name whether torch.func is at work: without it the losses take their quick way "
        "inside a transform, where torch refuses it. Find the new name, or always take the slow way."
    )


# torch's own forward-mode tables are built with the deprecated torch.jit.script.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_can_be_switched_on_inside_a_jvp():
    found = []

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            """Saves nothing."""

        @staticmethod
        def jvp(ctx, tangent):
            with compat.forward_mode(True):
                found.append(torch._C._is_fwd_grad_enabled())
                return 2 * tangent

    torch.func.jvp(Square.apply, (torch.ones(1),), (torch.ones(1),))
    assert found == [True], (
        "Forward mode is no longer switched on by this name: second derivatives by jacfwd would silently be 0 "
        "(pytorch issue 197867, which may be mended by now: then take compat.forward_mode out)."
    )


def test_quick_grad_is_torchs_grad():
    x, y = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    output, arriving = x * y.exp(), torch.randn(3)
    expected = torch.autograd.grad(output, (x, y), arriving, retain_graph=True)
    assert all(map(torch.equal, compat.quick_grad(output, (x, y), arriving), expected)), (
        "torch's engine takes other arguments now: use torch.autograd.grad, at an eighth of an update, or adapt."
    )


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_bare_step_is_a_step(kind):
    parameters = [torch.ones(3), torch.ones(3)]
    for parameter, step in zip(parameters, ("step", "bare"), strict=True):
        parameter.grad = torch.arange(3.0)
        optimizer = kind([parameter], lr=0.1)
        compat.bare_step(optimizer)() if step == "bare" else optimizer.step()
    assert torch.equal(*parameters), (
        "torch.optim's step is no longer wrapped in the hook that compat.bare_step leaves out: call step itself."
    )


def test_a_bare_step_leaves_the_profiler_hook_out():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1)
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    optimizer.step()
    compat.bare_step(optimizer)()
    assert called == [1], "compat.bare_step no longer leaves anything out: it is of no use any more"


def test_updates_are_counted_where_global_step_looks():
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    trainer.strategy._lightning_module = SimpleNamespace(automatic_optimization=False)
    compat.count_updates(trainer, 7)
    compat.count_updates(trainer, 2)
    assert trainer.global_step == 9, (
        "Lightning counts manual updates elsewhere now: the curves' axis, the checks and a resumed run follow from "
        "global_step. Find where TrainingEpochLoop.global_step looks."
    )
    assert isinstance(
        trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress, type(_OptimizerProgress().step)
    )


def test_a_checkpoint_says_that_an_epoch_begins():
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    told = {"loops": {"fit_loop": trainer.fit_loop.state_dict()}}
    fit = told["loops"]["fit_loop"]
    shape = {name: set(fit[name]["total"]) for name in ("epoch_progress", "epoch_loop.batch_progress")}
    keys = set(fit)
    compat.begin_epochs(told, 3)
    assert set(fit) == keys, "Lightning names its loops' progress otherwise now: a resumed run would begin elsewhere"
    assert fit["epoch_progress"]["total"]["completed"] == 3
    assert fit["epoch_loop.batch_progress"]["total"]["ready"] == 0
    assert {name: set(fit[name]["total"]) for name in shape} == shape, "Lightning counts other things now: add them"
    trainer.fit_loop.load_state_dict(fit)


def test_launched_processes_are_lightnings_own_list():
    """Lightning's watchman, a thread, looks at the very list."""
    from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

    launcher = _SubprocessScriptLauncher(SimpleNamespace(), num_processes=2, num_nodes=1)
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
    assert compat.launched_processes(trainer) is launcher.procs, (
        "Lightning keeps the processes that it starts elsewhere now: after an error they would wait for ever."
    )
    assert compat.launched_processes(SimpleNamespace(strategy=SimpleNamespace(launcher=None))) == []


def test_hydras_joblib_launcher_launches_by_what_it_is_given(monkeypatch):
    from hydra_plugins.hydra_joblib_launcher import _core

    monkeypatch.setattr(_core, "Parallel", _core.Parallel)
    compat.launch_by(len)
    assert (_core.Parallel, "Parallel" in _core.launch.__code__.co_names) == (len, True), (
        "Hydra's joblib launcher finds joblib.Parallel elsewhere now: one killed process would end a whole sweep."
    )
    taken = list(inspect.signature(_core.execute_job).parameters)
    assert taken == ["idx", "overrides", "hydra_context", "config", "task_function", "singleton_state"], (
        "A job of Hydra's joblib launcher takes other arguments now: see compat.in_place_of."
    )


def test_hydras_submitit_launcher_submits_by_what_it_is_given(monkeypatch):
    import submitit
    from hydra_plugins.hydra_joblib_launcher import _core
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

    monkeypatch.setattr(submitit, "AutoExecutor", submitit.AutoExecutor)
    compat.submit_by(len)
    source = inspect.getsource(BaseSubmititLauncher.launch)
    asked = ("submitit.AutoExecutor(cluster=", "executor.map_array(self, ", "[j.results()[0] for j in jobs]")
    assert submitit.AutoExecutor is len
    assert all(call in source for call in asked), (
        "Hydra's submitit launcher submits otherwise now: one killed job would end a whole sweep."
    )
    taken = [*inspect.signature(BaseSubmititLauncher.__call__).parameters][1:]
    assert taken == ["sweep_overrides", "job_dir_key", "job_num", "job_id", "singleton_state"], (
        "A job of Hydra's submitit launcher takes other arguments now: see compat.as_joblibs."
    )
    launcher = SimpleNamespace(hydra_context="context", config="config")
    function, arguments, named = compat.as_joblibs(launcher, (["l2=0"], "hydra.sweep.dir", 3, "job_id_for_3", {}))
    assert inspect.signature(_core.execute_job).bind(*arguments, **named).arguments == {
        "idx": 3,
        "overrides": ["l2=0"],
        "hydra_context": "context",
        "config": "config",
        "task_function": None,
        "singleton_state": {},
    }
    assert function is _core.execute_job


def test_lightning_starts_further_processes_by_the_words_that_were_typed():
    from hydra.core.hydra_config import HydraConfig
    from pytorch_lightning.strategies.launchers import subprocess_script

    taken = inspect.getsource(subprocess_script._SubprocessScriptLauncher._call_children_scripts)
    assert "hydra_in_use = HydraConfig.initialized()" in taken, (
        "Lightning asks Hydra for something else now: see compat.plain_children."
    )
    instance = HydraConfig.instance()
    before, instance.cfg = instance.cfg, OmegaConf.create({"hydra": {}})
    try:
        with compat.plain_children():
            assert not HydraConfig.initialized()
        assert HydraConfig.initialized()
    finally:
        instance.cfg = before


def test_known_warnings_are_kept_quiet_and_no_others():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        compat.ignore_known_warnings()
        warnings.warn("`LightningModule.configure_optimizers` returned `None`, this fit will run", stacklevel=1)
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in told] == ["something else"]
