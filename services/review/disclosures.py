"""The full pack of a case leaves only when a second person has approved it: to whom, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

LIFETIME = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class DisclosureApproval:
    """One pack for one recipient, as a supervisor approved it. It serves once."""

    approval_id: str
    recipient: str
    reason: str
    approved_by: str
    approved_at: datetime
    used_by: str | None = None
    used_at: datetime | None = None

    @property
    def expires_at(self) -> datetime:
        return self.approved_at + LIFETIME

    def is_usable(self, now: datetime) -> bool:
        return self.used_at is None and now < self.expires_at

    def told(self) -> dict[str, str]:
        """As the log has it."""
        return {
            "approval": self.approval_id,
            "recipient": self.recipient,
            "reason": self.reason,
            "approved_by": self.approved_by,
        }
