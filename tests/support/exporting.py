"""The whole log of a running platform, as it is exported: approved by a supervisor, fetched by an auditor."""

from __future__ import annotations

from tests.support.platform import Platform

TIMEOUT_S = 120.0


def approve_export(platform: Platform, recipient: str, reason: str) -> str:
    """The id of an approval, which serves once. Raises httpx.HTTPError."""
    with platform.client("audit", "supervisor", timeout_s=TIMEOUT_S) as supervisor:
        made = supervisor.post("/v1/audit/export-approvals", json={"recipient": recipient, "reason": reason})
        made.raise_for_status()
        return str(made.json()["approval_id"])


def exported_log(platform: Platform, reason: str) -> bytes:
    """Raises httpx.HTTPError."""
    approval = approve_export(platform, "Whoever reads the test", reason)
    with platform.client("audit", "auditor", timeout_s=TIMEOUT_S) as auditor:
        answer = auditor.get("/v1/audit/export", params={"reason": reason, "approval": approval})
        answer.raise_for_status()
        return answer.content
