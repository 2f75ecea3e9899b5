"""Open acts in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.rpc.open_acts import OpenAct


class MemoryActs:
    """An OpenActStore."""

    def __init__(self) -> None:
        self.acts: dict[str, tuple[datetime, OpenAct]] = {}

    def add(self, act: OpenAct, opened_at: datetime) -> None:
        self.acts[act.activity_id] = (opened_at, act)

    def remove(self, activity_id: str) -> None:
        self.acts.pop(activity_id, None)

    def keep(self, activity_ids: Sequence[str], moment: datetime) -> None:
        for activity_id in activity_ids:
            if activity_id in self.acts:
                self.acts[activity_id] = (moment, self.acts[activity_id][1])

    def opened_before(self, moment: datetime, limit: int) -> Sequence[OpenAct]:
        return [act for opened_at, act in self.acts.values() if opened_at < moment][:limit]
