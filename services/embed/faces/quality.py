"""Face image quality after ISO/IEC 29794-5: named components from 0 to 100 and one unified score.

Every component is a monotone function of one measurement, so that it can be explained:

| component | measurement | 0 | 100 |
|---|---|---|---|
| inter_eye_distance | log2 of the distance between the eyes in pixels of the original | 8 px | 128 px |
| sharpness | variance of the Laplacian over the aligned face, v: 100 v / (v + 150) | blank | crisp |
| illumination | 100 min(exposure, evenness): mean grey near the middle, halves alike | black, one-sided | even |
| contrast | standard deviation of grey | flat | 60 grey levels |
| yaw, pitch, roll | 100 cos² of the angle, estimated from the five landmarks | 90° | 0° |
| detection | the detector's score | 0 | 1 |

The unified score is the weighted geometric mean (WEIGHTS): it falls when any one component falls, and no good
component makes up for a bad one.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from services.embed.faces.geometry import Points
from services.embed.ports import Pixels
from services.shared.biometric import Quality

WEIGHTS = {
    "inter_eye_distance": 0.25,
    "sharpness": 0.2,
    "yaw": 0.2,
    "pitch": 0.1,
    "roll": 0.025,
    "illumination": 0.1,
    "contrast": 0.05,
    "detection": 0.075,
}
_SHARPNESS_HALF = 150.0  # Laplacian variance that scores 50
_NOSE_DEPTH = 0.6  # how far the tip of the nose stands out, in distances between the eyes
_NOSE_HEIGHT = 0.49  # where the tip of a frontal nose lies between the eyes (0) and the mouth (1)


def measure_quality(aligned: Pixels, landmarks: Points, detection_score: float) -> Quality:
    """Quality of one face: its aligned BGR square and its landmarks in pixels of the original."""
    grey = cv2.cvtColor(aligned, cv2.COLOR_BGR2GRAY)
    yaw, pitch, roll = head_pose(landmarks)
    components = {
        "inter_eye_distance": _distance_score(inter_eye_px(landmarks)),
        "sharpness": _sharpness(grey),  # type: ignore[arg-type]
        "illumination": _illumination(grey),  # type: ignore[arg-type]
        "contrast": _percent(float(grey.std()) / 60),
        "yaw": _angle_score(yaw),
        "pitch": _angle_score(pitch),
        "roll": _angle_score(roll),
        "detection": _percent(detection_score),
    }
    return Quality(unified=unify(components), components=components)


def unify(components: dict[str, float]) -> float:
    """Weighted geometric mean; a component of 0 makes it 0."""
    if min(components.values()) <= 0:
        return 0.0
    return math.exp(sum(weight * math.log(components[name]) for name, weight in WEIGHTS.items()))


def inter_eye_px(landmarks: Points) -> float:
    return float(np.hypot(*(landmarks[1] - landmarks[0])))


def head_pose(landmarks: Points) -> tuple[float, float, float]:
    """Yaw, pitch and roll in radians from five landmarks, with an average head: good to about ten degrees."""
    eyes = landmarks[1] - landmarks[0]
    distance = max(float(np.hypot(*eyes)), 1e-6)
    along = eyes / distance
    across = np.array([-along[1], along[0]])
    middle = (landmarks[0] + landmarks[1]) / 2
    nose, mouth = landmarks[2] - middle, (landmarks[3] + landmarks[4]) / 2 - middle
    height = max(float(mouth @ across), 1e-6)
    # The tip of the nose moves sideways by its depth times the sine, the eyes close up by the cosine.
    yaw = math.atan(float(nose @ along) / (_NOSE_DEPTH * distance))
    pitch = math.atan((float(nose @ across) - _NOSE_HEIGHT * height) / (_NOSE_DEPTH * distance))
    return yaw, pitch, math.atan2(float(eyes[1]), float(eyes[0]))


def _distance_score(pixels: float) -> float:
    return _percent(math.log2(max(pixels, 1e-6) / 8) / math.log2(128 / 8))


def _sharpness(grey: Pixels) -> float:
    variance = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return 100 * variance / (variance + _SHARPNESS_HALF)


def _illumination(grey: Pixels) -> float:
    half = grey.shape[1] // 2
    left, right = float(grey[:, :half].mean()), float(grey[:, half:].mean())
    exposure = 1 - abs((left + right) / 2 - 127.5) / 127.5
    evenness = 1 - abs(left - right) / max(left + right, 1e-6)
    return _percent(min(exposure, evenness))


def _angle_score(angle: float) -> float:
    return _percent(max(0.0, math.cos(angle)) ** 2)


def _percent(share: float) -> float:
    return 100 * min(1.0, max(0.0, share))
