"""One writer, many callers: what arrives together is committed together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import sqlalchemy as sa

from services.shared.errors import DependencyUnavailable, LikenessError

T = TypeVar("T")
_MAX_BATCH = 256  # bounds the time of one transaction
_WAIT_S = 30.0  # a caller waits no longer for its commit; by then the disk or the server is in trouble


@dataclass(slots=True)
class _Item:
    work: Callable[[sa.Connection], Any]
    future: Future[Any]


class GroupCommitter:
    """Runs pieces of work on one connection, those that wait together in one transaction.

    A commit costs a sync of the disk; under load dozens of callers share one. A piece of work must be a function of
    the connection alone: when one of a group fails, the transaction is rolled back and each is run again by itself,
    so that nobody pays for another's error.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._is_closed = False
        self._thread = Thread(target=self._loop, name="group-commit", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """The result of the work, durable. Raises what the work raises, DependencyUnavailable for store errors."""
        if self._is_closed:
            raise DependencyUnavailable("The ledger is closing.", advice="Try again in a few seconds.")
        future: Future[T] = Future()
        self._queue.put(_Item(work, future))
        try:
            return future.result(timeout=_WAIT_S)
        except TimeoutError as error:
            raise DependencyUnavailable(
                "The ledger did not commit in time.", advice="Operators: check its disk or server."
            ) from error

    def close(self) -> None:
        """Finish what waits, then stop."""
        self._is_closed = True
        self._queue.put(None)
        self._thread.join(timeout=_WAIT_S)

    def _loop(self) -> None:
        is_running = True
        while is_running:
            first = self._queue.get()
            if first is None:
                break
            batch = [first]
            with suppress(Empty):
                while len(batch) < _MAX_BATCH:
                    item = self._queue.get_nowait()
                    if item is None:
                        is_running = False
                        break
                    batch.append(item)
            self._run_batch(batch)
        self._fail_rest()

    def _run_batch(self, batch: list[_Item]) -> None:
        try:
            with self._engine.begin() as connection:
                results = [item.work(connection) for item in batch]
        except Exception as error:  # noqa: BLE001 - handed to the caller it belongs to
            if len(batch) == 1:
                batch[0].future.set_exception(_translated(error))
                return
            for item in batch:
                self._run_batch([item])
            return
        for item, result in zip(batch, results, strict=True):
            item.future.set_result(result)

    def _fail_rest(self) -> None:
        with suppress(Empty):
            while True:
                item = self._queue.get_nowait()
                if item is not None:
                    item.future.set_exception(DependencyUnavailable("The ledger is closing."))


def _translated(error: Exception) -> Exception:
    if isinstance(error, LikenessError) or not isinstance(error, sa.exc.DBAPIError):
        return error
    translated = DependencyUnavailable(
        f"The ledger cannot be written ({type(error).__name__}).",
        advice="Try again; operators: check the ledger's disk or server.",
    )
    translated.__cause__ = error
    return translated
