"""Puts together all that decides who may search what; the composition root calls it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from fastapi import APIRouter

from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenAct, OpenActs, Settled, Settling
from services.rpc.sql_open_acts import SqlOpenActs
from services.search.adapters.schema import open_acts
from services.search.adapters.sql_agreement_store import SqlAgreementStore
from services.search.adapters.sql_approvals import SqlApprovals
from services.search.adapters.sql_request_records import SqlRequestRecords
from services.search.agreements.book import AgreementBook
from services.search.agreements.grpc_server import AgreementsServicer
from services.search.agreements.http_api import create_agreements_router
from services.search.agreements.ports import AgreementStore
from services.search.agreements.registry import REGISTRATION, WITHDRAWAL, AgreementRegistry, is_registered
from services.search.disclosure.access import APPROVAL, DISCLOSURE, REPLAY
from services.search.disclosure.approvals import ApprovalStore
from services.search.policy import PolicyFolder, Rulebook, WatchlistSource
from services.search.policy.api import create_policy_router
from services.search.policy.dry_run import RequestRecords
from services.search.policy.review import PolicyReview
from services.search.settings import SearchSettings
from services.shared.clock import Clock
from services.shared.tokens import TokenVerifier
from services.shared.watchlists import WatchlistFile

# What leaves the platform leaves after its outcome is in the log: what has none was given to nobody.
_GIVEN_LAST = frozenset({DISCLOSURE, REPLAY})


@dataclass(frozen=True)
class Governance:
    """The rules, the record of what they were asked, and what is served of both."""

    rules: Rulebook
    records: RequestRecords
    agreements: AgreementsServicer
    watchlists: WatchlistSource
    routers: tuple[APIRouter, ...]
    acts: OpenActs
    # What became of an act of theirs that was cut short.
    settling: Settling


def govern(
    settings: SearchSettings, engine: sa.Engine, recorder: AuditRecorder, verifier: TokenVerifier, clock: Clock
) -> Governance:
    """Raises ConfigurationError: policies or watchlists that do not hold together end the start."""
    store, approvals = SqlAgreementStore(engine), SqlApprovals(engine)
    file = WatchlistFile(settings.watchlists_path)
    book = AgreementBook(file, store, only_signed=settings.only_signed_agreements)
    rules = Rulebook(PolicyFolder(settings.policy_path), book)
    rules.current()
    records = SqlRequestRecords(engine, clock)
    acts = OpenActs(SqlOpenActs(engine, open_acts), recorder, clock, settings.orphan_age_s)
    return Governance(
        rules=rules,
        records=records,
        agreements=AgreementsServicer(book),
        watchlists=book,
        routers=(
            create_agreements_router(AgreementRegistry(store, book, recorder, acts, clock), verifier),
            create_policy_router(PolicyReview(rules, store, records, recorder, clock), verifier),
        ),
        acts=acts,
        settling=settling_by(store, approvals),
    )


def settling_by(agreements: AgreementStore, approvals: ApprovalStore) -> Settling:
    """What became of an act that was cut short, by what is stored."""

    def settle(act: OpenAct) -> Settled:
        if act.activity in {REGISTRATION, WITHDRAWAL}:
            return Settled(is_registered(agreements, act))
        if act.activity == APPROVAL:
            return Settled(approvals.find(act.details["approval"]) is not None)
        return Settled(False if act.activity in _GIVEN_LAST else None)

    return settle
