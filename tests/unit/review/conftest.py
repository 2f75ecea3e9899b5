from pathlib import Path

import pytest

from tests.unit.review.people import Unit


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit.open(tmp_path)
