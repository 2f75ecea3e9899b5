"""Who decodes which picture: idle workers first, the oldest first, nobody for long behind a slow one, nobody blamed for
another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import cast

import pytest

from services.embed.gate.lines import Desk, Lines, Slot, Ticket
from services.embed.gate.process import GateWorker
from services.embed.workers.arena import Arena
from services.shared.errors import Overloaded
from tests.support.waiting import wait_until

IN_TIME_S = 60.0
SIZE = 10


class _Arena:
    is_destroyed = False

    def destroy(self) -> None:
        self.is_destroyed = True


class _Worker(GateWorker):
    """Takes its orders when the test says so."""

    def __init__(self) -> None:
        self.arenas = cast("list[Arena]", [_Arena() for _ in range(3)])
        self.queue: deque[int] = deque()
        self.taken: list[int] = []

    def order(self, arena: int, size: int) -> None:
        assert size == SIZE
        self.queue.append(arena)

    def recall(self, arena: int) -> bool:
        if not self.queue or self.queue[0] != arena:
            return False
        self.queue.popleft()
        return True

    def take(self) -> None:
        self.taken.append(self.queue.popleft())


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    lines.close()


@pytest.fixture
def callers(lines: Lines) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads
        lines.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is taken back because of the time."""
    monkeypatch.setattr("services.embed.gate.lines._PATIENCE_S", 600.0)


@contextmanager
def _hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr("services.embed.gate.lines._PATIENCE_S", 0.001)
        yield


def _through(lines: Lines, ticket: Ticket, timeout_s: float = IN_TIME_S) -> Slot:
    """As a caller does it, until the picture is the first of a line."""
    deadline_s = monotonic() + timeout_s
    while True:
        slot = lines.place(ticket, deadline_s)
        if lines.is_first(ticket, slot, SIZE, deadline_s):
            return slot


def _decoding(lines: Lines) -> tuple[Ticket, Slot]:
    """A picture that its worker has begun."""
    ticket = lines.ticket()
    slot = _through(lines, ticket, 0.0)
    _worker(slot).take()
    return ticket, slot


def _worker(slot: Slot) -> _Worker:
    return cast("_Worker", slot.desk.worker)


def _behind(lines: Lines, callers: ThreadPoolExecutor, ticket: Ticket, count: int = 1) -> Future[Slot]:
    """Somebody who waits behind another, at a worker."""
    future = callers.submit(_through, lines, ticket)
    wait_until(lambda: future.done() or lines.waiting == (0, count), IN_TIME_S, "a second one in line")
    return future


def test_workers_with_nothing_to_do_go_first(lines: Lines) -> None:
    for _ in range(3):
        lines.add(_Worker())
    desks = {_decoding(lines)[1].desk for _ in range(3)}
    assert len(desks) == 3


@pytest.mark.usefixtures("patient")
def test_a_picture_waits_behind_another_only_until_a_worker_is_idle(lines: Lines, callers: ThreadPoolExecutor) -> None:
    for _ in range(2):
        lines.add(_Worker())
    slow, quick = _decoding(lines), _decoding(lines)
    third = lines.ticket()
    moved = _behind(lines, callers, third)
    first_choice = third.slot
    assert first_choice is not None
    idle = slow if first_choice.desk is quick[1].desk else quick
    lines.answered(*idle)
    assert moved.result(IN_TIME_S).desk is idle[1].desk
    assert not _worker(first_choice).queue, "the order was taken back"
    assert first_choice.index in first_choice.desk.free


@pytest.mark.usefixtures("patient")
def test_an_order_that_its_worker_has_taken_stays(lines: Lines, callers: ThreadPoolExecutor) -> None:
    for _ in range(2):
        lines.add(_Worker())
    both = [_decoding(lines), _decoding(lines)]
    third = lines.ticket()
    waiting = _behind(lines, callers, third)
    place = third.slot
    assert place is not None
    _worker(place).take()  # it has answered the one before, whose caller has not seen it yet
    ahead, other = both if both[0][1].desk is place.desk else reversed(both)
    lines.answered(*other)
    assert not waiting.done()
    lines.answered(*ahead)
    assert waiting.result(IN_TIME_S) is place


def test_nobody_waits_for_long_behind_a_slow_one(
    lines: Lines, callers: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines.add(_Worker())
    bomb = _decoding(lines)
    with _hurried(monkeypatch):
        good = callers.submit(_through, lines, lines.ticket())
        wait_until(lambda: lines.waiting == (1, 0), IN_TIME_S, "it to be taken back")
        lines.add(_Worker())
        assert good.result(IN_TIME_S).desk is not bomb[1].desk
    lines.answered(*bomb)


def test_of_those_who_wait_the_oldest_is_next(
    lines: Lines, callers: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines.add(_Worker())
    bomb = _decoding(lines)
    older, younger = lines.ticket(), lines.ticket()
    with _hurried(monkeypatch):
        second = callers.submit(_through, lines, younger)
        wait_until(lambda: lines.waiting == (1, 0), IN_TIME_S, "the younger one to wait")
        first = callers.submit(_through, lines, older)
        wait_until(lambda: lines.waiting == (2, 0), IN_TIME_S, "both to wait")
    lines.answered(*bomb)
    slot = first.result(IN_TIME_S)
    assert not second.done()
    lines.answered(older, slot)
    second.result(IN_TIME_S)


@pytest.mark.usefixtures("patient")
def test_who_waited_behind_a_death_is_placed_anew_and_alone(lines: Lines, callers: ThreadPoolExecutor) -> None:
    lines.add(_Worker())
    ticket, slot = _decoding(lines)
    bystander = lines.ticket()
    waiting = _behind(lines, callers, bystander)
    held = [slot, bystander.slot]
    assert lines.remove(slot.desk)
    lines.lost(ticket)
    wait_until(lambda: lines.waiting == (1, 0), IN_TIME_S, "the bystander to wait without a place")
    assert all(cast("_Arena", place.arena).is_destroyed for place in held if place is not None)
    lines.add(_Worker())
    again = waiting.result(IN_TIME_S)
    assert again.desk is not slot.desk
    _worker(again).take()
    # It is in front of its line; the one that saw its own worker die waits for an idle one too, behind nobody.
    other = callers.submit(_through, lines, ticket)
    wait_until(lambda: lines.waiting == (1, 0), IN_TIME_S, "nobody behind the bystander")
    lines.answered(bystander, again)
    other.result(IN_TIME_S)


@pytest.mark.usefixtures("patient")
def test_who_is_not_begun_in_time_leaves_no_order_behind(lines: Lines) -> None:
    lines.add(_Worker())
    _, slot = _decoding(lines)
    with pytest.raises(Overloaded):
        _through(lines, lines.ticket(), 0.05)
    assert not _worker(slot).queue
    assert len(slot.desk.free) == 2
    assert lines.waiting == (0, 0)


@pytest.mark.usefixtures("patient")
def test_closing_tells_everybody(lines: Lines, callers: ThreadPoolExecutor) -> None:
    lines.add(_Worker())
    _decoding(lines)
    behind = _behind(lines, callers, lines.ticket())
    waiting = callers.submit(_through, lines, lines.ticket())
    wait_until(lambda: lines.waiting == (1, 1), IN_TIME_S, "one without a place")
    assert len(lines.close()) == 1
    assert [type(future.exception(IN_TIME_S)) for future in (behind, waiting)] == [Overloaded, Overloaded]
    with pytest.raises(Overloaded):
        lines.place(lines.ticket(), monotonic() + IN_TIME_S)


@pytest.mark.usefixtures("patient")
def test_a_caller_who_is_gone_takes_nobody_along(lines: Lines) -> None:
    """Interrupted before it had a place, before it sent, behind another, and while its worker decoded."""
    lines.add(_Worker())
    unsent = lines.ticket()
    desk = lines.place(unsent, 0.0).desk
    assert lines.withdraw(unsent) is None
    assert (desk.load, len(desk.free)) == (0, 3)

    ticket, _ = _decoding(lines)
    assert lines.withdraw(lines.ticket()) is None, "one that never came"
    behind = lines.ticket()
    slot = lines.place(behind, 0.0)
    desk.worker.order(slot.index, SIZE)
    _sent(desk, behind)
    assert lines.withdraw(behind) is None
    assert (desk.load, len(desk.free)) == (1, 2)

    assert lines.withdraw(ticket) is desk, "its worker has to be ended"


def _sent(desk: Desk, ticket: Ticket) -> None:
    """As `is_first` leaves it when its caller is interrupted while it waits."""
    desk.coming -= 1
    desk.line.append(ticket)
    ticket.is_sent = True


@pytest.mark.usefixtures("patient")
def test_a_worker_that_leaves_answers_what_it_has_and_gets_no_more(lines: Lines, callers: ThreadPoolExecutor) -> None:
    lines.add(_Worker())
    ticket, slot = _decoding(lines)
    assert lines.add(_Worker(), instead_of=slot.desk) is None, "it is busy"
    assert slot.desk not in lines.desks
    _, other = _decoding(lines)
    assert other.desk is not slot.desk
    behind = _behind(lines, callers, lines.ticket())
    assert lines.answered(ticket, slot) == (1, True), "it has left"
    assert not behind.done(), "whoever comes now waits at the one that stays"
    lines.close()
    assert isinstance(behind.exception(IN_TIME_S), Overloaded)


def test_a_worker_without_work_leaves_at_once_and_one_that_died_is_not_relieved(lines: Lines) -> None:
    lines.add(_Worker())
    [idle] = lines.desks
    assert lines.add(_Worker(), instead_of=idle) is idle
    surplus = lines.add(_Worker(), instead_of=idle)
    assert surplus is not None
    assert surplus not in lines.desks
