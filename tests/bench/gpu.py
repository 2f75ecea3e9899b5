"""Templates on a GPU: embed with concurrent callers beside a bare onnxruntime loop at the same batch size.

    python -m tests.bench.gpu --portrait FILE [--provider CUDAExecutionProvider] [--out gpu.json]

The bare loop runs the recogniser alone on aligned faces, copies in and out included. Embed decodes, detects, aligns
and templates pictures that hold many faces (a sheet of portraits), sent by many callers over gRPC, so that batches form
from calls of different callers; its worker's share of time in the recogniser gives the rate of the template stage.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from services.embed.adapters.onnxruntime_session import OnnxruntimeSession, runtime_name
from services.embed.bootstrap import build
from services.embed.faces.recogniser import SIDE, Recogniser
from services.embed.settings import EmbedSettings
from services.rpc.clients import EmbedClient, open_channel
from services.rpc.v1 import embed_pb2
from services.shared.telemetry import Metrics
from tests.bench.networks import prepared_models

BATCHES = (1, 8, 32, 64, 128)


def bare_rates(provider: str, seconds: float) -> dict[str, float]:
    """Faces a second of the recogniser alone, by batch size."""
    session = OnnxruntimeSession(prepared_models()[1], providers=[provider])
    recogniser = Recogniser(session, kind="sface", dimension=128)
    faces = list(np.random.default_rng(1).integers(0, 255, (max(BATCHES), SIDE, SIDE, 3), dtype=np.uint8))
    rates = {}
    for batch in BATCHES:
        blob = np.random.default_rng(1).random((batch, 3, SIDE, SIDE), dtype=np.float32)
        rates[f"network_{batch}"] = _rate(lambda blob=blob: session.run(blob), batch, seconds)
        rates[f"with_preprocessing_{batch}"] = _rate(lambda n=batch: recogniser.vectors(faces[:n]), batch, seconds)
    return rates


def _rate(action: Any, batch: int, seconds: float) -> float:
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
    tile: npt.NDArray[Any] = cv2.resize(face, (160, 160 * face.shape[0] // face.shape[1]), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", np.tile(tile, (down, across, 1)))[1].tobytes())


def embed_rate(provider: str, pictures: dict[str, bytes], callers: int, calls: int) -> dict[str, Any]:
    """Faces and pictures a second through embed's gRPC, and the rate of its template stage while batches form."""
    settings = EmbedSettings.model_validate(
        {
            "grpc_port": 51062,
            "http_port": 51084,
            "model": {"providers": [provider]},
            "inference": {"workers": 1, "max_batch_images": 32},
            "gate": {"workers": 8},
            "max_pending": 4 * callers,
        }
    )
    figures: dict[str, Any] = {}
    metrics = Metrics()
    service = build(settings, metrics)
    try:
        with open_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
            client = EmbedClient(channel)
            for name, jpeg in pictures.items():
                figures[name] = _called(client, jpeg, callers, calls)
    finally:
        service.stop()
    figures["batch_faces"] = {
        sample.labels["le"]: sample.value
        for metric in metrics.embed_batch_faces.collect()
        for sample in metric.samples
        if sample.name.endswith("_bucket")
    }
    return figures


def _called(client: EmbedClient, jpeg: bytes, callers: int, calls: int) -> dict[str, float]:
    def call(_number: int) -> tuple[int, float]:
        answer = client.analyse(jpeg, embed_pb2.AnalyseRequest.ALL, timeout_s=60.0)
        return len(answer.faces), answer.timings_ms["template"]

    call(0)
    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        answers = list(pool.map(call, range(calls)))
    seconds = time.perf_counter() - started
    faces = sum(count for count, _ in answers)
    return {
        "pictures_per_s": round(calls / seconds, 1),
        "faces_per_s": round(faces / seconds, 1),
        "faces_per_picture": faces / calls,
        "template_ms_p50": round(float(np.median([taken for _, taken in answers])), 2),
    }


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", default="CUDAExecutionProvider")
    parser.add_argument("--portrait", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    portrait = options.portrait.read_bytes()
    figures: dict[str, Any] = {"runtime": runtime_name(), "provider": options.provider}
    figures["bare"] = bare_rates(options.provider, options.seconds)
    pictures = {"one face": sheet(portrait, 1, 1), "32 faces": sheet(portrait, 8, 4)}
    figures["embed"] = embed_rate(options.provider, pictures, options.callers, options.calls)
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
