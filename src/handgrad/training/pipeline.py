"""The training loop's one room: who makes which update when, in which thread.

Two threads, blocks 1, 2 and 3 of mini-batches, with a check after each::

    main thread    | updates 1 |  evaluation 1  | save, draw, stop? | take 2 over |  evaluation 2  | save, draw, stop? |
    second thread  |           | updates 2, evaluation 1 |          |             | updates 3, evaluation 2 |          |

While a check evaluates what block 1 led to, block 2 is trained ahead on a copy of the parameters. When its turn comes
the model takes the copy over; if the check stopped an entry of the path meanwhile, the copy is thrown away and block 2
made anew. So at every check the model, its checkpoint and its pictures are what a plain loop would have there.

What a check has to do, the next block's updates first, lies in one list, from which each thread takes what comes next.
Updates have one thread each, and a long path is updated in parts: no bit depends on the number of threads.
"""

import logging
import math
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from handgrad.data.blocks import Block, Samples
from handgrad.data.rows import fleeting
from handgrad.errors import InputError
from handgrad.functions.objective import InOrder, Objective
from handgrad.solvers.protocol import Progress, Solver, State, copy_entries
from handgrad.training.processes import cores

log = logging.getLogger(__name__)

OUTPUTS_OF_A_PART = 500  # L * K; smaller parts would be slowed down by one another's Python
# What is evaluated at once: much, for threads disturb one another at every step of Python between two operations.
LOGITS_AT_ONCE, LEAST_SAMPLES = 700_000, 1000
READ_AT_ONCE = 2**18  # numbers that a thread reads from disk, or casts, at once
ON_DEVICE = 2**26  # of both on anything but a processor, where starting an operation is what takes time


class Part:
    """The entries ``rows`` of a path, with a state of their own."""

    def __init__(self, solver: Solver, objective: Objective, whole: State, rows: slice) -> None:
        self.solver, self.rows = solver, rows
        self.objective = replace(objective, l2=objective.l2[rows])
        self.state = solver.init(whole.weight.detach()[rows].clone(), whole.bias.detach()[rows].clone())
        self.active = torch.empty(0)
        self.progress: Progress | None = None

    def fetch(self, whole: State, active: Tensor) -> None:
        """Takes over the whole path's state."""
        copy_entries(whole, self.rows, self.state, slice(None))
        self.active = active[self.rows].clone()

    def train(self, block: Block) -> None:
        """Makes the updates of ``block``, also in the midst of an evaluation, where Lightning records no gradients."""
        with torch.inference_mode(False):
            self.progress = self.solver.step(self.objective, self.state, block, self.active)

    def is_valid(self, active: Tensor) -> bool:
        """Returns whether updates were made, of the entries that have not stopped by now."""
        return self.progress is not None and torch.equal(self.active, active[self.rows])

    def hand_over(self, whole: State) -> Progress:
        """Gives the whole path its state; returns what was done."""
        assert self.progress is not None
        copy_entries(self.state, slice(None), whole, self.rows)
        progress, self.progress = self.progress, None
        return progress


class Pipeline:
    """Trains blocks and evaluates sets; lends itself out as a context, at whose end its threads are gone.

    Args:
        solver: makes the updates.
        threads: number of processor threads, or ``"auto"``: one for every core that the process may use, in a
            distributed run this process's share of them.
        local_processes: processes of the run on this machine.
        total: adds a tensor up over all processes; None: there is one.
        side_by_side: whether threads may work side by side: not on a GPU, and not under autocast, which holds for the
            one thread that switched it on.
    """

    def __init__(
        self,
        solver: Solver,
        threads: int | str = "auto",
        *,
        local_processes: int = 1,
        total: Callable[[Tensor], Tensor] | None = None,
        side_by_side: bool = True,
    ) -> None:
        self.solver, self.total, self.side_by_side = solver, total, side_by_side
        share = cores(local_processes)
        count = share if threads == "auto" else int(threads)
        if count > share:
            log.warning("threads=%d: this process may use %d; more only wait for one another", count, share)
        self.threads = count if side_by_side else 1
        self.pool: ThreadPoolExecutor | None = None
        self.parts: list[Part] = []
        self.ahead: list[Callable[[], None]] = []  # what makes the next block's updates, in whatever threads call it
        self.memory: dict[str, Tensor] | None = None  # of a solver that goes on
        self.began_here: dict[str, str] = {}  # what its bits depended on before
        self.seconds = 0.0  # from the first update to the latest check, in earlier processes too
        self.began: float | None = None

    @property
    def one_at_a_time(self) -> bool:
        """Whether blocks are the whole training set, each for one entry of the path."""
        return self.solver.one_at_a_time

    def __enter__(self) -> "Pipeline":
        self.torchs_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        if self.threads > 1:
            self.pool = ThreadPoolExecutor(self.threads - 1, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)
            self.pool = None
        torch.set_num_threads(self.torchs_threads)

    def start(self, objective: Objective, weight: Tensor, bias: Tensor, active: Tensor) -> None:
        """Begins, or goes on from what ``load_state_dict`` was given.

        Args:
            objective: what is minimized.
            weight, bias: ``(L, K, D)`` and ``(L, K)``: where training begins, and what it changes.
            active: ``(L,)``, 1 while an entry trains, set to 0 by whoever stops it.
        """
        self.objective, self.active = replace(objective, run=self.run), active
        self.whole = self.solver.init(weight, bias)
        if self.memory is not None:
            self.restore(self.memory)
        for name, then in self.began_here.items():
            if then != (now := self.here()[name]):
                log.warning("%s was %s when the run was saved, is %s now: bits may differ", name, then, now)
        if self.side_by_side and self.total is None and not self.solver.one_at_a_time:
            paths, outputs = bias.shape
            size = math.ceil(paths / math.ceil(paths * outputs / OUTPUTS_OF_A_PART))
            rows = [slice(first, first + size) for first in range(0, paths, size)]
            self.parts = [Part(self.solver, objective, self.whole, part) for part in rows]
        log.info("Threads: %d", self.threads)

    def restore(self, memory: dict[str, Tensor]) -> None:
        """Gives the solver back what it knew; an InputError tells if that is of another solver, or of none."""
        own = {name: tensor for name, tensor in self.whole.tensors().items() if name not in ("weight", "bias")}
        for name in own | memory:
            found = memory.get(name)
            if name not in own or not isinstance(found, Tensor) or found.shape != own[name].shape:
                raise InputError(
                    f"the checkpoint's {name}: accepted is what the solver has: {', '.join(own) or 'nothing'}"
                )
            own[name].copy_(found)

    def finish(self) -> None:
        """Ends the training."""
        self.parts, self.ahead, self.began = [], [], None

    def done(self) -> Tensor:
        """Returns ``(L,)``, true for the entries at which the solver has nothing more to do."""
        return self.solver.done(self.whole)

    def report(self) -> dict[str, Tensor]:
        """Returns what the solver knows of each entry, by the names of the results, each (L,)."""
        return self.solver.report(self.whole)

    def train(self, block: Block) -> Progress:
        """Makes the updates of ``block``, or takes over those made ahead."""
        if self.began is None:
            self.began = time.monotonic() - self.seconds
        if not self.parts:
            return self.solver.step(self.objective, self.whole, block, self.active)
        to_be_made = [part for part in self.parts if not part.is_valid(self.active)]
        for part in to_be_made:
            part.fetch(self.whole, self.active)
        self.run([partial(part.train, block) for part in to_be_made])
        done = [part.hand_over(self.whole) for part in self.parts]
        following = block.following()
        self.ahead = [partial(part.train, following) for part in self.parts] if following and self.pool else []
        curves = {name: torch.cat([part.curves[name] for part in done], 1) for name in done[0].curves}
        return Progress(curves, torch.cat([part.made for part in done]), torch.cat([part.moved for part in done]))

    def sums(self, outputs: int, *tasks: tuple[Callable[[Tensor, Tensor], Tensor], Samples]) -> list[Tensor]:
        """Returns, for each ``function, (input, target)``, the sum of what the function gives for parts of the set.

        Args:
            outputs: numbers per sample that a function computes, which decides how large the parts are.
        """
        sums, calls = [InOrder() for _ in tasks], []
        for added, (function, (input, target)) in zip(sums, tasks, strict=True):
            samples = fleeting(input), target
            parts = enumerate(parts_of(samples, outputs, self.one_at_a_time))
            calls += [partial(added.take, number, partial(on_rows, function, samples, rows)) for number, rows in parts]
        meanwhile, self.ahead = self.ahead, []
        self.run([*meanwhile, *calls])
        if self.began is not None:
            self.seconds = time.monotonic() - self.began
        # A device is waited for here, once for each set.
        return [added.sums[0].cpu().double() for added in sums]

    def run(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Makes all calls, in all threads: each makes the next one as soon as it is free; returns what they return."""
        results: list[Any] = [None] * len(calls)
        left = iter(range(len(calls)))

        def work() -> None:
            try:
                for index in left:
                    results[index] = calls[index]()
            finally:
                list(left)  # after an error nothing is begun any more

        helpers = min(self.threads, len(calls)) - 1  # a thread without a call would cost its start alone
        others = [self.pool.submit(work) for _ in range(helpers)] if self.pool else []
        work()
        for other in others:
            other.result()
        return results

    def state_dict(self) -> dict[str, Any]:
        """Returns what a run needs to go on, besides the parameters themselves."""
        memory = {name: tensor for name, tensor in self.whole.tensors().items() if name not in ("weight", "bias")}
        return {"memory": memory, "seconds": self.seconds, **self.here()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes ``start`` go on from ``state``, and say when bits may differ."""
        self.memory, self.seconds = dict(state["memory"]), float(state["seconds"])
        self.began_here = {name: state[name] for name in ("torch", "machine", "device", "number of processes")}

    def here(self) -> dict[str, str]:
        """Returns what the bits of the updates depend on."""
        processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return here(self.whole.weight.device, processes)


def parts_of(samples: Samples, outputs: int, cast: bool) -> list[slice]:
    """Returns the samples that are evaluated at once.

    Args:
        outputs: numbers per sample that are computed.
        cast: whether features have to be copied into another type, as those on disk have always: then fewer.
    """
    input, target = samples
    at_once, read_at_once = (LOGITS_AT_ONCE, READ_AT_ONCE) if input.device.type == "cpu" else (ON_DEVICE, ON_DEVICE)
    rows = max(at_once // outputs, LEAST_SAMPLES)
    if cast or not isinstance(input, Tensor):
        rows = min(rows, max(1, read_at_once // input.shape[1]))
    return [slice(first, first + rows) for first in range(0, len(target), rows)]


def on_rows(function: Callable[[Tensor, Tensor], Tensor], samples: Samples, rows: slice) -> tuple[Tensor]:
    """Returns what a function gives for some samples, which are read here and kept by nobody."""
    input, target = samples
    return (function(input[rows], target[rows]),)


def here(device: torch.device, processes: int) -> dict[str, str]:
    """Returns what the bits depend on: torch, the machine, what kind of device, and how many processes."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    found = {"torch": str(torch.__version__), "machine": platform.machine()}
    return found | {"device": name, "number of processes": str(processes)}
