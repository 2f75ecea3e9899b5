"""The tables of docs/security are held to what is there: every attack, every requirement, every test that they name."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.repository import ROOT

ATTACKS = ROOT / "docs" / "security" / "attacks.md"
ASVS = ROOT / "docs" / "security" / "asvs.md"
_ROW = re.compile(r"^\| A(\d+) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)`")
VERDICTS = {"met", "partly", "open", "deployer", "none here"}
# How many requirements each section of the standard has at levels 1 and 2; their numbers run from 1.
REQUIREMENTS = {
    **{"1.1": 2, "1.2": 9, "1.3": 11, "1.4": 3, "1.5": 2, "2.1": 3, "2.2": 3, "2.3": 4, "2.4": 1},
    **{"3.2": 2, "3.3": 4, "3.4": 6, "3.5": 5, "3.7": 2, "4.1": 3, "4.2": 1, "4.3": 2, "4.4": 4},
    **{"5.1": 1, "5.2": 3, "5.3": 2, "5.4": 3, "6.1": 3, "6.2": 12, "6.3": 4, "6.4": 4, "6.5": 5, "6.6": 3, "6.8": 4},
    **{"7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 2, "7.6": 2, "8.1": 2, "8.2": 3, "8.3": 1, "8.4": 1},
    **{"9.1": 3, "9.2": 4, "10.1": 2, "10.2": 2, "10.3": 4, "10.4": 11, "10.5": 5, "10.6": 2, "10.7": 3},
    **{"11.1": 2, "11.2": 3, "11.3": 3, "11.4": 4, "11.5": 1, "11.6": 1, "12.1": 3, "12.2": 2, "12.3": 4},
    **{"13.1": 1, "13.2": 5, "13.3": 2, "13.4": 5, "14.1": 2, "14.2": 4, "14.3": 3, "15.1": 3, "15.2": 3, "15.3": 7},
    **{"16.1": 1, "16.2": 5, "16.3": 4, "16.4": 3, "16.5": 3, "17.1": 1, "17.2": 4, "17.3": 2},
}


@cache
def _tests_in(path: Path) -> tuple[str, ...]:
    tree = ast.parse(path.read_text("utf-8"))
    return tuple(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def _attack_rows() -> dict[int, str]:
    return {int(number): rest for number, rest in _ROW.findall(ATTACKS.read_text("utf-8"))}


def test_every_attack_has_a_row() -> None:
    assert list(_attack_rows()) == list(range(1, 26))


@pytest.mark.parametrize("number", range(1, 26))
def test_every_attack_names_tests_that_are_there(number: int) -> None:
    named = _TEST.findall(_attack_rows()[number])
    assert named, f"A{number} has no test"
    for name in named:
        assert _tests_in(ROOT / name), name


@pytest.mark.parametrize("number", range(1, 26))
def test_a_test_of_an_attack_stands_in_its_row(number: int) -> None:
    """Whatever calls itself `test_aNN_…` is in the row of that number."""
    row = _attack_rows()[number]
    mark = f"test_a{number:02d}_"
    for path in sorted((ROOT / "tests" / "attacks").glob("test_*.py")):
        if any(name.startswith(mark) for name in _tests_in(path)):
            assert f"`{path.relative_to(ROOT)}`" in row, f"A{number} does not name {path.name}"


def _asvs_rows() -> list[tuple[list[str], str, str]]:
    found = []
    for line in ASVS.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and re.match(r"\d+\.\d+\.\d+", cells[0]):
            found.append((_numbers(cells[0]), cells[1], " | ".join(cells[2:])))
    return found


def _numbers(text: str) -> list[str]:
    """The requirements of `1.2.1`, `1.2.1, 1.2.3` and `1.2.1 to 1.2.3`."""
    first, separator, last = text.partition(" to ")
    if not separator:
        return [each.strip() for each in text.split(",")]
    section, _, start = first.rpartition(".")
    end_section, _, end = last.rpartition(".")
    assert section == end_section, text
    return [f"{section}.{number}" for number in range(int(start), int(end) + 1)]


def test_every_requirement_of_both_levels_stands_in_the_table_once() -> None:
    listed = [number for numbers, _, _ in _asvs_rows() for number in numbers]
    wanted = [f"{section}.{number}" for section, count in REQUIREMENTS.items() for number in range(1, count + 1)]
    assert len(wanted) == 253
    assert sorted(listed) == sorted(wanted)


def test_every_row_has_a_verdict_and_a_test_or_a_reason() -> None:
    for numbers, verdict, reason in _asvs_rows():
        assert verdict in VERDICTS, numbers
        assert len(reason) >= 8, numbers
        for name in _TEST.findall(reason):
            assert _tests_in(ROOT / name), (numbers, name)


def test_what_is_not_met_is_counted_where_it_is_told() -> None:
    counted = dict.fromkeys(VERDICTS, 0)
    for numbers, verdict, _ in _asvs_rows():
        counted[verdict] += len(numbers)
    told = re.search(r"(\d+) met, (\d+) partly, (\d+) open, (\d+) the deployer's, (\d+) about what is not here", _all())
    assert told, "docs/security/asvs.md says how many of each there are"
    assert [int(number) for number in told.groups()] == [
        counted[name] for name in ("met", "partly", "open", "deployer", "none here")
    ]


def _all() -> str:
    return " ".join(ASVS.read_text("utf-8").split())
