"""The log as its service uses it: append with group commit, checkpoints, proofs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import TypeVar

import structlog

from services.audit.appending import next_entry
from services.audit.entries import EntryDraft, Statement, StoredEntry, draft_entry
from services.audit.merkle import Range, consistency_ranges, frontier_of, hashes_of, inclusion_ranges, nodes_of
from services.audit.opening import OpenedLog, open_log
from services.audit.ports import LogStore, LogWriting, Witness
from services.audit.settings import CheckpointSettings
from services.audit.skew import SKEW_S, skew_of
from services.audit.verification import Checkpoint, Frontier
from services.shared.clock import Clock, rfc3339
from services.shared.errors import (
    AuditUnavailable,
    Conflict,
    IntegrityError,
    InvalidRequest,
    LikenessError,
    NotFound,
)
from services.shared.telemetry import Metrics

MAX_BATCH = 256  # entries that share one transaction; more callers than the gRPC server has threads cannot wait anyway
MAX_WAITING = 4096  # beyond this the store is not keeping up, and callers hear so at once
PROBE_IDLE_S = 2.0  # how long the store may be unused before it is asked whether it can still be written
RETRY_S = 0.5  # how often a store that failed is tried again
STUCK_S = 2.0  # a write that takes longer is a fault, though nobody knows its name yet

Answer = TypeVar("Answer")

_ADVICE = "Try again in a few seconds; operators: check the audit store and its disk."


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry stands. Durable."""

    sequence: int
    leaf_hash: bytes
    recorded_at: str


@dataclass(frozen=True, slots=True)
class Inclusion:
    """RFC 6962 inclusion proof."""

    sequence: int
    tree_size: int
    leaf_hash: bytes
    path: Sequence[bytes]
    root_hash: bytes


@dataclass(frozen=True, slots=True)
class _Append:
    statement: Statement
    draft: EntryDraft
    answer: Future[Appended]


@dataclass(frozen=True, slots=True)
class _Sign:
    """Ask for a checkpoint over everything that is in the log now."""

    answer: Future[Checkpoint]


class _Stop:
    """Ask the writer to end."""


_Request = _Append | _Sign | _Stop


class AuditLog:
    """The one writer of a log, and its readers' proofs. Safe for several threads.

    One thread writes. It takes whatever waits, makes it durable in one transaction, and only then answers: a lone
    caller waits for nobody, and callers that come while the disk is busy share the next flush.

    An answer that is not a position means "not known to be durable": the caller does not act.
    """

    def __init__(
        self,
        *,
        store: LogStore,
        witness: Witness,
        clock: Clock,
        metrics: Metrics,
        settings: CheckpointSettings,
        append_timeout_s: float,
    ) -> None:
        self._store = store
        self._witness = witness
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._append_timeout_s = append_timeout_s
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._opened = threading.Event()
        self._is_stopping = False
        # Published by the writer thread, whole objects only; read by all.
        self._log: OpenedLog | None = None
        self._frontier = Frontier()
        self._newest: Checkpoint | None = None
        self._fault: str | None = "the log is being opened"
        self._refusal: LikenessError | None = None
        self._busy_since_s: float | None = None
        self._unsigned_since_s: float | None = None
        self._used_at_s = 0.0
        # Set, one each for those who copy checkpoints, when there is a new one.
        self._listeners: list[threading.Event] = []

    # --- life

    def open(self) -> None:
        """Open and check the log (`opening.open_log`). Raises ConfigurationError, AuditUnavailable (try again)."""
        log = open_log(self._store, self._witness, self._settings.signing_key_path, self._clock)
        self._log = log
        self._frontier, self._newest, self._fault = log.frontier, log.newest, None
        self._used_at_s = self._clock.monotonic_s()
        if log.frontier.size > log.newest.tree_size:
            self._unsigned_since_s = self._used_at_s
        self._publish_metrics()
        self._opened.set()

    def start(self) -> None:
        """Start writing; a log that could not be opened is opened as soon as its store can be written."""
        self._thread.start()

    def stop(self) -> None:
        """End after what already waits; a last checkpoint covers it."""
        self._is_stopping = True
        self._requests.put(_Stop())
        if self._thread.is_alive():
            self._thread.join(5.0)

    def listen(self) -> threading.Event:
        """An event of one's own that is set whenever a checkpoint was made."""
        made = threading.Event()
        self._listeners.append(made)
        return made

    def problems(self) -> Mapping[str, str]:
        """What keeps the log from being written; empty when nothing does."""
        if self._refusal is not None:
            return {"log": self._refusal.detail}
        busy_since_s = self._busy_since_s
        if busy_since_s is not None and self._clock.monotonic_s() - busy_since_s > STUCK_S:
            return {"store": f"a write has been running for more than {STUCK_S:g} s"}
        return {} if self._fault is None else {"store": self._fault}

    def refuse(self, error: LikenessError) -> None:
        """Never append again in this process: the store is not the log that was written."""
        self._refusal = error
        structlog.get_logger().error("audit_log_refused", detail=error.detail)

    # --- callers

    @property
    def log_id(self) -> str:
        return self._whole_log().log_id

    @property
    def size(self) -> int:
        """Durable entries."""
        return self._frontier.size

    def append(self, statement: Statement) -> Appended:
        """Durable when it returns. The same statement again (all but its time) gives the position of the first.

        Raises InvalidRequest, Conflict (another statement under that id), AuditUnavailable within `append_timeout_s`.
        """
        [appended] = self.append_all([statement])
        return appended

    def append_all(self, statements: Sequence[Statement]) -> list[Appended]:
        """Like `append` for several, at most MAX_BATCH, that share a flush.

        Raises for the first that fails; what became of the others is then not known, and all can be appended again.
        """
        if len(statements) > MAX_BATCH:
            raise InvalidRequest(f"{len(statements)} entries in one batch.", advice=f"Send at most {MAX_BATCH}.")
        for statement in statements:
            statement.check()
        # Made here, so that nothing that waits can fail a batch.
        requests = [_Append(statement, draft_entry(statement), Future()) for statement in statements]
        self._whole_log()
        with self._metrics.audit_append_seconds.time():
            for request in requests:
                self._requests.put(request)
            return [self._answer(request.answer) for request in requests]

    def checkpoint(self, *, fresh: bool = False) -> Checkpoint:
        """The newest signed checkpoint; with `fresh` one that covers every entry appended before the call.

        Raises AuditUnavailable.
        """
        self._whole_log()
        newest = self._newest
        if newest is not None and (not fresh or newest.tree_size == self.size):
            return newest
        request = _Sign(Future())
        self._requests.put(request)
        return self._answer(request.answer)

    def prove_inclusion(self, sequence: int, tree_size: int = 0) -> Inclusion:
        """That an entry is in the tree of a size (0: of the newest checkpoint). Raises NotFound, InvalidRequest."""
        size = tree_size or self.checkpoint().tree_size
        self._check_size(size)
        if not 0 <= sequence < size:
            raise NotFound(
                f"There is no entry {sequence} among the first {size}.",
                advice="Ask for a fresh checkpoint first if the entry is new.",
            )
        own, whole = (sequence, sequence + 1), (0, size)
        leaf, root, *path = self._roots([own, whole, *inclusion_ranges(sequence, size)])
        return Inclusion(sequence, size, leaf, path, root)

    def prove_consistency(self, first_size: int, second_size: int) -> Sequence[bytes]:
        """That the tree of the second size only added to that of the first. Raises InvalidRequest."""
        self._check_size(second_size)
        if not 0 <= first_size <= second_size:
            raise InvalidRequest(
                f"The first size, {first_size}, is over the second, {second_size}.",
                advice="Give the older size first.",
            )
        return self._roots(consistency_ranges(first_size, second_size))

    def _roots(self, ranges: Iterable[Range]) -> list[bytes]:
        wanted = list(ranges)
        return hashes_of(wanted, self._store.node_hashes(nodes_of(wanted)))

    def _check_size(self, size: int) -> None:
        if size > self.size:
            raise InvalidRequest(
                f"The log has {self.size} entries, not {size}.", advice="Ask for a size that a checkpoint names."
            )

    def _whole_log(self) -> OpenedLog:
        """The opened log, or why nothing can be appended now."""
        if self._refusal is not None:
            raise AuditUnavailable(self._refusal.detail, advice=self._refusal.advice)
        if self._log is None or self._is_stopping or self._requests.qsize() > MAX_WAITING:
            raise AuditUnavailable(f"The audit log is not ready: {self._fault or 'busy or stopping'}.", advice=_ADVICE)
        return self._log

    def _answer(self, answer: Future[Answer]) -> Answer:
        try:
            return answer.result(self._append_timeout_s)
        except FutureTimeout as error:
            answer.cancel()  # what the writer has not taken yet it will not write
            raise AuditUnavailable("The audit store did not answer in time.", advice=_ADVICE) from error

    # --- the writer thread

    def _run(self) -> None:
        while not self._opened.is_set() and not self._is_stopping:
            self._try_to_open()
        requests: list[_Request] = []
        while not any(isinstance(request, _Stop) for request in requests):
            requests = self._take()
            self._turn(requests)
        self._finish()

    def _try_to_open(self) -> None:
        try:
            self.open()
        except AuditUnavailable as error:
            self._fault = error.detail
            time.sleep(RETRY_S)
        except LikenessError as error:
            self.refuse(error)
            self._opened.set()

    def _finish(self) -> None:
        """A last checkpoint; whoever asked too late hears that nothing was written."""
        self._turn([_Sign(Future())])
        while not self._requests.empty():
            _fail([self._requests.get()], AuditUnavailable("The audit service is stopping.", advice=_ADVICE))

    def _take(self) -> list[_Request]:
        """Everything that waits; nothing when it is time to do something else."""
        try:
            requests = [self._requests.get(timeout=self._patience_s())]
        except Empty:
            return []
        while len(requests) < MAX_BATCH:
            try:
                requests.append(self._requests.get_nowait())
            except Empty:
                break
        return requests

    def _patience_s(self) -> float:
        if self._fault is not None:
            return RETRY_S
        if self._unsigned_since_s is None:
            return PROBE_IDLE_S
        due_s = self._unsigned_since_s + self._settings.interval_s - self._clock.monotonic_s()
        return min(max(due_s, 0.0), PROBE_IDLE_S)

    def _turn(self, requests: Sequence[_Request]) -> None:
        """Do what waits. Every request is answered, whatever happens, and the thread goes on."""
        taken = [r for r in requests if not isinstance(r, _Stop) and r.answer.set_running_or_notify_cancel()]
        self._busy_since_s = self._clock.monotonic_s()
        try:
            log = self._whole_log_for_writing()
            appends = [request for request in taken if isinstance(request, _Append)]
            if appends:
                self._write(appends)
            else:
                self._probe_if_idle()
            self._fault = None
            signs = [request for request in taken if isinstance(request, _Sign)]
            newest = self._sign_if_due(log, is_asked=bool(signs))
            for request in signs:
                request.answer.set_result(newest)
        except LikenessError as error:
            self._note_fault(error)
            _fail(taken, AuditUnavailable(error.detail, advice=error.advice))
        except Exception as error:  # noqa: BLE001 - the border of the thread: callers must hear, appending must go on
            structlog.get_logger().error("audit_writer_error", exc_info=error)
            unavailable = AuditUnavailable("The audit log cannot be written: an internal error.", advice=_ADVICE)
            self._note_fault(unavailable)
            _fail(taken, unavailable)
        finally:
            self._busy_since_s = None

    def _whole_log_for_writing(self) -> OpenedLog:
        if self._refusal is not None or self._log is None:
            raise AuditUnavailable(self._refusal.detail if self._refusal else "The audit log is not open.")
        return self._log

    def _note_fault(self, error: LikenessError) -> None:
        if self._fault is None:
            structlog.get_logger().error("audit_store_fault", detail=error.detail)
        self._fault = error.detail

    def _write(self, appends: Sequence[_Append]) -> None:
        """Store what is not stored yet, in one transaction, then answer everybody."""
        moment = rfc3339(self._clock.now())
        answers: list[Appended | Conflict] = []
        added: list[Statement] = []
        with self._store.writing() as transaction:
            frontier = self._frontier_in(transaction)
            known = transaction.find([request.statement.entry_id for request in appends])
            entries = []
            for request in appends:
                statement = request.statement
                earlier = known.get(statement.entry_id)
                if earlier is None:
                    entry = next_entry(statement, frontier, moment, request.draft)
                    entries.append(entry)
                    added.append(statement)
                    known[statement.entry_id] = entry.stored
                    answers.append(Appended(entry.stored.sequence, entry.stored.leaf_hash, moment))
                else:
                    answers.append(_answer_again(earlier, statement))
            if entries:
                transaction.add_entries(entries)
        # Durable from here on.
        self._frontier = frontier
        self._used_at_s = self._clock.monotonic_s()
        if added and self._unsigned_since_s is None:
            self._unsigned_since_s = self._used_at_s
        _tell(appends, answers)
        self._note(added, frontier, moment)

    def _note(self, added: Sequence[Statement], frontier: Frontier, moment: str) -> None:
        for statement in added:
            _tell_of_skew(statement, moment)
            self._metrics.audit_entries_total.labels(statement.operation.lower(), statement.phase.lower()).inc()
        self._metrics.audit_tree_entries.set(frontier.size)

    def _frontier_in(self, transaction: LogWriting) -> Frontier:
        """The tree as the store has it: ours, or ours grown if a commit took effect though it seemed to fail."""
        size = transaction.size()
        known = self._frontier
        if size == known.size:
            return Frontier(known.size, known.peaks)
        whole = [(0, known.size)]
        try:
            is_ours = size > known.size and hashes_of(whole, transaction.node_hashes(nodes_of(whole))) == [known.root()]
            if is_ours:
                return frontier_of(size, transaction.node_hashes(nodes_of([(0, size)])))
        except IntegrityError as error:
            structlog.get_logger().error("audit_store_damaged", detail=error.detail)
        refusal = IntegrityError(
            f"The audit store holds {size} entries that are not the {known.size} written to it.",
            advice="Stop the service, keep the store for whoever investigates, and run `likeness audit verify` on it.",
        )
        self.refuse(refusal)
        raise AuditUnavailable(refusal.detail, advice=refusal.advice)

    def _probe_if_idle(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._fault is not None or now_s - self._used_at_s >= PROBE_IDLE_S:
            self._store.probe()
            self._used_at_s = self._clock.monotonic_s()

    def _sign_if_due(self, log: OpenedLog, *, is_asked: bool) -> Checkpoint:
        newest = self._newest or log.newest
        frontier = self._frontier
        unsigned = frontier.size - newest.tree_size
        if unsigned == 0:
            self._unsigned_since_s = None
            return newest
        waited_s = self._clock.monotonic_s() - (self._unsigned_since_s or 0.0)
        if not is_asked and unsigned < self._settings.entries and waited_s < self._settings.interval_s:
            return newest
        head = log.signer.sign(log.log_id, frontier.size, frontier.root(), self._clock.now())
        with self._store.writing() as transaction:
            transaction.add_checkpoint(head)
        self._newest, self._unsigned_since_s = head, None
        self._publish_metrics()
        for made in self._listeners:
            made.set()
        return head

    def _publish_metrics(self) -> None:
        self._metrics.audit_tree_entries.set(self._frontier.size)
        if self._newest is not None:
            made = datetime.fromisoformat(self._newest.created_at)
            self._metrics.audit_checkpoint_timestamp_seconds.set(made.timestamp())


def _answer_again(earlier: StoredEntry, statement: Statement) -> Appended | Conflict:
    if earlier.says_the_same_as(statement):
        return Appended(earlier.sequence, earlier.leaf_hash, earlier.facts()["recorded_at"])
    return Conflict(
        f"Another entry with the id {statement.entry_id} is in the log at {earlier.sequence}.",
        advice="Make a new id for every entry; use an id again only to repeat the same entry.",
        context={"sequence": earlier.sequence},
    )


def _fail(requests: Iterable[_Request], error: LikenessError) -> None:
    """Tell those who have not been answered."""
    for request in requests:
        if not isinstance(request, _Stop) and not request.answer.done():
            request.answer.set_exception(error)


def _tell(appends: Sequence[_Append], answers: Sequence[Appended | Conflict]) -> None:
    for request, answer in zip(appends, answers, strict=True):
        if isinstance(answer, Conflict):
            request.answer.set_exception(answer)
        else:
            request.answer.set_result(answer)


def _tell_of_skew(statement: Statement, recorded_at: str) -> None:
    """An entry of the future can only come from a clock that is off; one of the past may have waited."""
    skew_s = skew_of(statement.occurred_at, recorded_at)
    if skew_s > SKEW_S:
        structlog.get_logger().warning("clock_ahead", of=statement.service, skew_s=round(skew_s, 1))
