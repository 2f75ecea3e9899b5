"""A migration of real faces to another model under search load: latency before, during and after, and what changed.

    python -m tests.bench.migration [--faces 300] [--synthetic 20000] [--images-per-s 10] [--out build/migration.json]

The candidate is the same pair of networks with the mirror image of every probe templated too, which makes another
model: its templates are alike to those of the model in service but are never compared with them. Quote the ratios of
one run; what the searches of people who are enrolled find is counted beside. Synthetic
references have no image and are drawn anew for the candidate, so lists agree on real people only: what they agree on
below the first place says nothing here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import httpx

from services.local.evaluation.searching import most_prominent
from services.rpc.clients import LedgerClient
from services.rpc.v1 import common_pb2, ingest_pb2
from tests.support.candidate import CandidateEmbed, candidate_ports, knows_candidate
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.faces import development_faces
from tests.support.platform import Platform
from tests.support.waiting import wait_until

CANDIDATE = {"LIKENESS_EMBED__MODEL__MIRROR": "always"}
_WAIT_S = 3600.0
_ROUND = 60  # searches of a phase, at least


@dataclass
class Load:
    """One operator who searches without a pause."""

    platform: Platform
    probes: Sequence[tuple[str, bytes]]
    phase: str = "before"
    took_ms: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, Counter[str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)
    _faces: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self) -> None:
        with self.platform.client("search", "operator") as client:
            while not self._stop.is_set():
                for subject_id, probe in self.probes:
                    if self._stop.is_set():
                        return
                    self._search(client, subject_id, probe)

    def stop(self) -> None:
        self._stop.set()

    def wait_round(self) -> None:
        wanted = len(self.took_ms.get(self.phase, ())) + _ROUND
        wait_until(lambda: len(self.took_ms.get(self.phase, ())) >= wanted, _WAIT_S, f"{_ROUND} searches")

    def wait_more(self, count: int = 2) -> None:
        """At least so many searches of this phase, however short it is."""
        wait_until(lambda: len(self.took_ms.get(self.phase, ())) >= count, _WAIT_S, "a search")

    def _search(self, client: httpx.Client, subject_id: str, probe: bytes) -> None:
        if subject_id not in self._faces:
            self._faces[subject_id] = _chosen_face(client, probe)
        phase, started_s = self.phase, monotonic()
        answer = post_search(client, probe, **self._faces[subject_id])
        self.took_ms.setdefault(phase, []).append((monotonic() - started_s) * 1000)
        if answer.status_code != 200:
            self.errors.append(f"{phase}: {answer.status_code} {answer.json().get('code')}")
            return
        document = answer.json()
        is_first = bool(document["candidates"]) and document["candidates"][0]["subject_id"] == subject_id
        counts = self.first.setdefault(document["model"]["model_id"], Counter())
        counts["searches"] += 1
        counts["rank_1"] += is_first


def _chosen_face(client: httpx.Client, probe: bytes) -> dict[str, Any]:
    """The choice that an operator makes where there are several faces: here the one that the labels mean."""
    answer = post_search(client, probe)
    return {"face": most_prominent(answer.json()["faces"])} if answer.status_code == 409 else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=300, help="enrolled people of the development faces")
    parser.add_argument("--synthetic", type=int, default=20_000, help="references in all")
    parser.add_argument("--images-per-s", type=float, default=10.0, help="bound of the embedding in the background")
    parser.add_argument("--out", type=Path, default=Path("build/migration.json"))
    options = parser.parse_args()
    ports = candidate_ports()
    settings = {
        **knows_candidate(ports),
        "LIKENESS_INGEST__MIGRATION__IMAGES_PER_S": str(options.images_per_s),
        "LIKENESS_INGEST__MIGRATION__MIN_SHADOW_SEARCHES": "20",
        "LIKENESS_SEARCH__SHADOW__AT_MOST_PER_S": "2",
    }
    with tempfile.TemporaryDirectory() as folder, Platform(Path(folder), settings=settings) as platform:
        figures = _measure(platform, CandidateEmbed(platform, ports, CANDIDATE), options.faces, options.synthetic)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1), "utf-8")
    _print(figures)


def _measure(platform: Platform, candidate: CandidateEmbed, faces: int, references: int) -> dict[str, Any]:
    pairs = development_faces().mated_pairs()[:faces]
    with platform.client("ingest", "custodian") as custodian:
        ids = [
            post_enrolment(custodian, still.path.read_bytes(), still.identity).json()["enrolment_id"]
            for still, _ in pairs
        ]
        outcomes = Counter(wait_settled(custodian, ids, 600).values())
    _fill(platform, references)
    load = Load(platform, [(still.identity, probe.path.read_bytes()) for still, probe in pairs])
    thread = Thread(target=load.run, daemon=True)
    thread.start()
    seconds: dict[str, float] = {}
    # The load ends before the candidate's embed does, which answers the searches by then.
    with candidate, _administrator(platform, "boss") as boss:
        try:
            load.wait_round()
            report = _migrate(platform, boss, load, seconds)
            load.wait_round()
        finally:
            load.stop()
            thread.join(60)
    return {
        "enrolled_faces": dict(outcomes),
        "references": references,
        "latency_ms": {phase: summary(took) for phase, took in load.took_ms.items()},
        "errors": load.errors,
        "rank_1_by_model": {name: dict(counts) for name, counts in load.first.items()},
        "seconds": seconds,
        "report": report,
    }


def _fill(platform: Platform, references: int) -> None:
    actor = common_pb2.Actor(person_id="bench", force="northshire", roles=["administrator"])
    with platform.channel("ingest") as channel:
        LedgerClient(channel).fill_synthetic(
            ingest_pb2.FillSyntheticRequest(
                watchlist_id="custody", owner="northshire", until_count=references, seed=7, actor=actor
            )
        )


def _migrate(platform: Platform, boss: httpx.Client, load: Load, seconds: dict[str, float]) -> dict[str, Any]:
    started_s = monotonic()
    load.phase = "during"
    path = f"/v1/model-migrations/{_act(boss, '/v1/model-migrations', {'reason': 'measured'})['migration_id']}"

    def progressed() -> bool:
        report = boss.get(path).json()
        made: int = report["shadow"].get("searches", 0)
        return report["migration"]["state"] == "shadowing" and made >= 60

    wait_until(progressed, _WAIT_S, lambda: str(boss.get(path).json()["progress"]))
    seconds["embedding_and_shadows"] = round(monotonic() - started_s, 1)
    report: dict[str, Any] = boss.get(path).json()
    evidence = json.dumps({"model": {"model_id": report["migration"]["to_model_id"]}, "note": "of a benchmark"})
    body = {"evidence": evidence, "accepted_losses": report["progress"]["lost"]}
    for name in ("one", "two"):
        with _administrator(platform, name) as person:
            _act(person, f"{path}/approvals", body)
    for step, order in (("switch", None), ("rollback", {"reason": "measured"})):
        began_s = monotonic()
        _act(boss, f"{path}/{step}", order)
        seconds[step] = round(monotonic() - began_s, 3)
        load.wait_round()
    for name in ("one", "two"):
        with _administrator(platform, name) as person:
            _act(person, f"{path}/approvals", body)
    _act(boss, f"{path}/switch", None)
    began_s = monotonic()
    _act(boss, f"{path}/finish", None)
    seconds["finish"] = round(monotonic() - began_s, 3)
    load.phase = "after"
    return {**report, "shadow": boss.get(path).json()["shadow"]}


def _administrator(platform: Platform, name: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {platform.token('administrator', person_id=name)}"}
    return httpx.Client(base_url=platform.url("ingest"), headers=headers, timeout=600, trust_env=False)


def _act(client: httpx.Client, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def summary(took: Sequence[float]) -> dict[str, float]:
    return {
        "searches": len(took),
        "p50": round(statistics.median(took), 1),
        "p95": round(statistics.quantiles(took, n=20, method="inclusive")[-1], 1),
        "max": round(max(took), 1),
    }


def _print(figures: Mapping[str, Any]) -> None:
    for phase, summary in figures["latency_ms"].items():
        print(phase, summary)
    print("errors:", figures["errors"] or "none")
    for model_id, counts in figures["rank_1_by_model"].items():
        print(model_id, counts)
    print("seconds:", figures["seconds"])
    for model_id, part in figures["report"]["shadow"]["by_model_in_service"].items():
        print("shadow beside", model_id, {name: part[name] for name in part if name != "scores"})


if __name__ == "__main__":
    main()
