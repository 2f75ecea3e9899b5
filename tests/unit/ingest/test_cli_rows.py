"""Rows of any width on a terminal of any width, whatever stands in them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from services.ingest.cli_rows import print_rows

FLAG: dict[str, Any] = {
    "flag_id": "01a20848-d226-7494-9c82-8e49fa368d21",
    "subject_ids": ["[/red]NS-1", "NS-2"],
    "is_settled": False,
    "reasons": {"blur": 3},
    "note": None,
}


def _printed(rows: list[dict[str, Any]], width: int) -> str:
    out = io.StringIO()
    print_rows(rows, tuple(FLAG), Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_cut_off_and_nothing_is_markup(width: int) -> None:
    shown = _printed([FLAG, {**FLAG, "is_settled": True}], width)
    for words in (FLAG["flag_id"], "[/red]NS-1, NS-2", "blur: 3", "no", "yes"):
        assert words in shown
    assert "None" not in shown


def test_one_row_under_the_other_only_where_the_table_does_not_fit() -> None:
    assert _printed([FLAG], 200).count("flag_id") == 1
    assert _printed([FLAG, FLAG], 80).count("flag_id") == 2
    assert "flag_id" in _printed([], 200)
