"""One session for each shape of input, for runtimes that plan for one shape at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from services.embed.ports import ModelSession, Pixels, Tensor


class SessionPerShape:
    """Runs each of `shapes` in a session of its own, opened and run once at the start; anything else in `other`.

    onnxruntime's CUDA provider plans every convolution anew whenever the shape differs from that of the run before:
    0.6 seconds a change for a small network were measured, so that a detector that is shown pictures of several sizes,
    or a recogniser whose batches grow and shrink, never gets to work.
    """

    def __init__(
        self,
        open_session: Callable[[], ModelSession],
        shapes: Iterable[tuple[int, ...]],
        kind: npt.DTypeLike,
        other: ModelSession,
    ) -> None:
        """`kind`: the type of the input's numbers."""
        self._other = other
        self._sessions: dict[tuple[int, ...], ModelSession] = {}
        for shape in shapes:
            session = open_session()
            session.run(np.zeros(shape, kind))
            self._sessions[shape] = session

    @property
    def provider(self) -> str:
        return next((session.provider for session in self._sessions.values()), self._other.provider)

    def run(self, batch: Pixels | Tensor) -> Mapping[str, Tensor]:
        return self._sessions.get(batch.shape, self._other).run(batch)
