"""`python -m tests.fuzz.gate`: mutated pictures through the image gate alone, until a count or a time is reached.

What must hold for every one: decoded, or refused with a reason of the closed list; in time; within the memory of a
worker; and at the end the pool is whole and no process is left behind. The seeds are small pictures of every allowed
format, made here, and the hostile files where the machine has them. The same `--seed` makes the same files.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Annotated

import numpy as np
import pillow_heif
import psutil
import typer
from PIL import Image
from prometheus_client import CollectorRegistry

from services.embed.gate.pool import GatePool
from services.embed.settings import GateSettings
from services.shared.errors import IMAGE_REFUSALS, ImageRefused, Overloaded
from services.shared.telemetry import Metrics
from tests.support.faces import shared_data

LARGEST_SEED_BYTES = 60_000
SLOWEST_S = 10.0
_WORKER_WITHIN_S = 120.0  # a machine with much else to do starts a worker slowly; that is not the file's doing
_EDGE_VALUES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    """Small pictures of every allowed format, and what is small among the hostile stills."""
    made = [
        _made(name, mode) for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF") for mode in ("RGB", "L")
    ]
    made.append(_heif())
    hostile = shared_data() / "hostile"
    skipped = ("video", "strings", "bomb", "policy")
    for folder in sorted(hostile.iterdir()) if hostile.is_dir() else ():
        if folder.is_dir() and not folder.name.startswith(skipped):
            files = (path for path in sorted(folder.iterdir()) if path.is_file())
            made += [path.read_bytes() for path in files if 0 < path.stat().st_size <= LARGEST_SEED_BYTES]
    return made


def _picture(mode: str) -> Image.Image:
    noise = np.random.default_rng(3).integers(0, 255, (48, 64, 3), np.uint8)
    return Image.fromarray(noise).convert(mode)


def _made(name: str, mode: str) -> bytes:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    _picture(mode).save(stream, name, **({"exif": exif} if name in {"JPEG", "PNG", "WEBP", "AVIF", "TIFF"} else {}))
    return stream.getvalue()


def _heif() -> bytes:
    stream = io.BytesIO()
    pillow_heif.from_pillow(_picture("RGB")).save(stream)
    return stream.getvalue()


def mutated(draw: random.Random, pool: list[bytes]) -> bytes:
    """One file with one to four things wrong with it; its first bytes mostly stay, so that a decoder sees it."""
    data = bytearray(draw.choice(pool))
    for _ in range(draw.choice((1, 1, 2, 3, 4))):
        if len(data) > 16:
            draw.choice(_MUTATIONS)(draw, data, pool)
    return bytes(data)


def _at(draw: random.Random, data: bytearray) -> int:
    """Headers are where decoders go wrong: half of all places lie in the first 256 bytes."""
    end = min(len(data), 256) if draw.random() < 0.5 else len(data)
    return draw.randrange(4 if draw.random() < 0.95 else 0, end)


def _flip(draw: random.Random, data: bytearray, _pool: list[bytes]) -> None:
    data[_at(draw, data)] ^= 1 << draw.randrange(8)


def _byte(draw: random.Random, data: bytearray, _pool: list[bytes]) -> None:
    data[_at(draw, data)] = draw.randrange(256)


def _number(draw: random.Random, data: bytearray, _pool: list[bytes]) -> None:
    layout = draw.choice((">I", "<I", ">H", "<H"))
    size = struct.calcsize(layout)
    at = min(_at(draw, data), len(data) - size)
    data[at : at + size] = struct.pack(layout, draw.choice(_EDGE_VALUES) & (256**size - 1))


def _cut(draw: random.Random, data: bytearray, _pool: list[bytes]) -> None:
    del data[_at(draw, data) :]


def _drop(draw: random.Random, data: bytearray, _pool: list[bytes]) -> None:
    at = _at(draw, data)
    del data[at : at + draw.randrange(1, 64)]


def _repeat(draw: random.Random, data: bytearray, _pool: list[bytes]) -> None:
    at = _at(draw, data)
    data[at:at] = data[at : at + draw.randrange(1, 64)] * draw.choice((1, 2, 50))


def _splice(draw: random.Random, data: bytearray, pool: list[bytes]) -> None:
    other = draw.choice(pool)
    start = draw.randrange(len(other))
    data[_at(draw, data) :] = other[start : start + LARGEST_SEED_BYTES]


_MUTATIONS: tuple[Callable[[random.Random, bytearray, list[bytes]], None], ...] = (
    _flip,
    _byte,
    _number,
    _number,
    _cut,
    _drop,
    _repeat,
    _splice,
)


@dataclass
class Tally:
    """What came of the files so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    largest_bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    @property
    def done(self) -> int:
        return sum(self.outcomes.values())

    def note(self, outcome: str, seconds: float) -> None:
        with self.lock:
            self.outcomes[outcome] += 1
            self.longest_s = max(self.longest_s, seconds)


def run(count: int, minutes: float, seed: int, workers: int, tally: Tally, *, slowest_s: float = SLOWEST_S) -> None:
    """Fill the tally. What breaks a rule is kept in `tally.wrong` with the file's number."""
    pool = seeds()
    draw = random.Random(seed)
    ends_at = monotonic() + minutes * 60
    gate = GatePool(GateSettings(workers=workers), Metrics(CollectorRegistry()))
    gate.start()
    seen = set(gate.process_ids)

    def one(numbered: tuple[int, bytes]) -> None:
        number, data = numbered
        started = monotonic()
        try:
            with gate.decoded(data, started + _WORKER_WITHIN_S) as lease:
                outcome = f"decoded {lease.image.format}"
        except ImageRefused as refusal:
            outcome = refusal.code
            if outcome not in IMAGE_REFUSALS:
                tally.wrong.append(f"{number}: {outcome}")
        except Overloaded:
            outcome = "no worker in time"
            tally.wrong.append(f"{number}: {outcome}")
        tally.note(outcome, monotonic() - started)

    def files() -> Iterator[tuple[int, bytes]]:
        for number in range(count):
            if monotonic() > ends_at:
                return
            yield number, mutated(draw, pool)

    try:
        with ThreadPoolExecutor(workers) as threads:
            stream = files()
            while batch := list(islice(stream, 200)):
                list(threads.map(one, batch))
                seen.update(gate.process_ids)
                tally.largest_bytes = max([tally.largest_bytes, *(_peak_bytes(pid) for pid in gate.process_ids)])
        patience_s = monotonic() + _WORKER_WITHIN_S
        while len(gate.process_ids) < workers and monotonic() < patience_s:
            sleep(0.1)
        if len(gate.process_ids) != workers:
            tally.wrong.append(f"{len(gate.process_ids)} workers left of {workers}")
    finally:
        gate.close()
    tally.wrong += [f"process {pid} is left behind" for pid in seen if _is_worker(pid)]
    if tally.longest_s > slowest_s:
        tally.wrong.append(f"the slowest took {tally.longest_s:.1f} s")


def _is_worker(process_id: int) -> bool:
    """Whether it is there and a gate worker of this process: numbers of processes are used again."""
    try:
        process = psutil.Process(process_id)
        return process.ppid() == os.getpid() and "services.embed.gate.worker" in process.cmdline()
    except psutil.Error:
        return False


def _peak_bytes(process_id: int) -> int:
    """The most memory that a worker ever had resident; 0 when it has just gone."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def main(
    files: Annotated[int, typer.Option(help="How many files at most.")] = 100_000,
    minutes: Annotated[float, typer.Option(help="How long at most; what is left then is not tried.")] = 60.0,
    seed: int = 1,
    workers: int = 1,
) -> None:
    """Ends with 1 when a rule was broken."""
    os.nice(19 - os.nice(0))
    tally, started = Tally(), monotonic()
    run(files, minutes, seed, workers, tally)
    print(
        json.dumps(
            {
                "files": tally.done,
                "left": files - tally.done,
                "seed": seed,
                "minutes": round((monotonic() - started) / 60, 1),
                "outcomes": dict(tally.outcomes.most_common()),
                "longest_s": round(tally.longest_s, 3),
                "largest_worker_mib": tally.largest_bytes >> 20,
                "wrong": tally.wrong,
            },
            indent=2,
        )
    )
    raise SystemExit(1 if tally.wrong else 0)


if __name__ == "__main__":
    typer.run(main)
