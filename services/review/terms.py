"""The words of casework: closed lists, one word a thing, the same in code, API, console and documents."""

from __future__ import annotations

from enum import StrEnum


class CaseType(StrEnum):
    """Who the person in the picture is to the case."""

    SUSPECT = "suspect"
    VICTIM = "victim"
    WITNESS = "witness"
    MISSING_PERSON = "missing_person"
    DECEASED = "deceased"


class Urgency(StrEnum):
    """How soon an answer is needed; `workflow.TURNAROUND` says what is promised."""

    IMMEDIATE = "immediate"
    URGENT = "urgent"
    ROUTINE = "routine"


class ProbeSource(StrEnum):
    """Where the image comes from. There is no live camera among them."""

    CCTV = "cctv"
    BODY_WORN_VIDEO = "body_worn_video"
    SOCIAL_MEDIA = "social_media"
    PHONE = "phone"
    DOCUMENT = "document"
    OTHER = "other"


class ImageNature(StrEnum):
    """What kind of image it is. The first two are searched like any, the next two are flagged and need a supervisor;
    the others are refused as probes, by name."""

    PHOTOGRAPH = "photograph"
    VIDEO_FRAME = "video_frame"
    RETOUCHED = "retouched"
    REPHOTOGRAPHED = "rephotographed"
    DRAWING = "drawing"
    COMPOSITE = "composite"
    LOOK_ALIKE = "look_alike"
    GENERATED = "generated"


class CaseState(StrEnum):
    """Where a case stands. There is no state for an automatic match. Transitions: `workflow.TRANSITIONS`."""

    RECEIVED = "received"
    RETURNED = "returned"
    ACCEPTED = "accepted"
    UNSUITABLE = "unsuitable"
    ASSESSED = "assessed"
    # A search said that a supervisor has to decide whether the probe may be used.
    FLAGGED = "flagged"
    SEARCHED = "searched"
    IN_FIRST_REVIEW = "in_first_review"
    AWAITING_SECOND_REVIEW = "awaiting_second_review"
    IN_SECOND_REVIEW = "in_second_review"
    DISPUTED = "disputed"
    DECIDED = "decided"
    RELEASED = "released"
    UNSOLVED = "unsolved"
    CLOSED = "closed"
    WITHDRAWN = "withdrawn"


class Suitability(StrEnum):
    SUITABLE = "suitable"
    CAUTION = "suitable_with_caution"
    UNSUITABLE = "unsuitable"


class Finding(StrEnum):
    """A named, trained operator's judgement of one candidate. There is no finding that a machine can make."""

    POSSIBLE_MATCH = "possible_match"
    NO_SUPPORT = "no_support"
    INCONCLUSIVE = "inconclusive"


class FacialFeature(StrEnum):
    """The components of the FISWG Facial Image Comparison Feature List for Morphological Analysis (2018)."""

    SKIN = "skin"
    FACE_OUTLINE = "face_outline"
    FACE_COMPOSITION = "face_composition"
    HAIRLINE = "hairline"
    FOREHEAD = "forehead"
    EYEBROWS = "eyebrows"
    EYES = "eyes"
    CHEEKS = "cheeks"
    NOSE = "nose"
    EARS = "ears"
    MOUTH = "mouth"
    CHIN_JAWLINE = "chin_jawline"
    NECK = "neck"
    FACIAL_HAIR = "facial_hair"
    FACIAL_LINES = "facial_lines"
    SCARS = "scars"
    FACIAL_MARKS = "facial_marks"
    ALTERATIONS = "alterations"


class Observation(StrEnum):
    SIMILAR = "similar"
    DIFFERENT = "different"
    NOT_COMPARABLE = "not_comparable"


class OutcomeKind(StrEnum):
    """What became of a released result, as the requesting officer reports it."""

    CHARGED = "charged"
    ELIMINATED = "eliminated"
    WRONG_PERSON = "wrong_person"
    BODY_NAMED = "body_named"
    MISSING_PERSON_FOUND = "missing_person_found"
    NO_ACTION = "no_action"


class StepKind(StrEnum):
    """What may be done to a working copy. Nothing here paints, invents or restores."""

    CROP = "crop"
    ROTATE = "rotate"
    MIRROR = "mirror"
    BRIGHTNESS = "brightness"
    CONTRAST = "contrast"
    GAMMA = "gamma"
    DEINTERLACE = "deinterlace"
    SHARPEN = "sharpen"
    DENOISE = "denoise"


class SearchVariant(StrEnum):
    """Which picture was searched: the original as received, or the working copy with its recorded steps."""

    ORIGINAL = "original"
    ENHANCED = "enhanced"
