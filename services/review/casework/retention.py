"""What becomes of a probe afterwards: kept unsolved and searched again, or erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from services.review.casework.caller import Caller
from services.review.casework.continuing import continuing_case
from services.review.casework.forms import prose
from services.review.casework.searching import RunSearch
from services.review.casework.steps import Casebook, Step
from services.review.model import CandidateForJudgement, Case, Erasure, Mandate, SearchRecord, UnsolvedEntry
from services.review.ports import CaseFilter, ProbeCopies
from services.review.workflow import Action
from services.rpc.v1 import audit_pb2, common_pb2, probes_pb2
from services.shared.errors import Conflict, InvalidRequest
from services.shared.ports.image_store import ImageStore

_ALL = 100_000
LONGEST_RETENTION = timedelta(days=6 * 366)  # longer than any review period; a typing error is shorter


@dataclass(frozen=True, slots=True)
class SearchedAgain:
    """The unsolved case, and the case that was opened because somebody new came back; None when nobody did."""

    case: Case
    continuation: Case | None


class Retention:
    """The unsolved file, and erasure, as people do them. services/review/unsolved does what the clock brings about."""

    def __init__(self, book: Casebook, images: ImageStore, search: RunSearch, copies: ProbeCopies | None) -> None:
        """`copies`: where search seals what it was asked to search; None where it cannot be asked."""
        self._book = book
        self._images = images
        self._search = search
        self._copies = copies

    def keep_unsolved(
        self, caller: Caller, request_id: str, version: int, *, authority: str, reason: str, expires_on: date
    ) -> Case:
        """Keep a probe for which nobody was named, with an authority and an expiry."""
        with self._book.step(caller, request_id, Action.KEEP_UNSOLVED, version) as step:
            now = self._book.clock.now()
            if step.case.release is None or step.case.release.names:
                raise Conflict(
                    "A potential name was released.", advice="Only what is unsolved is kept.", code="not_unsolved"
                )
            check_day(expires_on, now, "expires_on")
            who = caller.principal
            mandate = Mandate(tuple(sorted(who.roles)), tuple(sorted(who.watchlists)), who.trained_until)
            entry = UnsolvedEntry(
                prose("authority", authority),
                prose("reason", reason),
                caller.person_id,
                now,
                expires_on,
                mandate=mandate,
            )
            step.act.details |= {"expires_on": expires_on.isoformat()}
            return step.move(unsolved=entry)

    def close(self, caller: Caller, request_id: str, version: int, reason: str) -> Case:
        """End an entry of the unsolved file."""
        told = {"why": prose("reason", reason)}
        with self._book.step(caller, request_id, Action.CLOSE, version, details=told) as step:
            return step.move()

    def search_again(self, caller: Caller, request_id: str, version: int, reason: str) -> SearchedAgain:
        """Search an unsolved probe against what was enrolled since, by an operator's own right.

        Who was judged before is not judged again. Where somebody new comes back, a case is opened that continues this
        one, for the same requester, who alone is told by it; it takes the same way through two reviews.
        """
        with self._book.step(
            caller, request_id, Action.SEARCH_AGAIN, version, operation=audit_pb2.CONSULTATION
        ) as step:
            case, now = step.case, self._book.clock.now()
            if case.unsolved is None or case.unsolved.expires_on <= now.date():
                raise Conflict(
                    "The authority to keep this probe has expired.", advice="Erase it.", code="retention_over"
                )
            records, candidates = self._search.once_more(caller, case, prose("reason", reason), step.act)
            known = {
                (one.owner, one.subject_id, one.watchlist)
                for judged in (case, *self._continuations(case))
                for one in judged.candidates
            }
            new = tuple(one for one in candidates if (one.owner, one.subject_id, one.watchlist) not in known)
            step.act.details["new_candidates"] = str(len(new))
            continuation = self._continued(case, records, new, now) if new else None
            if continuation is not None:
                step.act.objects.append(f"request:{continuation.request_id}")
            moved = step.move(unsolved=replace(case.unsolved, searched_again_at=now))
            return SearchedAgain(moved, continuation)

    def erase(self, caller: Caller, request_id: str, version: int, reason: str) -> Case:
        """Erase the pictures of a case whose time is over. A picture that another case holds stays for that one.

        Raises Conflict (`retention_not_due`).
        """
        with self._book.step(caller, request_id, Action.ERASE, version, operation=audit_pb2.ERASURE) as step:
            case, now = step.case, self._book.clock.now()
            ends = case.retention_ends()
            if ends is not None and now.date() < ends:
                raise Conflict(
                    f"The pictures are retained until {ends}.",
                    advice="They are relevant material until then.",
                    code="retention_not_due",
                )
            erasure = Erasure(prose("reason", reason), caller.person_id, now)
            if case.erasure is not None:
                return self._erase_the_rest(step, erasure)
            # The case first, so that nobody is shown a picture that is about to go; what a failure leaves behind is
            # erased by doing it again.
            erased = step.move_on(erasure=erasure)
            step.act.objects += self.erase_pictures(erased)
            return erased

    def _erase_the_rest(self, step: Step, erasure: Erasure) -> Case:
        """What an earlier erasure left behind. Raises Conflict where that is nothing."""
        objects = self.erase_pictures(replace(step.case, erasure=erasure))
        if not objects:
            raise Conflict("The pictures are erased already.", advice="Nothing is left to do.", code="erased")
        step.act.objects += objects
        return step.move(erasure=erasure)

    def erase_pictures(self, case: Case) -> list[str]:
        """Erase what is left of a case whose erasure is stored: search's copies, then the pictures, which say until
        then that something is left. What went, as the log names it. Raises DependencyUnavailable, AuditUnavailable."""
        store, request_id = self._book.store, case.request_id
        own = [sha256 for sha256 in sorted(case.pictures_ever()) if not store.is_held_elsewhere(sha256, request_id)]
        copies = self._erase_copies(case, own)
        left = [sha256 for sha256 in own if self._images.has(sha256)]
        for sha256 in left:
            self._images.remove(sha256)
        return [f"picture:{sha256}" for sha256 in left] + [f"probe:{sha256}" for sha256 in copies]

    def _erase_copies(self, case: Case, sha256s: Sequence[str]) -> Sequence[str]:
        erasure = case.erasure
        if self._copies is None or erasure is None or not sha256s:
            return ()
        return self._copies.erase(
            probes_pb2.EraseProbesRequest(
                request_id=case.request_id,
                case_reference=case.request.case_reference,
                actor=common_pb2.Actor(person_id=erasure.erased_by, force=case.force),
                reason=erasure.reason,
                sha256s=sha256s,
            )
        )

    def _continued(
        self, case: Case, records: tuple[SearchRecord, ...], new: tuple[CandidateForJudgement, ...], now: datetime
    ) -> Case:
        opened = continuing_case(self._book, case, records, new, now)
        # Of two who search one case again at once, and of one who does so again after a stop, one case is opened.
        key = f"search_again:{case.request_id}:{case.version}"
        return self._book.store.add(opened, key, case.request_id) or opened

    def _continuations(self, case: Case) -> Sequence[Case]:
        """The cases that were opened before because a new search of this one found somebody: they are judged there."""
        of_requester = CaseFilter(case.force, requested_by=case.requested_by, limit=_ALL)
        return [one for one in self._book.store.list(of_requester) if one.continues == case.request_id]


def check_day(day: date, now: datetime, field: str) -> None:
    """Raises InvalidRequest unless the day is to come and within six years."""
    if not now.date() < day <= now.date() + LONGEST_RETENTION:
        raise InvalidRequest(
            "The date is a day to come, within six years.",
            advice="Give the day on which the probe is reviewed.",
            context={"fields": [{"field": field, "problem": "A day to come, within six years."}]},
        )
