"""The checks before anything is stored: is this enrolment lawful, whole and the caller's to make?"""

from __future__ import annotations

import unicodedata
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from services.ingest.enrolling.enrolment import EnrolReference
from services.shared.clock import Clock
from services.shared.errors import Forbidden, ImageRefused, InvalidRequest, PayloadTooLarge
from services.shared.settings import MAX_IMAGE_BYTES
from services.shared.tokens import Principal
from services.shared.watchlists import Watchlist, WatchlistFile

CUSTODIAN = "custodian"
MAX_TEXT = 200  # identifiers and references are short; anything longer is a mistake or an attack
_EARLIEST = date(1900, 1, 1)
# The wall clock of British summer time is an hour ahead of UTC.
_AHEAD_OF_UTC = timedelta(hours=1)


def require_custodian(principal: Principal, owner: str, watchlist_id: str) -> None:
    """A custodian enrols for its own force, in the watchlists of its token. Raises Forbidden."""
    if CUSTODIAN not in principal.roles:
        raise Forbidden(
            "Enrolment needs the role custodian.", advice="Ask an administrator for a token with that role."
        )
    if owner != principal.force:
        raise Forbidden(
            "A custodian enrols images of its own force only.",
            advice="Give your own force as `owner`, or let the owner enrol the image.",
        )
    if watchlist_id not in principal.watchlists:
        raise Forbidden(
            f"Your token does not permit the watchlist {watchlist_id}.",
            advice="Ask an administrator for a token that names this watchlist.",
        )


class AgreementSource(Protocol):
    """Where agreements stand: `services.rpc.clients.AgreementClient` asks search, which keeps them."""

    def find(self, watchlist_id: str, owner: str, on: date) -> str:
        """The reference of the owner's agreement in force on a day, or "". Raises DependencyUnavailable."""
        ...


class ConfiguredAgreements:
    """The agreements of the watchlist file alone."""

    def __init__(self, watchlists: WatchlistFile) -> None:
        self._watchlists = watchlists

    def find(self, watchlist_id: str, owner: str, on: date) -> str:
        agreement = self._watchlists.current().agreement_in_force(watchlist_id, owner, on)
        return "" if agreement is None else agreement.reference


class LawfulnessChecks:
    """Checks one command against the watchlists and agreements as they stand now."""

    def __init__(self, watchlists: WatchlistFile, clock: Clock, agreements: AgreementSource | None = None) -> None:
        self._watchlists = watchlists
        self._agreements = agreements or ConfiguredAgreements(watchlists)
        self._clock = clock

    def check(self, command: EnrolReference) -> str:
        """The reference of the agreement that it is enrolled under, empty where none is needed.

        Raises InvalidRequest with a `code` of its own for each rule, ImageRefused, PayloadTooLarge,
        DependencyUnavailable (an agreement is needed and cannot be asked for).
        """
        watchlist = self.known_watchlist(command.watchlist_id)
        _check_texts(command)
        if command.lawful_basis not in watchlist.lawful_bases:
            raise InvalidRequest(
                f"The lawful basis {command.lawful_basis!r} is not one of the watchlist {watchlist.id}.",
                advice=f"Give one of: {', '.join(watchlist.lawful_bases)}.",
                code="lawful_basis_not_allowed",
            )
        now = self._clock.now().astimezone(UTC)
        _check_captured_on(command.captured_on, now)
        _check_image(command)
        return self._agreement(watchlist, command, now.date())

    def known_watchlist(self, watchlist_id: str) -> Watchlist:
        watchlists = self._watchlists.current()
        watchlist = watchlists.get(watchlist_id)
        if watchlist is None:
            raise InvalidRequest(
                f"There is no watchlist {watchlist_id[:MAX_TEXT]!r}.",
                advice=f"Give one of: {', '.join(watchlists.ids)}.",
                code="unknown_watchlist",
            )
        return watchlist

    def _agreement(self, watchlist: Watchlist, command: EnrolReference, today: date) -> str:
        if not watchlist.needs_agreement:
            return command.agreement_reference
        reference = self._agreements.find(watchlist.id, command.owner, today)
        if not reference:
            raise InvalidRequest(
                f"{command.owner} has no agreement in force for the watchlist {watchlist.id}.",
                advice="Have the owner's agreement signed or renewed and recorded before enrolling.",
                code="agreement_not_in_force",
            )
        if command.agreement_reference not in ("", reference):
            raise InvalidRequest(
                f"The agreement {command.agreement_reference!r} is not the one in force.",
                advice=f"Leave `agreement_reference` out, or give {reference}.",
                code="agreement_not_in_force",
            )
        return reference


def _check_texts(command: EnrolReference) -> None:
    for name in ("owner", "subject_id", "lawful_basis", "captured_on", "agreement_reference"):
        text: str = getattr(command, name)
        if len(text) > MAX_TEXT or any(not character.isprintable() for character in text):
            raise InvalidRequest(
                f"`{name}` is longer than {MAX_TEXT} characters or holds control characters.",
                advice="Send the identifier alone.",
            )
        if name != "agreement_reference" and (not text or text != text.strip()):
            raise InvalidRequest(
                f"`{name}` is empty or has spaces around it.", advice=f"Give `{name}` without spaces around it."
            )
        if not has_one_spelling(text):
            raise InvalidRequest(
                f"`{name}` is not in Unicode's composed form (NFC).",
                advice=f"Send `{name}` composed: an accent and its letter are one character.",
            )
    if command.subject_id.startswith("SYNTHETIC-"):
        raise InvalidRequest(
            "Subject ids that start with SYNTHETIC- mark made-up references.",
            advice="Give the owner's own identifier of the subject.",
        )


def has_one_spelling(text: str) -> bool:
    """Two spellings of one identifier would be two people: who erases the one would leave the other."""
    return unicodedata.is_normalized("NFC", text)


def _check_captured_on(text: str, now: datetime) -> None:
    try:
        captured_on = date.fromisoformat(text)
    except ValueError:
        captured_on = date.min
    # Python reads week dates and dates without dashes too; ours have one form.
    if captured_on < _EARLIEST or captured_on.isoformat() != text:
        raise InvalidRequest(
            f"`captured_on` is not a date of capture: {text!r}.",
            advice="Give the day of capture as YYYY-MM-DD.",
            code="captured_on_malformed",
        )
    if captured_on > (now + _AHEAD_OF_UTC).date():
        raise InvalidRequest(
            f"`captured_on` lies in the future: {text}.",
            advice="Give the day of capture; check the clock of the capturing system.",
            code="captured_on_in_future",
        )


def _check_image(command: EnrolReference) -> None:
    if command.image is None:
        return
    if not command.image:
        raise ImageRefused("The image is empty.", advice="Send the image file itself.", code="image_empty")
    if len(command.image) > MAX_IMAGE_BYTES:
        raise PayloadTooLarge(
            f"The image has {len(command.image)} bytes; the limit is {MAX_IMAGE_BYTES}.",
            advice="Send the camera's file, at most 32 MiB.",
        )
