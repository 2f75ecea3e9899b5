"""Twenty broken or foreign files of different kinds through REST: a clear refusal each, and the services stay up."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx

from services.shared.errors import IMAGE_REFUSALS
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.platform import Platform
from tests.support.waiting import wait_until

KINDS = (
    *("apng", "avif", "avif_corrupt", "bitflip", "bmp_bad", "bmp_questionable", "bomb", "empty_or_renamed"),
    *("gif_fuzz", "gif_odd", "heic_corrupt", "jpeg_conformance", "jpeg_corrupt", "jpeg_fuzz", "jpeg_unusual_coding"),
    *("png_corrupt", "policy_not_image", "policy_other_format", "svg", "tiff_corrupt", "truncated", "webp_corrupt"),
)
ANSWER_LIMIT_S = 60.0
TRIES = 5


def _one_of_each_kind(root: Path) -> list[Path]:
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["expected"] == "reject"]
    return [root / next(row["path"] for row in rows if row["kind"] == kind) for kind in KINDS]


def _answer_of(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """A machine that is too busy says so, and to try again."""
    for _ in range(TRIES):
        answer = ask()
        if answer.status_code != 503:
            break
    return answer


def _services_alive(platform: Platform) -> bool:
    return all(
        httpx.get(platform.url(service, "/readyz"), timeout=60, trust_env=False).status_code == 200
        for service in ("search", "ingest", "embed", "audit")
    )


def test_every_bad_file_is_refused_with_a_reason_in_a_search(platform: Platform, hostile: Path) -> None:
    files = _one_of_each_kind(hostile)
    assert len(files) >= 20
    pids = {service: platform.process(service).pid for service in ("search", "ingest", "embed", "audit")}
    answers: dict[str, str] = {}
    with platform.client("search", "operator", timeout_s=ANSWER_LIMIT_S) as client:
        for path in files:
            answer = _answer_of(partial(post_search, client, path.read_bytes()))
            problem = answer.json()
            assert 400 <= answer.status_code < 500, f"{path}: {answer.status_code} {problem}"
            assert problem["detail"], path
            assert problem["advice"], path
            answers[path.name] = problem["code"]
    assert set(answers.values()) <= IMAGE_REFUSALS | {"invalid_request"}, answers
    wait_until(lambda: _services_alive(platform), 120, "the services to be ready")
    assert pids == {service: platform.process(service).pid for service in pids}


def test_no_bad_file_becomes_a_reference(platform: Platform, hostile: Path) -> None:
    accepted: dict[str, str] = {}
    with platform.client("ingest", "custodian", timeout_s=ANSWER_LIMIT_S) as client:
        for number, path in enumerate(_one_of_each_kind(hostile)):
            answer = _answer_of(partial(post_enrolment, client, path.read_bytes(), f"HOSTILE-{number}"))
            if answer.status_code == 202:
                accepted[answer.json()["enrolment_id"]] = path.name
            else:
                assert 400 <= answer.status_code < 500, f"{path}: {answer.status_code} {answer.text}"
                assert answer.json()["advice"]
        outcomes = wait_settled(client, accepted, timeout_s=240.0)
    assert {accepted[key]: state for key, state in outcomes.items() if state == "enrolled"} == {}
    wait_until(lambda: _services_alive(platform), 120, "the services to be ready")
