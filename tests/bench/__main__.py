"""`make bench`: the platform beside its floor and the usual script, in one run on one machine.

    python -m tests.bench [--sizes 107500] [--rounds 200] [--enrol 2400] [--load-minutes 2] [--out build/bench]

Everything that is compared runs in turn in the same minutes, so quote the ratios. Results: figures.json, table.md
and two plots.
"""

from __future__ import annotations

import argparse
import json
import os
import platform as machine
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

from tests.bench import goals, platform_measures
from tests.bench.bare_rate import bare_rate
from tests.bench.load import load_run
from tests.bench.networks import prepared_models, prepared_paths
from tests.bench.plots import draw
from tests.bench.probe_picture import SIZES, custody_images, probe_jpeg
from tests.bench.recall import WANTED, recall
from tests.bench.reference_paths import (
    FastPath,
    MemoryRead,
    NaivePath,
    one_thread,
    synthetic_gallery,
)
from tests.bench.timing import side_by_side
from tests.support.platform import Platform
from tests.support.portraits import portraits

# What is measured is how fast the platform is, not how often one person may ask.
UNLIMITED = {
    f"LIKENESS_SEARCH__{limits}__{whose}_PER_MINUTE": "0"
    for limits in ("RATE_LIMITS", "SEARCH_RATE_LIMITS")
    for whose in ("PERSON", "FORCE")
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 107_500, 1_000_000], help="gallery sizes")
    parser.add_argument("--rounds", type=int, default=200, help="searches of each kind at each size")
    parser.add_argument("--enrol", type=int, default=2400, help="images of the bulk enrolment; 0 leaves it out")
    parser.add_argument("--load-minutes", type=float, default=2.0, help="of the stub-model load; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    return parser.parse_args()


def main() -> None:
    options = arguments()
    one_thread()
    options.out.mkdir(parents=True, exist_ok=True)
    faces = portraits()
    figures: dict[str, Any] = {"machine": describe_machine(), "search": {}}
    with (
        tempfile.TemporaryDirectory(prefix="likeness-bench-") as folder,
        Platform(Path(folder) / "data", settings=UNLIMITED) as platform,
    ):
        if options.enrol:
            figures["bulk_enrolment"] = enrolment(platform, Path(folder) / "images", faces, options.enrol)
        for size in sorted(options.sizes):
            figures["search"][str(size)] = searches(platform, faces[0], size, options.rounds)
            print(json.dumps({size: figures["search"][str(size)]}, indent=1), flush=True)
            if size == goals.UNIT_SIZE:
                figures.update(at_unit_size(platform, faces[0]))
    if options.load_minutes:
        figures["load"] = load_run(options.load_minutes, searches_per_s=20.0, enrolments_per_s=10.0)
        print(json.dumps({"load": figures["load"]}, indent=1), flush=True)
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    table = goals.table(figures)
    (options.out / "table.md").write_text(table, "utf-8")
    print(table)
    draw(figures, options.out)


def enrolment(platform: Platform, folder: Path, faces: list[bytes], count: int) -> dict[str, Any]:
    """Bulk enrolment beside the bare rate, before and after it, so that neither has the quieter minutes."""
    platform_measures.write_folder(folder, custody_images(faces, count))
    files = sorted(folder.glob("*.jpg"))
    before = bare_rate(files)
    figures: dict[str, Any] = platform_measures.bulk_enrolment(platform, folder, count)
    figures["bare_images_per_s"] = round((before + bare_rate(files)) / 2, 2)
    print(json.dumps({"bulk_enrolment": figures}), flush=True)
    return figures


def searches(platform: Platform, portrait: bytes, size: int, rounds: int) -> dict[str, Any]:
    """REST searches of a 2 MP probe, the two paths in one process, and the memory floor, in turn."""
    seconds = platform_measures.fill(platform, size)
    gallery = synthetic_gallery(size)
    fast, naive = FastPath(*prepared_models(), gallery), NaivePath(*prepared_paths(), gallery)
    jpeg = probe_jpeg(portrait, *SIZES["2 MP"])
    with platform.client("search", "operator") as client:
        caller = platform_measures.SearchCaller(client, jpeg)
        caller.search()
        caller.forget()
        taken = side_by_side(
            {
                "rest": caller.search,
                "fast_path": lambda: fast.search(jpeg),
                "naive": lambda: naive.search(jpeg),
                "memory_read": MemoryRead(gallery).read,
            },
            rounds,
        )
        answer = caller.answer(max_candidates=WANTED)
    figures: dict[str, Any] = {name: samples.as_json() for name, samples in taken.items()}
    figures["recall"] = recall(platform, answer["model"]["model_id"], fast.template(jpeg)[0], answer)
    return {**figures, "stages": platform_measures.stage_table(caller.stages), "fill_s": round(seconds, 2)}


def at_unit_size(platform: Platform, portrait: bytes) -> dict[str, Any]:
    """What is measured at the size of the unit only: other probe sizes, eight callers, memory, a start."""
    figures: dict[str, Any] = {"probes": {}}
    for name, (width, height) in SIZES.items():
        with platform.client("search", "operator") as client:
            caller = platform_measures.SearchCaller(client, probe_jpeg(portrait, width, height))
            figures["probes"][name] = platform_measures.repeated(caller.search, 30).as_json()
    jpeg = probe_jpeg(portrait, *SIZES["2 MP"])
    figures["callers"] = [platform_measures.several_callers(platform, jpeg, callers, 25) for callers in (1, 8)]
    figures["memory_mb"] = platform_measures.memory_mb(platform)
    figures["start_up"] = platform_measures.start_up(platform, jpeg)
    print(json.dumps(figures, indent=1), flush=True)
    return figures


def describe_machine() -> dict[str, Any]:
    flags = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    return {
        "system": machine.system(),
        "architecture": machine.machine(),
        "python": machine.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "instruction_sets": [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if f" {name}" in flags],
    }


if __name__ == "__main__":
    main()
