"""A year in minutes: images, disposals, merges, withdrawals, erasures, an agreement that ends, another model, two
restores, a replay of everything.

At its end ledger = gallery = images by id, nobody who was erased is findable anywhere, and the audit log verifies.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.year import Scale, Year

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def test_a_year(tmp_path: Path) -> None:
    year = Year.on(tmp_path / "data", tmp_path, Scale())
    with year.platform:
        figures = year.run()
    assert figures["erased"] == 3
    assert figures["enrolled"] == 24 + 3 + 12 * 4 - 3 - 4
