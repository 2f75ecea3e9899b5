"""Which gate worker decodes which picture.

A worker with nothing to do goes first, and gets whoever has waited longest. Where all are busy a picture may wait at a
worker, one behind the one that is decoded: the worker finds its next order without sleeping in between, and being woken
costs more than anything else that the gate does to a small one. Nobody waits there behind a bomb: after _PATIENCE_S,
or as soon as another worker has nothing to do, the order is taken back, and the kernel says whether it had been begun.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from threading import Condition, Lock
from time import monotonic

from services.embed.gate.process import GateWorker
from services.embed.workers.arena import Arena
from services.shared.errors import Overloaded

_PATIENCE_S = 0.05  # tens of small pictures
_AT_A_WORKER = 2  # the picture that is decoded and the one behind it


class Ticket:
    """One picture on its way to a worker, through as many as it takes. Belongs to the lines, under their lock."""

    def __init__(self, number: int, lock: Lock) -> None:
        self.number = number
        self.changed = Condition(lock)
        self.slot: Slot | None = None
        self.is_sent = False
        self.needs_idle = False  # it has seen a worker die, and waits behind nobody again


@dataclass(slots=True, eq=False)
class Desk:
    """A worker and what it has to do. Belongs to the lines, under their lock."""

    worker: GateWorker
    free: list[int]  # arenas
    line: deque[Ticket] = field(default_factory=deque)  # as they were sent: the first one is decoded
    first_since_s: float = 0.0  # when that one became the first
    coming: int = 0  # have a place and are not sent yet
    images: int = 0  # answered
    is_gone: bool = False

    @property
    def load(self) -> int:
        return len(self.line) + self.coming


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A place for one picture: a worker and one of its arenas."""

    desk: Desk
    index: int

    @property
    def arena(self) -> Arena:
        return self.desk.worker.arenas[self.index]


class Lines:
    """Workers, and pictures that wait for one. Safe for many threads.

    Each picture has a caller who takes it through: `place`, write it there, `is_first`, and once that is true ask the
    worker; then `answered` or `lost`. Only the first of a line is asked for, so only it can be blamed for a death.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._desks: list[Desk] = []  # that take pictures
        self._leaving: list[Desk] = []  # that still have some, and take no more
        self._waiting: deque[Ticket] = deque()  # without a place, the oldest first
        self._numbers = count()
        self.is_closed = False

    @property
    def desks(self) -> list[Desk]:
        """Those that take pictures."""
        with self._lock:
            return list(self._desks)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many pictures have no place, and how many wait behind another at a worker."""
        with self._lock:
            return len(self._waiting), sum(max(0, len(desk.line) - 1) for desk in (*self._desks, *self._leaving))

    @property
    def busy(self) -> int:
        """Workers that have a picture."""
        with self._lock:
            return sum(bool(desk.line) for desk in (*self._desks, *self._leaving))

    def ticket(self) -> Ticket:
        """For a picture that comes now."""
        return Ticket(next(self._numbers), self._lock)

    def place(self, ticket: Ticket, deadline_s: float) -> Slot:
        """Where to write the picture. Raises Overloaded: no place in time, or closed."""
        with self._lock:
            if ticket.slot is None:
                self._queue(ticket)
            while ticket.slot is None:
                self._check_open(ticket)
                remaining_s = deadline_s - monotonic()
                if remaining_s <= 0 or not ticket.changed.wait(remaining_s):
                    self._check_place(ticket)
            return ticket.slot

    def is_first(self, ticket: Ticket, slot: Slot, size: int, deadline_s: float) -> bool:
        """Order what was written, and wait until all before it are answered. False where its place is lost: to be
        placed and written anew. Raises Overloaded: not begun in time, or closed."""
        with self._lock:
            self._send(ticket, slot, size)
            while True:
                self._check_open(ticket)
                if ticket.slot is not slot:
                    return False  # given another
                if slot.desk.is_gone:
                    self._lose(ticket)
                    return False
                if slot.desk.line[0] is ticket:
                    return True
                remaining_s = deadline_s - monotonic()
                patience_s = min(_PATIENCE_S, remaining_s) if remaining_s > 0 else _PATIENCE_S
                if not ticket.changed.wait(patience_s) and self._take_back(ticket):
                    if deadline_s <= monotonic():
                        raise _busy()
                    return False

    def answered(self, ticket: Ticket, slot: Slot) -> tuple[int, bool]:
        """The first of a line has its answer; its arena stays its own. How many its worker has answered, and whether
        that was the last one of a worker that was leaving."""
        desk = slot.desk
        with self._lock:
            ticket.slot = None
            desk.line.popleft()
            desk.images += 1
            desk.first_since_s = monotonic()
            if desk.line:
                desk.line[0].changed.notify()
            has_left = desk in self._leaving and not desk.load
            if has_left:
                self._leaving.remove(desk)
            self._dispatch()
            return desk.images, has_left

    def lost(self, ticket: Ticket) -> None:
        """The first of a line has seen its worker die, which is removed already. It may be placed anew."""
        with self._lock:
            self._lose(ticket)

    def give_back(self, slot: Slot) -> None:
        """An arena that nobody looks at any more."""
        with self._lock:
            self._free(slot)
            self._dispatch()

    def withdraw(self, ticket: Ticket) -> Desk | None:
        """The caller is gone, wherever the picture was. The desk, where its worker has it: that has to be ended, and
        the ticket is `lost` then."""
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            slot = ticket.slot
            if slot is None or self._take_back(ticket):
                return None
            if not ticket.is_sent:
                slot.desk.coming -= 1
                self._lose(ticket)
                return None
            return slot.desk

    def add(self, worker: GateWorker, instead_of: Desk | None = None) -> Desk | None:
        """A worker that is ready, which may relieve another. Whom to end now: the one relieved, unless it is busy and
        ended when it is done; the new one where nobody misses it, because the one it relieves has died."""
        desk = Desk(worker, list(range(len(worker.arenas))))
        with self._lock:
            if self.is_closed or (instead_of is not None and instead_of not in self._desks):
                return desk
            self._desks.append(desk)
            if instead_of is not None:
                self._desks.remove(instead_of)
                if instead_of.load:
                    self._leaving.append(instead_of)
            self._dispatch()
            return None if instead_of is None or instead_of.load else instead_of

    def remove(self, desk: Desk) -> bool:
        """Of a worker that has died or is ended: whoever waits there is placed anew. Whether it took pictures."""
        with self._lock:
            is_missed = desk in self._desks
            for group in (self._desks, self._leaving):
                if desk in group:
                    group.remove(desk)
            self._close(desk)
            return is_missed

    def unused(self, desk: Desk) -> list[int]:
        """Arenas of a removed desk that nobody holds; the others are destroyed when they are given back."""
        with self._lock:
            desk.is_gone = True
            free, desk.free = desk.free, []
            return free

    def close(self) -> list[Desk]:
        """Nobody is placed any more, whoever waits gets Overloaded. The desks, to be ended."""
        with self._lock:
            self.is_closed = True
            desks = [*self._desks, *self._leaving]
            self._desks, self._leaving = [], []
            for desk in desks:
                self._close(desk)
            for ticket in self._waiting:
                ticket.changed.notify()
            return desks

    def _close(self, desk: Desk) -> None:
        desk.is_gone = True
        for ticket in desk.line:
            ticket.changed.notify()

    def _queue(self, ticket: Ticket) -> None:
        """In the order in which they came, also those that had a place before."""
        behind = [other for other in self._waiting if other.number > ticket.number]
        self._waiting.insert(len(self._waiting) - len(behind), ticket)
        self._dispatch()

    def _send(self, ticket: Ticket, slot: Slot, size: int) -> None:
        slot.desk.coming -= 1
        if slot.desk.is_gone:
            return
        if not slot.desk.line:
            slot.desk.first_since_s = monotonic()
        slot.desk.line.append(ticket)
        slot.desk.worker.order(slot.index, size)
        ticket.is_sent = True
        # There is room behind it now; and a worker may have had nothing to do while this was written.
        self._dispatch()

    def _check_open(self, ticket: Ticket) -> None:
        if self.is_closed:
            if ticket.slot is not None:
                self._lose(ticket)
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            raise stopping()

    def _check_place(self, ticket: Ticket) -> None:
        """At the deadline, when a place may have come at the last moment."""
        if ticket.slot is None:
            self._waiting.remove(ticket)
            raise _busy()

    def _lose(self, ticket: Ticket) -> None:
        slot, ticket.slot = ticket.slot, None
        ticket.is_sent, ticket.needs_idle = False, True
        if slot is not None:
            self._free(slot)

    def _free(self, slot: Slot) -> None:
        if slot.desk.is_gone:
            slot.arena.destroy()
        else:
            slot.desk.free.append(slot.index)

    def _take_back(self, ticket: Ticket) -> bool:
        """From behind another, unless it has been begun meanwhile."""
        slot = ticket.slot
        if slot is None or not ticket.is_sent or slot.desk.is_gone or slot.desk.line[0] is ticket:
            return False
        if not slot.desk.worker.recall(slot.index):
            return False
        slot.desk.line.pop()
        slot.desk.free.append(slot.index)
        ticket.slot, ticket.is_sent = None, False
        return True

    def _dispatch(self) -> None:
        """Give places, after anything that changed them."""
        for desk in self._desks:
            if not desk.load and desk.free:
                ticket = self._next()
                if ticket is None:
                    return
                self._give(ticket, desk)
        while self._waiting and not self._waiting[0].needs_idle:
            busy = self._least_busy()
            if busy is None:
                return
            self._give(self._waiting.popleft(), busy)

    def _next(self) -> Ticket | None:
        """Who has waited longest, without a place or behind another."""
        lines = (desk.line for desk in (*self._desks, *self._leaving))
        behind = sorted((line[-1] for line in lines if len(line) > 1), key=lambda ticket: ticket.number)
        for ticket in behind:
            if self._waiting and self._waiting[0].number < ticket.number:
                break
            if self._take_back(ticket):
                return ticket
        return self._waiting.popleft() if self._waiting else None

    def _least_busy(self) -> Desk | None:
        """Where there is room behind a picture that has just begun."""
        since_s = monotonic() - _PATIENCE_S
        roomy = [
            desk
            for desk in self._desks
            if desk.line and desk.free and desk.load < _AT_A_WORKER and desk.first_since_s > since_s
        ]
        return max(roomy, key=lambda desk: desk.first_since_s, default=None)

    def _give(self, ticket: Ticket, desk: Desk) -> None:
        ticket.slot, ticket.is_sent = Slot(desk, desk.free.pop()), False
        desk.coming += 1
        ticket.changed.notify()


def _busy() -> Overloaded:
    return Overloaded("No decoder was free in time.", advice="Try again in a few seconds.")


def stopping() -> Overloaded:
    """Said to everybody who is there when the gate is closed."""
    return Overloaded("The service is stopping.", advice="Try again in a few seconds.")
