"""Use cases: an owner's agreement is registered, withdrawn, looked at. Each is recorded in the audit log."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenAct, OpenActs
from services.rpc.v1 import audit_pb2
from services.search.agreements.book import AgreementBook, agreement_of
from services.search.agreements.documents import Grant, Signature, Withdrawal, require_signed
from services.search.agreements.ports import AgreementRecord, AgreementStore
from services.shared.clock import Clock
from services.shared.errors import CallerError, Conflict, Forbidden, InvalidRequest, LikenessError, NotFound
from services.shared.ids import new_id
from services.shared.tokens import Principal
from services.shared.watchlists import Agreement, Watchlists

ADMINISTRATOR = "administrator"
READERS = frozenset({ADMINISTRATOR, "auditor", "custodian", "supervisor"})
REGISTRATION = "agreement_registration"
WITHDRAWAL = "agreement_withdrawal"
CONSULTATION = "agreement_list"

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class _Act:
    """One call, as its audit entries tell of it."""

    principal: Principal
    activity: str
    activity_id: str
    reference: str
    details: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AgreementView:
    """An agreement and whether it is in force today; `history` are its records, oldest first."""

    agreement: Agreement
    is_in_force: bool
    history: Sequence[AgreementRecord]


class AgreementRegistry:
    """What administrators do with agreements. Every method raises AuditUnavailable, DependencyUnavailable.

    The intent is durable before anything changes, the outcome before the caller is told. A grant needs the owner's
    signature, whoever registers it; a withdrawal needs that or an administrator of the owner, because consent that is
    doubtful is no consent.
    """

    def __init__(
        self, store: AgreementStore, book: AgreementBook, recorder: AuditRecorder, acts: OpenActs, clock: Clock
    ) -> None:
        self._store = store
        self._book = book
        self._recorder = recorder
        self._acts = acts
        self._clock = clock

    def register(self, principal: Principal, grant: Grant, signature: Signature) -> tuple[AgreementView, bool]:
        """The agreement as it stands, and whether it is new: the same document again changes nothing.

        Raises Forbidden, InvalidRequest (unknown watchlist, dates, signature), Conflict (the reference is used).
        """
        act = _Act(principal, REGISTRATION, new_id(), grant.reference, _facts(grant, signature))
        try:
            _require_administrator(principal)
            watchlists = self._book.current()
            self._check(grant, signature, watchlists)
            known = self._records(grant.reference)
            if known and known[0].document == grant and len(known) == 1:
                return self._view(watchlists, grant.reference), False
            if known or any(agreement.reference == grant.reference for agreement in watchlists.agreements):
                raise _used(grant.reference)
        except CallerError as error:
            self._refused(act, error)
            raise
        self._perform(act, self._record(principal, grant, signature, version=1))
        return self._view(self._book.current(), grant.reference), True

    def withdraw(
        self, principal: Principal, reference: str, withdrawn_on: date | None, reason: str, signature: Signature | None
    ) -> AgreementView:
        """End an agreement on a day, today where none is given: from the next question on, it is not in force.

        Raises Forbidden, NotFound, InvalidRequest, Conflict (it has ended already).
        """
        act = _Act(principal, WITHDRAWAL, new_id(), reference, {})
        try:
            _require_administrator(principal)
            watchlists = self._book.current()
            agreement = self._visible(principal, watchlists, reference)
            document = Withdrawal(
                reference=reference,
                watchlist=agreement.watchlist,
                owner=agreement.owner,
                withdrawn_on=withdrawn_on or self._clock.now().date(),
            )
            self._check_withdrawal(principal, agreement, document, signature, watchlists)
        except CallerError as error:
            self._refused(act, error)
            raise
        version = 1 + len(self._records(reference))
        record = self._record(principal, document, signature, version=version, reason=reason)
        self._perform(replace(act, details=_facts(document, signature)), record)
        return self._view(self._book.current(), reference)

    def list(self, principal: Principal) -> Sequence[AgreementView]:
        """The agreements of the caller's force and of the watchlists in its token; looking is recorded."""
        act = _Act(principal, CONSULTATION, new_id(), "", {})
        if not READERS & principal.roles:
            error = Forbidden(
                "Only administrators, auditors, custodians and supervisors see agreements.",
                advice="Ask your administrator.",
            )
            self._refused(act, error)
            raise error
        watchlists = self._book.current()
        references = [a.reference for a in watchlists.agreements if _may_see(principal, a)]
        self._entry(replace(act, details={"agreements": str(len(references))}), audit_pb2.DONE)
        return [self._view(watchlists, reference) for reference in references]

    def _check(self, grant: Grant, signature: Signature, watchlists: Watchlists) -> None:
        if grant.watchlist not in watchlists:
            raise InvalidRequest(
                f"There is no watchlist {grant.watchlist}.", advice=f"Give one of: {', '.join(watchlists.ids)}."
            )
        if not grant.signed_on < grant.expires_on:
            raise InvalidRequest(
                "The agreement expires before it begins.", advice="Give an `expires_on` after `signed_on`."
            )
        require_signed(grant, signature, watchlists.owner_keys)

    def _check_withdrawal(
        self,
        principal: Principal,
        agreement: Agreement,
        document: Withdrawal,
        signature: Signature | None,
        watchlists: Watchlists,
    ) -> None:
        if signature is not None:
            require_signed(document, signature, watchlists.owner_keys)
        elif principal.force != agreement.owner:
            raise Forbidden(
                "Only an administrator of the owner withdraws an agreement without the owner's signature.",
                advice=f"Send the signature of {agreement.owner} with it.",
            )
        if document.withdrawn_on < self._clock.now().date():
            raise InvalidRequest("A withdrawal does not lie in the past.", advice="Leave `withdrawn_on` out for today.")
        if agreement.withdrawn_on is not None and agreement.withdrawn_on <= document.withdrawn_on:
            raise Conflict("The agreement is withdrawn already.", advice="Nothing is to be done.")

    def _visible(self, principal: Principal, watchlists: Watchlists, reference: str) -> Agreement:
        for agreement in watchlists.agreements:
            if agreement.reference == reference and _may_see(principal, agreement):
                return agreement
        raise NotFound("There is no such agreement.", advice="GET /v1/agreements lists those that you may see.")

    def _records(self, reference: str) -> Sequence[AgreementRecord]:
        return [record for record in self._store.records() if record.document.reference == reference]

    def _view(self, watchlists: Watchlists, reference: str) -> AgreementView:
        history = self._records(reference)
        standing = [agreement for agreement in watchlists.agreements if agreement.reference == reference]
        if not standing:  # registered, but its key has been taken out of the configuration since
            [first] = [record.document for record in history if isinstance(record.document, Grant)]
            return AgreementView(agreement_of(first), False, history)
        return AgreementView(standing[0], standing[0].is_in_force(self._clock.now().date()), history)

    def _record(
        self,
        principal: Principal,
        document: Grant | Withdrawal,
        signature: Signature | None,
        *,
        version: int,
        reason: str = "",
    ) -> AgreementRecord:
        return AgreementRecord(
            document, signature, version, self._clock.now(), principal.person_id, principal.force, reason
        )

    def _perform(self, act: _Act, record: AgreementRecord) -> None:
        opened = OpenAct(
            activity=act.activity,
            operation=audit_pb2.ALTERATION,
            principal=act.principal,
            objects=[f"agreement:{act.reference}"],
            details=act.details,
            version=record.version,
            activity_id=act.activity_id,
        )
        self._acts.begin(opened)
        try:
            self._store.add(record)
        except LikenessError as error:
            self._acts.end(opened, audit_pb2.FAILED, {**act.details, "reason": error.code})
            raise
        self._acts.end(opened, audit_pb2.DONE, act.details)

    def _refused(self, act: _Act, error: CallerError) -> None:
        self._entry(act, audit_pb2.REFUSED, error)

    def _entry(self, act: _Act, phase: audit_pb2.Phase.ValueType, error: LikenessError | None = None) -> None:
        """What is no reference at all is not copied into the log."""
        reason = {} if error is None else {"reason": error.code}
        self._recorder.record(
            audit_pb2.CONSULTATION if act.activity == CONSULTATION else audit_pb2.ALTERATION,
            phase,
            act.activity,
            act.activity_id,
            act.principal,
            objects=[f"agreement:{act.reference}"] if _REFERENCE.fullmatch(act.reference) else [],
            recipients=[f"person:{act.principal.person_id}"] if phase == audit_pb2.DONE else [],
            details={**act.details, **reason},
        )


def is_registered(store: AgreementStore, act: OpenAct) -> bool:
    """Whether a registration or withdrawal that was cut short stands in the store."""
    made = {(f"agreement:{record.document.reference}", record.version) for record in store.records()}
    return (act.objects[0], act.version) in made


def _require_administrator(principal: Principal) -> None:
    if ADMINISTRATOR not in principal.roles:
        raise Forbidden("Only administrators register and withdraw agreements.", advice="Ask your administrator.")


def _may_see(principal: Principal, agreement: Agreement) -> bool:
    return agreement.owner == principal.force or agreement.watchlist in principal.watchlists


def _facts(document: Grant | Withdrawal, signature: Signature | None) -> dict[str, str]:
    facts = {name: str(value) for name, value in document.model_dump(mode="json").items() if name != "format"}
    facts["document_sha256"] = hashlib.sha256(document.canonical()).hexdigest()
    facts["key_id"] = "" if signature is None else signature.key_id
    return facts


def _used(reference: str) -> Conflict:
    return Conflict(
        f"The reference {reference} is used by another agreement, or by one that has ended.",
        advice="Give the new agreement a reference of its own.",
        code="agreement_reference_used",
    )
