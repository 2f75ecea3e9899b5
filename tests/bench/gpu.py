"""Templates on a GPU: embed with concurrent callers beside a bare onnxruntime loop at the same batch size.

    python -m tests.bench.gpu --faces FOLDER [--provider CUDAExecutionProvider] [--out gpu.json]

FOLDER holds portraits, one face each. Three things are read on them, in turn:

1. bare: the prepared recogniser on floats that lie ready, copies in and out included, at several batch sizes;
2. template stage: the recogniser as embed runs it, from aligned pixels to unit vectors, at the same batch sizes, in 32
   and in 16 bit, and how well its vectors agree with those of a CPU;
3. embed: the service as a process, called over gRPC by many callers at once, with pictures of one face and of 32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from services.embed.adapters.onnxruntime_session import CPU, OnnxruntimeSession, runtime_name
from services.embed.adapters.padded_batches import PaddedBatches
from services.embed.adapters.session_per_shape import SessionPerShape
from services.embed.faces.detector import YuNet
from services.embed.faces.picture import Picture
from services.embed.faces.recogniser import SIDE, Recogniser, alignment
from services.embed.models.accelerated import halve_precision, take_pixels
from services.embed.ports import Pixels
from services.rpc.clients import EmbedClient, open_channel
from services.rpc.v1 import embed_pb2
from tests.bench.networks import prepared_models

BATCHES = (1, 8, 32, 64)
GRPC_PORT, HTTP_PORT = 51062, 51084


def crops_of(portraits: Sequence[bytes]) -> list[Pixels]:
    """The aligned face of each portrait."""
    session = OnnxruntimeSession(prepared_models()[0], providers=[CPU])
    detector = YuNet(session, score_threshold=0.6, nms_threshold=0.3)
    crops = []
    for portrait in portraits:
        picture = np.asarray(cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR), np.uint8)
        crops += [Picture(picture, 1).aligned(alignment(face.landmarks), SIDE) for face in detector.detect(picture)[:1]]
    return crops


def recognisers(provider: str) -> dict[str, Recogniser]:
    """As embed runs them."""
    network = take_pixels(prepared_models()[1], scale=1.0, mean=0.0)
    networks = {"float32": network, "float16": halve_precision(network)}
    return {
        name: Recogniser(
            PaddedBatches(
                SessionPerShape(
                    partial(OnnxruntimeSession, network, providers=[provider]),
                    [(size, SIDE, SIDE, 3) for size in BATCHES],
                    np.uint8,
                    OnnxruntimeSession(network, providers=[CPU]),
                ),
                BATCHES,
            ),
            kind="sface",
            dimension=128,
            max_batch_faces=max(BATCHES),
            takes_pixels=True,
        )
        for name, network in networks.items()
    }


def rates(provider: str, crops: Sequence[Pixels], seconds: float) -> dict[str, Any]:
    """Faces a second by batch size: the bare loop and the template stage, in turn, three times; the best of each."""
    bare = OnnxruntimeSession(prepared_models()[1], providers=[provider])
    stages = recognisers(provider)
    figures: dict[str, Any] = {}
    for batch in BATCHES:
        faces = [crops[index % len(crops)] for index in range(batch)]
        blob = np.random.default_rng(1).random((batch, 3, SIDE, SIDE), dtype=np.float32)
        actions: dict[str, Callable[[], object]] = {"bare": partial(bare.run_unbound, blob)}
        actions |= {name: partial(stage.vectors, faces) for name, stage in stages.items()}
        found: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(3):
            for name, action in actions.items():
                found[name].append(_rate(action, batch, seconds))
        best = {name: max(values) for name, values in found.items()}
        figures[str(batch)] = {**best, "float32_share": round(best["float32"] / best["bare"], 3)}
    return figures


def agreement(provider: str, crops: Sequence[Pixels]) -> dict[str, float]:
    """The least cosine between this provider's vectors and a CPU's, over real faces."""
    session = OnnxruntimeSession(prepared_models()[1], providers=[CPU])
    truth = Recogniser(session, kind="sface", dimension=128).vectors(crops)
    return {
        name: round(float((stage.vectors(crops) * truth).sum(axis=1).min()), 7)
        for name, stage in recognisers(provider).items()
    }


def _rate(action: Callable[[], object], batch: int, seconds: float) -> float:
    for _ in range(3):
        action()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        action()
        done += batch
    return round(done / (time.perf_counter() - started), 1)


def sheet(portrait: bytes, across: int, down: int) -> bytes:
    """A picture with `across` x `down` copies of the portrait, each 160 pixels wide."""
    face = cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR)
    if face is None:
        raise SystemExit("the portrait does not decode")
    tile = cv2.resize(face, (160, 160 * face.shape[0] // face.shape[1]), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", np.tile(tile, (down, across, 1)))[1].tobytes())


def photograph(portrait: bytes) -> bytes:
    """The portrait in the middle of a picture of usual proportions, 1280 x 960."""
    face = cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR)
    if face is None:
        raise SystemExit("the portrait does not decode")
    width = 600 * face.shape[1] // face.shape[0]
    canvas = np.full((960, 1280, 3), 120, np.uint8)
    canvas[180:780, 640 - width // 2 : 640 - width // 2 + width] = cv2.resize(face, (width, 600))
    return bytes(cv2.imencode(".jpg", canvas)[1].tobytes())


def embed_rates(options: argparse.Namespace, pictures: dict[str, bytes], workers: int) -> dict[str, Any]:
    """Pictures and faces a second through embed's gRPC."""
    settings = {
        "GRPC_PORT": GRPC_PORT,
        "HTTP_PORT": HTTP_PORT,
        "MODEL__PROVIDERS": json.dumps([options.provider]),
        "INFERENCE__WORKERS": workers,
        "INFERENCE__MAX_BATCH_IMAGES": 32,
        "INFERENCE__MAX_BATCH_FACES": max(BATCHES),
        "INFERENCE__START_TIMEOUT_S": 240,
        "MODEL__PRECISION": options.precision,
        "GATE__WORKERS": max(2, (os.cpu_count() or 2) // 2),
        "MAX_PENDING": 4 * options.callers,
    }
    environment = {**os.environ, **{f"LIKENESS_EMBED__{name}": str(value) for name, value in settings.items()}}
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "services.embed"], env=environment)
    try:
        with open_channel(f"127.0.0.1:{GRPC_PORT}") as channel:
            client = EmbedClient(channel)
            _wait_until_it_answers(client, process)
            figures: dict[str, Any] = {"start_s": round(time.perf_counter() - begun, 1)}
            for name, jpeg in pictures.items():
                figures[name] = _called(client, jpeg, options.callers, options.calls)
            return figures
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_it_answers(client: EmbedClient, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            client.describe_model()
        except Exception:  # noqa: BLE001 - not there yet, however it says so
            if process.poll() is not None:
                raise SystemExit("embed ended at its start") from None
            time.sleep(0.5)
        else:
            return
    raise SystemExit("embed does not answer")


def _called(client: EmbedClient, jpeg: bytes, callers: int, calls: int) -> dict[str, float]:
    def call(_number: int) -> tuple[int, float, float]:
        started = time.perf_counter()
        answer = client.analyse(jpeg, embed_pb2.AnalyseRequest.ALL, timeout_s=120.0)
        return len(answer.faces), answer.timings_ms["template"], (time.perf_counter() - started) * 1000

    first = call(0)
    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        answers = list(pool.map(call, range(calls)))
    seconds = time.perf_counter() - started
    faces = sum(count for count, _, _ in answers)
    return {
        "pictures_per_s": round(calls / seconds, 1),
        "faces_per_s": round(faces / seconds, 1),
        "faces_per_picture": faces / calls,
        "lone_caller_ms": round(first[2], 2),
        "template_ms_p50": round(float(np.median([taken for _, taken, _ in answers])), 2),
        "p50_ms": round(float(np.median([taken for _, _, taken in answers])), 2),
        "slowest_ms": round(max(taken for _, _, taken in answers), 2),
    }


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", default="CUDAExecutionProvider")
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--precision", choices=["float32", "float16"], default="float32")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    portraits = [path.read_bytes() for path in sorted(options.faces.glob("*.jpg"))]
    crops = crops_of(portraits)
    figures: dict[str, Any] = {"runtime": runtime_name(), "provider": options.provider, "faces": len(crops)}
    figures["agreement"] = agreement(options.provider, crops)
    figures["faces_per_s"] = rates(options.provider, crops, options.seconds)
    print(json.dumps(figures, indent=1), flush=True)
    pictures = {"one face": photograph(portraits[0]), "32 faces": sheet(portraits[0], 8, 4)}
    figures["embed"] = {}
    for workers in options.workers:
        taken = embed_rates(options, pictures, workers)
        figures["embed"][f"{workers} workers"] = taken
        print(json.dumps(taken, indent=1), flush=True)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
