"""Every row of the table of faults names tests, and every test that it names is there."""

from __future__ import annotations

import ast

import pytest

from tests.faults.table import Row, rows, tables
from tests.support.repository import ROOT


def names_of(path: str) -> set[str]:
    """Tests of a file, those of its classes as Class::test."""
    found = set()
    for node in ast.parse((ROOT / path).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def test_all_rows_are_there_in_order() -> None:
    assert [row.id for row in rows()] == [f"F{number}" for number in range(1, 26)]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_each_test_of_a_row_exists(row: Row) -> None:
    assert row.tests
    for test in row.tests:
        path, _, name = test.partition("::")
        assert not name or name.partition("[")[0] in names_of(path), test


def test_the_page_is_made_from_the_rows() -> None:
    page = (ROOT / "docs" / "operations" / "faults.md").read_text("utf-8")
    where, _ = tables((), {})
    assert where in page, "run python -m tests.faults.table --keep"
