"""A14 to A16: what people write, what they upload, what other sites send, against the console in a real Chromium."""

from __future__ import annotations

import io
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests.attacks.scene import picture
from tests.console.conftest import browser  # noqa: F401 - the fixture
from tests.console.stage import Person
from tests.support.platform import Platform

pytestmark = pytest.mark.stack

# Each breaks out of another place: text, attribute, address, template, comment, table cell of an export, log line.
STRINGS = (
    "<script>alert('a14')</script>",
    "\"><img src=x onerror=alert('a14')>",
    "'><svg/onload=alert('a14')>",
    "javascript:alert('a14')",
    "{{ constructor.constructor('alert(1)')() }} ${alert(1)} <%= alert(1) %>",
    "--><iframe srcdoc='<script>parent.alert(1)</script>'>",
    '=HYPERLINK("http://127.0.0.1:9/","a14")',
    "</title></textarea></style><script>alert('a14')</script>",
)
FORM = {
    "offence": "Theft",
    "purpose": "prevention_and_detection",
    "necessity": "No other way.",
    "case_type": "suspect",
    "urgency": "routine",
    "source": "cctv",
    "nature": "photograph",
    "face_chosen_by": "PC 1",
    "watchlists": "custody",
    "case_reference": "NS/1",
}


def _submit(platform: Platform, image: bytes, name: str = "probe.png", **fields: str) -> httpx.Response:
    with platform.client("review", "requester", timeout_s=60) as requester:
        return requester.post("/v1/requests", data={**FORM, **fields}, files={"images": (name, image)})


@pytest.fixture
def operator(browser: Browser, platform: Platform) -> Iterator[Person]:  # noqa: F811 - a fixture
    person = Person.enter(browser, platform, "operator", "attacked-operator")
    yield person
    person.context.close()


def test_a14_what_people_write_stays_text(operator: Person, platform: Platform) -> None:
    """No dialog, no error of the content policy, on any page that shows the strings."""
    ids = []
    for text in STRINGS:
        fields = dict.fromkeys(("offence", "necessity", "face_chosen_by", "case_reference", "remarks"), text)
        answer = _submit(platform, picture(14), f"{text}.png".replace('"', "'"), **fields)
        assert answer.status_code in {200, 201, 202}, answer.text
        ids.append(answer.json()["request_id"])
    operator.open("/console/queue")
    assert STRINGS[0] in operator.page.inner_text("main"), "shown, as text"
    for request_id in ids:
        operator.open(f"/console/requests/{request_id}")
        operator.open(f"/console/requests/{request_id}/probe")
    auditor = Person.enter(operator.context.browser, platform, "auditor", "attacked-auditor")  # type: ignore[arg-type]
    auditor.open("/console/log")
    auditor.page.wait_for_selector("section:has(#entries)")
    assert not operator.problems + auditor.problems
    auditor.context.close()


def test_a15_what_is_uploaded_never_comes_back_as_it_came(platform: Platform, operator: Person) -> None:
    """A picture that is a page as well is encoded anew, without what was in it; what is no picture is refused."""
    stream = io.BytesIO()
    described = Image.Exif()
    described[0x010E] = described[0x013B] = "<script>alert('a15')</script>"  # what is on it, and who made it
    comment = b"<script>alert('a15')</script>"
    Image.open(io.BytesIO(picture(15))).save(stream, "JPEG", comment=comment, exif=described)
    polyglot = stream.getvalue() + b"<html><script>alert('a15')</script></html>"
    answer = _submit(platform, polyglot, "page.html")
    assert answer.status_code in {200, 201, 202}, answer.text
    operator.open(f"/console/requests/{answer.json()['request_id']}/probe")
    address = operator.page.locator(".picture img").first.get_attribute("src")
    shown = operator.page.request.get(platform.url("review", address or ""))
    assert shown.status == 200
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in shown.headers["content-security-policy"]
    assert shown.headers["cache-control"] == "no-store"
    assert b"script" not in shown.body()
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
    for body in (svg, b"<!doctype html><script>alert(1)</script>", b"%PDF-1.7 <script>"):
        assert _submit(platform, body, "face.png").status_code == 422
    assert not operator.problems


class _EvilSite:
    """Another site, on another port: what its page does to the console is read from its title."""

    def __init__(self, page: str) -> None:
        content = page.encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        # Another host name, so that it is another site and not only another port.
        return f"http://localhost:{self.server.server_address[1]}/"


def test_a16_another_site_can_neither_send_nor_read_nor_frame(operator: Person, platform: Platform) -> None:
    target = platform.url("review", "/console/sign-out")
    queue = platform.url("review", "/console/queue")
    evil = _EvilSite(
        f"""<!doctype html><title>begun</title><iframe src="{queue}"></iframe>
        <form method=post action="{target}" target=hidden><input name=csrf value=guess>
        </form><iframe name=hidden></iframe>
        <script>
        document.forms[0].submit();
        fetch("{queue}", {{credentials: "include"}})
            .then(() => document.title = "read", () => document.title = "not read");
        </script>"""
    )
    page = operator.context.new_page()
    page.goto(evil.url)
    page.wait_for_function("document.title !== 'begun'")
    assert page.title() == "not read"
    page.wait_for_load_state("networkidle")
    framed = [frame for frame in page.frames if frame.url.startswith(queue) and "Queue" in (frame.title() or "")]
    assert not framed
    evil.server.shutdown()
    operator.open("/console/queue")
    assert operator.page.locator("h1:has-text('Queue')").count() == 1, "the session stands: nobody signed it out"


def test_a16_the_cookie_is_unreadable_and_only_for_us(operator: Person) -> None:
    assert operator.page.evaluate("document.cookie").count("likeness=") == 0
    [cookie] = [one for one in operator.context.cookies() if one["name"] == "__Host-likeness"]
    assert cookie["httpOnly"]
    assert cookie["secure"]
    assert cookie["sameSite"] == "Strict"
