"""`python -m tests.bench.gate_cost`: decoding with and without the image gate, side by side; and at reduced scale.

Without the gate is the very same decoder called in this process, into memory of its own. Files take turns, with and
without after each other, so that a busy machine slows both.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import clock_gettime_ns, monotonic, perf_counter

import cv2
import numpy as np
import pillow_heif
import psutil
import simplejpeg
from PIL import Image
from prometheus_client import CollectorRegistry

from services.embed.faces.analyser import FaceAnalyser, PictureJob
from services.embed.faces.picture import Picture
from services.embed.gate.decode import decode, prepare_decoders
from services.embed.gate.limits import GateLimits
from services.embed.gate.pool import GatePool
from services.embed.ports import Pixels, Selection, Tensor
from services.embed.settings import GateSettings
from services.shared.telemetry import Metrics
from tests.accuracy.quality_data import in_process_analyser
from tests.support.portraits import portraits

SIZES = {"0.3 MP": (640, 480), "2 MP": (1600, 1200), "12 MP": (4000, 3000)}
ROUNDS = 15


def scene(size: tuple[int, int]) -> Image.Image:
    """A real portrait in the middle of noise that compresses as a photograph does."""
    width, height = size
    rough = np.random.default_rng(1).normal(128, 40, (height // 8, width // 8, 3)).clip(0, 255).astype(np.uint8)
    canvas = Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)
    portrait = Image.open(io.BytesIO(portraits()[1])).convert("RGB")
    portrait.thumbnail((width // 2, height // 2))
    canvas.paste(portrait, (width // 4, height // 4))
    return canvas


def files() -> dict[str, bytes]:
    made = {}
    for name, size in SIZES.items():
        stream = io.BytesIO()
        scene(size).save(stream, "JPEG", quality=90)
        made[f"JPEG {name}"] = stream.getvalue()
    for kind in ("PNG", "WEBP"):
        stream = io.BytesIO()
        scene(SIZES["2 MP"]).save(stream, kind)
        made[f"{kind} 2 MP"] = stream.getvalue()
    stream = io.BytesIO()
    pillow_heif.from_pillow(scene(SIZES["2 MP"])).save(stream)
    made["HEIC 2 MP"] = stream.getvalue()
    return made


def timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return (perf_counter() - started) * 1000


def cost_table() -> str:
    settings = GateSettings(workers=1)
    limits = GateLimits(settings.max_pixels, settings.cpu_s, settings.memory_bytes)
    prepare_decoders(limits)
    memory = memoryview(bytearray(12_100_000 * 3))
    pool = GatePool(settings, Metrics(CollectorRegistry()))
    pool.start()

    def with_gate(data: bytes) -> None:
        with pool.decoded(data, monotonic() + 30):
            pass

    lines = ["| file | without the gate | with it | ratio |", "|---|---|---|---|"]
    try:
        for name, data in files().items():
            bare, gated = [], []
            for _ in range(ROUNDS):
                bare.append(timed(lambda data=data: decode(memoryview(data), memory, limits)))  # type: ignore[misc]
                gated.append(timed(lambda data=data: with_gate(data)))  # type: ignore[misc]
            ratio = median(after / before for before, after in zip(bare, gated, strict=True))
            lines.append(f"| {name} | {median(bare):.1f} ms | {median(gated):.1f} ms | {ratio:.2f} |")
    finally:
        pool.close()
    return "\n".join(lines)


def processor_table() -> str:
    """Processor time of one picture, the worker's and the caller's together, which a busy machine does not change."""
    settings = GateSettings(workers=1)
    limits = GateLimits(settings.max_pixels, settings.cpu_s, settings.memory_bytes)
    memory = memoryview(bytearray(12_100_000 * 3))
    pool = GatePool(settings, Metrics(CollectorRegistry()))
    pool.start()
    family = [psutil.Process().pid, *(child.pid for child in psutil.Process().children(recursive=True))]

    def spent_ms(work: Callable[[], object], count: int) -> float:
        before = sum(_processor_ns(process_id) for process_id in family)
        for _ in range(count):
            work()
        return (sum(_processor_ns(process_id) for process_id in family) - before) / count / 1e6

    def gated(data: bytes) -> None:
        with pool.decoded(data, monotonic() + 60):
            pass

    lines = ["| file | processor time without the gate | with it | ratio |", "|---|---|---|---|"]
    try:
        for name, data in files().items():
            count = 60 if "0.3" in name else 5
            bare, through = [], []
            for _ in range(ROUNDS):
                bare.append(spent_ms(lambda data=data: decode(memoryview(data), memory, limits), count))  # type: ignore[misc]
                through.append(spent_ms(lambda data=data: gated(data), count))  # type: ignore[misc]
            ratio = median(before / after for before, after in zip(bare, through, strict=True))
            lines.append(f"| {name} | {median(bare):.2f} ms | {median(through):.2f} ms | {ratio:.2f} |")
    finally:
        pool.close()
    return "\n".join(lines)


def _processor_ns(process_id: int) -> int:
    """Of a process with all threads that it ever had: what clock_getcpuclockid(3) names on Linux."""
    return clock_gettime_ns((~process_id << 3) | 2)


def throughput_table() -> str:
    """Many files one after another: two callers, each with half of them, keep one gate worker busy, against a loop
    without any gate. Each caller is a thread with a loop of its own, so that no queue of the bench's is measured.
    """
    settings = GateSettings(workers=1)
    limits = GateLimits(settings.max_pixels, settings.cpu_s, settings.memory_bytes)
    memory = memoryview(bytearray(12_100_000 * 3))
    pool = GatePool(settings, Metrics(CollectorRegistry()))
    pool.start()

    def gated(part: list[bytes]) -> None:
        for data in part:
            with pool.decoded(data, monotonic() + 60):
                pass

    def alone(part: list[bytes]) -> None:
        for data in part:
            decode(memoryview(data), memory, limits)

    lines = ["| files | without the gate | with it | ratio |", "|---|---|---|---|"]
    try:
        with ThreadPoolExecutor(2) as callers:
            for name, data in files().items():
                count = 60 if "0.3" in name else 16
                many, half = [data] * count, [data] * (count // 2)
                bare, through = [], []
                for _ in range(ROUNDS):
                    bare.append(timed(lambda many=many: list(callers.map(alone, [many]))))  # type: ignore[misc]
                    through.append(timed(lambda half=half: list(callers.map(gated, [half, half]))))  # type: ignore[misc]
                ratio = median(before / after for before, after in zip(bare, through, strict=True))
                rates = (1000 * count / median(bare), 1000 * count / median(through))
                lines.append(f"| {name} | {rates[0]:.0f} a second | {rates[1]:.0f} a second | {ratio:.2f} |")
    finally:
        pool.close()
    return "\n".join(lines)


def scale_table() -> str:
    """What decoding at a fraction of the size saves, and what it does to the template of a large face."""
    analyser, _ = in_process_analyser()
    lines = ["| 12 MP JPEG decoded at | time | template beside the full one |", "|---|---|---|"]
    stream = io.BytesIO()
    scene(SIZES["12 MP"]).save(stream, "JPEG", quality=90)
    data = stream.getvalue()
    full = _template(analyser, np.asarray(simplejpeg.decode_jpeg(data, "BGR")))
    for fraction in (1, 2, 4):
        smallest = (SIZES["12 MP"][1] // fraction, SIZES["12 MP"][0] // fraction)

        def reduced(smallest: tuple[int, int] = smallest) -> Pixels:
            return np.asarray(
                simplejpeg.decode_jpeg(data, "BGR", min_height=smallest[0], min_width=smallest[1], min_factor=1)
            )

        times = [timed(reduced) for _ in range(9)]
        cosine = float(_template(analyser, reduced()) @ full)
        lines.append(f"| 1/{fraction} | {median(times):.0f} ms | cosine {cosine:.4f} |")
    return "\n".join(lines)


def _template(analyser: FaceAnalyser, pixels: Pixels) -> Tensor:
    [result] = analyser.analyse([PictureJob(Picture(np.ascontiguousarray(pixels), 1), Selection.LARGEST)])
    return next(face.template.vector for face in result.faces if face.template is not None)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    print(cost_table(), processor_table(), throughput_table(), scale_table(), sep="\n\n")
