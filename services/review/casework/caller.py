"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.review.workflow import SUPERVISOR
from services.shared.tokens import Principal


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified person and the token that proves it, which travels on to search and ingest."""

    principal: Principal
    bearer: str = field(repr=False)

    @property
    def person_id(self) -> str:
        return self.principal.person_id

    @property
    def force(self) -> str:
        return self.principal.force

    @property
    def is_supervisor(self) -> bool:
        return SUPERVISOR in self.principal.roles
