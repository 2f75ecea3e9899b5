"""The process that runs the networks: `python -m services.embed.workers.inference_worker CHANNEL`.

It loads the networks whose hashes it was told, and then answers jobs: pixels in an arena, faces back. Jobs that wait
together are templated in one batch.
"""

from __future__ import annotations

import base64
import gc
import os
import signal
import sys
from collections import OrderedDict
from typing import Any

import cv2
import numpy as np

from services.embed.faces.analyser import Analyser, PictureJob, PictureResult
from services.embed.faces.picture import Picture
from services.embed.faces.stub import STUB_NAME, StubAnalyser
from services.embed.ports import Selection
from services.embed.workers.arena import Arena
from services.embed.workers.channel import Channel, ChannelClosed
from services.embed.workers.networks import open_analyser
from services.shared.errors import LikenessError
from services.shared.memory import give_freed_memory_back, keep_freed_memory


def main(descriptor: int) -> None:
    """Serve until the channel closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the service, which ends its workers in order
    cv2.setNumThreads(1)
    channel = Channel.from_descriptor(descriptor, max_descriptors=1)
    order, _ = channel.receive()
    try:
        analyser, runtime, provider = _build(order)
    except LikenessError as error:
        channel.send({"failed": error.code, "detail": error.detail, "advice": error.advice})
        return
    gc.collect()
    gc.freeze()
    give_freed_memory_back()
    keep_freed_memory()
    channel.send({"ready": True, "provider": provider, "runtime": runtime})
    try:
        _Service(channel, analyser, int(order["max_batch_images"]), int(order["max_arenas"])).run()
    except ChannelClosed:
        return


def _build(order: dict[str, Any]) -> tuple[Analyser, str, str]:
    """What the order asks for, with the runtime and the provider that it really runs on."""
    if order["model"]["kind"] == "stub":
        return StubAnalyser(str(order["model_id"])), STUB_NAME, STUB_NAME
    return open_analyser(order)


class _Service:
    def __init__(self, channel: Channel, analyser: Analyser, max_batch_images: int, max_arenas: int) -> None:
        self._channel = channel
        self._analyser = analyser
        self._max_batch_images = max_batch_images
        self._max_arenas = max_arenas
        self._arenas: OrderedDict[int, Arena] = OrderedDict()

    def run(self) -> None:
        """Raises ChannelClosed when the service is gone."""
        while True:
            orders = [self._next_order()]
            while len(orders) < self._max_batch_images and self._channel.has_message():
                orders.append(self._next_order())
            results = self._analyser.analyse([self._job(order) for order in orders])
            for order, result in zip(orders, results, strict=True):
                self._channel.send({"id": order["id"], **answer_of(result)})

    def _next_order(self) -> dict[str, Any]:
        order, descriptors = self._channel.receive()
        if descriptors:
            self._remember(int(order["arena"]), descriptors[0], order)
        return order

    def _remember(self, key: int, descriptor: int, order: dict[str, Any]) -> None:
        if key in self._arenas:
            os.close(descriptor)
            self._arenas.move_to_end(key)
            return
        self._arenas[key] = Arena(descriptor, int(order["input_bytes"]), int(order["pixel_bytes"]))
        if len(self._arenas) > self._max_arenas:
            self._arenas.popitem(last=False)[1].close()

    def _job(self, order: dict[str, Any]) -> PictureJob:
        height, width = int(order["height"]), int(order["width"])
        view = self._arenas[int(order["arena"])].pixel_view()
        pixels = np.frombuffer(view, np.uint8, height * width * 3).reshape(height, width, 3)
        picture = Picture(pixels, int(order["orientation"]))
        selection = Selection(order["selection"])
        return PictureJob(picture, selection, int(order["face_index"]), is_thorough=bool(order["is_thorough"]))


def answer_of(result: PictureResult) -> dict[str, Any]:
    """A result as plain values; floats keep every bit in JSON."""
    return {
        "detect_ms": result.detect_ms,
        "template_ms": result.template_ms,
        "batch_faces": result.batch_faces,
        "faces": [
            {
                "box": [face.box.x, face.box.y, face.box.width, face.box.height],
                "landmarks": face.landmarks,
                "score": face.detection_score,
                "inter_eye_px": face.inter_eye_px,
                "unified": face.quality.unified,
                "components": face.quality.components,
                "vector": None if face.template is None else face.template.vector,
                "signals": [[signal.name, signal.value, signal.threshold, signal.is_raised] for signal in face.signals],
                "chip": base64.b64encode(face.chip).decode(),
            }
            for face in result.faces
        ],
    }


if __name__ == "__main__":
    main(int(sys.argv[1]))
