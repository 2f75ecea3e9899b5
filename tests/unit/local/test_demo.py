"""The demonstration: what counts as success, and sheets that hold what was found."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from services.local.demo.drawing import PROBE_SETTING, REFERENCE_SETTING, draw_face
from services.local.demo.plan import FILLS, GALLERY_SIZE, PROBES, SUBJECTS, Expectation, Probe
from services.local.demo.results import DemoResult, ProbeResult, ShownCandidate
from services.local.demo.sheet_html import write_html
from services.local.demo.sheet_png import write_png

_TIMES = {"gate": 5.0, "detect": 10.0, "template": 15.0, "gallery": 4.0, "audit": 8.0, "total": 42.0}
_BOX: Mapping[str, float] = {"x": 200.0, "y": 150.0, "width": 300.0, "height": 400.0}


def _found(probe: Probe, *subject_ids: str, over_threshold: int | None = None) -> ProbeResult:
    candidates = [
        ShownCandidate(rank, subject_id, "custody", "northshire", 0.8 - rank / 10)
        for rank, subject_id in enumerate(subject_ids, 1)
    ]
    return ProbeResult(probe, [_BOX], 0, candidates, _TIMES, 50.0, over_threshold)


def _probe(expectation: Expectation) -> Probe:
    subject = "" if expectation is Expectation.NOT_ENROLLED else "DEMO-0001"
    return Probe("A <probe>", "subject-1-reference.jpg", "as it is", expectation, subject)


def _result(*probes: ProbeResult) -> DemoResult:
    return DemoResult(probes, {"custody": (100_000, 99_999)}, "model-1", "exact", "2026-01-01")


@pytest.mark.parametrize(
    ("expectation", "found", "succeeds"),
    [
        (Expectation.RANK_ONE, ["DEMO-0001", "SYNTHETIC-000001"], True),
        (Expectation.RANK_ONE, ["SYNTHETIC-000001", "DEMO-0001"], False),
        (Expectation.RANK_ONE, ["SYNTHETIC-000001"], False),
        (Expectation.RANK_ONE, [], False),
        (Expectation.HARD, ["SYNTHETIC-000001"], True),
        (Expectation.NOT_ENROLLED, ["SYNTHETIC-000001"], True),
    ],
)
def test_success_is_rank_one_wherever_it_is_not_hard(
    expectation: Expectation, found: list[str], succeeds: bool
) -> None:
    assert _result(_found(_probe(expectation), *found)).succeeded is succeeds


def test_a_stranger_over_the_threshold_is_called_a_false_candidate() -> None:
    stranger = _probe(Expectation.NOT_ENROLLED)
    assert _found(stranger, "SYNTHETIC-1", over_threshold=1).verdict == "1 false candidate over the threshold"
    assert _found(stranger, "SYNTHETIC-1", over_threshold=0).verdict == "nobody over the threshold"


def test_the_plan_names_real_answers_and_fills_to_the_units_size() -> None:
    enrolled = {subject.subject_id for subject in SUBJECTS}
    assert {probe.subject_id for probe in PROBES} - {""} == enrolled
    assert {probe.subject_id for probe in PROBES if probe.expectation is Expectation.RANK_ONE} == enrolled
    last = {fill.watchlist: fill.until_count for fill in FILLS}
    assert sum(last.values()) == GALLERY_SIZE
    assert {subject.watchlist for subject in SUBJECTS} == set(last)


def test_no_photograph_is_put_on_the_sex_offenders_list() -> None:
    assert [s.about for s in SUBJECTS if s.watchlist == "sex_offenders"] == ["a drawing of nobody"]


def test_the_drawing_is_the_same_every_time_and_differs_by_setting() -> None:
    first = draw_face(REFERENCE_SETTING, 300, 90)
    assert first == draw_face(REFERENCE_SETTING, 300, 90)
    assert first != draw_face(PROBE_SETTING, 300, 90)
    assert Image.open(io.BytesIO(first)).size == (300, 300)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Stand-ins of the right sizes: the sheets only need pictures, not these people."""
    for subject in SUBJECTS:
        left, top, side = subject.crop
        Image.new("RGB", (left + side + 50, top + side + 50), (120, 140, 150)).save(tmp_path / subject.picture)
    return tmp_path


@pytest.fixture
def shown() -> DemoResult:
    return _result(
        _found(_probe(Expectation.RANK_ONE), "DEMO-0001", "SYNTHETIC-000001"),
        _found(_probe(Expectation.HARD), "SYNTHETIC-000002"),
        _found(_probe(Expectation.NOT_ENROLLED), "SYNTHETIC-000003", over_threshold=0),
    )


def test_the_html_sheet_holds_everything_escapes_it_and_needs_nothing_else(
    shown: DemoResult, pictures: Path, tmp_path: Path
) -> None:
    target = tmp_path / "sheet.html"
    write_html(shown, pictures, target)
    page = target.read_text()
    assert "A &lt;probe&gt;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    for text in ("DEMO-0001: rank 1", "SYNTHETIC-000003", "0.700", "99,999 of the 100,000 references are synthetic"):
        assert text in page


def test_the_png_sheet_is_a_picture_with_a_card_a_probe(shown: DemoResult, pictures: Path, tmp_path: Path) -> None:
    one, three = tmp_path / "one.png", tmp_path / "three.png"
    write_png(_result(shown.probes[0]), pictures, one)
    write_png(shown, pictures, three)
    with Image.open(one) as small, Image.open(three) as large:
        assert small.width == large.width
        assert large.height - small.height == 2 * (444 + 24)
