"""What must be said with every candidate list, as far as it is known before anybody has judged it."""

from __future__ import annotations

from collections.abc import Sequence

from services.search.identification.requests import ImageNature
from services.shared.biometric import DetectedFace

ALWAYS = (
    "FOR INTELLIGENCE PURPOSES ONLY. These are candidates for a trained operator to judge, not an identification and "
    "not evidence.",
    "A candidate must not be the sole basis for arrest, charge, stop, warrant or identification procedure; "
    "corroboration is required.",
    "The machine has decided nothing: no candidate has been judged by a trained operator yet.",
    "Scores are raw cosine similarities, not percentages and not probabilities; relatives, twins and look-alikes can "
    "score highly.",
    "This search, the whole candidate list and its negatives are relevant material for disclosure; take advice before "
    "showing image or name to a witness.",
)


def statements(
    *,
    searchable: int,
    unsearchable: int | None,
    probe_sha256: str,
    face: DetectedFace,
    flags: Sequence[str],
    nature: ImageNature,
    searched: Sequence[str],
    unevidenced: Sequence[str],
) -> list[str]:
    """The statements of one search. `searched` says for each watchlist whose references were compared and by which
    agreements; `unevidenced` names the watchlists whose threshold rests on no measurement of this gallery."""
    not_searchable = "an unknown number" if unsearchable is None else str(unsearchable)
    said = [
        *ALWAYS,
        "The absence of a name does not mean that the person is not on the database: "
        f"{searchable} references were searchable, {not_searchable} were not.",
        f"Probe: SHA-256 {probe_sha256}, searched as received, without enhancement; {_quality(face)}.",
        f"Searched: {'; '.join(searched)}.",
    ]
    if flags:
        said.append(
            f"The probe is flagged ({', '.join(flags)}): a supervisor decides whether it may be used. A flag is not "
            "proof, and its absence clears nothing."
        )
    if nature is ImageNature.UNSTATED:
        said.append(
            "What kind of picture the probe is (photograph, drawing, composite, generated) was not stated, and pixels "
            "alone do not tell."
        )
    if unevidenced:
        said.append(
            f"The threshold used for {', '.join(unevidenced)} is an unevidenced default: its error rates on this "
            "gallery are not known."
        )
    return said


def _quality(face: DetectedFace) -> str:
    """The quality, its grade, and the error rate measured at that quality."""
    words = f"unified quality {face.quality.unified:.0f} of 100"
    if face.assessment is None:
        return words
    rate = face.assessment.false_non_match
    words += f", {face.assessment.grade.replace('_', ' ')}"
    if not rate.searches:
        return words
    return (
        f"{words}: at that quality {rate.misses} of {rate.searches} mated searches missed (a share of "
        f"{rate.low:.3f} to {rate.high:.3f}, at an FPIR of {rate.threshold_fpir:g}; {rate.basis})"
    )
