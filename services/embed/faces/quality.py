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
| compression | roughness across the borders of 8 x 8 blocks, by their size beside the face | all blocks | none |
| eyes_open, mouth_closed, expression | dark rows of eyes and mouth, its width | shut; wide open; a grin | at rest |
| visibility | eyes and lower face beside the cheeks: dark glasses, masks, hands | covered | free |
| background | evenness beside and above the head; for custody pictures | busy | even |

The unified score is a weighted geometric mean whose WEIGHTS were fitted so that it predicts false non-match: by how
much the log odds of a miss grow with the logarithm of each component (docs/accuracy.md, `python -m tests.accuracy
quality`). It falls when a weighed component falls, and is 0 where one of VITAL is. What got no weight tells a person
what to do better, and is in the vector for that.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from services.embed.faces import components as pixels_of
from services.embed.faces.components import percent
from services.embed.faces.geometry import Points
from services.embed.ports import Pixels
from services.shared.biometric import Quality

# What `python -m tests.accuracy quality` fitted. Distance and yaw have the least that they may have: the set has few
# faces that are turned, or small without being compressed or blurred.
WEIGHTS = {
    "inter_eye_distance": 0.026,
    "sharpness": 0.149,
    "illumination": 0.328,
    "yaw": 0.026,
    "pitch": 0.023,
    "detection": 0.202,
    "compression": 0.177,
    "eyes_open": 0.046,
    "visibility": 0.023,
}
# Without any of these there is nothing that a template could be made of.
VITAL = ("inter_eye_distance", "sharpness", "illumination", "contrast", "yaw", "pitch", "roll", "detection")
_LEAST = 1.0  # of a component in the mean; the rest can still be good
_NOSE_DEPTH = 0.6  # how far the tip of the nose stands out, in distances between the eyes
_NOSE_HEIGHT = 0.49  # where the tip of a frontal nose lies between the eyes (0) and the mouth (1)


def measure_quality(
    aligned: Pixels,
    landmarks: Points,
    detection_score: float,
    *,
    blockiness: float = 1.0,
    surroundings: Pixels | None = None,
) -> Quality:
    """Quality of one face: its aligned BGR square and its landmarks in pixels of the original.

    `blockiness` is Picture.blockiness around the face, `surroundings` a chip three boxes wide, for the background.
    """
    grey: Pixels = cv2.cvtColor(aligned, cv2.COLOR_BGR2GRAY)  # type: ignore[assignment]
    yaw, pitch, roll = head_pose(landmarks)
    closed = pixels_of.mouth_closed(grey)
    components = {
        "inter_eye_distance": _distance_score(inter_eye_px(landmarks)),
        "sharpness": pixels_of.sharpness(grey),
        "illumination": pixels_of.illumination(grey),
        "contrast": pixels_of.contrast(grey),
        "yaw": _angle_score(yaw),
        "pitch": _angle_score(pitch),
        "roll": _angle_score(roll),
        "detection": percent(detection_score),
        "compression": pixels_of.compression(blockiness, inter_eye_px(landmarks)),
        "eyes_open": pixels_of.eyes_open(grey),
        "mouth_closed": closed,
        "expression": pixels_of.expression(landmarks, closed),
        "visibility": pixels_of.visibility(aligned),
        "background": 100.0 if surroundings is None else pixels_of.background(surroundings),
    }
    return Quality(unified=unify(components), components=components)


def unify(components: dict[str, float]) -> float:
    """Weighted geometric mean; a vital component of 0 makes it 0."""
    if min(components[name] for name in VITAL) <= 0:
        return 0.0
    return math.exp(sum(weight * math.log(max(components[name], _LEAST)) for name, weight in WEIGHTS.items()))


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
    return percent(math.log2(max(pixels, 1e-6) / 8) / math.log2(128 / 8))


def _angle_score(angle: float) -> float:
    return percent(max(0.0, math.cos(angle)) ** 2)
