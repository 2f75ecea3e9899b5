"""Batches of a few sizes only, for runtimes that prepare themselves for each shape anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.embed.ports import ModelSession, Pixels, Tensor


class PaddedBatches:
    """A session whose batches are filled up with zeros to the next of `sizes`, and whose outputs are cut again.

    On a GPU the first run of a shape takes seconds (measured: cuDNN looks for the best algorithm of each convolution),
    so that batches as they happen to form would never be quick. A batch over the largest size runs as it is.
    """

    def __init__(self, session: ModelSession, sizes: Sequence[int]) -> None:
        self._session = session
        self._sizes = tuple(sorted(sizes))

    @property
    def provider(self) -> str:
        return self._session.provider

    def run(self, batch: Pixels | Tensor) -> Mapping[str, Tensor]:
        count = len(batch)
        size = next((size for size in self._sizes if size >= count), count)
        if size == count:
            return self._session.run(batch)
        padded = np.zeros((size, *batch.shape[1:]), batch.dtype)
        padded[:count] = batch
        return {name: output[:count] for name, output in self._session.run(padded).items()}
