"""The released result as the requesting officer reads it, and the documents of a case."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from services.review.console.context import Console, caller_of, see_other
from services.review.console.guard import Visit, visit_of
from services.review.partners import standing
from services.review.workflow import OPERATOR, SUPERVISOR

_Visit = Annotated[Visit, Depends(visit_of)]
_BASE = "/console/requests/{request_id}"


def routes(console: Console) -> APIRouter:
    router = console.router()
    desk = console.desk

    @router.get(_BASE + "/result")
    def result(visit: _Visit, request_id: str) -> Response:
        found = desk.looking.result(caller_of(visit), request_id)
        is_worker = bool(visit.principal.roles & {OPERATOR, SUPERVISOR})
        return console.page(
            visit,
            "result.html",
            {
                "result": found,
                "case": found.case,
                "release": found.release,
                "is_worker": is_worker,
                "enquiries": standing(found.case.enquiries),
            },
        )

    @router.get(_BASE + "/result.pdf")
    def result_document(visit: _Visit, request_id: str) -> Response:
        return _pdf(desk.documents.result(caller_of(visit), request_id), "result", request_id)

    @router.post(_BASE + "/disclosures")
    def approve(visit: _Visit, request_id: str) -> Response:
        form = visit.form
        desk.documents.approve_disclosure(
            caller_of(visit), request_id, form.text("recipient"), form.text("disclosure_reason")
        )
        return see_other(f"/console/requests/{request_id}", "disclosure-approved")

    @router.get(_BASE + "/disclosures/{approval_id}.pdf")
    def disclosure_pack(visit: _Visit, request_id: str, approval_id: str) -> Response:
        return _pdf(desk.documents.disclosure(caller_of(visit), request_id, approval_id), "disclosure", request_id)

    return router


def _pdf(content: bytes, kind: str, request_id: str) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="likeness-{kind}-{request_id}.pdf"',
        "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    }
    return Response(content, media_type="application/pdf", headers=headers)
