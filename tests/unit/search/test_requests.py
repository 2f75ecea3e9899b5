from __future__ import annotations

from typing import Any

import pytest

from services.search.requests import ProbeSource, SearchMode, SearchRequest, parse_request
from services.shared.errors import InvalidRequest
from services.shared.watchlists import WatchlistFile

KNOWN = WatchlistFile().current()
FORM: dict[str, list[str]] = {
    "case_reference": [" NS/2026/004711 "],
    "purpose": ["prevention_and_detection"],
    "offence": ["Körperverletzung, burglary"],
    "source": ["body_worn_video"],
    "watchlists": ["op_liberal", "custody", "op_liberal"],
}


def parse(**changes: Any) -> SearchRequest:
    texts = {name: values for name, values in {**FORM, **changes}.items() if values is not None}
    return parse_request(texts, KNOWN)


def test_defaults_and_order() -> None:
    assert parse() == SearchRequest(
        case_reference="NS/2026/004711",
        purpose="prevention_and_detection",
        offence="Körperverletzung, burglary",
        source=ProbeSource.BODY_WORN_VIDEO,
        watchlists=("custody", "op_liberal"),
        mode=SearchMode.INVESTIGATION,
        max_candidates=20,
        face=None,
    )


def test_all_given() -> None:
    request = parse(mode=["identification"], max_candidates=["50"], face=["0"], watchlists=["sex_offenders"])
    assert (request.mode, request.max_candidates, request.face) == (SearchMode.IDENTIFICATION, 50, 0)


@pytest.mark.parametrize("empty", [[""], ["  "], None, []])
def test_optional_fields_may_be_empty(empty: list[str] | None) -> None:
    assert parse(mode=empty, max_candidates=empty, face=empty) == parse()


@pytest.mark.parametrize("number", ["two", "2.0", "1e1", "\uff10\uff15", "-2", "999999999999999999999"])
def test_odd_numbers(number: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(max_candidates=[number])


def test_what_is_wrong_is_named_without_being_repeated_at_length() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(watchlists=["w" * 4000], **{"f" * 4000: ["x"]})
    assert len(str(refused.value.context)) < 600


def test_the_fingerprint_tells_requests_apart() -> None:
    base = parse().fingerprint("a" * 64)
    assert parse(watchlists=["custody", "op_liberal"]).fingerprint("a" * 64) == base
    others = [
        parse().fingerprint("b" * 64),
        parse(case_reference=["x"]).fingerprint("a" * 64),
        parse(purpose=["safeguarding"]).fingerprint("a" * 64),
        parse(offence=["x"]).fingerprint("a" * 64),
        parse(source=["cctv"]).fingerprint("a" * 64),
        parse(watchlists=["custody"]).fingerprint("a" * 64),
        parse(mode=["identification"]).fingerprint("a" * 64),
        parse(max_candidates=["21"]).fingerprint("a" * 64),
        parse(face=["0"]).fingerprint("a" * 64),
    ]
    assert len({base, *others}) == 1 + len(others)
