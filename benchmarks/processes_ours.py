"""The exact solver in several processes, each with its part of the samples, one thread and a core of its own.

As in ``probe_ours`` a small problem comes first and is not timed. ``python -m benchmarks.processes_ours`` is one of the
processes: it reads a request and prints a result, both in JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import TCPStore

from benchmarks import harness, probe_data, probe_ours
from handgrad.functions.objective import SOFTMAX, Objective
from handgrad.solvers.exact import NUMBERS, Exact
from handgrad.solvers.solve import WholeSet
from handgrad.training.processes import total

MEETING_S = 300.0  # for processes that wait for one another


def solve(name: str, l2s: Sequence[float], processes: int) -> dict[str, Any]:
    """Returns the seconds that the slowest of so many processes takes for the path ``l2s`` on a set of ``probe_data``.

    Returns:
        ``wall`` and ``cpu`` seconds, and ``NUMBERS`` of each l2 value by name.

    Raises:
        RuntimeError: a process failed; one line.
    """
    x, y = probe_data.files(name)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=MEETING_S))
    asked = {"x": str(x), "y": str(y), "l2s": list(l2s), "processes": processes, "port": store.port}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "benchmarks.processes_ours"]
    children = [
        subprocess.Popen(command, cwd=harness.ROOT, env=probe_ours.environment(), text=True, **pipes)
        for _ in range(processes)
    ]
    for rank, child in enumerate(children):
        assert child.stdin is not None
        print(json.dumps(asked | {"rank": rank}), file=child.stdin, flush=True)
    said = [child.communicate() for child in children]
    for child, (_, errors) in zip(children, said, strict=True):
        if child.returncode:
            told = errors.strip().splitlines() or [f"exit status {child.returncode}"]
            raise RuntimeError(f"the exact solver in {processes} processes: {told[-1]}")
    found = [json.loads(out) for out, _ in said]
    return found[0] | {count: max(each[count] for each in found) for count in ("wall", "cpu")}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns what one of the processes takes, from the moment at which all are ready."""
    rank, processes = request["rank"], request["processes"]
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    probe_ours.warm()
    x, y = (np.load(request[name], mmap_mode="r") for name in "xy")
    rows = slice(*(len(y) * number // processes for number in (rank, rank + 1)))
    block = WholeSet(*(torch.from_numpy(np.array(part[rows])) for part in (x, y)), None)
    l2 = torch.tensor(request["l2s"], dtype=torch.float64)
    weight = torch.zeros(len(l2), int(y.max()) + 1, x.shape[1], dtype=torch.float64)
    if processes > 1:
        meet(rank, processes, request["port"])
    try:
        return solved(Objective(SOFTMAX, l2, total=total if processes > 1 else None), weight, block)
    finally:
        if processes > 1:
            torch.distributed.destroy_process_group()  # a thread of gloo that outlives the interpreter aborts it


def meet(rank: int, processes: int, port: int) -> None:
    """Waits until all processes are ready."""
    store = TCPStore("127.0.0.1", port, timeout=timedelta(seconds=MEETING_S))
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    torch.distributed.barrier()


def solved(objective: Objective, weight: Tensor, block: WholeSet) -> dict[str, Any]:
    """Solves a path from ``weight`` (L, K, D) on; returns the seconds and ``NUMBERS``."""
    solver, active = Exact(probe_ours.TOLERANCE, probe_ours.MOST), torch.ones(len(weight))
    state = solver.init(weight, weight[:, :, 0].clone())

    def path() -> None:
        for _ in weight:
            solver.step(objective, state, block, active)

    took = probe_ours.timed(path)
    return took | dict(zip(NUMBERS, state.numbers.T.tolist(), strict=True))


def main() -> None:
    json.dump(answer(json.loads(sys.stdin.readline())), sys.stdout)


if __name__ == "__main__":
    main()
