"""Processes meet in a store: what one tells, whom they wait for, and how they end; here each is an object."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from torch.distributed import HashStore

from handgrad.errors import InputError
from handgrad.runs import meeting as module
from handgrad.runs.launch import Launch
from handgrad.runs.meeting import Meeting, leave, meet, reach, serve
from handgrad.runs.signals import Interrupted


@pytest.fixture
def meetings(monkeypatch) -> list[Meeting]:
    """Three processes with one store."""
    monkeypatch.setattr(module, "LINGER", 0.2)
    store = HashStore()
    made = [Meeting(Launch("WORLD_SIZE", 3, rank, rank, 3), store, 0.3) for rank in range(3)]
    yield made
    for meeting in made:
        meeting.peers.stop()


@pytest.fixture
def alone(monkeypatch):
    """No meeting, before and after."""
    module.current.clear()
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    made, peers = [], module.Peers
    monkeypatch.setattr(module, "Peers", lambda *told: made.append(peers(*told)) or made[-1])
    yield
    module.current.clear()
    for one in made:
        one.stop()


def test_what_one_tells_the_others_hear(meetings):
    meetings[0].tell("run", "outputs/x")
    assert [meeting.hear("run") for meeting in meetings] == ["outputs/x"] * 3


def test_who_waits_in_vain_gives_up_and_says_for_what(meetings):
    with pytest.raises(InputError, match=r"^the first process has decided nothing in 0.3 s \(trainer.peer_timeout\)$"):
        meetings[1].hear("run")
    meetings[1].tell("here/1", "")
    with pytest.raises(InputError, match=r"^in 0.2 s \(trainer.peer_timeout\) these processes have not come: 2$"):
        meetings[0].all_come("here", 0.2)


def test_all_come(meetings):
    others = [threading.Thread(target=meeting.all_come, args=("here", 10)) for meeting in meetings[1:]]
    for other in others:
        other.start()
    meetings[0].all_come("here", 10)
    for other in others:
        other.join()


@pytest.mark.slow
def test_an_error_ends_all_and_names_its_process(meetings):
    assert meetings[1].end("data.npy: no such file") == ""
    for other in (meetings[0], meetings[2]):
        with pytest.raises(InputError, match=r"^process 1 on \S+: data.npy: no such file$"):
            other.hear("run")
    assert meetings[2].end("lost") == meetings[0].end(number=15)  # what came first
    assert "process 1 on" in meetings[0].end("lost")


def test_the_first_ones_error_is_told_as_it_is(meetings):
    meetings[0].end("outputs/x: a run is under way there")
    with pytest.raises(InputError, match=r"^outputs/x: a run is under way there$"):
        meetings[2].all_come("ready", 1)


@pytest.mark.parametrize(("code", "how"), [(-9, "SIGKILL"), (3, "exit code 3")])
def test_a_process_that_died_before_it_was_ready_is_told_by_the_one_that_started_it(code, how, meetings):
    """Lightning would kill that one a few seconds later, without a word."""
    meetings[0].children = [SimpleNamespace(poll=lambda: None), SimpleNamespace(poll=lambda: code)]
    with pytest.raises(InputError, match=rf"^process 2 ended before it was ready, by {how}$"):
        meetings[0].all_come("ready", 60)
    meetings[1].end("data.npy: no such file")
    with pytest.raises(InputError, match=r"data.npy: no such file$"):
        meetings[0].all_come("ready", 60)


def test_a_signal_to_one_stops_all(meetings):
    meetings[2].end(number=signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        meetings[0].hear("run")
    assert caught.value.number == signal.SIGTERM


def test_who_ends_waits_for_the_others_where_they_have_something_to_hear(meetings, monkeypatch):
    waited = []
    for meeting in meetings:
        monkeypatch.setattr(meeting.peers, "leave", waited.append)
    meetings[0].end("an error")
    meetings[1].end()
    meetings[2].has_children = True  # which it has ended itself
    meetings[2].end(number=15)
    assert waited == [module.LINGER, meetings[1].timeout, 0]


def test_a_store_that_is_gone_is_one_line(meetings, monkeypatch):
    def gone(*_):
        raise torch.distributed.DistNetworkError("recv")

    monkeypatch.setattr(meetings[0], "store", type("Gone", (), {"check": gone, "set": gone, "compare_set": gone})())
    with pytest.raises(InputError, match=r"^the process that the others meet at is gone$"):
        meetings[0].wait(["run"], 1, "")
    assert meetings[0].end("an error") == ""


def test_the_first_process_serves_and_others_find_it(alone, monkeypatch):
    first = serve(2, 5)
    assert (first.has_children, os.environ["MASTER_ADDR"]) == (True, "127.0.0.1")
    first.tell("run", "outputs/x")
    module.current.clear()
    second = meet(Launch("WORLD_SIZE", 2, 1, 1, 2), 5)
    assert second.hear("run") == "outputs/x"
    assert meet(Launch("WORLD_SIZE", 2, 1, 1, 2), 5) is second
    module.current.clear()
    again = meet(Launch("WORLD_SIZE", 2, 1, 1, 2, attempt="1"), 0.2)
    with pytest.raises(InputError, match="has decided nothing"):
        again.hear("run")  # what was told before a restart is none of its business


def test_a_port_that_is_taken_and_one_where_nobody_is(alone, monkeypatch):
    first = serve(2, 5)
    module.current.clear()
    with pytest.raises(InputError, match=r"^MASTER_ADDR=127.0.0.1, MASTER_PORT=\d+: no process can meet the others"):
        meet(Launch("WORLD_SIZE", 2, 0, 0, 2), 1)
    assert first
    with pytest.raises(InputError, match=r"^MASTER_ADDR=127.0.0.1, MASTER_PORT=1: the first process does not "):
        reach("127.0.0.1", 1, 0.1)


def test_who_has_met_nobody_leaves_nothing(alone):
    assert leave("an error") == ""


def test_one_group_is_made_of_the_meeting_and_ends_with_it():
    meeting = Meeting(Launch("WORLD_SIZE", 1), HashStore(), 1)
    meeting.connect(torch.device("cpu"))
    meeting.connect(torch.device("cpu"))  # not twice
    assert torch.distributed.get_world_size() == 1
    meeting.end()
    assert not torch.distributed.is_initialized()
