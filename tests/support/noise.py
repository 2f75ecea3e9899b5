"""Pictures of nothing, each different, for tests whose embed runs its stand-in: that sees a face in every picture."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image


def picture(name: str) -> bytes:
    """A picture of its own for each name, always the same."""
    seed = list(hashlib.sha256(name.encode()).digest())
    noise = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((320, 240)).save(file, "JPEG", quality=90)
    return file.getvalue()
