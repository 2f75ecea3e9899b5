"""Turns are given in order and none is lost."""

from __future__ import annotations

import threading
import time

import pytest

from services.search.gallery.slots import Slots
from tests.support.waiting import wait_until


def test_idle_slots_are_taken_as_asked() -> None:
    slots = Slots(4)
    with slots.taken(3) as first, slots.taken(3) as second:
        assert (first, second) == (3, 1)
    with slots.taken(9) as all_of_them:
        assert all_of_them == 4
    with slots.taken(0) as at_least:
        assert at_least == 1


def test_an_error_gives_the_slots_back() -> None:
    slots = Slots(2)
    with pytest.raises(RuntimeError), slots.taken(2):
        raise RuntimeError
    with slots.taken(2) as held:
        assert held == 2


def test_first_come_first_served() -> None:
    slots, served = Slots(1), list[int]()

    def serve(number: int) -> None:
        with slots.taken(1):
            served.append(number)

    with slots.taken(1):
        threads = []
        for number in range(8):
            threads.append(threading.Thread(target=serve, args=(number,)))
            threads[-1].start()
            wait_until(lambda: slots.waiting > number, 60, "the next to wait", 0.001)  # noqa: B023 - called at once
    for thread in threads:
        thread.join(timeout=60)
    assert served == list(range(8))


def test_never_more_than_there_are() -> None:
    slots, lock = Slots(2), threading.Lock()
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        for _ in range(50):
            with slots.taken(2) as held:
                with lock:
                    running += held
                    most = max(most, running)
                time.sleep(0)
                with lock:
                    running -= held

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert (running, most) == (0, 2)
