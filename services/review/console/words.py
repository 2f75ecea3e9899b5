"""What things are called on the pages: one plain phrase for every value, and what an operator makes of a number."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum

_PHRASES: Mapping[str, str] = {
    "cctv": "CCTV",
    "body_worn_video": "Body-worn video",
    "social_media": "Social media",
    "received": "Waiting for triage",
    "returned": "Sent back",
    "accepted": "Waiting for assessment",
    "unsuitable": "Not suitable",
    "assessed": "Ready to search",
    "flagged": "Flagged: waiting for a supervisor",
    "searched": "Waiting for first review",
    "in_first_review": "In first review",
    "awaiting_second_review": "Waiting for second review",
    "in_second_review": "In second review",
    "ends_early": "The file ends early: what decodes was read.",
    "frames_damaged": "Frames of the file are damaged: what decodes was read.",
    "timestamps_irregular": "The times of its frames are irregular.",
    "too_long": "The film is longer than is read: later frames are missing.",
    "disputed": "Waiting for a supervisor",
    "decided": "Ready to release",
    "released": "Released",
    "unsolved": "In the unsolved file",
    "closed": "Closed",
    "withdrawn": "Withdrawn",
    "suitable_with_caution": "Suitable with caution",
    "possible_match": "Possible match",
    "no_support": "No support",
    "not_comparable": "Not comparable",
    "face_outline": "Face and head outline",
    "face_composition": "Face composition and proportions",
    "hairline": "Hairline and hair",
    "chin_jawline": "Chin and jawline",
    "facial_hair": "Facial hair",
    "facial_lines": "Facial lines",
    "facial_marks": "Facial marks",
    "alterations": "Alterations (piercings, tattoos, make-up)",
    "prevention_and_detection": "Prevention and detection of crime",
    "deceased_identification": "Naming a deceased person",
    "look_alike": "Look-alike",
    "generated": "Generated or AI-made image",
    "composite": "Composite of parts",
    "drawing": "Drawing or sketch",
    "retouched": "Retouched picture",
    "rephotographed": "Picture of a screen or of a print",
    "no_action": "No further action",
    "duplicate": "The same picture twice",
    "same_person": "One person as two subjects",
    "wrong_subject": "A picture of somebody else",
    "near_identical": "Near identical",
    "wrong_person": "Wrong person",
    "body_named": "Body named",
    "missing_person_found": "Missing person found",
    "eliminated": "Eliminated from the enquiry",
}

# Why nobody is signed in any more, by what stands in the address of the sign-in.
ENDED: Mapping[str, str] = {
    "1": "Your session has ended.",
    "out": "You have signed out. Nothing stays open.",
    "idle": "Your session ended because nothing was done in it for a while.",
    "age": "Your session ended because it had lasted as long as one may.",
    "elsewhere": "Your session ended because you signed in somewhere else. If that was not you, tell your "
    "administrator now.",
    "closed": "You ended this session from “Your sessions”.",
    "access": "Your session ended because your access no longer holds: it ran out, was changed or was withdrawn.",
}

# Components of the quality vector (ISO/IEC 29794-5), in words that fit into “… is low”.
_QUALITY: Mapping[str, str] = {
    "inter_eye_distance": "Size of the face",
    "sharpness": "Sharpness",
    "yaw": "Turned to the side",
    "pitch": "Tilted up or down",
    "roll": "Leaning of the head",
    "illumination": "Evenness of the light",
    "contrast": "Contrast",
    "detection": "Certainty that it is a face",
    "compression": "Compression damage",
    "eyes_open": "Eyes open",
    "mouth_closed": "Mouth closed",
    "expression": "Neutral expression",
    "visibility": "Face uncovered",
    "background": "Plain background",
}
# Components whose name says what is wrong: a high value means that there is little of it.
_FAULTS = frozenset({"yaw", "pitch", "roll", "compression"})


def phrase(value: object) -> str:
    """A value of the model as words: `in_first_review` as “In first review”."""
    text = str(value.value) if isinstance(value, Enum) else str(value)
    return _PHRASES.get(text) or text.replace("_", " ").replace("-", " ").strip().capitalize()


def quality_name(component: str) -> str:
    return _QUALITY.get(component) or phrase(component)


def component_words(component: str, value: float) -> str:
    """What one component of the quality vector, 0 to 100, means."""
    if component in _FAULTS:
        return "badly" if value < 20 else "clearly" if value < 45 else "a little" if value < 70 else "hardly"
    return "very low" if value < 20 else "low" if value < 45 else "fair" if value < 70 else "good"


def age(since: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that says enough."""
    minutes = max(0, int((now - since).total_seconds() // 60))
    if minutes < 1:
        return "under 1 min"
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if hours < 6 else f"{hours} h"
    return f"{hours // 24} days"


def until(due: datetime, now: datetime) -> str:
    """How long is left, or by how much it is late."""
    return f"{age(due, now)} late" if due < now else f"{age(now, due)} left"


def moment(value: datetime | str | None) -> str:
    """A time as the unit writes it, UTC to the minute."""
    if value is None:
        return "not yet"
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    return value.strftime("%d %b %Y, %H:%M UTC")


def month(value: str) -> str:
    """A month, 2026-10, as the unit writes it."""
    return datetime.strptime(value, "%Y-%m").strftime("%B %Y")  # noqa: DTZ007 - a month has no time zone


def place(seconds: float) -> str:
    """A place in a film, as a player shows it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
