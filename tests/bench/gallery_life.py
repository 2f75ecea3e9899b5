"""Bulk load, rebuild and reconciliation at the unit's own size, under search load.

    python -m tests.bench.gallery_life [--references 107500] [--people 50] [--bulk 0] [--stub]

`--bulk N` first enrols N images of noise with `likeness enrol`, in one command; give `--stub` with it, or the networks
refuse them. Then the gallery is filled up with labelled synthetic references, somebody searches without a pause, and
the gallery is rebuilt from the ledger three times and reconciled once. Latency before, during and after; every answer
has to be whole and right. Quote the ratios of one run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import httpx

from tests.bench.migration import Load, summary
from tests.bench.platform_measures import bulk_enrolment, fill, write_folder
from tests.support.casework import post_enrolment, wait_settled
from tests.support.faces import development_faces
from tests.support.noise import picture
from tests.support.platform import Platform

STUB = {"LIKENESS_EMBED__MODEL__KIND": "stub"}
# A rebuild may be over before a slow machine has searched often enough.
_REBUILDS = 3
_SETTLE_S = 1200.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=107_500, help="references in all")
    parser.add_argument("--people", type=int, default=50, help="people with an image, who are searched")
    parser.add_argument("--bulk", type=int, default=0, help="images of one `likeness enrol`; 0 leaves it out")
    parser.add_argument("--stub", action="store_true", help="the stand-in for the networks, and noise for faces")
    parser.add_argument("--out", type=Path, default=Path("build/gallery_life.json"))
    options = parser.parse_args()
    settings = STUB if options.stub else {}
    with (
        tempfile.TemporaryDirectory(prefix="likeness-life-") as folder,
        Platform(Path(folder) / "data", settings=settings) as platform,
    ):
        figures = _measure(platform, Path(folder), options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1), "utf-8")
    print(json.dumps(figures, indent=1))


def _measure(platform: Platform, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {"networks": "stand-in" if options.stub else "real"}
    if options.bulk:
        count = write_folder(folder / "bulk", _noise(options.bulk))
        figures["bulk_load"] = bulk_enrolment(platform, folder / "bulk", count, timeout_s=4 * 3600)
        print(json.dumps({"bulk_load": figures["bulk_load"]}), flush=True)
    probes = _people(platform, options.people, is_stub=options.stub)
    figures["fill_s"] = round(fill(platform, options.references), 1)
    load = Load(platform, probes)
    thread = Thread(target=load.run, daemon=True)
    thread.start()
    try:
        with _custodian(platform) as custodian:
            figures |= _upkeep(custodian, load)
    finally:
        load.stop()
        thread.join(60)
    figures["latency_ms"] = {phase: summary(took) for phase, took in load.took_ms.items()}
    figures["rank_1"] = {model_id: dict(counts) for model_id, counts in load.first.items()}
    figures["errors"] = load.errors
    return figures


def _upkeep(custodian: httpx.Client, load: Load) -> dict[str, Any]:
    load.wait_round()
    load.phase = "rebuild"
    rebuilds = [_took(custodian, "/v1/gallery/rebuild", None) for _ in range(_REBUILDS)]
    load.wait_more()
    load.phase = "after"
    load.wait_round()
    load.phase = "reconciliation"
    seconds, answer = _took(custodian, "/v1/gallery/reconciliation", {"is_deep": False})
    load.wait_more()
    return {
        "rebuild_s": [seconds for seconds, _ in rebuilds],
        "rebuilt": rebuilds[-1][1]["searchable"],
        "reconciliation_s": seconds,
        "compared": answer["compared"],
        "is_clean": answer["is_clean"],
    }


def _took(client: httpx.Client, path: str, body: dict[str, Any] | None) -> tuple[float, dict[str, Any]]:
    started = monotonic()
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return round(monotonic() - started, 2), found


def _people(platform: Platform, count: int, *, is_stub: bool) -> Sequence[tuple[str, bytes]]:
    """Enrolled people with a probe each: another still, or with the stand-in the same picture."""
    if is_stub:
        people = [(f"P-{number}", picture(f"P-{number}")) for number in range(count)]
        enrolled, probes = people, people
    else:
        pairs = development_faces().mated_pairs()[:count]
        enrolled = [(still.identity, still.path.read_bytes()) for still, _ in pairs]
        probes = [(still.identity, probe.path.read_bytes()) for still, probe in pairs]
    with platform.client("ingest", "custodian") as custodian:
        ids = [post_enrolment(custodian, image, name).json()["enrolment_id"] for name, image in enrolled]
        wait_settled(custodian, ids, _SETTLE_S)
    return probes


def _noise(count: int) -> Iterator[tuple[str, bytes]]:
    return ((f"BENCH-{number:06}", picture(f"bulk-{number}")) for number in range(count))


def _custodian(platform: Platform) -> httpx.Client:
    headers = {"Authorization": f"Bearer {platform.token('custodian')}"}
    return httpx.Client(base_url=platform.url("ingest"), headers=headers, timeout=600, trust_env=False)


if __name__ == "__main__":
    main()
