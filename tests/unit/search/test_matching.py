from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.identification.acceptance import ANSWER_MARGIN, Acceptance
from services.search.identification.matching import Found, Matching
from services.search.identification.operating_points import Evidence, OperatingPoint, OperatingPoints
from services.search.policy import PermittedScope, PolicyFolder, Rulebook
from services.search.ports import GalleryAnswer
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.biometric import FaceTemplate
from services.shared.errors import Forbidden, GalleryIncomplete
from services.shared.telemetry import Metrics
from services.shared.watchlists import WatchlistFile
from tests.integration.search.peers import MODEL_ID, Reference, batch_of, vector_like, vector_of
from tests.unit.search.fakes import REQUEST, FakeLedgerSource, FakeModels, ManualClock, accepted

OWN = PermittedScope("custody", frozenset({"northshire"}))
TEMPLATE = FaceTemplate(vector_of("ann"), MODEL_ID)
WATCHLISTS = """
[[watchlist]]
id = "custody"
title = "Custody"
shared_with = "{shared_with}"
needs_agreement = false
lawful_bases = ["pace"]
purposes = ["prevention_and_detection"]
"""


class CountingKeeper(GalleryKeeper):
    """Counts the gallery's searches and lets the test do something after each."""

    limits: list[int]
    after: Callable[[int], None]

    def search(self, *arguments: object, **named: object) -> GalleryAnswer:
        answer = super().search(*arguments, **named)  # type: ignore[arg-type]
        self.limits.append(int(arguments[3]))  # type: ignore[call-overload]
        self.after(len(self.limits))
        return answer


class Setup:
    def __init__(self, folder: Path, *references: Reference, shared_with: str = "owner") -> None:
        self.clock = ManualClock()
        self.path = folder / "watchlists.toml"
        self.share(shared_with)
        batches = [batch_of([reference]) for reference in references]
        models = FakeModels()
        self.keeper = CountingKeeper(
            ExactGalleryStore(), models, FakeLedgerSource(*batches), Metrics(CollectorRegistry())
        )
        self.keeper.limits, self.keeper.after = [], lambda _number: None
        self.keeper.tend()
        acceptance = Acceptance(
            Rulebook(PolicyFolder(), WatchlistFile(self.path)), OperatingPoints(), self.keeper, self.clock
        )
        self.matching = Matching(self.keeper, acceptance, self.clock)

    def share(self, shared_with: str) -> None:
        self.path.write_text(WATCHLISTS.format(shared_with=shared_with))

    def found(self, scope: PermittedScope = OWN, wanted: int = 2, threshold: float | None = None) -> Found:
        points = {}
        if threshold is not None:
            evidence = Evidence(reference="e")
            points = {"custody": OperatingPoint(model_id="m", threshold=threshold, version="1", evidence=evidence)}
        request = replace(REQUEST, max_candidates=wanted)
        return self.matching(accepted(self.clock, scope, points=points, request=request), TEMPLATE)


def subjects(found: Found) -> list[str]:
    return [candidate.subject_id for candidate in found.candidates]


def test_many_references_of_one_subject_do_not_crowd_out_the_next(tmp_path: Path) -> None:
    many = [Reference(f"a{i:03d}", "ANN", vector_like("ann", 0.9)) for i in range(60)]
    setup = Setup(tmp_path, *many, Reference("b", "BOB", vector_like("ann", 0.3)))
    found = setup.found()
    assert subjects(found) == ["ANN", "BOB"]
    assert setup.keeper.limits == [8, 32, 128]
    assert found.compared == 61


def test_under_the_threshold_there_is_nothing_more_to_fetch(tmp_path: Path) -> None:
    others = [Reference(f"s{i:03d}", f"S{i}", vector_of(f"stranger {i}")) for i in range(60)]
    setup = Setup(tmp_path, Reference("a", "ANN", vector_of("ann")), *others)
    assert subjects(setup.found(threshold=0.9)) == ["ANN"]
    assert setup.keeper.limits == [8]


def test_an_empty_watchlist_is_an_empty_list(tmp_path: Path) -> None:
    found = Setup(tmp_path).found()
    assert (list(found.candidates), found.compared) == ([], 0)


def test_what_expires_before_the_answer_can_have_left_is_not_in_it(tmp_path: Path) -> None:
    now = int(ManualClock().now().timestamp())
    margin = int(ANSWER_MARGIN.total_seconds())
    setup = Setup(
        tmp_path,
        Reference("gone", "GONE", vector_like("ann", 0.9), expires_at=now),
        Reference("going", "GOING", vector_like("ann", 0.8), expires_at=now + margin),
        Reference("here", "HERE", vector_like("ann", 0.7), expires_at=now + margin + 1),
        Reference("stays", "STAYS", vector_like("ann", 0.6)),
    )
    assert subjects(setup.found()) == ["HERE", "STAYS"]
    setup.clock.pass_(1)
    assert subjects(setup.found()) == ["STAYS"]


def test_a_permission_that_ended_during_the_search_ends_the_search(tmp_path: Path) -> None:
    setup = Setup(tmp_path, Reference("a", "ANN", vector_of("ann")))
    setup.keeper.after = lambda _number: setup.share("signatories")
    with pytest.raises(Forbidden):
        setup.found()


def test_a_permission_that_changed_during_the_search_searches_again(tmp_path: Path) -> None:
    setup = Setup(
        tmp_path,
        Reference("a", "ANN", vector_of("ann")),
        Reference("e", "EAST", vector_like("ann", 0.9), owner="eastmoor"),
        shared_with="any",
    )
    setup.keeper.after = lambda number: setup.share("owner") if number == 1 else None
    found = setup.found(PermittedScope("custody", None))
    assert subjects(found) == ["ANN"]
    assert found.scopes[0].owners == {"northshire"}
    assert (len(setup.keeper.limits), found.compared) == (2, 1)


def test_every_owner_where_any_may_be_searched(tmp_path: Path) -> None:
    setup = Setup(
        tmp_path,
        Reference("a", "ANN", vector_of("ann")),
        Reference("e", "EAST", vector_like("ann", 0.9), owner="eastmoor"),
        shared_with="any",
    )
    found = setup.found(PermittedScope("custody", None))
    assert subjects(found) == ["ANN", "EAST"]
    assert found.scopes[0].owners == {"northshire", "eastmoor"}


def test_permissions_that_never_settle_are_an_error_and_no_answer(tmp_path: Path) -> None:
    setup = Setup(tmp_path, Reference("a", "ANN", vector_of("ann")), shared_with="any")
    setup.keeper.after = lambda number: setup.share("owner" if number % 2 else "any")
    with pytest.raises(GalleryIncomplete):
        setup.found(PermittedScope("custody", None))
