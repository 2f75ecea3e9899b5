"""What custody suites are told of their cameras; and whose quality policy counts."""

from __future__ import annotations

from services.ingest.life.searchability import Tally, searchability
from services.ingest.settings import QualityPolicy, QualitySettings


def test_the_worst_device_of_a_month_comes_first_with_what_to_change() -> None:
    found = searchability([
        Tally("suite-1", "2026-03", "enrolled", "", 90, 80.0),
        Tally("suite-1", "2026-03", "enrolled", "low_quality", 5, 20.0),
        Tally("suite-2", "2026-03", "enrolled", "", 5, 50.0),
        Tally("suite-2", "2026-03", "refused", "several_faces", 3, None),
        Tally("suite-2", "2026-03", "refused", "no_face_found", 12, None),
        Tally("suite-2", "2026-03", "withdrawn", "", 40, None),
        Tally("", "2026-02", "quarantined", "crashes_analysis", 1, None),
    ])  # fmt: skip
    assert [(each.month, each.device, each.images, each.searchable) for each in found] == [
        ("2026-02", "", 1, 0),
        ("2026-03", "suite-2", 20, 5),
        ("2026-03", "suite-1", 95, 95),
    ]
    worst, best = found[1], found[2]
    assert worst.reasons == {"several_faces": 3, "no_face_found": 12}
    assert worst.advice[0].startswith("Frame head and shoulders")
    assert best.with_warning == 5
    assert best.mean_quality is not None
    assert 76 < best.mean_quality < 77


def test_the_nearest_policy_counts() -> None:
    strict, stricter, strictest = (QualityPolicy(min_unified_quality=value) for value in (10, 20, 30))
    settings = QualitySettings(
        by_watchlist={"sex_offenders": strict},
        by_owner={"northshire": stricter, "northshire/sex_offenders": strictest},
    )
    assert settings.policy("eastmoor", "custody") == settings.default
    assert settings.policy("eastmoor", "sex_offenders") == strict
    assert settings.policy("northshire", "custody") == stricter
    assert settings.policy("northshire", "sex_offenders") == strictest
