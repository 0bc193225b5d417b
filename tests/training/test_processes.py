"""How many cores a process may use, and sums over processes."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed

from handgrad.training.processes import cores, is_connection_error, total


@pytest.mark.parametrize(("told", "expected"), [("3", 3), ("1", 1), ("6,2", 6)])
def test_a_process_that_is_told_its_share_keeps_to_it(told, expected, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert cores() == expected


def test_the_cores_of_a_host_are_shared_unless_each_task_has_its_own(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert (cores(4), cores(32)) == (4, 1)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert cores(2) == 8, "two processes of one task share what it has"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert cores(2) == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores(2) == 3


@pytest.mark.parametrize("told", [None, "", "0", "-2", "many", "1.5", "²", "٣", "9" * 400, "9" * 5000])
def test_else_it_counts_the_cores_that_it_may_run_on(told, monkeypatch):
    if told is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 7} if process == 0 else set(), raising=False)
    assert cores() == 3


@pytest.mark.parametrize(("count", "expected"), [(12, 12), (None, 1)])
def test_where_no_system_tells_that_it_counts_all(count, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert cores() == expected


@pytest.fixture
def group(tmp_path):
    """A group of one process, which meets itself in a file."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_total_gives_the_very_tensor(group, dtype):
    tensor = torch.arange(5, dtype=dtype)
    assert total(tensor) is tensor
    assert tensor.tolist() == [0, 1, 2, 3, 4]


def test_total_is_a_sum(monkeypatch):
    """All of it is one call: torch adds up unless it is told to do something else."""
    asked = []
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *tensors, **how: asked.append((tensors, how)))
    tensor = torch.ones(2)
    total(tensor)
    (((reduced,), how),) = asked
    assert reduced is tensor
    assert how.get("op", torch.distributed.ReduceOp.SUM) == torch.distributed.ReduceOp.SUM


def test_only_errors_of_connections_are_taken_for_such():
    gloo = "[/x/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:1: Connection reset by peer."
    assert is_connection_error(RuntimeError(gloo))
    assert not is_connection_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_connection_error(OSError(gloo))
    with pytest.raises(RuntimeError) as caught:
        torch.distributed.TCPStore("127.0.0.1", 1, timeout=timedelta(seconds=0.2))
    assert is_connection_error(caught.value)


def test_where_devices_alone_add_up_a_sum_goes_by_one(monkeypatch):
    """With NCCL, here one that is none: the solver's own numbers lie on the CPU."""
    sent = []
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(2))
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: sent.append(tensor.clone()) or sent[-1])
    tensor = torch.arange(3.0)
    assert total(tensor) is tensor
    assert tensor.tolist() == sent[0].tolist() == [0, 2, 4]
