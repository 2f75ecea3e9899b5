"""The job: a film is read segment by segment, its tracks are made and their best frames cut out.

Whatever was done is in the store: a service that is killed, or an embed that goes away, costs the segment under way and
nothing else. Who works on a film holds a claim that ends by itself, so another process takes a film up that was left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, Protocol

import structlog

from services.rpc.convert import provenance_from_message
from services.rpc.v1 import audit_pb2, films_pb2
from services.search.film.choosing import CutStill, found_tracks, sightings_of, wished_stills
from services.search.film.ports import FilmStatus, FilmStore, StoredFilm
from services.search.film.sealing import unseal
from services.search.film.settings import FilmsSettings
from services.search.film.tracking import Tracking, find_tracks
from services.search.film.trail import FilmTrail
from services.search.identification.answer import model_document
from services.shared.clock import Clock
from services.shared.errors import CallerError, Conflict, FilmRefused, LikenessError
from services.shared.ids import new_id
from services.shared.originals import unscanned
from services.shared.ports.image_store import ImageStore
from services.shared.telemetry import Metrics

_STILLS_S = 1800.0  # for cutting out what was chosen; seeking in a large film takes its time
_RETRY_S = 2.0
_SWEEP_BATCH = 50
_RENEWALS = 4  # within the time that a claim lasts


class Reading(Protocol):
    """`services.rpc.clients.FilmReading`."""

    def __iter__(self) -> Iterator[films_pb2.FilmEvent]: ...

    def cancel(self) -> None: ...


class Films(Protocol):
    """`services.rpc.clients.FilmsClient`."""

    def read(self, order: films_pb2.FilmOrder, content: Any, *, timeout_s: float) -> Reading: ...


@dataclass
class _Work:
    """A claimed film. `is_lost`: it was cancelled, the service stops, or somebody else has it."""

    film: StoredFilm
    is_lost: Event = field(default_factory=Event)
    reading: Reading | None = None

    def lose(self) -> None:
        self.is_lost.set()
        if self.reading is not None:
            self.reading.cancel()


class FilmRunner:
    """Works on one film at a time. `run_one` is called again and again; `stop` ends it soon."""

    def __init__(
        self,
        *,
        settings: FilmsSettings,
        embed: Films,
        store: FilmStore,
        probes: ImageStore,
        trail: FilmTrail,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._settings = settings
        self._embed = embed
        self._store = store
        self._probes = probes
        self._trail = trail
        self._clock = clock
        self._name = new_id()
        self._stopping = Event()

    def stop(self) -> None:
        """What is under way is left as it is, for the next start."""
        self._stopping.set()

    def run_one(self) -> None:
        """Work on the film that waits longest, as far as it goes now. Raises DependencyUnavailable of the store."""
        now_s = self._now_s()
        film = self._store.claim(self._name, now_s, now_s + self._settings.claim_s)
        if film is None or self._stopping.is_set():
            return
        with self._tended(_Work(film)) as work:
            failures = self._worked(work)
        pause_s = 0.0 if work.is_lost.is_set() or not failures else _RETRY_S * min(failures, 15)
        self._store.release(film.film_id, self._name, until_s=self._now_s() + pause_s, failures=failures)

    def sweep(self) -> None:
        """Give a terminal audit entry to films that have none. Raises AuditUnavailable, DependencyUnavailable."""
        for film in self._store.unclosed(_SWEEP_BATCH):
            if film.status is FilmStatus.OPENED:
                age_s = (self._clock.now() - film.opened_at).total_seconds()
                # Longer than sealing the largest film takes.
                if age_s < self._settings.max_bytes / 1e6:
                    continue
                self._store.stop(film.film_id, FilmStatus.FAILED, _problem("outcome_unknown"))
            self._record_end(film, str((film.problem or _problem("outcome_unknown"))["code"]))

    def _worked(self, work: _Work) -> int:
        """Failures in a row, 0 when it went well."""
        film = work.film
        try:
            self._advance(work)
        except FilmRefused as error:
            self._end(film, FilmStatus.REFUSED, error)
        except LikenessError as error:
            if work.is_lost.is_set():
                return film.failures
            return self._failed(film, error)
        except Exception:  # noqa: BLE001 - one film must not end the work on all others
            structlog.get_logger().exception("film_work_broke", film_id=film.film_id)
            return self._failed(film, LikenessError("An internal error; it has been logged."))
        return 0

    def _failed(self, film: StoredFilm, error: LikenessError) -> int:
        standing = self._store.find(film.film_id)
        has_advanced = standing is not None and standing.segments_read > film.segments_read
        failures = 1 if has_advanced else film.failures + 1
        structlog.get_logger().warning(
            "film_work_failed", film_id=film.film_id, code=error.code, detail=error.detail, failures=failures
        )
        # Who is away comes back, sooner or later; what is wrong in itself does not get better.
        if failures >= self._settings.max_failures and not error.retriable:
            self._end(film, FilmStatus.FAILED, error)
        return failures

    def _advance(self, work: _Work) -> None:
        """Every stage that is left. Each begins from what the store has."""
        film = work.film
        if film.status in {FilmStatus.QUEUED, FilmStatus.READING}:
            self._read(work)
            if work.is_lost.is_set():
                return
            self._store.set_status(film.film_id, FilmStatus.CHOOSING)
        if film.status is not FilmStatus.CLOSING:
            self._choose(work)
            if work.is_lost.is_set():
                return
        self._close(film)

    def _read(self, work: _Work) -> None:
        film = work.film
        order = films_pb2.FilmOrder(
            sha256=film.sha256,
            size_bytes=film.size_bytes,
            task=films_pb2.FilmOrder.FACES,
            first_segment=film.segments_read,
        )
        left_s = self._take_segments(work, order, self._settings.max_read_s - film.read_s)
        if left_s <= 0 and not work.is_lost.is_set():
            self._store.warn(film.film_id, "not_read_to_the_end: the time for one film is used up")
        standing = self._store.find(film.film_id)
        if not work.is_lost.is_set() and standing is not None and not standing.frames_looked_at:
            raise FilmRefused(
                "No frame of the film can be decoded.",
                code="film_undecodable",
                advice="Send the file as the camera or system wrote it; it may have been cut short on its way.",
            )

    def _take_segments(self, work: _Work, order: films_pb2.FilmOrder, left_s: float) -> float:
        """Store what is read, segment by segment, until the film or its time ends; the time that is left."""
        if left_s <= 0:
            return left_s
        film, started_s = work.film, self._clock.monotonic_s()
        for event in self._events(work, order, left_s + self._settings.claim_s):
            if event.HasField("description"):
                self._described(film, event.description)
            elif event.HasField("segment"):
                ended_s = self._clock.monotonic_s()
                self._store.add_segment(film.film_id, event.segment, ended_s - started_s)
                self._metrics.search_film_frames_total.inc(event.segment.frames_looked_at)
                left_s -= ended_s - started_s
                started_s = ended_s
            if left_s <= 0:
                break
        return left_s

    def _described(self, film: StoredFilm, found: films_pb2.FilmDescription) -> None:
        description = {
            "container": found.container,
            "codec": found.codec,
            "width": found.width,
            "height": found.height,
            "duration_s": found.duration_s,
            "frame_count": found.frame_count,
            "key_frame_count": found.key_frame_count,
            "segments": found.segment_count,
            "model": model_document(provenance_from_message(found.model)),
        }
        self._store.describe(film.film_id, description, list(found.warnings))

    def _choose(self, work: _Work) -> None:
        film = work.film
        tracking = find_tracks(sightings_of(self._store.segments(film.film_id)))
        if tracking.left_out:
            self._store.warn(film.film_id, f"tracks_left_out: {tracking.left_out} too poor to be searched, or too many")
        stills = self._cut_out(work, tracking) if tracking.tracks else []
        if not work.is_lost.is_set():
            self._store.put_tracks(film.film_id, found_tracks(tracking, stills))

    def _cut_out(self, work: _Work, tracking: Tracking) -> Sequence[CutStill]:
        order = films_pb2.FilmOrder(
            sha256=work.film.sha256,
            size_bytes=work.film.size_bytes,
            task=films_pb2.FilmOrder.STILLS,
            stills=wished_stills(tracking),
        )
        stills = []
        for event in self._events(work, order, _STILLS_S):
            if event.HasField("still") and event.still.png:
                # Sealed at once and let go: a whole frame is megabytes, and there may be hundreds.
                sha256 = unscanned(self._probes).put(event.still.png)
                event.still.ClearField("png")
                stills.append(CutStill(event.still, sha256))
        return stills

    def _close(self, film: StoredFilm) -> None:
        """The outcome is in the log before the film is DONE, and its tracks can be seen."""
        standing = self._store.find(film.film_id)
        if standing is None or standing.status is not FilmStatus.CLOSING:
            return
        tracks = self._store.contents(film.film_id).tracks
        description = standing.description or {}
        self._trail.done(
            film,
            {
                "tracks": str(len(tracks)),
                "stills": ",".join(still.sha256 for track in tracks for still in track.stills[:1])[:4000],
                "frames_looked_at": str(standing.frames_looked_at),
                "model_id": str(description.get("model", {}).get("model_id", "")),
                "warnings": "; ".join(standing.warnings)[:1000],
            },
        )
        self._store.close(film.film_id)
        self._metrics.search_films_total.labels(FilmStatus.DONE.value).inc()
        structlog.get_logger().info("film_done", film_id=film.film_id, tracks=len(tracks), read_s=standing.read_s)

    def _end(self, film: StoredFilm, status: FilmStatus, error: LikenessError) -> None:
        problem = {"code": error.code, "detail": error.detail, "advice": error.advice}
        if self._store.stop(film.film_id, status, problem):
            self._metrics.search_films_total.labels(status.value).inc()
            self._record_end(film, error.code, is_callers=isinstance(error, CallerError))

    def _record_end(self, film: StoredFilm, reason: str, *, is_callers: bool | None = None) -> None:
        is_refused = film.status is FilmStatus.REFUSED if is_callers is None else is_callers
        phase = audit_pb2.REFUSED if is_refused else audit_pb2.FAILED
        try:
            self._trail.ended(film, phase, reason)
        except Conflict:
            structlog.get_logger().info("film_outcome_stands", film_id=film.film_id)
        self._store.close(film.film_id)

    def _events(self, work: _Work, order: films_pb2.FilmOrder, timeout_s: float) -> Iterator[films_pb2.FilmEvent]:
        """What embed says, until the film is read or lost."""
        reading = self._embed.read(order, unseal(self._probes, work.film.pieces), timeout_s=timeout_s)
        work.reading = reading
        try:
            for event in reading:
                if work.is_lost.is_set():
                    return
                yield event
        finally:
            reading.cancel()
            work.reading = None

    @contextmanager
    def _tended(self, work: _Work) -> Iterator[_Work]:
        """Keep the claim while the block runs, and notice when the film is not ours any more."""
        ended = Event()
        tending = Thread(target=self._tend, args=(work, ended.wait), name="film-claim", daemon=True)
        tending.start()
        try:
            yield work
        finally:
            ended.set()
            tending.join()

    def _tend(self, work: _Work, wait: Callable[[float], bool]) -> None:
        since_s = self._now_s()
        while not wait(0.25):
            if self._stopping.is_set():
                work.lose()
            now_s = self._now_s()
            if now_s - since_s < self._settings.claim_s / _RENEWALS:
                continue
            try:
                if not self._store.renew(work.film.film_id, self._name, now_s + self._settings.claim_s):
                    work.lose()
                since_s = now_s
            except LikenessError as error:
                structlog.get_logger().warning("film_claim_not_renewed", code=error.code)

    def _now_s(self) -> float:
        return self._clock.now().timestamp()


def _problem(code: str) -> dict[str, Any]:
    return {
        "code": code,
        "detail": "The service stopped before the film was sealed; nothing of it is kept.",
        "advice": "Send it again.",
    }
