"""A month of requests through the real services, over REST, in minutes: what the statistics are then counted from.

    python -m tests.support.real_month OUT [--requests 70]

starts a platform, enrols development faces, works the requests, and writes OUT/audit-export.jsonl and the transparency
report. What the requests are and how they end is drawn from a seed; every search, judgement, signature and release is
made by the services, and the log is the one that they wrote. All of it bears the date on which it is run.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageFilter

from services.audit.statistics.cli import write_report
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.exporting import exported_log
from tests.support.faces import Still, development_faces
from tests.support.platform import Platform

# No wait at a candidate, and one worker: what is measured is what is counted.
SETTINGS = {"LIKENESS_REVIEW__MIN_VIEW_S": "0", "LIKENESS_EMBED__GATE__WORKERS": "1"}
FORCES = (("northshire", 75), ("eastmoor", 25))
OFFENCES = (("burglary", 30), ("robbery", 18), ("theft", 24), ("assault", 16), ("fraud", 12))
SOURCES = (("cctv", 50), ("social_media", 20), ("body_worn_video", 15), ("phone", 15))
REASONS = (("prevention_and_detection", "suspect", 84), ("missing_person", "missing_person", 16))
OUTCOMES = (("charged", 45), ("no_action", 28), ("eliminated", 17), ("wrong_person", 10))
ENDINGS = (("judged", 76), ("unsuitable", 13), ("withdrawn", 3), ("waiting", 4), ("returned", 4))
MATCH = [{"feature": name, "observation": "similar", "remark": "alike"} for name in ("ears", "nose", "eyebrows")]


@dataclass
class Told:
    """What a client of the services knows of one request: the ledger that figures are held against."""

    force: str
    offence: str
    purpose: str
    watchlists: tuple[str, ...]
    ended: str = ""
    has_name: bool = False
    outcome: str = ""
    searches: int = 0


@dataclass
class Unit:
    """The people of a force, each with a client, and the faces that are enrolled."""

    platform: Platform
    draw: random.Random
    people: Mapping[tuple[str, str], httpx.Client]
    mates: Mapping[str, Mapping[str, str]]  # by force: reference ids by identity
    probes: Sequence[tuple[Still, Still]]
    told: list[Told] = field(default_factory=list)
    refused: int = 0

    def work(self, count: int) -> None:
        """That many requests, from the first form to the last known outcome."""
        for number in range(count):
            force = _pick(self.draw, FORCES)
            self._work(number, force, _pick(self.draw, ENDINGS))

    def refuse(self, count: int) -> None:
        """Searches that the policy refuses: a watchlist that the operator may not search."""
        token = self.platform.token("operator", person_id="curious", watchlists=["custody"])
        with httpx.Client(base_url=self.platform.url("search"), timeout=60, trust_env=False) as client:
            client.headers["Authorization"] = f"Bearer {token}"
            for _ in range(count):
                answer = post_search(client, self.probes[0][1].path.read_bytes(), ["sex_offenders"])
                assert answer.status_code == 403, answer.text
                self.refused += 1

    def _work(self, number: int, force: str, ending: str) -> None:
        officer, first, second = (self.people[force, name] for name in ("officer", "anna", "bert"))
        reference, probe = self.probes[number % len(self.probes)]
        purpose, case_type = _pick_pair(self.draw)
        told = Told(force, _pick(self.draw, OFFENCES), purpose, ("custody",))
        poor = self.draw.random() < 0.35
        request_id = self._send(officer, number, told, case_type, spoilt(probe.path, poor=poor))
        self.told.append(told)
        desk = _Desk(first, request_id)
        if ending == "withdrawn":
            version = _ok(officer.get(f"/v1/requests/{request_id}"))["version"]
            _ok(officer.post(f"/v1/requests/{request_id}/withdrawal", json={"version": version}))
            told.ended = "withdrawn"
            return
        if ending == "returned":
            desk.do("return", reason="The necessity is not given.")
            told.ended = "returned"
            return
        desk.do("acceptance", reason="Lawful, needed, in proportion.")
        probe_id = desk.see()["case"]["probes"][0]["probe_id"]
        grade = "unsuitable" if ending == "unsuitable" else "suitable_with_caution" if poor else "suitable"
        desk.do("assessment", probe_id=probe_id, face=0, grade=grade, remarks="Looked at in full size.")
        if ending == "unsuitable":
            told.ended = "unsuitable"
            return
        desk.do("searches", probe_id=probe_id, reason="First search.", max_candidates=2)
        told.searches += 1
        if ending == "waiting":
            return
        is_name = self.draw.random() < (0.3 if poor else 0.7)
        mate = {self.mates[force].get(reference.identity, "")} if is_name else set()
        found = desk.judge_all(mate)
        _Desk(second, request_id).judge_all(mate)
        until = (datetime.now(UTC) + timedelta(days=90)).date().isoformat()
        _Desk(second, request_id).do("release", retain_until=until)
        told.ended, told.has_name = "released", found
        if found and self.draw.random() < 0.85:
            told.outcome = _pick(self.draw, OUTCOMES)
            version = _ok(officer.get(f"/v1/requests/{request_id}"))["version"]
            report = {"version": version, "kind": told.outcome}
            _ok(officer.post(f"/v1/requests/{request_id}/outcome", json=report))

    def _send(self, officer: httpx.Client, number: int, told: Told, case_type: str, picture: bytes) -> str:
        form = {
            "case_reference": f"{told.force[:2].upper()}/2026/{number:05d}",
            "offence": told.offence,
            "purpose": told.purpose,
            "necessity": "The only line of enquiry that is left.",
            "case_type": case_type,
            "urgency": "routine",
            "source": _pick(self.draw, SOURCES),
            "nature": "photograph",
            "face_chosen_by": "PC 1234, who watched the recording",
            "watchlists": list(told.watchlists),
        }
        files = [("images", ("probe", picture))]
        request_id: str = _ok(officer.post("/v1/requests", data=form, files=files))["request_id"]
        return request_id


class _Desk:
    """One person's hands on one case."""

    def __init__(self, client: httpx.Client, request_id: str) -> None:
        self._client = client
        self._base = f"/v1/casework/{request_id}"

    def see(self) -> Any:
        return _ok(self._client.get(self._base))

    def do(self, what: str, **body: Any) -> Any:
        version = self.see()["case"]["version"]
        return _ok(self._client.post(f"{self._base}/{what}", json={"version": version, **body}))

    def judge_all(self, mates: set[str]) -> bool:
        """Look at and judge every candidate, and sign; whether any of them was held for a possible match."""
        comparison = self.do("examination")
        found = False
        for candidate in comparison["candidates"]:
            place = f"{self._base}/candidates/{candidate['candidate_id']}"
            references = _ok(self._client.post(f"{place}/opening"))["reference_ids"]
            assert self._client.get(f"{place}/references/{references[0]}").status_code == 200
            is_mate = bool(mates.intersection(references))
            found |= is_mate
            body = {
                "version": _ok(self._client.get(f"{self._base}/examination"))["version"],
                "finding": "possible_match" if is_mate else "no_support",
                "features": MATCH if is_mate else [],
                "remarks": "Compared feature by feature.",
            }
            comparison = _ok(self._client.put(f"{place}/finding", json=body))
        _ok(self._client.post(f"{self._base}/signature", json={"version": comparison["version"]}))
        return found


def spoilt(path: Path, *, poor: bool) -> bytes:
    """The picture as a camera in a shop might have taken it, or as it is but for its coding."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if poor:
        small = picture.resize((max(picture.width // 3, 60), max(picture.height // 3, 60)))
        picture = small.filter(ImageFilter.GaussianBlur(0.8)).resize(picture.size)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=25 if poor else 90)
    return stream.getvalue()


def open_unit(platform: Platform, stack: ExitStack, people: int = 8, seed: int = 5) -> Unit:
    """Enrol faces for every force, and put people at desks."""
    pairs = development_faces().mated_pairs()
    chosen = [pairs[number * len(pairs) // people] for number in range(people)]
    mates = {force: _enrol(platform, force, chosen) for force, _ in FORCES}
    clients = {}
    for force, _ in FORCES:
        for name, role in (("officer", "requester"), ("anna", "operator"), ("bert", "operator")):
            token = platform.token(role, force=force, person_id=f"{name}-{force}", lifetime=timedelta(hours=4))
            client = httpx.Client(base_url=platform.url("review"), timeout=60, trust_env=False)
            client.headers["Authorization"] = f"Bearer {token}"
            clients[force, name] = stack.enter_context(client)
    return Unit(platform, random.Random(seed), clients, mates, chosen)


def _enrol(platform: Platform, force: str, chosen: Sequence[tuple[Still, Still]]) -> dict[str, str]:
    with platform.client("ingest", "custodian", force=force) as custodian:
        ids = {}
        for reference, _ in chosen:
            content = reference.path.read_bytes()
            answer = post_enrolment(custodian, content, f"{force}-{reference.identity}", owner=force)
            assert answer.status_code in {200, 202}, answer.text
            ids[answer.json()["enrolment_id"]] = reference.identity
        wait_settled(custodian, ids)
        found = {identity: custodian.get(f"/v1/enrolments/{made}").json() for made, identity in ids.items()}
    return {identity: str(one["reference_id"]) for identity, one in found.items() if one["state"] == "enrolled"}


def export(platform: Platform, path: Path) -> Path:
    """The log that the services wrote."""
    path.write_bytes(exported_log(platform, "transparency report"))
    return path


def _pick(draw: random.Random, weighted: Sequence[tuple[str, int]]) -> str:
    names, weights = zip(*weighted, strict=True)
    return str(draw.choices(names, weights)[0])


def _pick_pair(draw: random.Random) -> tuple[str, str]:
    purpose, case_type, _ = draw.choices(REASONS, [weight for *_, weight in REASONS])[0]
    return purpose, case_type


def _ok(answer: httpx.Response) -> Any:
    assert answer.status_code in {200, 201}, f"{answer.request.method} {answer.request.url.path}: {answer.text}"
    return answer.json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--requests", type=int, default=70)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Platform(Path(folder), settings=SETTINGS) as platform:
        with ExitStack() as stack:
            unit = open_unit(platform, stack)
            unit.work(options.requests)
            unit.refuse(6)
        source = export(platform, options.out / "audit-export.jsonl")
    for line in write_report(source, options.out):
        print(line)


if __name__ == "__main__":
    main()
