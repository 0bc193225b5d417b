"""A watch on the other processes of a distributed run: when one is lost, this one ends, and waits for nobody.

Who is in the midst of a sum over processes waits for all of them, for hours if one is gone: the sum itself knows no
better, and Python can do nothing meanwhile. So two threads stand beside it. One writes this process's beat into the
store in which the processes met, and reads those of the others. It may be kept waiting there, for a quarter of an hour
where a link is down. The other one only looks at a clock, and ends the process when the first has not heard of a peer,
or has got no answer, for too long::

    beat    set own beat, get all beats . . . . . every BEAT seconds
    judge   who is silent, for how long?  . . . . every TICK seconds

What ends the processes stands in the store too, once: the first that finds it writes it, and all go by it, so that
one process of each host tells it. It ends before the others do: their launcher may tell them to stop because of it.
"""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from torch.distributed import Store

from handgrad.runs.signals import stopping

log = logging.getLogger(__name__)

BEAT, TICK, LONGEST = 1.0, 0.25, 1.0  # seconds; a look at the clock that took longer was not this process's own time
GRACE = 2.0  # for a process that is about to end by itself
UNWINDING = 15.0  # for one that is told to, once another one failed: more than that lingers, see ``Meeting.end``
DOUBT = 3.0  # after a connection was closed, until beats tell whose it was
LAST_WORDS = 3.0  # for what is written at the end, to a store and to a terminal that may both be stuck
NAMED = 8  # processes in a line
END, ENDED, LEFT = "peers/end", "ended", -1
ALLOWED = " (trainer.peer_timeout)"


class State(NamedTuple):
    """What a process writes: where it is, and its beat, or ``LEFT`` where it has ended in order.

    Attributes:
        node: number of its host; host: its name.
    """

    node: int
    host: str
    beat: int


class End(NamedTuple):
    """Why all processes end.

    Attributes:
        line: what the user has to know.
        lost: the processes that are gone, as far as that is known.
        failed: whether nobody is lost, but one told the others why it ends.
        code: of the exit.
    """

    line: str
    lost: tuple[int, ...] = ()
    failed: bool = False
    code: int = 1


class Hearing:
    """What this process has heard of the others, by a clock that stands still while it is suspended itself.

    Args:
        rank: of this process, of ``world_size``.
        keeper: the process that keeps the store; None: another program does.

    Attributes:
        clock: seconds, moved on by ``tick``.
        states: by rank; None: not heard of yet.
        answered: when the store answered last.
        closed: when the connection to it was, by its other end; None: it is open.
        suspected: when a connection to another process was; None: none was.
        end: what ends all, as the store has it.
        armed: since when others can be lost; None: they may still be on their way here.
    """

    def __init__(self, rank: int, world_size: int, keeper: int | None) -> None:
        self.rank, self.keeper = rank, keeper
        self.clock = self.answered = self.ended_at = 0.0
        self.states: list[State | None] = [None] * world_size
        self.changed = [0.0] * world_size
        self.closed: float | None = None
        self.suspected: float | None = None
        self.end: End | None = None
        self.armed: float | None = None

    def tick(self, seconds: float) -> None:
        """Moves the clock on; by ``LONGEST`` at most: the rest is time in which this process did not run."""
        self.clock += min(seconds, LONGEST)

    def hear(self, states: Sequence[State | None], end: End | None) -> None:
        """Notes an answer of the store."""
        self.answered = self.clock
        for rank, state in enumerate(states):
            if state and state != self.states[rank]:
                self.states[rank], self.changed[rank] = state, self.clock
        if end and not self.end:
            self.end, self.ended_at = end, self.clock

    def has_left(self, rank: int) -> bool:
        state = self.states[rank]
        return state is not None and state.beat == LEFT

    def silent(self, seconds: float) -> tuple[int, ...]:
        """Returns the other processes that have not left, and not been heard of for so long."""
        others = (rank for rank in range(len(self.states)) if rank != self.rank and not self.has_left(rank))
        since = self.clock if self.armed is None else self.armed
        return tuple(rank for rank in others if self.clock - max(self.changed[rank], since) >= seconds)

    def verdict(self, timeout: float, beat: float) -> End | None:
        """Returns why this process has to end; None: it has not.

        Args:
            timeout: seconds; beat: those between two beats.
        """
        unanswered = self.clock - self.answered
        if self.end and (self.end.failed or self.armed is not None):
            return None if self.end.failed and self.clock - self.ended_at < GRACE else self.end
        if self.armed is None:
            return None
        if self.closed is not None:
            return self.closed_store() if self.clock - self.closed >= GRACE else None
        if unanswered >= timeout:
            return End(f"the other hosts are lost: no answer for {timeout:g} s{ALLOWED}")
        if unanswered < timeout / 2 and (lost := self.silent(timeout)):
            return End(f"{self.named(lost)} lost: not heard of for {timeout:g} s{ALLOWED}", lost)
        if self.suspected is not None and self.clock - self.suspected >= max(DOUBT, 3 * beat):
            lost = self.silent(2 * beat)
            named = f"{self.named(lost)} lost" if lost else "a process is lost"
            return End(f"{named}: connections to it were closed", lost)
        return None

    def closed_store(self) -> End:
        """Returns what ends this process when the store has closed the connection."""
        if self.keeper is not None:
            lost = (self.keeper,)
            return End(f"{self.named(lost)} lost: connections to it were closed", lost)
        host = f", {first.host}," if (first := self.states[0]) else ""
        return End(f"the first host{host} is lost: torchrun closed its connections there")

    def named(self, ranks: Sequence[int]) -> str:
        """Returns processes in words, like ``process 1 on b is``."""
        hosts = dict.fromkeys(state.host for rank in ranks if (state := self.states[rank]))
        told = ", ".join(map(str, ranks[:NAMED])) + (f" and {len(ranks) - NAMED} more" if len(ranks) > NAMED else "")
        on = f" on {', '.join([*hosts][:NAMED])}" if hosts else ""
        return f"process {told}{on} is" if len(ranks) == 1 else f"processes {told}{on} are"

    def speaks(self, end: End) -> bool:
        """Tells whether this process is the one that tells ``end``: the first of its host that is left.

        That one failed is told by the first process of all.
        """
        if end.failed or (own := self.states[self.rank]) is None:
            return self.rank == 0
        here = [rank for rank, state in enumerate(self.states) if state and state.node == own.node]
        return self.rank == min([rank for rank in here if rank not in end.lost] or here)


class Peers:
    """Watches the other processes of a run from ``arm`` to ``leave``; it beats from the beginning.

    A process that has not beaten for ``timeout`` seconds, or whose connections were closed before it left, is lost:
    then this process ends with exit code 1, at the latest 10 seconds later. So it does when another one failed.

    Args:
        store: in which all the processes have met.
        rank: of this process, of ``world_size``.
        node: number of its host.
        timeout: seconds.
        keeper: the process that keeps the store; None: another program, as torchrun's agent.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        world_size: int,
        node: int,
        timeout: float,
        keeper: int | None = None,
    ) -> None:
        self.store = store.clone()  # a connection of its own: others are kept by whoever waits at them
        self.own, self.rank, self.timeout = State(node, socket.gethostname(), 0), rank, timeout
        self.hearing = Hearing(rank, world_size, keeper)
        self.keys = [f"peers/{number}" for number in range(world_size)]
        self.to_post: End | None = None
        self.told_to_end: float | None = None  # when the main thread was
        self.leaving = False
        self.wake, self.answered, self.stopped = threading.Event(), threading.Event(), threading.Event()
        self.threads = [
            threading.Thread(target=target, name=f"peers.{target.__name__}", daemon=True)
            for target in (self.beat, self.judge)
        ]
        for thread in self.threads:
            thread.start()

    @property
    def beat_every(self) -> float:
        """Seconds between two beats."""
        return min(BEAT, self.timeout / 5)

    def arm(self, timeout: float) -> None:
        """Begins to watch: from now on who is not heard of for ``timeout`` seconds is lost."""
        self.timeout = timeout
        if self.hearing.armed is None:
            self.hearing.armed = self.hearing.clock

    def leave(self, seconds: float) -> None:
        """Ends the watch in order, so that nobody takes this process for lost.

        Args:
            seconds: that it waits at most until the others leave too: the store may end with this process.
        """
        self.leaving = True  # from here on it is not ended by the watch
        last = time.monotonic() + seconds
        while not self.ask() or not self.is_alone():
            if self.hearing.closed is not None or time.monotonic() >= last:
                break
            self.stopped.wait(TICK)
        self.stop()

    def stop(self) -> None:
        """Ends the threads: one that is inside the store when the program ends would abort it."""
        self.stopped.set()
        self.wake.set()
        for thread in self.threads:
            thread.join(LAST_WORDS)

    def is_alone(self) -> bool:
        """Tells whether all others have left."""
        return all(self.hearing.has_left(rank) for rank in range(len(self.keys)) if rank != self.rank)

    def suspect(self) -> None:
        """Says that a connection to another process was closed: beats will tell whose, and the watch ends this one."""
        stopping.ignore()  # a launcher sends signals to all that are left
        self.hearing.suspected = self.hearing.clock

    def beat(self) -> None:
        """Tells the store that this process lives, and asks for the others, until the watch ends."""
        try:
            while not self.stopped.is_set():
                self.wake.clear()
                self.exchange()
                self.answered.set()
                self.wake.wait(self.beat_every)
        except RuntimeError:  # torch's DistNetworkError: the other end is gone
            self.hearing.closed = self.hearing.clock
            self.answered.set()

    def exchange(self) -> None:
        """Writes this process's state, and takes up those of all."""
        end = self.to_post
        self.own = self.own._replace(beat=LEFT if self.leaving else self.own.beat + 1)
        if end:
            self.store.compare_set(END, "", json.dumps(end))
        self.store.set(self.keys[self.rank], json.dumps(self.own))
        present = self.keys if self.store.check(self.keys) else [key for key in self.keys if self.store.check([key])]
        found = dict(zip(present, self.store.multi_get(present), strict=True))
        states = [State(*json.loads(found[key])) if key in found else None for key in self.keys]
        self.hearing.hear(states, self.what_ends_all())

    def what_ends_all(self) -> End | None:
        """Returns what stands in the store of that."""
        if self.store.check([END]):
            line, lost, failed, code = json.loads(self.store.get(END))
            return End(line, tuple(lost), failed, code)
        return ended(self.store.get(ENDED)) if self.store.check([ENDED]) else None

    def ask(self) -> bool:
        """Waits for an answer of the store to what is written now, for a short time; tells whether there is one."""
        for _ in range(2):  # the first may have been under way
            self.answered.clear()
            self.wake.set()
            if self.hearing.closed is not None or not self.answered.wait(LAST_WORDS / 2):
                return False
        return True

    def judge(self) -> None:
        """Ends the process when it is to end."""
        before = time.monotonic()
        while not self.stopped.wait(TICK):
            now = time.monotonic()
            self.hearing.tick(now - before)
            before = now
            end = self.hearing.verdict(self.timeout, self.beat_every)
            if end and not self.leaving and not self.unwinds(end):
                self.end(end)

    def unwinds(self, end: End) -> bool:
        """Interrupts the main thread where another process failed; tells whether it still has time to end in order.

        Not in training: there it may wait in a sum, for as long as the other one lingers, and all is saved.
        """
        if not end.failed or stopping.put_off:
            return False
        if self.told_to_end is None:
            self.told_to_end = self.hearing.clock
            stopping.interrupt(end.code - 128 if end.code > 128 else signal.SIGTERM)
        return self.hearing.clock - self.told_to_end < UNWINDING

    def end(self, end: End) -> NoReturn:
        """Ends the process at once, whatever its other threads do; tells why where that is its part."""
        self.to_post, self.leaving = end, True
        self.ask()
        end = self.hearing.end or end  # another process may have found it first
        if self.hearing.speaks(end):
            telling = threading.Thread(target=log.error, args=("error: %s", end.line), daemon=True)
            telling.start()
            telling.join(LAST_WORDS)
        else:
            time.sleep(LAST_WORDS / 2)
        os._exit(end.code)


def ended(told: bytes) -> End:
    """Returns what a process told the others as it ended."""
    line, number = reason(told)
    return End(line or f"stopped by {signal.Signals(number).name}", failed=True, code=128 + number if number else 1)


def reason(told: bytes) -> tuple[str, int]:
    """Returns why all end: a line, which names the process unless it is the first, or a signal's number.

    Args:
        told: by a process as it ended: its rank, its host, a line, and the number of a signal.
    """
    rank, host, line, number = json.loads(told)
    return (f"process {rank} on {host}: {line}" if line and rank > 0 else line), number
