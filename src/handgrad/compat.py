"""Every private name of torch, Lightning and Hydra that is used, and why; tests/test_compat.py guards each.

Written for torch 2.14.1 and pytorch-lightning 2.6.6. What takes an object of Lightning's does not import it.
"""

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward

# Whether the call stands inside a transform of torch.func. torch says so by no public name, and a Function whose
# forward has a ctx, which is 7 us quicker to call, is refused there.
functorch_is_active: Callable[[], bool] = torch._C._are_functorch_transforms_active

# Switches forward mode on again inside a Function's jvp, where torch switches it off (pytorch issue 197867).
forward_mode = torch.autograd.forward_ad._set_fwd_grad_enabled


def quick_grad(output: Tensor, inputs: tuple[Tensor, ...], grad_output: Tensor) -> tuple[Tensor, ...]:
    """``torch.autograd.grad(output, inputs, grad_output)`` without its checks, which cost an eighth of an update."""
    return _engine_run_backward((output,), (grad_output,), False, False, inputs, False, accumulate_grad=False)


def bare_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """Returns ``optimizer.step`` without torch's profiler hook around it, which costs a seventh of an update.

    Hooks registered with the optimizer are left out with it.
    """
    step: Any = type(optimizer).step
    return partial(step.__wrapped__, optimizer)


def count_updates(trainer: Any, updates: int) -> None:
    """Moves a Trainer's ``global_step`` on: under manual optimization it counts calls of Lightning's own optimizers.

    Those ask every callback six times per update, as long as the update itself takes.
    """
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for count in (progress.total, progress.current):
        count.ready += updates
        count.completed += updates


def begin_epochs(checkpoint: dict[str, Any], epochs: int) -> None:
    """Makes Lightning's part of a checkpoint say that ``epochs`` are behind and the next has just begun.

    Where in an epoch a run goes on follows from ``global_step`` alone; Lightning's own counts cannot say it.
    """
    fresh = {"ready": 0, "completed": 0, "started": 0, "processed": 0}
    fit = checkpoint["loops"]["fit_loop"]
    fit["epoch_progress"] = {scope: dict.fromkeys(fresh, epochs) for scope in ("total", "current")}
    progress = fit["epoch_loop.batch_progress"]
    fit["epoch_loop.batch_progress"] = {**progress, "total": fresh, "current": fresh, "is_last_batch": False}


def was_restoring(error: BaseException) -> bool:
    """Tells whether Lightning was putting back what a checkpoint holds when ``error`` was raised.

    It takes a checkpoint apart without a look at it, and says nothing of it to anybody before the training starts.
    """
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").endswith(".checkpoint_connector") for frame, _ in frames)


def launched_processes(trainer: Any) -> list[Any]:
    """Returns the processes of a distributed run that this process started.

    Taking one out of the list hides it from Lightning's watchman, who would kill this process because of it.
    """
    return getattr(trainer.strategy.launcher, "procs", [])


def launch_by(parallel: Callable[..., Any]) -> None:
    """Makes Hydra's joblib launcher call ``parallel`` in place of ``joblib.Parallel``: there is no setting for that."""
    from hydra_plugins.hydra_joblib_launcher import _core

    _core.Parallel = parallel


def in_place_of(call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]], task: Callable[..., Any]) -> Any:
    """Returns what a job of Hydra's joblib launcher returns, in this process, with ``task`` in the program's place.

    Args:
        call: as the launcher hands it to ``joblib.Parallel``.
    """
    from hydra.core.utils import configure_log

    function, (number, words, context, config, _, singletons), named = call
    returned = function(number, words, context, config, task, singletons, **named)
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)  # what comes next does not belong to the job's log
    return returned


def submit_by(executor: Any) -> None:
    """Makes Hydra's submitit launcher submit by ``executor`` in place of ``submitit.AutoExecutor``, as above."""
    import submitit

    submitit.AutoExecutor = executor  # type: ignore[misc]


def as_joblibs(launcher: Any, arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Returns a job of Hydra's submitit launcher as its joblib launcher would call it, for ``in_place_of``.

    Args:
        arguments: that the launcher is called with in the job's process.
    """
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    words, _, number, _, singletons = arguments
    return execute_job, (number, words, launcher.hydra_context, launcher.config, None, singletons), {}


@contextmanager
def plain_children() -> Iterator[None]:
    """Lets Lightning start the other processes of a run by this one's very words: they are told the folder.

    Where it sees Hydra's configuration it adds words that name the folder, and which nobody has typed.
    """
    from hydra.core.hydra_config import HydraConfig

    seen = HydraConfig.instance()
    before, seen.cfg = seen.cfg, None
    try:
        yield
    finally:
        seen.cfg = before


def ignore_known_warnings() -> None:
    """Keeps quiet about what is meant to be so, or what the user cannot mend."""
    # Lightning uses what torch calls deprecated.
    warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec", category=FutureWarning)
    # The solver has the optimizers; Lightning knows none.
    warnings.filterwarnings("ignore", message=".LightningModule.configure_optimizers. returned .None.")


def function_of(output: Tensor) -> type | None:
    """Returns the ``autograd.Function`` that ``output`` came from last; None where it came from none.

    The node of its backward is of a class that torch makes, and which alone knows the Function.
    """
    nodes = [output.grad_fn]
    for node in nodes:
        if node is None:
            continue
        if found := getattr(node, "_forward_cls", None):
            return found
        nodes += [earlier for earlier, _ in node.next_functions if earlier not in nodes]
    return None
