"""Copies every checkpoint to the witness, however long that takes, without anybody waiting for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import structlog

from services.audit.opening import check_agrees
from services.audit.ports import LogStore, Witness
from services.shared.errors import ConfigurationError, LikenessError
from services.shared.telemetry import Metrics

RETRY_S = 2.0


class Witnessing:
    """A thread that keeps the witness up to date with the store.

    Before it copies anything it compares the newest checkpoint at the witness with the store, so that a store that was
    exchanged while the witness was away does not get its history overwritten by a new one: then `refuse` is called.
    Each witness has a thread of its own, so that none holds another up; `metrics` are those of the first.
    """

    def __init__(
        self,
        store: LogStore,
        witness: Witness,
        metrics: Metrics | None,
        made: threading.Event,
        refuse: Callable[[LikenessError], None],
    ) -> None:
        self._store = store
        self._witness = witness
        self._metrics = metrics
        self._made = made
        self._refuse = refuse
        self._thread = threading.Thread(target=self._run, name="audit-witness", daemon=True)
        self._is_stopping = False
        # Size of the newest checkpoint that the witness holds; None before it was asked.
        self._copied: int | None = None
        self._problem = ""

    def start(self) -> None:
        self._made.set()
        self._thread.start()

    def stop(self) -> None:
        """Copy what is left, if the witness can be reached, and end."""
        self._is_stopping = True
        self._made.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._made.wait(RETRY_S if self._problem else None)
            self._made.clear()
            is_last = self._is_stopping
            try:
                self.copy_missing()
                self._problem = ""
            except ConfigurationError as error:
                self._refuse(error)
                return
            except LikenessError as error:
                self._note(error.detail)
            except Exception as error:  # noqa: BLE001 - the border of the thread: it must go on
                structlog.get_logger().error("audit_witness_error", exc_info=error)
                self._note(str(error))

    def copy_missing(self) -> None:
        """Bring the witness up to date. Raises ConfigurationError when it and the store contradict each other."""
        if self._copied is None:
            self._copied = self._compare()
        for head in self._store.checkpoints(self._copied):
            self._witness.keep(head)
            self._copied = head.tree_size
            if self._metrics is not None:
                made_at = datetime.fromisoformat(head.created_at)
                self._metrics.audit_witness_timestamp_seconds.set(made_at.timestamp())

    def _compare(self) -> int:
        own, witnessed = self._store.newest_checkpoint(), self._witness.newest()
        if own is not None and witnessed is not None:
            check_agrees(self._store, own.log_id, witnessed, "the witnessed checkpoint")
        for key in self._store.published_keys():
            self._witness.publish_key(key)
        return -1 if witnessed is None else witnessed.tree_size

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            structlog.get_logger().warning("audit_witness_behind", detail=problem)
        self._problem = problem
