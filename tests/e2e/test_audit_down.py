"""Without the audit log nothing is done and nothing is disclosed: both APIs say so within three seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.support.casework import enrol, post_enrolment, post_search
from tests.support.faces import DevelopmentFaces
from tests.support.platform import Platform
from tests.support.promises import within
from tests.support.waiting import wait_until

LIMIT_S = 3.0
BACK_LIMIT_S = 120.0


@pytest.fixture(scope="module")
def own_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("audit-down")) as running:
        yield running


def _refused(ask: Callable[[], httpx.Response]) -> tuple[int, str]:
    """Status and code of an answer that came in the time that is promised."""
    answer = within(LIMIT_S, ask)
    return answer.status_code, answer.json()["code"]


def test_search_and_enrolment_are_refused_while_audit_is_down_and_work_after(
    own_platform: Platform, faces: DevelopmentFaces
) -> None:
    reference, probe = faces.mated_pairs()[0]
    enrol(own_platform, reference.path, "S-1")
    image = probe.path.read_bytes()
    with (
        own_platform.client("search", "operator", timeout_s=60.0) as operator,
        own_platform.client("ingest", "custodian", timeout_s=60.0) as custodian,
    ):
        earlier = post_search(operator, image).json()["search_id"]
        own_platform.kill("audit")
        for ask in (
            lambda: post_search(operator, image),
            lambda: post_enrolment(custodian, image, "S-2"),
            lambda: operator.get(f"/v1/searches/{earlier}"),
        ):
            assert _refused(ask) == (503, "audit_unavailable")
        own_platform.restart("audit")
        # "Try again in a few seconds": the services reconnect by themselves.
        wait_until(lambda: post_search(operator, image).status_code == 200, BACK_LIMIT_S, "searches to work again")
        again = post_search(operator, image)
        assert again.json()["candidates"][0]["subject_id"] == "S-1"
        assert "S-2" not in {candidate["subject_id"] for candidate in again.json()["candidates"]}
        # A list is recorded as well, by a service that reconnects in its own time.
        wait_until(lambda: custodian.get("/v1/enrolments").status_code == 200, BACK_LIMIT_S, "lists to work again")
        listed = custodian.get("/v1/enrolments").json()["enrolments"]
        assert [entry["subject_id"] for entry in listed] == ["S-1"]
