from __future__ import annotations

from typing import Any

import pytest

from services.review.terms import ImageNature as CaseworkNature
from services.search.identification.requests import ImageNature, ProbeSource, SearchMode, SearchRequest, parse_request
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


def test_what_the_picture_is_may_be_stated_once_and_in_the_words_of_a_closed_list() -> None:
    assert parse().nature is ImageNature.UNSTATED
    assert parse(nature=[" drawing "]).nature is ImageNature.DRAWING
    for wrong in (["photo"], ["Composite"], ["photograph", "composite"], ["composite,photograph"]):
        with pytest.raises(InvalidRequest, match="nature"):
            parse(nature=wrong)


def test_a_stated_nature_makes_another_request_and_an_unstated_one_the_request_of_before() -> None:
    unstated, stated = parse(), parse(nature=["drawing"])
    assert unstated.fingerprint("a") == parse(nature=["unstated"]).fingerprint("a") != stated.fingerprint("a")
    # As keys of before it could be stated were stored.
    assert unstated.fingerprint("a") == "9563f7d6d6802de37446e79fc1f9fdc6216b0d3c66032caa8981008dc9eff908"


def test_casework_and_search_have_the_same_words_for_pictures() -> None:
    casework = {nature.value for nature in CaseworkNature}
    assert casework | {ImageNature.UNSTATED.value} == {nature.value for nature in ImageNature}
