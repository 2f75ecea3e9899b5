"""Puts access packages together; the composition root calls it."""

from __future__ import annotations

import grpc
import sqlalchemy as sa
from fastapi import APIRouter

from services.ingest.access.api import AccessApi
from services.ingest.access.give import GiveAccess
from services.ingest.adapters.sql_subject_facts import SqlSubjectFacts
from services.ingest.auditing import EnrolmentAudit
from services.ingest.life.certificates import CertificateSigner
from services.ingest.whole_subject import Watchlists
from services.rpc.clients import AuditClient
from services.rpc.open_acts import OpenActs
from services.rpc.upkeep import ReleasesClient, ReturnsClient
from services.shared.clock import Clock
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import TokenVerifier


def access_router(
    *,
    engine: sa.Engine,
    images: ImageStore,
    search: grpc.Channel,
    review: grpc.Channel,
    audit: EnrolmentAudit,
    audit_client: AuditClient,
    acts: OpenActs,
    signer: CertificateSigner,
    verifier: TokenVerifier,
    clock: Clock,
    watchlists: Watchlists,
) -> APIRouter:
    giving = GiveAccess(
        ledger=SqlSubjectFacts(engine),
        images=images,
        returns=ReturnsClient(search),
        releases=ReleasesClient(review),
        acts=acts,
        prover=audit_client,
        signer=signer,
        clock=clock,
    )
    return AccessApi(giving, audit, verifier, watchlists).router()
