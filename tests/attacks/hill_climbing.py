"""An attacker who learns a stored template from the scores of searches, simulated in the space of templates.

The attacker is stronger than a real one: every probe is a template of free choice, where a real attacker has to find a
picture for it. The gallery answers as search does: the best subjects with their cosines, rounded. The guard is the
platform's own.

`python -m tests.attacks.hill_climbing` prints the table of docs/policy.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry

from services.search.identification.near_duplicates import NearDuplicates, NearDuplicateSettings
from services.search.identification.requests import ProbeSource, SearchRequest
from services.shared.errors import TooManyRequests
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal

DIMENSION = 128
LISTED = 50
# One search a second is the limit of a person.
SECONDS_A_SEARCH = 1.0
Vector = npt.NDArray[np.float64]
Score = Callable[[Vector], float | None]


class _Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.s, UTC)

    def monotonic_s(self) -> float:
        return self.s


@dataclass
class Gallery:
    """A gallery with one subject that the attacker wants, and who answers searches of it."""

    templates: Vector
    target: Vector
    decimals: int
    guard: NearDuplicates | None
    clock: _Clock
    cases: int = 1
    sent: int = 0
    refused: int = 0

    def score(self, probe: Vector) -> float | None:
        """The target's score on the list; None when it is not listed or the search is refused."""
        self.sent += 1
        self.clock.s += SECONDS_A_SEARCH
        if self.guard is not None:
            request = SearchRequest(f"C-{self.sent % self.cases}", "p", "o", ProbeSource.OTHER, ("custody",))
            try:
                self.guard.check(_PERSON, request, probe.astype(np.float32))
            except TooManyRequests:
                self.refused += 1
                return None
        listed = np.sort(self.templates @ probe)[-LISTED:]
        score = float(self.target @ probe)
        return round(score, self.decimals) if score >= listed[0] else None


_PERSON = Principal("attacker", "northshire", frozenset({"operator"}), frozenset({"custody"}))


def unit(vector: Vector) -> Vector:
    length: Vector = vector / np.linalg.norm(vector)
    return length


def gallery(seed: int, *, decimals: int, guarded: bool, cases: int = 1, size: int = 20_000) -> tuple[Gallery, Vector]:
    """A gallery, and a probe to begin with: a stranger who is as like the target as strangers that are listed get."""
    rng = np.random.default_rng(seed)
    templates = rng.standard_normal((size, DIMENSION))
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    target = unit(rng.standard_normal(DIMENSION))
    stranger = rng.standard_normal(DIMENSION)
    stranger = unit(stranger - stranger @ target * target)
    start = unit(0.35 * target + np.sqrt(1 - 0.35**2) * stranger)
    clock = _Clock()
    guard = NearDuplicates(NearDuplicateSettings(), clock, Metrics(CollectorRegistry())) if guarded else None
    return Gallery(templates, target, decimals, guard, clock, cases), start


def climb(asked: Gallery, start: Vector, searches: int, seed: int) -> Vector:
    """A (1+1) evolution strategy: small random changes, kept when the score does not fall."""
    rng = np.random.default_rng(seed)
    best, best_score, step = start, asked.score(start) or -1.0, 0.3
    for _ in range(searches - 1):
        tried = unit(best + step * unit(rng.standard_normal(DIMENSION)))
        score = asked.score(tried)
        if score is not None and score >= best_score:
            best, best_score, step = tried, score, step * 1.3
        else:
            step = max(0.02, step * 0.95)
    return best


def solve(asked: Gallery, start: Vector, searches: int, seed: int) -> Vector:
    """Measures the template direction by direction and solves the equations: a few more searches than dimensions."""
    return _solve(asked, start, searches, seed, 0.9)


def solve_apart(asked: Gallery, start: Vector, searches: int, seed: int) -> Vector:
    """The same with probes just too unlike each other to be counted; the target is on fewer of their lists."""
    return _solve(asked, start, searches, seed, (NearDuplicateSettings().similarity - 0.02) ** 0.5)


def _solve(asked: Gallery, start: Vector, searches: int, seed: int, share: float) -> Vector:
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for _ in range(searches):
        probe = unit(share * start + (1 - share**2) ** 0.5 * unit(rng.standard_normal(DIMENSION)))
        score = asked.score(probe)
        if score is not None:
            rows.append(probe)
            scores.append(score)
    if not rows:
        return start
    ridge = 1e-6 * np.eye(DIMENSION)
    matrix = np.array(rows)
    return unit(np.linalg.solve(matrix.T @ matrix + ridge, matrix.T @ np.array(scores)))


ATTACKS: dict[str, Callable[[Gallery, Vector, int, int], Vector]] = {
    "climb": climb,
    "solve": solve,
    "solve apart": solve_apart,
}


@dataclass(frozen=True)
class Gain:
    """`reached`: the cosine of the attacker's best guess with the stored template, at the start it was 0.35."""

    reached: float
    answered: int
    refused: int


def measure(attack: str, *, decimals: int, guarded: bool, searches: int, cases: int = 1, runs: int = 3) -> Gain:
    """The median over several targets."""
    reached, answered, refused = [], [], []
    for seed in range(runs):
        asked, start = gallery(seed, decimals=decimals, guarded=guarded, cases=cases)
        guess = ATTACKS[attack](asked, start, searches, seed + 100)
        reached.append(float(asked.target @ guess))
        answered.append(asked.sent - asked.refused)
        refused.append(asked.refused)
    middle = (float(np.median(values)) for values in (reached, answered, refused))
    value, given, not_given = middle
    return Gain(value, round(given), round(not_given))


def main() -> int:
    print("| attack | score decimals | guard | cases | answered of 2,000 | cosine reached |")
    print("|---|---|---|---|---|---|")
    for attack in ATTACKS:
        for decimals, guarded, cases in (
            (6, False, 1),
            (2, False, 1),
            (6, True, 1),
            (6, True, 200),
            (2, True, 200),
        ):
            gain = measure(attack, decimals=decimals, guarded=guarded, searches=2000, cases=cases)
            guard = "on" if guarded else "off"
            print(f"| {attack} | {decimals} | {guard} | {cases} | {gain.answered} | {gain.reached:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
