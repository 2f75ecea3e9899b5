"""What is written to the audit log about films, and in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2
from services.search.film.ports import NewFilm
from services.search.policy import Decision
from services.shared.errors import LikenessError
from services.shared.ids import is_id, new_id
from services.shared.tokens import Principal

FILM, FILM_VIEW, FILM_CANCEL, FILM_ERASE = "film", "film_view", "film_cancel", "film_erase"


class FilmTrail:
    """All methods raise AuditUnavailable; `done` and `ended` also Conflict, where another outcome stands."""

    def __init__(self, recorder: AuditRecorder) -> None:
        self._recorder = recorder

    def intend(self, film: NewFilm, decision: Decision) -> None:
        """Before anything is kept or looked at."""
        details = {"size_bytes": str(film.size_bytes), "policy": decision.policy}
        self._record(film, audit_pb2.INTENT, details)

    def done(self, film: NewFilm, details: Mapping[str, str]) -> None:
        """Before the tracks can be seen."""
        self._record(film, audit_pb2.DONE, details, entry_id=film.outcome_entry_id)

    def ended(self, film: NewFilm, phase: audit_pb2.Phase.ValueType, reason: str) -> None:
        """Without tracks."""
        self._record(film, phase, {"reason": reason}, entry_id=film.outcome_entry_id)

    def refused(
        self, principal: Principal, activity: str, error: LikenessError, about: Mapping[str, str], film_id: str = ""
    ) -> None:
        """A request that was never begun. `about` may hold purpose and case_reference."""
        details = {"reason": error.code}
        if reasons := error.context.get("reasons"):
            details["reasons"] = ",".join(reasons)
        if fields := error.context.get("fields"):
            details["fields"] = ",".join(str(field["field"]) for field in fields)
        self._recorder.record(
            audit_pb2.COLLECTION if activity == FILM else audit_pb2.CONSULTATION,
            audit_pb2.REFUSED,
            activity,
            new_id(),
            principal,
            purpose=about.get("purpose", ""),
            case_reference=about.get("case_reference", ""),
            objects=[film_object(film_id)] if film_id else [],
            details=details,
        )

    def viewed(self, principal: Principal, film: NewFilm, tracks: Sequence[int]) -> None:
        """Before people of a film are shown."""
        self._recorder.record(
            audit_pb2.CONSULTATION,
            audit_pb2.DONE,
            FILM_VIEW,
            new_id(),
            principal,
            purpose=film.purpose,
            case_reference=film.case_reference,
            objects=[film_object(film.film_id)],
            recipients=[f"person:{principal.person_id}"],
            details={"tracks": str(len(tracks))},
        )

    def cancel(self, principal: Principal, film: NewFilm, activity_id: str, phase: audit_pb2.Phase.ValueType) -> None:
        """Before what was read of a film is erased, and after."""
        self._recorder.record(
            audit_pb2.ERASURE,
            phase,
            FILM_CANCEL,
            activity_id,
            principal,
            purpose=film.purpose,
            case_reference=film.case_reference,
            objects=[film_object(film.film_id)],
        )

    def erase(
        self,
        principal: Principal,
        film: NewFilm,
        activity_id: str,
        phase: audit_pb2.Phase.ValueType,
        *,
        reason: str,
        images: Sequence[str] = (),
    ) -> None:
        """Before a film that has ended is erased, and after; `images` are those that were removed."""
        self._recorder.record(
            audit_pb2.ERASURE,
            phase,
            FILM_ERASE,
            activity_id,
            principal,
            purpose=film.purpose,
            case_reference=film.case_reference,
            objects=[film_object(film.film_id), *(f"probe:{sha256}" for sha256 in images)],
            details={"reason": reason},
        )

    def _record(
        self,
        film: NewFilm,
        phase: audit_pb2.Phase.ValueType,
        details: Mapping[str, str],
        *,
        entry_id: str | None = None,
    ) -> None:
        self._recorder.record(
            audit_pb2.COLLECTION,
            phase,
            FILM,
            film.film_id,
            film.principal,
            purpose=film.purpose,
            case_reference=film.case_reference,
            objects=[f"probe:{film.sha256}", *(f"watchlist:{watchlist_id}" for watchlist_id in film.watchlists)],
            details=details,
            entry_id=entry_id,
        )


def film_object(film_id: str) -> str:
    """How a film is named in the log; what is no id at all is not copied into it."""
    return f"film:{film_id}" if is_id(film_id) else "film:malformed"
