"""How pictures and films come in, with a real Chromium's own means: dragged, pasted, taken by a phone, chosen."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.console.films import film_of
from tests.console.stage import Person, fill_request
from tests.support.faces import development_faces
from tests.support.platform import Platform

# A film has five minutes.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
# Reading a film is the work of all cores for some seconds; others are at work on them too.
FILM_MS = 300_000
# The system's clipboard, filled as a viewer of pictures fills it.
_COPY = """async (png) => {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
}"""


@pytest.fixture(scope="module")
def pictures() -> list[Path]:
    return [probe.path for _, probe in development_faces().mated_pairs()[:3]]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, pictures: list[Path]) -> Path:
    return film_of(pictures[:2], tmp_path_factory.mktemp("film") / "door.mp4")


@pytest.fixture
def officer(browser: Browser, platform: Platform) -> Iterator[Person]:
    person = Person.enter(browser, platform, "requester", "officer-2301")
    yield person
    person.context.close()


def drag(page: Page, *paths: Path) -> None:
    """Files from the desktop, held over the form and let go: what the system tells Chromium of such a drag."""
    box = page.locator("[data-drop]").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send(
            "Input.dispatchDragEvent",
            {"type": kind, "x": box["x"] + box["width"] / 2, "y": box["y"] + 30, "data": data},
        )
    session.detach()


def paste(page: Page, picture: bytes, origin: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=origin)
    page.evaluate(_COPY, base64.b64encode(picture).decode())
    page.locator("h1").click()
    page.keyboard.press("Control+V")


def told(page: Page, words: str) -> None:
    page.wait_for_selector(f"[data-upload-status]:has-text('{words}')")


def fill(page: Page) -> None:
    fill_request(page, [], "NS/2026/004720")


def test_pictures_and_a_film_dragged_pasted_and_chosen_make_one_request(
    officer: Person, browser: Browser, platform: Platform, pictures: list[Path], film: Path
) -> None:
    officer.open("/console/requests/new")
    page = officer.page
    drag(page, pictures[0], film)
    told(page, "1 picture chosen. A film chosen.")
    paste(page, _png(pictures[1]), platform.url("review"))
    told(page, "2 pictures chosen. A film chosen.")
    officer.look()
    page.locator("[data-previews] li").nth(1).locator("button").click()
    told(page, "1 picture chosen. A film chosen.")
    fill(page)
    officer.press("Send the request")
    page.wait_for_selector("text=The request was sent")
    request = f"/console/requests/{officer.request_id()}"
    assert page.locator("main figure").count() == 1, "one picture is a probe at once"

    operator = Person.enter(browser, platform, "operator", "operator-1")
    _pick_from_the_film(operator, request)
    operator.context.close()
    assert not officer.problems + operator.problems


def _pick_from_the_film(operator: Person, request: str) -> None:
    page = operator.page
    operator.open(request)
    page.fill("#reason", "Necessary and proportionate.")
    operator.press("Accept")
    operator.press("Film 1")
    # Not looked at before the film is read: until then the page comes again by itself every few seconds.
    page.click("main button:has-text('Find the people in it')")
    page.wait_for_selector("#people", timeout=FILM_MS)
    operator.look()
    tracks = page.locator(".tracks li")
    assert tracks.count() >= 2, "two people, one after the other"
    assert page.locator(".tracks img").first.evaluate("image => image.naturalWidth") > 50
    tracks.nth(0).locator("input").check()
    operator.press("Take the picked over as probes")
    operator.open(f"{request}/probe")
    page.goto(page.url)
    operator.open(request)
    assert page.locator("main figure").count() == 2, "the picked person is a probe"
    with operator.leads_on():
        page.locator("main figure a").nth(1).click()
    page.wait_for_selector("text=of the film, track")
    named = page.inner_text(".head")
    assert "Frame " in named
    assert "timestamp" in named
    operator.press("Record the assessment")
    page.locator("form[action$=search] [name=max_candidates]").fill("2")
    page.locator("form[action$=search] button").click()
    page.wait_for_selector("text=Searched.")


def test_a_phone_takes_a_picture_and_sends_it(browser: Browser, platform: Platform, pictures: list[Path]) -> None:
    officer = Person.enter(browser, platform, "requester", "officer-2302", **PHONE)
    page = officer.page
    officer.open("/console/requests/new")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"
    officer.look()
    camera = page.locator("#camera")
    assert camera.is_visible()
    assert camera.get_attribute("capture") == "environment"
    for number in (1, 2):
        with page.expect_file_chooser() as chooser:
            camera.tap()
        chooser.value.set_files(pictures[number])
        told(page, f"{number} picture{'s' if number > 1 else ''} chosen.")
    fill(page)
    with officer.leads_on():
        page.locator("button:has-text('Send the request')").tap()
    page.wait_for_selector("text=The request was sent")
    assert page.locator("main figure").count() == 2
    officer.context.close()
    assert not officer.problems


def test_of_a_group_each_who_is_picked_is_a_probe_of_their_own(
    officer: Person, browser: Browser, platform: Platform, pictures: list[Path], tmp_path: Path
) -> None:
    officer.open("/console/requests/new")
    fill_request(officer.page, [_side_by_side(pictures, tmp_path / "group.png")], "NS/2026/004721")
    officer.press("Send the request")
    operator = Person.enter(browser, platform, "operator", "operator-1")
    page = operator.page
    operator.open(f"/console/requests/{officer.request_id()}")
    page.fill("#reason", "Necessary and proportionate.")
    operator.press("Accept", "Assess")
    assert page.locator("form[action$=assess] input[name=face]").count() == len(pictures)
    page.locator("rect[data-face='1']").click()
    assert page.locator("form[action$=assess] input[value='1']").is_checked(), "a click in the picture picks the face"
    page.fill("#remarks", "Clear enough to compare.")
    operator.press("Record the assessment")
    others = page.locator("form[action$=faces] input[name=face]")
    assert [other.get_attribute("value") for other in others.all()] == ["0", "2"]
    others.nth(1).check()
    operator.looked_at.clear()
    operator.press("Take the picked over as probes")
    assert "Probe 2 of 2" in page.inner_text("h1")
    assert page.locator("rect[data-face].chosen").get_attribute("data-face") == "2"
    operator.context.close()
    assert not officer.problems + operator.problems


def _side_by_side(pictures: list[Path], to: Path) -> Path:
    canvas = Image.new("RGB", (480 * len(pictures), 480), (96, 104, 112))
    for place, path in enumerate(pictures):
        with Image.open(path) as opened:
            still = opened.convert("RGB")
        still.thumbnail((440, 440))
        canvas.paste(still, (480 * place + 20, 20))
    canvas.save(to)
    return to


def test_what_is_no_film_is_refused_with_its_reason(
    officer: Person, browser: Browser, platform: Platform, tmp_path: Path
) -> None:
    fake = tmp_path / "film.mp4"
    fake.write_bytes(b"no film at all" * 100)
    officer.open("/console/requests/new")
    officer.page.set_input_files("#film", fake)
    fill(officer.page)
    officer.press("Send the request")
    officer.page.wait_for_selector("text=The request was sent")
    operator = Person.enter(browser, platform, "operator", "operator-1")
    operator.open(f"/console/requests/{officer.request_id()}")
    operator.page.fill("#reason", "Necessary and proportionate.")
    operator.press("Accept", "Assess", "Find the people in it")
    operator.page.wait_for_selector("h1:has-text('missing or wrong')")
    operator.context.close()


def _png(picture: Path) -> bytes:
    out = io.BytesIO()
    with Image.open(picture) as opened:
        opened.convert("RGB").save(out, "PNG")
    return out.getvalue()
