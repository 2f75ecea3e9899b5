"""The rules of review that hold whatever the workflow becomes."""

from dataclasses import dataclass
from enum import Enum


class Finding(Enum):
    """A named, trained operator's judgement of one candidate. There is no finding that a machine can make."""

    POSSIBLE_MATCH = "possible_match"
    NO_SUPPORT = "no_support"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Workflow:
    """Which findings can be recorded, and how many signed judgements by different people a release needs."""

    version: str
    findings: tuple[Finding, ...]
    judgements_required: int


# Two judgements: the second reviewer is blind to the first, and nobody reviews their own.
WORKFLOW = Workflow(version="1", findings=tuple(Finding), judgements_required=2)
