"""What would make a better picture of a face, in words, from its quality components."""

from __future__ import annotations

from collections.abc import Mapping

# Below which a component is advised on: about where the poorest tenth of press photographs lies. What is only a hint
# (docs/accuracy.md) speaks later, so that it is seldom wrong.
_ENOUGH: Mapping[str, float] = {
    "inter_eye_distance": 50.0,
    "yaw": 80.0,
    "pitch": 90.0,
    "visibility": 15.0,
    "illumination": 65.0,
    "sharpness": 30.0,
    "compression": 60.0,
    "contrast": 45.0,
    "eyes_open": 15.0,
    "mouth_closed": 15.0,
    "expression": 15.0,
    "background": 15.0,
}
_MOST_ADVICE = 3

# In the order in which a photographer should mend things.
_ADVICE: Mapping[str, str] = {
    "inter_eye_distance": "Come closer or use a picture with more pixels of the face.",
    "yaw": "The face is turned to a side: have it look straight into the camera.",
    "pitch": "The head is tilted up or down: have it look straight into the camera.",
    "visibility": "Eyes or mouth seem to be covered: take off dark glasses, mask, scarf, and hands from the face.",
    "illumination": "The face is too dark, too bright or lit from one side: light it evenly from the front.",
    "sharpness": "The face is not sharp: focus on the eyes and hold still.",
    "compression": "Compression has eaten detail: send the original file, not a copy from a messenger.",
    "contrast": "The face is flat: avoid haze, glare and backlight.",
    "eyes_open": "The eyes seem to be shut or hidden.",
    "mouth_closed": "The mouth seems to be open.",
    "expression": "Have the face at rest, without a smile.",
    "background": "Use an even, light background.",
}


def capture_advice(components: Mapping[str, float], about: tuple[str, ...] = tuple(_ADVICE)) -> tuple[str, ...]:
    """Words on the worst components of those asked for, at most three; none where everything is good enough."""
    poor = [name for name in about if components.get(name, 100.0) < _ENOUGH[name]]
    worst = sorted(poor, key=lambda name: components[name])[:_MOST_ADVICE]
    return tuple(_ADVICE[name] for name in _ADVICE if name in worst)
