"""The platform on real servers beside the embedded one, and our search of Milvus beside bare pymilvus.

    python -m tests.bench.stack [--size 107500] [--rounds 60] [--enrol 300] [--out build/bench]

Kafka, Milvus, MinIO and PostgreSQL are started as processes, and two platforms: one on them, one on the embedded
adapters. Both enrol the same folder, one after the other; both are filled to the same size; then one search of each and
the two searches of Milvus take turns, so that whatever slows the machine slows all: quote the ratios. Results:
stack.json and stack.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

from pymilvus import MilvusClient

from services.rpc.clients import GalleryClient
from services.search.adapters import milvus_schema as schema
from services.search.adapters.milvus_gallery_store import MilvusGalleryStore
from services.search.ports import SearchScope
from services.search.settings import GallerySettings
from tests.bench import platform_measures
from tests.bench.platform_measures import OWNER, WATCHLIST, SearchCaller
from tests.bench.probe_picture import SIZES, custody_images, probe_jpeg
from tests.bench.reference_paths import one_thread, synthetic_gallery
from tests.bench.timing import Samples, side_by_side
from tests.stack.real_platform import RealPlatform, Servers, real_platform
from tests.stack.servers.base import ServerProcess
from tests.stack.servers.kafka import kafka_server
from tests.stack.servers.milvus import milvus_server
from tests.stack.servers.minio import s3_server
from tests.stack.servers.postgres import postgres_server
from tests.support.platform import Platform
from tests.support.portraits import portraits
from tests.support.waiting import wait_until

# What is measured is how fast the platform is, not how often one person may ask, or for whom.
UNLIMITED = {
    # A machine that does other work is slow, and a refused search is no figure.
    "LIKENESS_SEARCH__GALLERY__TIMEOUT_S": "30",
    **{
        f"LIKENESS_SEARCH__{limits}__{whose}_PER_MINUTE": "0"
        for limits in ("RATE_LIMITS", "SEARCH_RATE_LIMITS")
        for whose in ("PERSON", "FORCE")
    },
    **{
        f"LIKENESS_SEARCH__NEAR_DUPLICATES__{limit}": "1000000"
        for limit in ("PER_CASE", "PER_PERSON", "PROBES_PER_PERSON")
    },
}
LIMIT = 80  # references that a search of twenty candidates asks for first
_FILL_S = 1800.0
STAGES = ("gallery", "audit", "total")


@dataclass(frozen=True, slots=True)
class Both:
    """The two platforms."""

    embedded: Platform
    real: RealPlatform
    milvus: str


@contextmanager
def both(folder: Path) -> Iterator[Both]:
    with ExitStack() as stack:

        def started(made: tuple[ServerProcess, Any]) -> Any:
            server, address = made
            stack.callback(server.discard)
            server.start()
            return address

        servers = Servers(
            kafka=started(kafka_server()),
            milvus=started(milvus_server()),
            s3=started(s3_server()),
            postgres=started(postgres_server()),
        )
        real = stack.enter_context(real_platform(servers, folder / "real", UNLIMITED))
        embedded = stack.enter_context(Platform(folder / "embedded", settings=UNLIMITED))
        yield Both(embedded, real, servers.milvus)


def enrolment(platforms: Mapping[str, Platform], folder: Path, count: int) -> dict[str, Any]:
    """The same folder into each, one after the other and back, so that neither has the quieter minutes."""
    rates: dict[str, list[float]] = {name: [] for name in platforms}
    for turn, order in enumerate((list(platforms), list(platforms)[::-1])):
        images = folder / f"images-{turn}"
        whole = list(custody_images(portraits(), 2 * count))
        platform_measures.write_folder(images, whole[turn * count : (turn + 1) * count])
        for name in order:
            rates[name].append(platform_measures.bulk_enrolment(platforms[name], images, count)["images_per_s"])
    figures: dict[str, Any] = {name: {"images_per_s": round(sum(taken) / 2, 2)} for name, taken in rates.items()}
    return {
        **figures,
        "images": count,
        "ratio": ratio(figures["real"]["images_per_s"], figures["embedded"]["images_per_s"]),
    }


def fill(platform: Platform, size: int) -> float:
    """To `size` references, all of them searchable; seconds it took."""
    seconds = platform_measures.fill(platform, size)
    with platform.channel("search") as channel:
        gallery = GalleryClient(channel)
        wait_until(
            lambda: gallery.describe().searchable_by_watchlist.get(WATCHLIST, 0) >= size,
            _FILL_S,
            f"{size} references to be searchable",
            1.0,
        )
    return round(seconds, 1)


def searches(on: Both, size: int, rounds: int) -> dict[str, Any]:
    """REST searches of both platforms, and of Milvus our search and the bare client's, in turn."""
    jpeg = probe_jpeg(portraits()[0], *SIZES["2 MP"])
    with ExitStack() as stack:
        callers = {
            name: SearchCaller(stack.enter_context(platform.client("search", "operator")), jpeg)
            for name, platform in (("embedded", on.embedded), ("real", on.real.platform))
        }
        model = callers["real"].answer()["model"]
        ours, bare = stack.enter_context(milvus_searches(on, model["model_id"], model["dimension"]))
        actions: dict[str, Callable[[], object]] = {name: caller.search for name, caller in callers.items()}
        taken = side_by_side({**actions, "milvus, ours": ours, "milvus, bare pymilvus": bare}, rounds)
    stages = {name: {stage: caller.stages[stage].as_json() for stage in STAGES} for name, caller in callers.items()}
    return {
        "references": size,
        "times": {name: samples.as_json() for name, samples in taken.items()},
        "stages": stages,
        "ratios": {
            "search, real to embedded, p50": p50_ratio(taken["real"], taken["embedded"]),
            "Milvus, ours to bare pymilvus, p50": p50_ratio(taken["milvus, ours"], taken["milvus, bare pymilvus"]),
            **{
                f"stage {stage}, real to embedded, p50": p50_ratio(
                    callers["real"].stages[stage], callers["embedded"].stages[stage]
                )
                for stage in STAGES
            },
        },
    }


@contextmanager
def milvus_searches(
    on: Both, model_id: str, dimension: int
) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """Our search and the least that pymilvus can be asked for the same references: same filter, partition, fields."""
    probes = synthetic_gallery(64, seed=2)
    turn = iter(range(10**9))
    settings = GallerySettings(kind="milvus", uri=on.milvus, collection=on.real.names.collection, timeout_s=30)
    store, client = MilvusGalleryStore(settings), MilvusClient(on.milvus)
    store.open(model_id, dimension)
    scopes = [SearchScope(WATCHLIST, frozenset({OWNER}))]

    def ours() -> object:
        return store.search(probes[next(turn) % len(probes)], scopes, LIMIT)

    def bare() -> object:
        return client.search(
            settings.collection,
            data=[probes[next(turn) % len(probes)]],
            anns_field=schema.VECTOR,
            limit=LIMIT,
            filter=schema.is_one_of("owner", [OWNER]),
            output_fields=list(schema.FIELDS),
            partition_names=[schema.partition_name(WATCHLIST)],
            search_params={"metric_type": "IP"},
            consistency_level="Bounded",
        )

    try:
        yield ours, bare
    finally:
        store.close()
        client.close()


def ratio(value: float, beside: float) -> float:
    return round(value / beside, 2)


def p50_ratio(value: Samples, beside: Samples) -> float:
    return ratio(value.p50, beside.p50)


def table(figures: Mapping[str, Any]) -> str:
    """As it stands in docs/benchmarks.md."""
    found = figures["search"]
    times, stages, ratios = found["times"], found["stages"], found["ratios"]
    rows = ["| what | embedded | real servers | ratio |", "|---|---|---|---|"]
    rows.append(_row("REST search, ms", times["embedded"], times["real"], ratios["search, real to embedded, p50"]))
    for stage in STAGES:
        share = ratios[f"stage {stage}, real to embedded, p50"]
        rows.append(_row(f"its stage `{stage}`, ms", stages["embedded"][stage], stages["real"][stage], share))
    enrolled = figures.get("enrolment")
    if enrolled:
        rates = (enrolled[name]["images_per_s"] for name in ("embedded", "real"))
        rows.append(f"| bulk enrolment, images a second | {' | '.join(map(str, rates))} | {enrolled['ratio']:.2f} |")
    fills = figures["fill_s"]
    share = ratio(fills["real"], fills["embedded"])
    rows.append(f"| filling the gallery, s | {fills['embedded']} | {fills['real']} | {share:.2f} |")
    ours, bare = times["milvus, ours"], times["milvus, bare pymilvus"]
    share = ratios["Milvus, ours to bare pymilvus, p50"]
    rows += [
        "",
        "| what | bare pymilvus | ours | ratio |",
        "|---|---|---|---|",
        _row("Milvus search, ms", bare, ours, share),
    ]
    return "\n".join(rows) + "\n"


def _row(what: str, left: Mapping[str, Any], right: Mapping[str, Any], share: float) -> str:
    cells = [f"{each['p50_ms']:.1f} (p99 {each['p99_ms']:.1f})" for each in (left, right)]
    return f"| {what} | {' | '.join(cells)} | {share:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=107_500, help="references in each gallery")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--enrol", type=int, default=300, help="images of each bulk enrolment; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    one_thread()
    options.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="likeness-bench-stack-") as folder, both(Path(folder)) as on:
        platforms = {"embedded": on.embedded, "real": on.real.platform}
        if options.enrol:
            figures["enrolment"] = enrolment(platforms, Path(folder), options.enrol)
            print(json.dumps(figures["enrolment"]), flush=True)
        figures["fill_s"] = {name: fill(platform, options.size) for name, platform in platforms.items()}
        print(json.dumps(figures["fill_s"]), flush=True)
        figures["search"] = searches(on, options.size, options.rounds)
    (options.out / "stack.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    (options.out / "stack.md").write_text(table(figures), "utf-8")
    print(table(figures))


if __name__ == "__main__":
    main()
