"""How long Milvus' own message log and segments keep the bytes of a template after it was withdrawn.

    python -m tests.bench.milvus_log [--page-bytes 65536] [--retention-min 30] [--check-s 300] [--compact-s 600]

A standalone Milvus of its own, with these settings of `rocksmq` beside those of deploy/milvus/user.yaml (the message
log is not compressed, so that bytes are found), gets 300 references. Some are withdrawn, compaction is asked for as
search does it, and from then on every byte of every file of the server is read for one of them.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from pymilvus import MilvusClient

from services.search.adapters.milvus_compaction import MilvusCompaction
from services.search.adapters.milvus_gallery_store import MilvusGalleryStore
from services.search.adapters.milvus_schema import collection_name
from services.search.ports import ReferenceRecord
from services.search.settings import GallerySettings
from services.shared.clock import SystemClock
from tests.stack.servers.milvus import milvus_server

ROWS, WITHDRAWN, DIMENSION = 300, 3, 128


def keep(config: Path, options: argparse.Namespace) -> None:
    """Put the settings into the server's configuration, before it starts."""
    text = config.read_text("utf-8")
    section = (
        f"  rocksmqPageSize: {options.page_bytes}\n  retentionTimeInMinutes: {options.retention_min}\n"
        f"  timtickerInterval: {options.check_s}\n  compactionInterval: {options.compact_s}\n"
        "  compressionTypes: [0, 0, 0, 0, 0]\n"
    )
    names = "rocksmqPageSize|retentionTimeInMinutes|compactionInterval|compressionTypes"
    text = re.sub(rf"(?m)^  (?:{names}):.*\n", "", text)
    text, count = re.subn(r"(?m)^rocksmq:\n", f"rocksmq:\n{section}", text)
    assert count == 1
    text, count = re.subn(r"(?m)^dataCoord:\n", "dataCoord:\n  gc:\n    interval: 15\n    dropTolerance: 15\n", text)
    assert count == 1
    config.write_text(re.sub(r"(?m)^  gc:\n    interval: 3600.*\n(?:    .*\n)*", "", text), "utf-8")


def places(data: Path, needle: bytes) -> list[str]:
    """The folders of the server whose files hold it."""
    found = set()
    for path in data.rglob("*"):
        with suppress(OSError):  # files come and go
            if path.is_file() and needle in path.read_bytes():
                found.add(path.relative_to(data).parts[0])
    return sorted(found)


def measure(options: argparse.Namespace) -> dict[str, object]:
    server, uri = milvus_server()
    keep(server.data / "configs" / "milvus.yaml", options)
    try:
        server.start()
        settings = GallerySettings(kind="milvus", uri=uri, collection="c_log")
        store, compaction = MilvusGalleryStore(settings), MilvusCompaction(settings, SystemClock(), 0)
        store.open("m1", DIMENSION)
        vectors = np.random.default_rng(1).standard_normal((ROWS, DIMENSION)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        records = [ReferenceRecord(f"r-{n}", f"S-{n}", "northshire", "custody", 1, 0) for n in range(ROWS)]
        store.put(records, vectors)
        client = MilvusClient(uri)
        client.flush(collection_name(settings.collection, "m1"))
        needle = vectors[0].astype("<f4").tobytes()[:128]
        before = places(server.data, needle)
        began_s = time.monotonic()
        store.withdraw([f"r-{n}" for n in range(WITHDRAWN)], [2] * WITHDRAWN)
        client.flush(collection_name(settings.collection, "m1"))
        compaction.ask()
        compaction.step()
        seen: dict[str, float] = {}
        while (held := places(server.data, needle)) and time.monotonic() - began_s < options.at_most_s:
            seen |= dict.fromkeys(held, round(time.monotonic() - began_s, 1))
            time.sleep(options.look_s)
        answered = store.counts()
        for each in (client, compaction, store):
            each.close()
    finally:
        server.discard()
    return {
        "before": before,
        "last_seen_s": seen,
        "left": held,
        "looked_s": round(time.monotonic() - began_s, 1),
        "rows_left": sum(answered.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page-bytes", type=int, default=65536)
    parser.add_argument("--retention-min", type=float, default=30)
    parser.add_argument("--check-s", type=int, default=300)
    parser.add_argument("--compact-s", type=int, default=600)
    parser.add_argument("--look-s", type=float, default=5)
    parser.add_argument("--at-most-s", type=float, default=3600)
    print(json.dumps(measure(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
