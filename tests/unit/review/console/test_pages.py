"""The pages: what they show, what they hide, and that nothing that people wrote becomes code."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from services.review.model import CaseState, FeatureRemark, Finding
from services.review.partners import PartnerEnquiry
from services.review.workflow import Action
from services.rpc.v1 import search_pb2
from services.shared.errors import AuditUnavailable
from tests.unit.review.console.browser import Browser
from tests.unit.review.console.fake_desk import NOW, PROBE_ID, REQUEST_ID, FakeDesk, picture, sample_case

BASE = f"/console/requests/{REQUEST_ID}"
EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}javascript:alert(3)"
HIDDEN = ("NS-1002", "0.69", "rank", "score")


@pytest.fixture
def browser() -> Browser:
    browser = Browser(FakeDesk(possible=tuple(Action)))
    browser.sign_in()
    return browser


def _judge(browser: Browser, position: int, **fields: str) -> Any:
    form = {"version": "5", "candidate_id": f"candidate-{position}", "finding": "no_support", **fields}
    return browser.post(f"{BASE}/compare/{position}", form)


def _candidate_part(text: str) -> str:
    """The page without the list of keys, which has the word."""
    return text.split('<dialog id="keys"', maxsplit=1)[0].lower()


def test_score_rank_and_biography_are_hidden_until_judged(browser: Browser) -> None:
    before = _candidate_part(browser.get(f"{BASE}/compare/1").text)
    assert not [word for word in HIDDEN if word.lower() in before]
    assert _judge(browser, 1).status_code == 303
    after = _candidate_part(browser.get(f"{BASE}/compare/1").text)
    assert "ns-100201" in after
    assert "rank 1" in after
    assert "ns-100202" not in _candidate_part(browser.get(f"{BASE}/compare/2").text)


def test_a_judgement_carries_finding_features_and_remarks(browser: Browser) -> None:
    _judge(
        browser, 1, finding="possible_match", remarks="Same ear.", **{"feature.ears": "similar", "remark.ears": "lobe"}
    )
    made = browser.desk.judged["candidate-1"]
    assert made.finding is Finding.POSSIBLE_MATCH
    assert made.remarks == "Same ear."
    assert [(item.feature.value, item.observation.value, item.remark) for item in made.features] == [
        ("ears", "similar", "lobe")
    ]
    assert isinstance(made.features[0], FeatureRemark)


def test_what_was_filled_in_is_kept_when_it_was_too_early(browser: Browser) -> None:
    browser.desk.wait_s = 4.0
    answer = _judge(browser, 1, remarks="My reasons so far", **{"feature.nose": "different"})
    assert answer.status_code == 409
    assert "My reasons so far" in answer.text
    assert re.search(r'name="feature\.nose" value="different"[^>]* checked', answer.text)
    assert 'data-wait="4.0"' in answer.text


def test_what_was_written_in_a_refused_form_is_shown(browser: Browser) -> None:
    answer = browser.post(
        f"{BASE}/outcome", {"version": "3", "kind": "nonsense", "remarks": "An alibi, <b>checked</b>"}
    )
    assert answer.status_code == 422
    assert "What you wrote" in answer.text
    assert "An alibi, &lt;b&gt;checked&lt;/b&gt;" in answer.text


def test_every_candidate_has_to_be_judged_before_signing(browser: Browser) -> None:
    assert "8 candidates are not judged yet" in browser.get(f"{BASE}/sign").text
    for position in range(1, 9):
        _judge(browser, position)
    assert browser.get(f"{BASE}/compare").headers["location"] == f"{BASE}/sign"
    assert browser.post(f"{BASE}/sign", {"version": "13"}).status_code == 422, "the declaration is missing"
    assert browser.post(f"{BASE}/sign", {"version": "13", "declared": "yes"}).status_code == 303
    assert browser.desk.signature is not None


def test_a_judgement_can_be_undone_until_it_is_signed(browser: Browser) -> None:
    _judge(browser, 3)
    assert "Undo candidate 3" in browser.get(f"{BASE}/compare/4").text
    answer = browser.post(f"{BASE}/compare/undo", {"version": "6", "candidate_id": "candidate-3"})
    assert answer.headers["location"].startswith(f"{BASE}/compare/3")
    assert not browser.desk.judged


def test_the_form_names_everything_that_is_missing_and_keeps_the_rest(browser: Browser) -> None:
    answer = browser.post("/console/requests/new", {"offence": "Theft of a cycle", "nature": "generated"})
    assert answer.status_code == 422
    for name in (
        "case_reference",
        "purpose",
        "necessity",
        "case_type",
        "source",
        "face_chosen_by",
        "watchlists",
        "images",
    ):
        assert f'href="#{name}"' in answer.text
        assert f'id="{name}"' in answer.text, "the link leads somewhere"
    assert 'value="Theft of a cycle"' in answer.text
    assert "never searched" in answer.text


def test_a_request_that_cannot_be_taken_now_stays_on_the_form(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise AuditUnavailable("The audit log cannot be written.")

    monkeypatch.setattr(FakeDesk, "_submit", away)
    answer = browser.post("/console/requests/new", {"offence": "Theft of a cycle", "watchlists": "custody"})
    assert answer.status_code == 503
    assert "The audit log cannot be written." in answer.text
    assert 'value="Theft of a cycle"' in answer.text
    assert 'value="custody" checked' in answer.text


def test_several_pictures_go_in_at_once(browser: Browser) -> None:
    fields = {
        **{"case_reference": "NS/1", "offence": "Theft", "purpose": "prevention_and_detection"},
        **{"necessity": "No other way.", "case_type": "suspect", "urgency": "routine", "source": "cctv"},
        **{"nature": "photograph", "face_chosen_by": "PC 1", "watchlists": "custody", "csrf": browser.csrf},
    }
    files = [("files", (f"{n}.jpg", picture(n), "image/jpeg")) for n in (1, 2)]
    answer = browser.client.post(
        "/console/requests/new", data=fields, files=files, headers={"Origin": "https://console.test"}
    )
    assert answer.status_code == 303
    [(name, (texts, pictures))] = browser.desk.calls
    assert name == "submit"
    assert len(pictures) == 2
    assert "csrf" not in texts


@pytest.mark.parametrize(
    "path",
    [BASE, f"{BASE}/probes/{PROBE_ID}", f"{BASE}/compare/1", f"{BASE}/sign", "/console/queue", "/console/requests/new",
     "/console/unsolved", "/console/guide", "/console/unit/plant", "/console/watchlists"],
)  # fmt: skip
def test_no_text_becomes_code_and_no_page_has_inline_code(path: str) -> None:
    desk = FakeDesk(possible=tuple(Action))
    request = replace(
        desk.case.request, offence=EVIL, necessity=EVIL, case_reference=EVIL, face_chosen_by=EVIL, remarks=EVIL
    )
    desk.case = replace(sample_case(CaseState.UNSOLVED), request=request, requested_by=EVIL, number=EVIL)
    browser = Browser(desk)
    browser.tokens.add("evil", "operator", "supervisor", "requester", person_id=EVIL)
    browser.sign_in("evil")
    answer = browser.get(path)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text
    assert "49javascript" not in answer.text
    bare = re.sub(r'"[^"]*"', '""', answer.text)
    assert not re.search(r"<[^>]+\s(?:on\w+|style)\s*=", bare), "an inline handler or style"
    assert not re.search(r"<script(?![^>]*\bsrc=)", answer.text)
    assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", answer.text), "a third party"


def test_a_picture_is_encoded_anew_and_bears_the_viewers_id(browser: Browser) -> None:
    original = picture(0)
    answer = browser.get(f"{BASE}/probes/{PROBE_ID}/original.jpg")
    assert answer.content[:2] == b"\xff\xd8"
    with Image.open(io.BytesIO(answer.content)) as shown, Image.open(io.BytesIO(original)) as stored:
        assert shown.format == "JPEG"
        assert not shown.getexif()
        assert shown.size == stored.size
    browser.tokens.add("other", "operator", person_id="operator-2")
    browser.sign_in("other")
    other = browser.get(f"{BASE}/probes/{PROBE_ID}/original.jpg")
    assert other.content != answer.content, "another viewer, another mark"
    assert browser.desk.calls.count(("picture", (PROBE_ID, "original"))) == 2, "each is a consultation"


def test_steps_of_enhancement_are_made_in_a_fixed_order(browser: Browser) -> None:
    form = {"version": "3", "reason": "Dark", "gamma.gamma": "0.6", "rotate.degrees": "5", "also": ["mirror"]}
    answer = browser.post(
        f"{BASE}/probes/{PROBE_ID}/enhance", form | {"crop.x": "10", "crop.width": "400", "crop.height": "400"}
    )
    assert answer.status_code == 303
    [(_, (_, _, probe_id, steps, reason))] = browser.desk.calls
    assert (probe_id, reason) == (PROBE_ID, "Dark")
    assert [step.kind.value for step in steps] == ["crop", "rotate", "mirror", "gamma"]
    assert steps[0].amounts == {"x": 10.0, "y": 0.0, "width": 400.0, "height": 400.0}


@pytest.mark.parametrize("accepts", ["gzip", "identity"])
def test_static_files_are_ours_and_kept_by_the_browser(browser: Browser, accepts: str) -> None:
    page = browser.get("/console/sign-in").text
    for address in re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page):
        answer = browser.client.get(address, headers={"Accept-Encoding": accepts})
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_search_can_be_sent_to_the_partners_that_are_offered(browser: Browser) -> None:
    page = f"{BASE}/probes/{PROBE_ID}"
    assert "Ask other forces too" not in browser.get(page).text
    browser.desk.partners = (
        search_pb2.PartnerOffer(name="eastmoor", watchlists=["op_liberal"], agreements=["OPL-2026-EASTMOOR"]),
    )
    offered = browser.get(page).text
    assert 'name="partners" value="eastmoor"' in offered
    assert "agreement OPL-2026-EASTMOOR" in offered
    form = {"version": "3", "reason": "The van.", "partners": "eastmoor", "authority": "OPL s.4"}
    assert browser.post(f"{page}/search", form).status_code == 303
    [(_, told)] = [call for call in browser.desk.calls if call[0] == "search"]
    assert ["eastmoor"] in [list(value) for value in told if isinstance(value, list | tuple)]
    assert "OPL s.4" in told
    browser.desk.partners = None
    assert "search does not answer" in browser.get(page).text


def test_a_partner_that_was_not_searched_is_named_and_never_a_negative(browser: Browser) -> None:
    asked = PartnerEnquiry("eastmoor", "answered", PROBE_ID, "", "", EVIL, "op-1", NOW, ("op_liberal",), ("OPL-1",))
    missing = replace(asked, partner="westhaven", status="refused", detail=EVIL)
    browser.desk.case = sample_case(enquiries=(asked, missing))
    shown = browser.get(BASE).text
    assert "Searched there" in shown
    assert "Not searched" in shown
    assert "Its own policy or limits refused the question." in shown
    assert "<script>alert(1)" not in shown
