"""Searches while flags are raised: the gallery stage and the whole search, with and without, in one run.

    python -m tests.bench.flags [--references 107500] [--images 480] [--per-s 20] [--out build/flags.json]

Pictures of people are enrolled several times over under other subjects, saved anew, so that each raises flags. One
client searches without a pause: before any flag is looked for, while they are raised, after that, while all are
compared once more, and after that. Quote the ratios of one run.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

from PIL import Image

from tests.bench.platform_measures import SearchCaller, fill
from tests.support.casework import post_enrolment, wait_settled
from tests.support.faces import development_faces
from tests.support.platform import Platform
from tests.support.waiting import wait_until

_COPIES = 4
_SEARCHES = 60
_WAIT_S = 1200.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=107_500, help="references in all")
    parser.add_argument("--images", type=int, default=480, help="enrolled images that are flagged")
    parser.add_argument("--per-s", type=float, default=20.0, help="references compared in a second at most")
    parser.add_argument("--out", type=Path, default=Path("build/flags.json"))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="likeness-flags-") as folder,
        Platform(Path(folder) / "data", settings={"LIKENESS_INGEST__FLAGS__PER_S": "0"}) as platform,
    ):
        figures = _measure(platform, options.references, options.images, options.per_s)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1), "utf-8")
    print(json.dumps(figures, indent=1))


def _measure(platform: Platform, references: int, images: int, per_s: float) -> dict[str, Any]:
    pairs = development_faces().mated_pairs()[: -(-images // _COPIES)]
    with platform.client("ingest", "custodian") as custodian:
        ids = [
            post_enrolment(custodian, _saved(still.path, 95 - 3 * copy), f"{still.identity}-{copy}").json()[
                "enrolment_id"
            ]
            for still, _ in pairs
            for copy in range(_COPIES)
        ]
        wait_settled(custodian, ids, _WAIT_S)
    fill(platform, references)
    figures: dict[str, Any] = {"references": references, "enrolled": len(ids), "per_s": per_s}
    with platform.client("search", "operator") as operator:
        caller = SearchCaller(operator, pairs[0][1].path.read_bytes())
        for _ in range(10):
            caller.search()
        figures["before"] = _searches(caller)
        platform.restart("ingest", LIKENESS_INGEST__FLAGS__PER_S=str(per_s))
        figures["while raised"] = _searches(caller)
        figures["checked meanwhile"] = _checked(platform)
        wait_until(lambda: _checked(platform) >= len(ids), _WAIT_S, lambda: f"{_checked(platform)} of {len(ids)}")
        figures["after"] = _searches(caller)
        with platform.client("ingest", "custodian") as custodian:
            figures["flags"] = len(custodian.get("/v1/flags", params={"limit": 500}).json()["flags"])
            custodian.post("/v1/flags/scan").raise_for_status()
        figures["while compared again"] = _searches(caller)
        figures["compared meanwhile"] = _checked(platform) - len(ids)
        wait_until(lambda: _checked(platform) >= 2 * len(ids), _WAIT_S, lambda: f"{_checked(platform)}")
        figures["at the end"] = _searches(caller)
    return figures


def _searches(caller: SearchCaller) -> dict[str, float]:
    caller.forget()
    started_s = monotonic()
    for _ in range(_SEARCHES):
        caller.search()
    found = {name: round(caller.stages[name].p50, 2) for name in ("gallery", "audit", "total")}
    return {**found, "seconds": round(monotonic() - started_s, 1)}


def _checked(platform: Platform) -> int:
    """References compared since ingest started."""
    with platform.client("ingest", "custodian") as client:
        lines = client.get("/metrics").text.splitlines()
    return round(
        sum(float(line.split()[-1]) for line in lines if line.startswith("likeness_ingest_flag_checks_total{"))
    )


def _saved(path: Path, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(path).convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
