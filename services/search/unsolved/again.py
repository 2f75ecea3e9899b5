"""A kept probe searched again for the person who kept it, by that person's rights and today's policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from services.search.identification.acceptance import Acceptance
from services.search.identification.identifying import IdentifyFor
from services.search.identification.matching import Matching
from services.search.identification.requests import SearchMode
from services.search.ports import SearchScope
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.errors import CallerError, Forbidden, InvalidRequest
from services.shared.ids import is_id
from services.shared.multipart import Upload
from services.shared.revocations import Revocations
from services.shared.tokens import Principal

# Everybody over the threshold: a shorter list could leave the new ones out for the sake of the old.
LONGEST_LIST = "50"


@dataclass(frozen=True, slots=True)
class Mandate:
    """The rights of the person who kept the probe, as the verified token had them at that moment."""

    owner: Principal
    granted_at_ms: int

    @property
    def principal(self) -> Principal:
        """Who the log says it was: the service, for that person. Nobody else has this name or its limits."""
        owner = self.owner
        return Principal(
            f"service:review/{owner.person_id}",
            owner.force,
            owner.roles & {"operator"},
            owner.watchlists,
            owner.trained_until,
        )


@dataclass(frozen=True, slots=True)
class Again:
    """What is asked. `unless_snapshot` empty: search in any case."""

    mandate: Mandate
    request_id: str
    since_ms: int
    unless_snapshot: str
    upload: Upload
    key: str


class SearchAgain:
    """Raises what a search raises; None where the permitted part of the gallery is what it was."""

    def __init__(
        self,
        *,
        identify_for: IdentifyFor,
        newcomers: Callable[[int], Matching],
        acceptance: Acceptance,
        gallery: GalleryKeeper,
        revocations: Callable[[], Revocations],
    ) -> None:
        """`newcomers` gives the matching that leaves out what was there before a moment."""
        self._identify_for = identify_for
        self._newcomers = newcomers
        self._accept = acceptance
        self._gallery = gallery
        self._revocations = revocations

    def __call__(self, again: Again) -> bytes | None:
        """The JSON of the answer, with newcomers alone; None where the gallery is that of `unless_snapshot`, so that
        nothing new can be found. Raises what a search raises, Forbidden also where the mandate was revoked."""
        principal = again.mandate.principal
        identify = self._identify_for(_about(again), self._newcomers(again.since_ms))
        try:
            self._require_standing(again)
        except CallerError as error:
            identify.reject(principal, error)
        if again.unless_snapshot and self._snapshot(principal, again.upload) == again.unless_snapshot:
            return None
        return identify(principal, again.upload, again.key)

    def _require_standing(self, again: Again) -> None:
        owner = again.mandate.owner
        if not is_id(again.request_id) or again.upload.texts.get("mode") != (SearchMode.IDENTIFICATION.value,):
            raise InvalidRequest("A kept probe is searched in identification mode, for a case.", advice="Name both.")
        if self._revocations().covers({"sub": owner.person_id, "iat": again.mandate.granted_at_ms // 1000}):
            raise Forbidden(
                "The rights of the person who kept this probe were revoked.",
                advice="Another operator searches it again, or closes the case.",
                context={"reasons": ["mandate_revoked"]},
            )

    def _snapshot(self, principal: Principal, upload: Upload) -> str:
        """Of what this search would cover; empty where that cannot be told or it would be refused, which the search
        itself then records."""
        try:
            accepted = self._accept(principal, upload, None)
        except CallerError:
            return ""
        gallery = self._gallery.of(accepted.model_id)
        scopes = [
            SearchScope(
                scope.watchlist_id,
                self._accept.permitted_owners(accepted, scope.watchlist_id, gallery.owners(scope.watchlist_id))
                if scope.owners is None
                else scope.owners,
            )
            for scope in accepted.decision.scopes
        ]
        snapshot = gallery.snapshot(scopes, since=gallery.generation)
        return "" if snapshot is None else snapshot.snapshot_id


def _about(again: Again) -> Mapping[str, str]:
    return {"acting_for": f"person:{again.mandate.owner.person_id}", "request": again.request_id}


def principal_of(
    person_id: str, force: str, roles: frozenset[str], watchlists: frozenset[str], trained_until: str
) -> Principal:
    """Raises InvalidRequest for a day that is none."""
    try:
        day = date.fromisoformat(trained_until) if trained_until else None
    except ValueError as error:
        raise InvalidRequest("`trained_until` is no day.", advice="YYYY-MM-DD.") from error
    if not person_id or not force:
        raise InvalidRequest("A mandate names a person and a force.", advice="Name both.")
    return Principal(person_id, force, roles, watchlists, day)
