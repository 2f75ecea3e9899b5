"""`python -m tests.console.screenshots FOLDER [PAGE ...]`: pages of the console, light and dark, desktop and tablet.

A platform of its own is started and a request driven through it. The faces are drawn and depict nobody.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from services.local.deployment import DataFolder
from tests.console.drawn import marked_as_generated, portrait
from tests.console.films import film_of
from tests.console.stage import Person, fill_request, judge_all
from tests.console.test_run import record_training, train_supervisor
from tests.stack.servers.base import program
from tests.support.casework import enrol, post_enrolment, wait_settled
from tests.support.partners import introduce, make_side
from tests.support.platform import Platform
from tests.support.simulated_months import write_log

SETTINGS = {"LIKENESS_REVIEW__MIN_VIEW_S": "0", "LIKENESS_EMBED__GATE__WORKERS": "1"}
# Another force, whose platform is asked.
PARTNER = "eastmoor"
SIZES = {"desktop": {"width": 1440, "height": 900}, "tablet": {"width": 1024, "height": 1366}}
CANDIDATES = 8
QUALITY = 80
# Of the three requests: what happened, and how pressing it is.
OFFENCES = (
    ("Burglary of a dwelling", "urgent"),
    ("Theft from a shop, a series", "routine"),
    ("Robbery of a petrol station", "immediate"),
)
# A month that is over, simulated: the log of this platform begins with it.
MONTH = "2026-10"
# Pages that fill the window; all others are shown whole.
FILLING = ("candidates", "references", "overlay", "split", "judged", "log", "flags")
PEOPLE = {
    "officer-2217": "requester",
    "operator-1": "operator",
    "operator-2": "operator",
    "supervisor-1": "supervisor",
    "custodian-1": "custodian",
    "auditor-1": "auditor",
}


class Camera:
    """Takes one page in every size and colour scheme; only the pages that are wanted, all when none is named."""

    def __init__(self, folder: Path, wanted: Sequence[str] = ()) -> None:
        self._folder = folder
        self._wanted = frozenset(wanted)
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, person: Person, name: str, prepare: Callable[[Person], None] = lambda _: None) -> None:
        if self._wanted and name not in self._wanted:
            prepare(person)  # what comes next goes on from here
            return
        for size, viewport in SIZES.items():
            person.page.set_viewport_size({"width": viewport["width"], "height": viewport["height"]})
            for scheme in ("light", "dark"):
                person.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                prepare(person)
                person.page.wait_for_load_state("networkidle")
                person.page.wait_for_timeout(150)
                content = person.page.screenshot(full_page=name not in FILLING)
                with Image.open(io.BytesIO(content)) as shot:
                    shot.convert("RGB").save(self._folder / f"{name}-{size}-{scheme}.webp", quality=QUALITY, method=6)
        person.page.set_viewport_size({"width": 1440, "height": 900})


def show(path: str) -> Callable[[Person], None]:
    return lambda person: person.open(path)


def compare(request: str, position: int, key: str = "") -> Callable[[Person], None]:
    def prepare(person: Person) -> None:
        person.open(f"{request}/compare/{position}")
        person.page.wait_for_selector("[data-bench][data-ready=yes]")
        person.page.wait_for_load_state("networkidle")
        person.page.keyboard.press(key or "v")

    return prepare


def prepare_request(
    officer: Person,
    operator: Person,
    picture: Path,
    case_reference: str,
    what: tuple[str, str] = OFFENCES[0],
    *,
    watchlist: str = "custody",
) -> str:
    offence, urgency = what
    officer.open("/console/requests/new")
    fill_request(officer.page, [picture], case_reference)
    officer.page.check(f"input[name=watchlists][value={watchlist}]")
    officer.page.fill("#offence", offence)
    officer.page.check(f"[name=urgency][value={urgency}]")
    officer.press("Send the request")
    request = f"/console/requests/{officer.request_id()}"
    operator.open(request)
    operator.page.fill("#reason", "Necessary and proportionate.")
    operator.press("Accept", "Assess", "Record the assessment")
    return request


def _search(operator: Person) -> None:
    page = operator.page
    page.fill("input[name='gamma.gamma']", "0.8")
    page.fill("input[name='sharpen.strength']", "0.4")
    page.locator("form[action$=enhance] [name=reason]").fill("The face lies in shadow.")
    operator.press("Make the working copy")
    page.fill("#max_candidates", str(CANDIDATES))
    page.locator("form[action$=search] button").click()
    page.wait_for_selector("text=Searched.")


def _film(camera: Camera, officer: Person, operator: Person, film: Path) -> None:
    officer.open("/console/requests/new")
    fill_request(officer.page, [], "NS/2026/004719")
    officer.page.set_input_files("#film", film)
    officer.press("Send the request")
    request = f"/console/requests/{officer.request_id()}"
    operator.open(request)
    operator.page.fill("#reason", "Necessary and proportionate.")
    operator.press("Accept", "Film 1", "Find the people in it")
    operator.page.wait_for_selector("#people", timeout=300_000)
    path = operator.page.url.split("?")[0].split("/console/")[1]
    camera.take(operator, "film", show(f"/console/{path}"))


def _enrol_for_custodians(platform: Platform, pictures: Path) -> None:
    """References whose review is due, and pictures that become none."""
    blurred = pictures / "no-face.jpg"
    Image.new("RGB", (480, 480), (150, 156, 160)).save(blurred)
    sent = (
        ("NS-100310", portrait(12), "2023-05-02"),
        ("NS-100311", portrait(13), "2024-11-30"),
        ("NS-100312", blurred.read_bytes(), "2026-11-02"),
        ("NS-100313", portrait(14, 40), "2026-11-03"),
    )
    with platform.client("ingest", "custodian") as client:
        for subject_id, image, captured_on in sent:
            fields = {
                "watchlist": "custody",
                "owner": "northshire",
                "subject_id": subject_id,
                "lawful_basis": "pace_1984_s64a",
                "captured_on": captured_on,
            }
            answer = client.post("/v1/enrolments", data=fields, files={"image": ("image", image)})
            answer.raise_for_status()
            wait_settled(client, [answer.json()["enrolment_id"]])


def _keep(first: Person, second: Person, request: str) -> None:
    """No potential name, and the probe goes into the unsolved file."""
    first.open(f"{request}/probe")
    first.page.fill("#max_candidates", "2")
    first.page.locator("form[action$=search] button").click()
    first.page.wait_for_selector("text=Searched.")
    for person, words in ((first, "first"), (second, "second")):
        person.open(request)
        person.press(f"Begin the {words} review")
        judge_all(person, ["no_support", "no_support"])
    first.open(request)
    first.press("Release to the requesting officer")
    first.open(request)
    first.page.fill("#authority", "DCI Holt")
    first.page.locator("#unsolved [name=reason]").fill("A series; the next one is expected.")
    first.page.fill("#expires_on", (datetime.now(UTC).date() + timedelta(days=180)).isoformat())
    first.press("Keep in the unsolved file")


def _partners(camera: Camera, people: dict[str, Person], picture: Path) -> None:
    """A search that goes to another force too, and what both reviewers see of it afterwards."""
    first, second = people["operator-1"], people["operator-2"]
    request = prepare_request(
        people["officer-2217"],
        first,
        picture,
        "NS/2026/004720",
        ("Burglary, across the border", "urgent"),
        watchlist="op_liberal",
    )
    camera.take(first, "ask-partners", show(f"{request}/probe"))
    first.page.fill("#max_candidates", "2")
    first.page.check(f"[name=partners][value={PARTNER}]")
    first.page.fill("#authority", "OPL-2026 section 4, DI Holt")
    first.page.locator("form[action$=search] button").click()
    first.page.wait_for_selector("text=Searched.")
    for person, words in ((first, "first"), (second, "second")):
        person.open(request)
        person.press(f"Begin the {words} review")
        judge_all(person, ["no_support"] * person.page.locator(".strip li").count())
    camera.take(first, "partners", show(request))
    first.open(request)
    first.press("Release to the requesting officer")
    camera.take(people["officer-2217"], "partners-result", show(f"{request}/result"))


def _stand(platform: Platform, supervisor: Person) -> None:
    """Agreements and trainings that have ended or end soon."""
    today = datetime.now(UTC).date()
    written = platform.data.watchlists.read_text("utf-8")
    for owner, ends in (("westhaven", today + timedelta(days=40)), ("farshire", today - timedelta(days=3))):
        signed = today - timedelta(days=700)
        written += (
            f'\n[[agreement]]\nreference = "OPL-2024-{owner.upper()}"\nwatchlist = "op_liberal"\n'
            f'owner = "{owner}"\nsigned_on = {signed}\nexpires_on = {ends}\n'
        )
    platform.data.watchlists.write_text(written, "utf-8")
    for name, ends in (("operator-3", today + timedelta(days=12)), ("operator-4", today - timedelta(days=9))):
        supervisor.open("/console/unit")
        for field, value in (
            *(("person_id", name), ("course", "Facial comparison, level 2"), ("certificate", "FC-2024-03")),
            *(("trained_on", str(today - timedelta(days=720))), ("expires_on", str(ends))),
        ):
            supervisor.page.fill(f"#{field}", value)
        supervisor.press("Record the training")


def _newest(activity: str) -> Callable[[Person], None]:
    """The newest entry of an activity."""

    def prepare(person: Person) -> None:
        person.open(f"/console/log?activity={activity}")
        person.page.locator("tbody th a").first.click()
        person.page.wait_for_selector("h1:has-text('Entry')")

    return prepare


def _allow(camera: Camera, supervisor: Person, request: str) -> None:
    """Its file says what it is."""
    camera.take(supervisor, "flagged", show(request))
    supervisor.page.locator("#flagged [name=reason]").fill("Drawn for these pictures; it depicts nobody.")
    supervisor.press("Allow the probe")


def _of_three(person: Person, request: str) -> int:
    """Where a subject is who is enrolled with three pictures; drawn faces are so alike that none may be listed."""
    person.open(f"{request}/compare/1")
    for position in range(1, person.page.locator(".strip li").count() + 1):
        person.open(f"{request}/compare/{position}")
        if person.page.locator("[data-reference]").count() == 3:
            return position
    return 1


def _shoot(camera: Camera, people: dict[str, Person], pictures: Sequence[Path], film: Path) -> None:
    officer, first, second = people["officer-2217"], people["operator-1"], people["operator-2"]
    supervisor, auditor = people["supervisor-1"], people["auditor-1"]

    def send_empty(person: Person) -> None:
        person.open("/console/requests/new")
        person.page.click("button:has-text('Send the request')")

    camera.take(officer, "new-request", show("/console/requests/new"))
    camera.take(officer, "new-request-incomplete", send_empty)
    requests = [
        prepare_request(officer, first, picture, f"NS/2026/0047{number}", offence)
        for number, (picture, offence) in enumerate(zip(pictures, OFFENCES, strict=True), 11)
    ]
    officer.open("/console/requests/new")  # one that waits for its triage
    fill_request(officer.page, [pictures[1]], "NS/2026/004718")
    officer.page.fill("#offence", "Assault occasioning actual bodily harm")
    officer.press("Send the request")
    request = requests[0]
    first.open(f"{request}/probe")
    _search(first)
    _allow(camera, supervisor, request)
    camera.take(first, "probe", show(f"{request}/probe"))
    camera.take(first, "request", show(request))
    first.open(request)
    first.press("Begin the first review")
    camera.take(first, "candidates", compare(request, 1))
    camera.take(first, "references", compare(request, _of_three(first, request), "g"))
    first.page.keyboard.press("Escape")
    camera.take(first, "overlay", compare(request, 1, "o"))
    camera.take(first, "split", compare(request, 1, "s"))
    first.page.keyboard.press("v")
    first.open(f"{request}/compare/1")
    count = first.page.locator(".strip li").count()
    judge_all(first, ["possible_match"] + ["no_support"] * (count - 2) + ["inconclusive"])
    second.open(request)
    second.press("Begin the second review")
    judge_all(second, ["no_support"] * count, sign=False)
    camera.take(second, "judged", compare(request, 1))
    camera.take(second, "sign", show(f"{request}/sign"))
    second.page.check("[name=declared]")
    second.press("Sign as")
    camera.take(supervisor, "disagreement", show(f"{request}/disagreement"))
    for finding in supervisor.page.locator("input[value=possible_match]").all():
        finding.check()
    for reason in supervisor.page.locator("textarea").all():
        reason.fill("The ears and the line of the mouth carry it.")
    supervisor.press("Decide and sign")
    first.open(request)
    first.press("Release to the requesting officer")
    camera.take(officer, "result", show(f"{request}/result"))
    camera.take(first, "queue", show("/console/queue"))
    camera.take(supervisor, "unit", show("/console/unit"))
    camera.take(supervisor, "known-answer", show("/console/unit/plant"))
    _keep(first, second, requests[1])
    camera.take(first, "unsolved", show("/console/unsolved"))
    camera.take(people["custodian-1"], "watchlists", show("/console/watchlists"))
    camera.take(people["custodian-1"], "reviews", show("/console/reviews"))
    camera.take(people["custodian-1"], "flags", show("/console/flags"))
    camera.take(auditor, "statistics", show(f"/console/statistics?month={MONTH}"))
    camera.take(auditor, "transparency", show(f"/console/transparency?month={MONTH}"))
    _partners(camera, people, pictures[2])
    _film(camera, officer, first, film)
    camera.take(people["custodian-1"], "refusals", show("/console/refusals"))
    camera.take(auditor, "log", show("/console/log"))
    camera.take(auditor, "log-entry", _newest("search"))
    camera.take(auditor, "sample", show("/console/log/sample?seed=6-2-5-1-4-4-3-6"))
    camera.take(first, "guide", show("/console/guide"))
    camera.take(first, "sessions", show("/console/sessions"))


def _enrol_at_partner(home: Platform, partner: Platform, pictures: Path) -> None:
    for platform, owner, number in ((home, "northshire", 3), (home, "northshire", 4), (partner, PARTNER, 7)):
        with platform.client("ingest", "custodian", force=owner) as client:
            image = (pictures / f"{number}.jpg").read_bytes()
            answer = post_enrolment(client, image, f"{owner[:2].upper()}-{700 + number}", "op_liberal", owner)
            wait_settled(client, [answer.json()["enrolment_id"]])


def run(browser: Browser, platform: Platform, partner: Platform, camera: Camera, pictures: Path) -> None:
    """Enrol, drive, take every page. `pictures` is a folder for the drawn faces."""
    for number in range(1, CANDIDATES + 1):
        path = pictures / f"{number}.jpg"
        path.write_bytes(portrait(number))
        enrol(platform, path, f"NS-{100200 + number}")
    for number, size_px in ((number, size_px) for number in (1, 2, 3) for size_px in (600, 660)):
        path = pictures / f"{number}-{size_px}.jpg"
        path.write_bytes(portrait(number, size_px))
        enrol(platform, path, f"NS-{100200 + number}")
    _enrol_at_partner(platform, partner, pictures)
    probes = []
    for number in (1, 5, 7):
        probes.append(pictures / f"probe-{number}.jpg")
        drawn = portrait(number, is_probe=True)
        probes[-1].write_bytes(marked_as_generated(drawn) if number == 1 else drawn)
    _enrol_for_custodians(platform, pictures)
    people = {name: Person.enter(browser, platform, role, name, locale="en-GB") for name, role in PEOPLE.items()}
    for name in ("operator-1", "operator-2"):
        record_training(people["supervisor-1"], name)
    train_supervisor(platform)
    _stand(platform, people["supervisor-1"])
    stranger = browser.new_page()
    stranger.goto(platform.url("review", "/console/sign-in"))
    camera.take(Person("", "", platform, stranger.context, stranger), "sign-in", show("/console/sign-in"))
    film = film_of([pictures / "2.jpg", pictures / "6.jpg"], pictures / "door.mp4")
    _shoot(camera, people, probes, film)


def _simulate_month(data: DataFolder) -> None:
    own = data.root / "audit"
    own.mkdir(parents=True)
    write_log(own / "audit.sqlite", data.root / "audit-witness", own / "signing-key.pem", requests=400)


def main() -> int:
    folder = Path(sys.argv[1])
    began = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        pictures = Path(root) / "pictures"
        pictures.mkdir()
        browser = playwright.chromium.launch(
            executable_path=program("chromium", "chromium"), args=["--no-sandbox", "--lang=en-GB"]
        )
        _simulate_month(DataFolder(Path(root) / "data"))
        north, east = (make_side(Path(root) / name, name) for name in ("northshire", PARTNER))
        introduce(north, east, timeout_s=20.0)
        introduce(east, north, timeout_s=20.0)
        services = ("search", "ingest", "audit", "embed")
        with (
            Platform(Path(root) / "partner", services=services, settings=east.settings()) as partner,
            Platform(Path(root) / "data", settings={**SETTINGS, **north.settings()}) as platform,
        ):
            run(browser, platform, partner, Camera(folder, sys.argv[2:]), pictures)
        browser.close()
    print(f"{len(list(folder.glob('*.webp')))} pictures in {(datetime.now(UTC) - began) / timedelta(seconds=1):.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
