"""The statements on every released result: what must be said with a potential name, or with none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from services.review.casework.flagged import flagged
from services.review.enhancement import described
from services.review.error_rates import ErrorRates
from services.review.model import Case, Examination, SearchVariant, Signature
from services.review.partners import PartnerEnquiry, standing
from services.review.suitability import quality_band
from services.shared.clock import rfc3339

INTELLIGENCE_ONLY = "FOR INTELLIGENCE PURPOSES ONLY. {what}"
NOT_SOLE_BASIS = (
    "It must not be the sole basis for arrest, charge, stop, warrant or identification procedure; corroboration is "
    "required."
)
LOOK_ALIKES = "Relatives, twins and look-alikes can score highly."
DISCLOSURE = (
    "This search, the whole candidate list and its negatives are relevant material for disclosure; take advice before "
    "showing image or name to a witness."
)


def statements(
    case: Case,
    examinations: Sequence[Examination],
    agreements: Mapping[str, Sequence[str]],
    rates: ErrorRates,
) -> tuple[str, ...]:
    """The statements of one release, in the order in which they are printed."""
    return (
        INTELLIGENCE_ONLY.format(what=_what(case)),
        NOT_SOLE_BASIS,
        _judged(case, examinations),
        *_searchable(case),
        LOOK_ALIKES,
        *_quality(case, rates),
        *_flags(case),
        *_enhancement(case),
        *_watchlists(case, agreements),
        *_partners(case),
        DISCLOSURE,
        *_versions(case),
        _position(case),
    )


def _what(case: Case) -> str:
    names = case.release.names if case.release is not None else ()
    if not names:
        return "No potential name was found. That is not evidence that somebody is, or is not, the person."
    if len(names) == 1:
        return "This is a potential name, not an identification and not evidence."
    return "These are potential names, not identifications and not evidence."


def _judged(case: Case, examinations: Sequence[Examination]) -> str:
    people = [
        f"{'first' if one.ordinal == 1 else 'second'} reviewer {_person(one.signature)}"
        for one in examinations
        if one.signature is not None
    ]
    if case.arbitration is not None:
        people.append(f"supervisor who decided their disagreement {_person(case.arbitration.signature)}")
    return f"Trained operators judged the candidates; no decision was made by the machine: {', '.join(people)}."


def _person(signature: Signature) -> str:
    since = f"trained {signature.trained_on}, " if signature.trained_on is not None else ""
    return f"{signature.signed_by} ({since}training in date until {signature.training_expires_on})"


def _searchable(case: Case) -> list[str]:
    said = []
    for record in case.searches:
        answer = record.answer
        missing = answer.get("unsearchable")
        said.append(
            f"{answer['searchable']} references were searchable, "
            f"{'an unknown number' if missing is None else missing} were not ({record.variant.value})."
        )
    return [
        "The absence of a name does not mean that the person is not on the database. " + " ".join(dict.fromkeys(said))
    ]


def _quality(case: Case, rates: ErrorRates) -> list[str]:
    said = []
    searched = {record.probe_id for record in case.searches}
    for probe in case.probes:
        if probe.probe_id not in searched or probe.assessment is None or probe.face is None:
            continue
        face = probe.faces[probe.face]
        said.append(
            f"Probe quality: {quality_band(face)}; eyes {face.inter_eye_px:.0f} px apart, unified quality "
            f"{face.unified_quality:.0f} of 100, graded {probe.assessment.grade.value.replace('_', ' ')}."
        )
        said.append(_error_rates(face.unified_quality, case, rates))
    return list(dict.fromkeys(said))


def _flags(case: Case) -> list[str]:
    """What spoke against a probe, and who allowed it all the same."""
    words = dict(flag for picture in flagged(case.searches) for flag in picture.flags)
    if not words:
        return []
    allowed = [
        f"Supervisor {one.decided_by} allowed it on {rfc3339(one.decided_at)[:10]}: {one.reason}"
        for one in case.probe_decisions
        if one.is_allowed
    ]
    return [
        f"Signals were raised against the probe, which prove nothing: {' '.join(words.values())} {'; '.join(allowed)}"
    ]


def _error_rates(unified_quality: float, case: Case, rates: ErrorRates) -> str:
    models = {str(record.answer["model"]["model_id"]) for record in case.searches}
    found = [known for model in sorted(models) if (known := rates.at(unified_quality, model)) is not None]
    if not found:
        return "Error rates at this quality have not been measured for this model on this gallery."
    measured = found[0]
    others = (
        f"; somebody who is not the person was at or over the evaluation's threshold in {measured.false_candidates}"
        if measured.false_candidates is not None
        else ""
    )
    return (
        f"Measured on {measured.measured_on[:10]} with {measured.enrolled} enrolled, {measured.searches} searches at "
        f"unified quality {measured.band}: the person was first in the list in {measured.first}{others}."
    )


def _enhancement(case: Case) -> list[str]:
    recipes = {made.enhancement_id: made for probe in case.probes for made in probe.enhancements}
    said = []
    for record in case.searches:
        if record.variant is SearchVariant.ENHANCED and record.enhancement_id is not None:
            steps = "; ".join(described(step) for step in recipes[record.enhancement_id].steps)
            said.append(f"Enhancement: {steps}. The original was searched as well, both lists were judged.")
    searched = {record.probe_id for record in case.searches}
    originals = [probe.original.sha256 for probe in case.probes if probe.probe_id in searched]
    said = said or ["Enhancement: none."]
    frames = [(probe.frame, probe.original.sha256) for probe in case.probes if probe.frame is not None]
    taken = [
        f"Frame {frame.frame_number} (timestamp {frame.pts}, {frame.time_s:.2f} s) of the film with SHA-256 "
        f"{frame.film_sha256}."
        for frame, sha256 in frames
        if sha256 in originals
    ]
    return [*said, *(f"Original probe: SHA-256 {sha256}." for sha256 in originals), *taken]


def _watchlists(case: Case, agreements: Mapping[str, Sequence[str]]) -> list[str]:
    said: dict[str, None] = {}
    for record in case.searches:
        for scope in record.answer.get("searched", []):
            relied = scope.get("agreements") or agreements.get(scope["watchlist"], ())
            by = f", agreements {', '.join(relied)}" if relied else ""
            said[f"{scope['watchlist']} of {', '.join(scope['owners']) or 'nobody'}{by}"] = None
    return [f"Searched: {'; '.join(said)}."]


def _partners(case: Case) -> list[str]:
    """Of each partner that was asked: its list is no part of this result, and no list is no answer."""
    return [_partner(one) for one in standing(case.enquiries)]


def _partner(asked: PartnerEnquiry) -> str:
    by = f" under {', '.join(asked.agreements)}" if asked.agreements else ""
    if not asked.is_answered:
        return (
            f"Partner {asked.partner}: not searched, {asked.why_not}. That nobody of its galleries is named means "
            "nothing."
        )
    return (
        f"Partner {asked.partner} was searched too{by}, by the authority of {asked.authority}: its search "
        f"{asked.their_search_id}, {asked.searchable} references searchable, {asked.candidate_count} listed, model "
        f"{asked.model_id}. Its candidates are judged by that force's own operators; none was judged here and none of "
        "them is a name of this result."
    )


def _versions(case: Case) -> list[str]:
    said: dict[str, None] = {}
    for record in case.searches:
        threshold = record.answer.get("threshold", {}).get("version") or "none applied"
        said[f"Model {record.answer['model']['model_id']}, threshold {threshold}."] = None
    return list(said)


def _position(case: Case) -> str:
    release = case.release
    if release is None:
        raise ValueError("statements are made of a release")
    purpose = case.request.purpose.replace("_", " ")
    return (
        f"Case {case.request.case_reference}, purpose {purpose}, released {_to_the_second(release.released_at)}; "
        f"audit log position {release.audit.sequence} ({release.audit.code}); retained until {release.retain_until}."
    )


def _to_the_second(at: datetime) -> str:
    """As people read it; its thousandths stand in the log."""
    return f"{rfc3339(at)[:19].replace('T', ' ')} UTC"
