"""What may be done to a working copy: closed, deterministic, repeatable from the original. Nothing is painted in.

The same steps on the same pixels give the same bytes: integer or fixed-point arithmetic of one library version, and
PNG written with fixed settings. Amounts are in the units below; a step outside its limits is refused, not clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from services.review.model import EnhancementStep, StepKind
from services.shared.errors import InvalidRequest, PlatformError

Pixels = npt.NDArray[np.uint8]
MAX_STEPS = 20
# Ten seconds of two processors at the largest size; everything else takes a fraction of one.
MAX_DENOISINGS = 2
# A working copy at its largest, turned by 45 degrees. Turned once more it would be twice as large, and so on.
MAX_PIXELS = 36_000_000
_MIN_SIDE = 32  # smaller than this is no picture of a face


@dataclass(frozen=True, slots=True)
class Amount:
    """A number that a step takes: lowest, highest, and what it means."""

    lowest: float
    highest: float
    meaning: str


_PIXEL = Amount(0, 16_384, "pixels of the picture that the steps before have made")
LIMITS: Mapping[StepKind, Mapping[str, Amount]] = {
    StepKind.CROP: {"x": _PIXEL, "y": _PIXEL, "width": _PIXEL, "height": _PIXEL},
    StepKind.ROTATE: {"degrees": Amount(-180, 180, "clockwise, about the centre")},
    StepKind.MIRROR: {},
    StepKind.BRIGHTNESS: {"levels": Amount(-100, 100, "added to every channel of 0 to 255")},
    StepKind.CONTRAST: {"factor": Amount(0.5, 3.0, "about the middle grey, 1 leaves it")},
    StepKind.GAMMA: {"gamma": Amount(0.3, 3.0, "exponent; below 1 brightens shadows")},
    StepKind.DEINTERLACE: {"field": Amount(0, 1, "which field is kept: 0 upper, 1 lower; its lines are interpolated")},
    StepKind.SHARPEN: {"strength": Amount(0.0, 1.0, "unsharp mask, radius 1.2 px")},
    StepKind.DENOISE: {"strength": Amount(1.0, 6.0, "non-local means, in grey levels")},
}


def checked(steps: Sequence[EnhancementStep]) -> tuple[EnhancementStep, ...]:
    """The steps, when each is allowed and has just its amounts. Raises InvalidRequest."""
    if not 1 <= len(steps) <= MAX_STEPS:
        raise _wrong("steps", f"1 to {MAX_STEPS} steps.")
    for place, step in enumerate(steps, 1):
        limits = LIMITS[step.kind]
        if set(step.amounts) != set(limits):
            raise _wrong("steps", f"Step {place}, {step.kind.value}, takes {', '.join(limits) or 'no amounts'}.")
        for name, limit in limits.items():
            if not limit.lowest <= step.amounts[name] <= limit.highest:
                raise _wrong("steps", f"Step {place}: {name} is from {limit.lowest:g} to {limit.highest:g}.")
    if sum(step.kind is StepKind.DENOISE for step in steps) > MAX_DENOISINGS:
        raise _wrong("steps", f"At most {MAX_DENOISINGS} of them denoise.")
    return tuple(steps)


def carried(at: tuple[float, float], size: tuple[int, int], steps: Sequence[EnhancementStep]) -> tuple[float, float]:
    """Where the steps put a point of a picture of this width and height: only cutting and turning move it."""
    (x, y), (width, height) = at, size
    for step in checked(steps):
        amounts = step.amounts
        if step.kind is StepKind.CROP:
            x, y = x - round(amounts["x"]), y - round(amounts["y"])
            width, height = round(amounts["width"]), round(amounts["height"])
        elif step.kind is StepKind.MIRROR:
            x = width - x
        elif step.kind is StepKind.ROTATE:
            matrix, (width, height) = _turning(width, height, amounts["degrees"])
            x, y = (float(one) for one in matrix @ (x, y, 1.0))
    return x, y


def described(step: EnhancementStep) -> str:
    """A step in words, as it stands on the result."""
    amounts = ", ".join(f"{name} {amount:g}" for name, amount in step.amounts.items())
    return f"{step.kind.value} ({amounts})" if amounts else step.kind.value


def apply(png: bytes, steps: Sequence[EnhancementStep]) -> tuple[bytes, int, int]:
    """The PNG that the steps make of a PNG of the platform's own, and its size. Raises InvalidRequest."""
    pixels = decoded(png)
    for step in checked(steps):
        pixels = _STEPS[step.kind](pixels, step.amounts)
    is_encoded, content = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not is_encoded:
        raise PlatformError("An enhanced picture could not be encoded.", advice="Tell the operators.")
    height, width = pixels.shape[:2]
    return content.tobytes(), width, height


def decoded(picture: bytes) -> Pixels:
    """Pixels of a picture that the platform has encoded itself; never of one that came from outside."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise PlatformError("A working copy cannot be read.", advice="Operators: check the store of review's pictures.")
    return pixels  # type: ignore[return-value]


def as_jpeg(picture: bytes) -> bytes:
    """A picture of the platform's own as JPEG, for showing."""
    is_encoded, content = cv2.imencode(".jpg", decoded(picture), [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not is_encoded:
        raise PlatformError("A picture could not be encoded.", advice="Tell the operators.")
    return content.tobytes()


def _wrong(field: str, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"Missing or invalid: {field}. {problem}",
        advice="Correct the steps.",
        context={"fields": [{"field": field, "problem": problem}]},
    )


def _crop(pixels: Pixels, amounts: Mapping[str, float]) -> Pixels:
    height, width = pixels.shape[:2]
    left, top = round(amounts["x"]), round(amounts["y"])
    right, bottom = left + round(amounts["width"]), top + round(amounts["height"])
    if right > width or bottom > height or right - left < _MIN_SIDE or bottom - top < _MIN_SIDE:
        raise _wrong("steps", f"A crop lies within {width} x {height} and keeps at least {_MIN_SIDE} pixels a side.")
    return pixels[top:bottom, left:right].copy()


_QUARTERS = {
    90.0: cv2.ROTATE_90_CLOCKWISE,
    -90.0: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180.0: cv2.ROTATE_180,
    -180.0: cv2.ROTATE_180,
}


def _rotate(pixels: Pixels, amounts: Mapping[str, float]) -> Pixels:
    degrees = amounts["degrees"]
    quarter = _QUARTERS.get(degrees)
    if quarter is not None:
        return cv2.rotate(pixels, quarter)  # type: ignore[return-value]
    height, width = pixels.shape[:2]
    matrix, size = _turning(width, height, degrees)
    if size[0] * size[1] > MAX_PIXELS:
        raise _wrong("steps", f"Turned like that the picture has {size[0]} x {size[1]} pixels. Crop it first.")
    # What comes into view at the corners is black: nothing is made up.
    return cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderValue=(0, 0, 0))  # type: ignore[return-value]


def _turning(width: int, height: int, degrees: float) -> tuple[npt.NDArray[np.float64], tuple[int, int]]:
    """What takes a point of the picture into the turned one, which holds all of it, and that one's width and height."""
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0), np.float64)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = (round(height * sine + width * cosine), round(height * cosine + width * sine))
    matrix[:, 2] += (size[0] / 2 - width / 2, size[1] / 2 - height / 2)
    return matrix, size


def _mirror(pixels: Pixels, _amounts: Mapping[str, float]) -> Pixels:
    return cv2.flip(pixels, 1)  # type: ignore[return-value]


def _through(pixels: Pixels, levels: npt.NDArray[np.floating[Any]]) -> Pixels:
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table)  # type: ignore[return-value]


def _brightness(pixels: Pixels, amounts: Mapping[str, float]) -> Pixels:
    return _through(pixels, np.arange(256) + amounts["levels"])


def _contrast(pixels: Pixels, amounts: Mapping[str, float]) -> Pixels:
    return _through(pixels, (np.arange(256) - 127.5) * amounts["factor"] + 127.5)


def _gamma(pixels: Pixels, amounts: Mapping[str, float]) -> Pixels:
    return _through(pixels, 255 * (np.arange(256) / 255) ** amounts["gamma"])


def _deinterlace(pixels: Pixels, amounts: Mapping[str, float]) -> Pixels:
    """One field is kept as it is; each line of the other becomes the mean of its neighbours."""
    kept = round(amounts["field"])
    lines = pixels.copy()
    for row in range(1 - kept, len(lines), 2):
        above, below = max(row - 1, kept), min(row + 1, len(lines) - 1 - (len(lines) - 1 - kept) % 2)
        lines[row] = (pixels[above].astype(np.uint16) + pixels[below] + 1) // 2
    return lines


def _sharpen(pixels: Pixels, amounts: Mapping[str, float]) -> Pixels:
    blurred = cv2.GaussianBlur(pixels, (0, 0), 1.2)
    strength = amounts["strength"]
    return cv2.addWeighted(pixels, 1 + strength, blurred, -strength, 0)  # type: ignore[return-value]


def _denoise(pixels: Pixels, amounts: Mapping[str, float]) -> Pixels:
    strength = amounts["strength"]
    return cv2.fastNlMeansDenoisingColored(pixels, None, strength, strength, 5, 11)  # type: ignore[return-value]


_STEPS: Mapping[StepKind, Callable[[Pixels, Mapping[str, float]], Pixels]] = {
    StepKind.CROP: _crop,
    StepKind.ROTATE: _rotate,
    StepKind.MIRROR: _mirror,
    StepKind.BRIGHTNESS: _brightness,
    StepKind.CONTRAST: _contrast,
    StepKind.GAMMA: _gamma,
    StepKind.DEINTERLACE: _deinterlace,
    StepKind.SHARPEN: _sharpen,
    StepKind.DENOISE: _denoise,
}
