"""What the demonstration found, in the form that table and contact sheet show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.local.demo.plan import Expectation, Probe

PROMISE_MS = 3000.0  # what the unit promises its officers
STAGES = ("gate", "detect", "template", "gallery", "audit", "total")


@dataclass(frozen=True, slots=True)
class ShownCandidate:
    rank: int
    subject_id: str
    watchlist: str
    owner: str
    score: float

    @property
    def is_synthetic(self) -> bool:
        return self.subject_id.startswith("SYNTHETIC-")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One search as answered. `waited_ms` is what the caller waited, `timings_ms` what the service measured."""

    probe: Probe
    faces: Sequence[Mapping[str, float]]
    face: int
    candidates: Sequence[ShownCandidate]
    timings_ms: Mapping[str, float]
    waited_ms: float
    # In identification mode, for a person who is not enrolled: how many candidates reached the threshold.
    over_threshold: int | None = None

    @classmethod
    def of(cls, probe: Probe, body: Mapping[str, Any], waited_ms: float, over_threshold: int | None) -> ProbeResult:
        return cls(
            probe=probe,
            faces=[face["box"] for face in body["faces"]],
            face=body["face"],
            candidates=[
                ShownCandidate(c["rank"], c["subject_id"], c["watchlist"], c["owner"], c["score"])
                for c in body["candidates"]
            ],
            timings_ms=body["timings_ms"],
            waited_ms=waited_ms,
            over_threshold=over_threshold,
        )

    @property
    def right(self) -> ShownCandidate | None:
        """The candidate that is the probe's subject; None when it is not on the list, or not enrolled at all."""
        return next((c for c in self.candidates if c.subject_id == self.probe.subject_id), None)

    @property
    def is_as_expected(self) -> bool:
        """Whether an enrolled person came back at rank 1, where the probe is not marked as hard."""
        if self.probe.expectation is not Expectation.RANK_ONE:
            return True
        return self.right is not None and self.right.rank == 1

    @property
    def verdict(self) -> str:
        """What came of it, in a few words."""
        if self.probe.expectation is Expectation.NOT_ENROLLED:
            return self._verdict_on_stranger()
        return f"rank {self.right.rank}" if self.right is not None else "not on the list"

    def _verdict_on_stranger(self) -> str:
        if not self.over_threshold:
            return "nobody over the threshold"
        return f"{self.over_threshold} false candidate{'s' if self.over_threshold > 1 else ''} over the threshold"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The whole run. `counts` is (enrolled, of them synthetic) by watchlist."""

    probes: Sequence[ProbeResult]
    counts: Mapping[str, tuple[int, int]]
    model_id: str
    gallery: str
    made_on: str

    @property
    def enrolled(self) -> int:
        return sum(enrolled for enrolled, _ in self.counts.values())

    @property
    def synthetic(self) -> int:
        return sum(synthetic for _, synthetic in self.counts.values())

    @property
    def succeeded(self) -> bool:
        return all(result.is_as_expected for result in self.probes)

    @property
    def slowest_ms(self) -> float:
        return max(result.waited_ms for result in self.probes)


NOTICE = (
    "A demonstration. Nobody shown here is suspected of anything: that these people stand on a watchlist is made up. "
    "No real person is on the list of registered sex offenders, only a drawing that depicts nobody."
)
INTELLIGENCE_ONLY = (
    "A ranked list is not an identification. Scores are raw cosine similarity between -1 and 1, neither a percentage "
    "nor a probability; a trained operator judges every candidate."
)


def synthetic_statement(result: DemoResult) -> str:
    """What was real and what was not."""
    real = result.enrolled - result.synthetic
    return (
        f"{result.synthetic:,} of the {result.enrolled:,} references are synthetic: random templates without a person "
        f"or a picture, labelled SYNTHETIC-. {real} references were enrolled from pictures through the whole platform; "
        "one of those pictures is drawn. Everything else is real: services, models, searches, times."
    )
