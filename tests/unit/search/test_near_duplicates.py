from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.search.identification.near_duplicates import NearDuplicates, NearDuplicateSettings
from services.shared.biometric import Vector
from services.shared.errors import TooManyRequests
from services.shared.telemetry import Metrics
from tests.unit.search.fakes import OPERATOR, REQUEST, ManualClock

RANDOM = np.random.default_rng(7)


def unit(vector: np.ndarray) -> Vector:
    result: Vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    return result


def somebody() -> Vector:
    return unit(RANDOM.standard_normal(128))


def alike(face: Vector, cosine: float = 0.97) -> Vector:
    other = RANDOM.standard_normal(128)
    other -= other @ face * face
    return unit(cosine * face + np.sqrt(1 - cosine**2) * unit(other))


class Setup:
    def __init__(self, max_held: int = 10_000) -> None:
        self.clock = ManualClock()
        self.registry = CollectorRegistry()
        self.guard = NearDuplicates(NearDuplicateSettings(), self.clock, Metrics(self.registry), max_held=max_held)

    def passes(self, template: Vector, case: str = "C-1", person: str = "op-7", force: str = "northshire") -> bool:
        principal = replace(OPERATOR, person_id=person, force=force)
        try:
            self.guard.check(principal, replace(REQUEST, case_reference=case), template)
        except TooManyRequests as error:
            assert error.code == "near_duplicate_probes"
            return False
        return True


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_the_first_refusal_is_an_increase_of_the_metric(setup: Setup) -> None:
    """A series that began with it would have none, and nobody would be paged."""
    for scope in ("case", "person", "day"):
        assert setup.registry.get_sample_value("likeness_search_near_duplicates_total", {"scope": scope}) == 0


def test_twenty_alike_in_a_case_and_no_more(setup: Setup) -> None:
    face = somebody()
    assert [setup.passes(alike(face, 0.99)) for _ in range(25)] == [True] * 20 + [False] * 5
    assert setup.passes(somebody())
    assert setup.registry.get_sample_value("likeness_search_near_duplicates_total", {"scope": "case"}) == 5


def test_another_operator_of_the_force_is_in_the_same_case_and_another_force_is_not(setup: Setup) -> None:
    face = somebody()
    for _ in range(20):
        setup.passes(alike(face, 0.99))
    assert not setup.passes(alike(face, 0.99), person="op-8")
    assert not setup.passes(alike(face, 0.99), case=" c 1 ")
    assert setup.passes(alike(face, 0.99), person="op-8", force="eastmoor")


def test_new_cases_are_no_way_around(setup: Setup) -> None:
    face = somebody()
    assert sum(setup.passes(alike(face, 0.99), case=f"C-{number}") for number in range(100)) == 60


def test_the_same_probe_again_and_different_faces_are_not_counted(setup: Setup) -> None:
    face = somebody()
    assert all(setup.passes(face) for _ in range(100))
    assert all(setup.passes(somebody()) for _ in range(100))
    assert all(setup.passes(alike(face, 0.99)) for _ in range(19))
    assert not setup.passes(alike(face, 0.99))
    assert setup.passes(face)


def test_what_is_less_alike_than_pictures_of_one_face_is_not_counted(setup: Setup) -> None:
    face = somebody()
    assert all(setup.passes(alike(face, 0.6)) for _ in range(50))  # to each other 0.36


def test_after_an_hour_it_is_forgotten(setup: Setup) -> None:
    face = somebody()
    for _ in range(20):
        setup.passes(alike(face, 0.99))
    setup.clock.pass_(3599)
    assert not setup.passes(alike(face, 0.99))
    setup.clock.pass_(2)
    assert setup.passes(alike(face, 0.99))


def test_patience_is_bounded_by_the_day(setup: Setup) -> None:
    face = somebody()
    passed = 0
    for hour in range(24):
        passed += sum(setup.passes(alike(face, 0.99), case=f"C-{hour}") for _ in range(20))
        setup.clock.pass_(3500)
    assert passed == 60
    setup.clock.pass_(86400)
    assert setup.passes(alike(face, 0.99))


def test_a_hundred_and_fifty_different_faces_a_day_and_no_more(setup: Setup) -> None:
    faces = [somebody() for _ in range(151)]
    for number, face in enumerate(faces[:150]):
        assert setup.passes(face, case=f"C-{number}")
    with pytest.raises(TooManyRequests) as refused:
        setup.guard.check(OPERATOR, REQUEST, faces[150])
    assert refused.value.code == "too_many_probes"
    assert setup.passes(faces[0])
    assert setup.passes(faces[150], person="op-8")


def test_what_is_held_is_bounded() -> None:
    setup = Setup(max_held=50)
    for number in range(500):
        setup.passes(somebody(), case=f"C-{number}", person=f"op-{number}")
    assert sum(len(held.at_s) for held in setup.guard._held.values()) <= 50
    assert setup.guard._count == sum(len(held.at_s) for held in setup.guard._held.values())


def test_a_refusal_says_nothing_of_the_template(setup: Setup) -> None:
    face = somebody()
    for _ in range(20):
        setup.passes(alike(face, 0.99))
    with pytest.raises(TooManyRequests) as refused:
        setup.guard.check(OPERATOR, REQUEST, alike(face, 0.99))
    assert refused.value.context == {"scope": "case", "retry_after_s": 3600}
