import json
import signal
import threading
import time
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from handgrad.runs import peers
from handgrad.runs.peers import DOUBT, ENDED, GRACE, LEFT, LONGEST, TICK, End, Hearing, Peers, State

TIMEOUT, BEAT = 60.0, 1.0


class Talk:
    """What process 0 hears of three others, second by second: 0 and 1 are on host a, 2 and 3 on b."""

    def __init__(self, rank: int = 0, keeper: int | None = None) -> None:
        self.hearing = Hearing(rank, 4, keeper)
        self.hearing.armed = 0.0
        self.beats = [0, 0, 0, 0]

    def go_on(self, seconds: float, silent: tuple[int, ...] = (), answered: bool = True, end: End | None = None):
        """Lets time pass; returns the verdict at its end."""
        for _ in range(int(seconds)):
            self.hearing.tick(1.0)
            for rank in {0, 1, 2, 3} - {*silent}:
                self.beats[rank] += self.beats[rank] != LEFT
            if answered:
                states = [State(rank // 2, "aabb"[rank], beat) for rank, beat in enumerate(self.beats)]
                self.hearing.hear(states, end)
        return self.hearing.verdict(TIMEOUT, BEAT)


def test_nobody_is_lost_while_all_beat():
    assert Talk().go_on(1000) is None


def test_who_is_silent_for_the_timeout_is_lost_and_not_before():
    talk = Talk()
    assert talk.go_on(10) is None
    assert talk.go_on(59, silent=(2, 3)) is None
    end = talk.go_on(1, silent=(2, 3))
    assert end == End("processes 2, 3 on b are lost: not heard of for 60 s (trainer.peer_timeout)", (2, 3))


def test_who_was_silent_for_less_is_not_lost():
    talk = Talk()
    for _ in range(5):
        assert talk.go_on(59, silent=(1,)) is None
        assert talk.go_on(1) is None


def test_without_an_answer_of_the_store_nothing_is_known_of_single_processes():
    """This host may be the one that is cut off; it ends at the same time as the others end because of it."""
    talk = Talk(rank=3)
    assert talk.go_on(10) is None
    assert talk.go_on(59, answered=False) is None
    end = talk.go_on(1, answered=False)
    assert end == End("the other hosts are lost: no answer for 60 s (trainer.peer_timeout)")


def test_an_outage_that_is_shorter_changes_nothing():
    talk = Talk()
    talk.go_on(10)
    assert talk.go_on(59, answered=False) is None
    assert talk.go_on(1000) is None


def test_nobody_is_lost_before_all_have_come():
    talk = Talk()
    talk.hearing.armed = None
    assert talk.go_on(1000, silent=(1, 2, 3)) is None
    talk.hearing.armed = talk.hearing.clock
    assert talk.go_on(59, silent=(1, 2, 3)) is None
    assert talk.go_on(1, silent=(1, 2, 3)) is not None


def test_who_has_left_is_never_lost():
    talk = Talk()
    talk.go_on(5)
    talk.beats[3] = LEFT
    assert talk.go_on(1000) is None
    assert talk.hearing.has_left(3)
    assert talk.hearing.silent(TIMEOUT) == ()


def test_time_in_which_this_process_was_suspended_counts_for_nothing():
    talk = Talk()
    talk.go_on(10)
    talk.hearing.tick(7200.0)
    assert talk.hearing.clock == 10 + LONGEST
    assert talk.hearing.verdict(TIMEOUT, BEAT) is None


def test_a_closed_connection_is_that_of_whom_is_no_longer_heard():
    talk = Talk()
    talk.go_on(10)
    talk.hearing.suspected = talk.hearing.clock
    assert talk.go_on(DOUBT - 1, silent=(3,)) is None
    assert talk.go_on(1, silent=(3,)) == End("process 3 on b is lost: connections to it were closed", (3,))


@pytest.mark.parametrize(
    ("keeper", "told", "lost"),
    [
        (0, "process 0 on a is lost: connections to it were closed", (0,)),
        (None, "the first host, a, is lost: torchrun closed its connections there", ()),
    ],
)
def test_the_store_goes_with_whoever_keeps_it(keeper, told, lost):
    talk = Talk(rank=2, keeper=keeper)
    talk.go_on(10)
    talk.hearing.closed = talk.hearing.clock
    assert talk.go_on(GRACE - 1, answered=False) is None, "it may be about to end by itself"
    assert talk.go_on(1, answered=False) == End(told, lost)


def test_one_process_of_each_host_speaks():
    """That is the first that is left, by what is written of the lost ones, and not by what each believes."""

    def speakers(end: End) -> list[int]:
        talks = [Talk(rank) for rank in range(4)]
        for talk in talks:
            talk.go_on(1)
        return [rank for rank, talk in enumerate(talks) if talk.hearing.speaks(end)]

    assert speakers(End("", lost=(3,))) == [0, 2]
    assert speakers(End("", lost=(0, 2))) == [1, 3]
    assert speakers(End("", lost=(2, 3))) == [0, 2]  # 2 is not lost then, but was only silent
    assert speakers(End("", lost=())) == [0, 2]
    assert speakers(End("", failed=True)) == [0]


def test_what_the_first_has_written_is_what_all_go_by():
    talk, end = Talk(), End("process 1 on a is lost", (1,))
    assert talk.go_on(1, end=end) == end
    failed = End("no such file", failed=True)
    talk = Talk()
    assert talk.go_on(1, end=failed) is None, "it may be about to end by itself, by the same error"
    assert talk.go_on(GRACE, end=failed) == failed


def test_many_processes_are_named_by_the_first_of_them():
    hearing = Hearing(0, 20, None)
    hearing.hear([State(0, "a", 1)] * 20, None)
    assert hearing.named(range(1, 20)) == "processes 1, 2, 3, 4, 5, 6, 7, 8 and 11 more on a are"


class Watch(Peers):
    """A watch that notes why the process would end."""

    ended: End | None = None

    def end(self, end: End) -> None:
        self.ended = end
        self.stopped.set()


def until(condition) -> None:
    last = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.01)


@pytest.fixture
def store():
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))


@pytest.fixture
def interrupted(monkeypatch) -> list[int]:
    """The signals that main threads were given by a watch; none is sent."""
    numbers: list[int] = []
    monkeypatch.setattr(peers.stopping, "interrupt", numbers.append)
    return numbers


@pytest.fixture
def watches(store, interrupted):
    """Three processes of one run, in one process."""
    watches = [Watch(store, rank, 3, rank, TIMEOUT, keeper=0) for rank in range(3)]
    until(lambda: all(None not in watch.hearing.states for watch in watches))
    for watch in watches:
        watch.arm(TIMEOUT)
    yield watches
    for watch in watches:
        watch.stopped.set()


def test_processes_hear_of_one_another_and_leave_together(watches):
    heard = [state.beat for state in watches[0].hearing.states]
    until(lambda: all(now.beat > before for now, before in zip(watches[0].hearing.states, heard, strict=True)))
    leaving = [threading.Thread(target=watch.leave, args=(30,)) for watch in watches]
    for each in leaving[:2]:
        each.start()
    until(lambda: watches[2].hearing.has_left(0) and watches[2].hearing.has_left(1))
    assert leaving[0].is_alive(), "the store would go with it"
    leaving[2].start()
    for each in leaving:
        each.join()
    assert [watch.ended for watch in watches] == [None] * 3


def test_a_silent_process_ends_the_others_though_their_main_threads_wait(watches):
    for watch in watches:
        watch.arm(3.0)
    watches[1].stopped.set()  # neither beats nor leaves
    until(lambda: watches[0].ended or watches[2].ended)
    assert 1 in (watches[0].ended or watches[2].ended).lost


@pytest.mark.parametrize(("told", "number"), [("x.npy: no such file", 0), ("", signal.SIGUSR1)])
def test_who_is_busy_when_another_one_fails_may_end_in_order(told, number, watches, store, interrupted, monkeypatch):
    """Before all have come too: its main thread is interrupted, and has time to clean up and to tell."""
    monkeypatch.setattr(peers, "GRACE", 0.0)
    for watch in watches:
        watch.hearing.armed = None
    store.set(ENDED, json.dumps([1, "b", told, number]))
    until(lambda: len(interrupted) == 3)
    assert interrupted == [number or signal.SIGTERM] * 3
    watches[0].stopped.wait(3 * TICK)
    assert watches[0].ended is None
    monkeypatch.setattr(peers, "UNWINDING", 0.0)
    until(lambda: all(watch.ended for watch in watches))
    assert len(interrupted) == 3, "once"


def test_what_another_process_ended_with_ends_this_one(watches, store, monkeypatch):
    monkeypatch.setattr(peers.stopping, "put_off", True)  # in training, where all is saved
    store.set(ENDED, json.dumps([1, "b", "x.npy: no such file", 0]))
    until(lambda: watches[0].ended)
    assert watches[0].ended == End("process 1 on b: x.npy: no such file", failed=True)
    store.set(ENDED, json.dumps([0, "a", "", 15]))
    until(lambda: watches[2].ended)
