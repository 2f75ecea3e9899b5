"""What the use case needs of the outside: a decoder for untrusted bytes and a runtime for networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Tensor = npt.NDArray[np.float32]


class Selection(Enum):
    """Which faces get a template. All faces are always reported."""

    SOLE = "sole"
    BY_INDEX = "by_index"
    LARGEST = "largest"
    ALL = "all"
    NONE = "none"
    ALL_WITH_CHIPS = "all_with_chips"


class ModelSession(Protocol):
    """One loaded network."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs it."""
        ...

    def run(self, batch: Pixels | Tensor) -> Mapping[str, Tensor]:
        """Outputs by name for a batch: N x channels x height x width, or what else the network takes."""
        ...


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """What the gate says about the picture whose pixels lie in shared memory.

    `stored_width` and `stored_height` are the pixels as they lie there; `orientation` (EXIF, 1 to 8) turns them
    upright.
    """

    format: str
    stored_width: int
    stored_height: int
    orientation: int
    frame_count: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height once the orientation is applied."""
        size = (self.stored_width, self.stored_height)
        return size if self.orientation < 5 else (size[1], size[0])
