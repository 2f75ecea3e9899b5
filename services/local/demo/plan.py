"""What the demonstration enrols and searches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

OWNER = "northshire"
# The unit's own size: about 107,500 custody images.
GALLERY_SIZE = 107_500
FILL_SEED = 20260101


@dataclass(frozen=True, slots=True)
class Subject:
    """One reference to enrol. `about` says what the picture is, in words that fit under it."""

    subject_id: str
    watchlist: str
    picture: str
    about: str
    lawful_basis: str
    captured_on: str
    # Left, top and side of the square that shows the face, in pixels of the picture.
    crop: tuple[int, int, int]


class Expectation(Enum):
    """What a probe must come to for the demonstration to succeed."""

    RANK_ONE = "rank 1"
    HARD = "hard"  # shown, not required
    NOT_ENROLLED = "not enrolled"


@dataclass(frozen=True, slots=True)
class Probe:
    """One search. `subject_id` is the right answer, empty where the person is not enrolled."""

    title: str
    picture: str
    about: str
    expectation: Expectation
    subject_id: str = ""
    face: int | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """Synthetic references of one owner, up to a count of its watchlist in all."""

    watchlist: str
    owner: str
    until_count: int
    seed: int


SUBJECTS = (
    Subject(
        "DEMO-0001",
        "custody",
        "subject-1-reference.jpg",
        "a public figure",
        "pace_1984_s64a",
        "2026-01-10",
        (39, 130, 585),
    ),
    Subject(
        "DEMO-0002",
        "op_liberal",
        "subject-2-reference.jpg",
        "a public figure",
        "pace_1984_s64a",
        "2026-01-11",
        (271, 85, 600),
    ),
    # No real person is put on this list, even for show.
    Subject(
        "DEMO-0003",
        "sex_offenders",
        "subject-3-reference.jpg",
        "a drawing of nobody",
        "soa_2003_part2",
        "2026-01-12",
        (90, 60, 740),
    ),
)

PROBES = (
    Probe(
        "Another portrait",
        "subject-1-portrait.jpg",
        "another day, another expression",
        Expectation.RANK_ONE,
        "DEMO-0001",
    ),
    Probe(
        "Full-length portrait",
        "subject-1-standing.jpg",
        "small face, light from behind",
        Expectation.RANK_ONE,
        "DEMO-0001",
    ),
    Probe(
        "The enrolled photograph as PNG",
        "subject-1-transparent.png",
        "same photograph, with transparency",
        Expectation.RANK_ONE,
        "DEMO-0001",
    ),
    Probe(
        "Poor copy of the enrolled photograph",
        "subject-2-small.jpg",
        "a third of the size, dark, turned",
        Expectation.RANK_ONE,
        "DEMO-0002",
    ),
    Probe(
        "The drawing in another light",
        "subject-3-other-light.jpg",
        "turned, side-lit, 260 px",
        Expectation.RANK_ONE,
        "DEMO-0003",
    ),
    Probe("Left part cut off", "subject-1-crop-left.jpg", "an eye at the edge", Expectation.HARD, "DEMO-0001"),
    Probe("Right part cut off", "subject-1-crop-right.jpg", "an eye at the edge", Expectation.HARD, "DEMO-0001"),
    Probe(
        "One of a group",
        "group.jpg",
        "six faces: the operator has to choose one",
        Expectation.NOT_ENROLLED,
        face=3,
    ),
    Probe("Somebody else", "not-enrolled.png", "not in any watchlist", Expectation.NOT_ENROLLED),
)

# Together with the enrolled subjects GALLERY_SIZE references. The second owner shares by its agreement.
FILLS = (
    Fill("custody", OWNER, 100_000, FILL_SEED),
    Fill("sex_offenders", OWNER, 5_000, FILL_SEED),
    Fill("op_liberal", OWNER, 1_500, FILL_SEED),
    Fill("op_liberal", "eastmoor", 2_500, FILL_SEED + 1),
)
