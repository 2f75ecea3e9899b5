"""The canonical form of an entry, and that the verifier's grammar is exactly that form."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.entries import MAX_ENTRY_BYTES, OPERATIONS, PHASES, Statement, StoredEntry, draft_entry
from services.audit.verification import VerificationFailed, parse_entry
from services.shared.errors import InvalidRequest

STATEMENT = Statement(
    entry_id="01912d68-783e-7a03-8467-5661c1243ad4",
    operation="CONSULTATION",
    phase="INTENT",
    activity="search",
    activity_id="01912d68-783e-7a03-8467-5661c1243ad5",
    person_id="operator-17",
    force="northshire",
    roles=("operator",),
    service="search",
    purpose="crime_investigation",
    case_reference="NS/2026/000123",
    objects=("probe:ab", "watchlist:custody"),
    recipients=(),
    details={"policy": "permitted", "model_id": "m"},
    occurred_at="2026-05-09T10:11:12.123Z",
)
RECORDED_AT = "2026-05-09T10:11:12.125Z"

# Once published, this form is for ever: an entry that is hashed today is checked in twenty years.
GOLDEN = (
    b'{"activity":"search","activity_id":"01912d68-783e-7a03-8467-5661c1243ad5",'
    b'"actor":{"force":"northshire","person_id":"operator-17","roles":["operator"]},'
    b'"case_reference":"NS/2026/000123","details":{"model_id":"m","policy":"permitted"},'
    b'"entry_id":"01912d68-783e-7a03-8467-5661c1243ad4","format":"likeness.audit-entry.v1",'
    b'"objects":["probe:ab","watchlist:custody"],"occurred_at":"2026-05-09T10:11:12.123Z",'
    b'"operation":"CONSULTATION","phase":"INTENT","purpose":"crime_investigation","recipients":[],'
    b'"recorded_at":"2026-05-09T10:11:12.125Z","sequence":7,"service":"search"}'
)

_TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
_NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda text: text.strip())


def test_canonical_bytes_are_the_documented_ones() -> None:
    assert draft_entry(STATEMENT).complete(7, RECORDED_AT) == GOLDEN
    assert parse_entry(GOLDEN, 7)["sequence"] == "7"


@given(
    texts=st.lists(_TEXTS, max_size=3),
    name=_NAMES,
    details=st.dictionaries(_TEXTS, _TEXTS, max_size=5),
    operation=st.sampled_from(sorted(OPERATIONS)),
    phase=st.sampled_from(sorted(PHASES)),
    sequence=st.integers(0, 2**53 - 1),
)
def test_the_verifier_reads_whatever_the_log_writes(
    *, texts: list[str], name: str, details: dict[str, str], operation: str, phase: str, sequence: int
) -> None:
    statement = replace(
        STATEMENT,
        activity=name,
        person_id=name,
        purpose=name,
        objects=tuple(texts),
        recipients=tuple(texts),
        roles=tuple(texts),
        details=details,
        operation=operation,
        phase=phase,
    )
    content = draft_entry(statement).complete(sequence, RECORDED_AT)
    facts = parse_entry(content, 0)
    assert facts.group("sequence", "phase", "entry_id") == (str(sequence), phase, statement.entry_id)
    assert json.loads(f'"{facts["activity"]}"') == name
    assert json.loads(content)["details"] == details


@pytest.mark.parametrize(
    "spoilt",
    [
        GOLDEN + b" ",
        GOLDEN.replace(b'"sequence":7', b'"sequence": 7'),
        GOLDEN.replace(b'"sequence":7', b'"sequence":07'),
        GOLDEN.replace(b'"sequence":7', b'"sequence":7.0'),
        GOLDEN.replace(b'"sequence":7', b'"sequence":' + b"9" * 5000),
        GOLDEN.replace(b'"model_id":"m","policy":"permitted"', b'"policy":"permitted","model_id":"m"'),
        GOLDEN.replace(b'"model_id":"m","policy"', b'"model_id":"m","model_id"'),
        GOLDEN.replace(b'"m"', b'"\\u006d"'),
        GOLDEN.replace(b'"m"', b'"\\/"'),
        GOLDEN.replace(b'"m"', b'"\\u000A"'),
        GOLDEN.replace(b'"m"', b'"\x01"'),
        GOLDEN.replace(b'"m"', b'"\xff"'),
        GOLDEN.replace(b'"m"', b'"\\ud800"'),
        GOLDEN.replace(b'"m"', b"1"),
        GOLDEN.replace(b"audit-entry.v1", b"audit-entry.v2"),
        GOLDEN.replace(b'"phase":"INTENT"', b'"phase":"MAYBE"'),
        GOLDEN.replace(b"10:11:12.125Z", b"10:11:12.125+00:00"),
        GOLDEN.replace(b'"service":"search"', b'"service":"search","extra":"x"'),
        b"",
        b"{}",
    ],
)
def test_any_other_encoding_is_refused(spoilt: bytes) -> None:
    assert spoilt != GOLDEN
    with pytest.raises(VerificationFailed) as failure:
        parse_entry(spoilt, 7)
    assert (failure.value.check, failure.value.sequence) == (2, 7)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"entry_id": "abc"}, "entry_id"),
        ({"operation": "OPERATION_UNSPECIFIED"}, "operation"),
        ({"phase": "PHASE_UNSPECIFIED"}, "phase"),
        ({"activity": " "}, "activity"),
        ({"activity_id": ""}, "activity_id"),
        ({"activity_id": "a\x00b"}, "activity_id"),
        ({"person_id": ""}, "person_id"),
        ({"service": ""}, "service"),
        ({"occurred_at": "2026-05-09 10:11:12"}, "occurred_at"),
        ({"occurred_at": "2026-13-45T99:99:99.000Z"}, "occurred_at"),
        ({"occurred_at": "2026-02-29T10:11:12.000Z"}, "occurred_at"),
        ({"purpose": "x" * 2000}, "purpose"),
        ({"objects": ("custody",)}, "objects"),
        ({"objects": ("watchlist:x",) * 300}, "objects"),
        ({"recipients": ("Person:1",)}, "recipients"),
        ({"details": {"x" * 2000: ""}}, "details"),
    ],
)
def test_a_statement_that_is_not_well_formed_names_the_field(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        replace(STATEMENT, **change).check()
    STATEMENT.check()


def test_content_does_not_fit_into_an_entry() -> None:
    with pytest.raises(InvalidRequest, match="bytes"):
        draft_entry(replace(STATEMENT, details={"image": "x" * MAX_ENTRY_BYTES}))


def test_the_same_statement_is_known_again_whatever_the_time() -> None:
    stored = StoredEntry(7, GOLDEN, b"")
    assert stored.says_the_same_as(replace(STATEMENT, occurred_at="2026-05-09T10:11:13.000Z"))
    assert not stored.says_the_same_as(replace(STATEMENT, phase="DONE"))
    assert not stored.says_the_same_as(replace(STATEMENT, details={"policy": "refused", "model_id": "m"}))
