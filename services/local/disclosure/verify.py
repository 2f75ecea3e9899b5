"""Verification of a disclosure bundle, offline. The checks, and the code repeats their numbers:

 1. The file is a disclosure bundle of a known form.
 2. The probe's bytes have the digest that the answer and the log name.
 3. Original and enhancement: where nothing was done to the original, it is the probe; where something was, an entry of
    casework names original, steps and probe together.
 4. Every entry of the log is in canonical form and its inclusion proof (RFC 6962) leads to the checkpoint's root.
 5. The checkpoint is signed by a trusted key: one given by hand or of a witness folder; otherwise by the bundle's own,
    and the report says that nothing outside the bundle vouches for it. What a witness folder holds must not contradict
    it, and must not show that the log went over to another key before.
 6. The search has one intent and one outcome in the log, in this order, of one person for one case and purpose.
 7. The answer's SHA-256 is the one in the outcome: not a byte of candidate list, statements and versions was changed.
 8. The candidate list is whole: ranks from 1 without a gap, scores falling, one candidate a subject, every reference
    named in the outcome and none besides.
 9. Model, thresholds and gallery snapshot of the answer are those of the outcome, and the snapshot's id is that of its
    partitions, whose counts make the number of references searched.
10. Every adjudication is an entry of the log word for word, and none of the entries given is left out.
11. With the enrolment ledger at hand: the references that stood while the search ran, as the ledger dates them, make
    the snapshot's digests.
12. The bundle is made out to one recipient, whom a second person approved: approval and disclosure are in the log, and
    it was made when the log says that it was begun.
13. What was signed in casework, with every remark, has the digests that the entries given hold of it, and none is left
    out.
14. With the whole log at hand: its entries are the bundle's, and no adjudication of this search is kept back together
    with its entry.

What it does not prove is in NOT_PROVEN. Every failed check raises CheckFailed with its number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.audit.proofs import check_inclusion
from services.audit.verification import (
    Checkpoint,
    VerificationFailed,
    check_signature,
    endorsed_key,
    key_id_of,
    leaf_hash,
    parse_entry,
    read_public_key,
    read_witness,
)
from services.local.disclosure.bundle import Bundle, BundledEntry, read_bundle
from services.local.disclosure.ledger import compare_with_ledger
from services.local.disclosure.whole import compare_with_log
from services.shared.canonical import canonical_bytes
from services.shared.gallery_snapshot import parse_snapshot
from services.shared.people import is_same_person

CHECKS: Final[Mapping[int, str]] = {
    1: "The file is a disclosure bundle",
    2: "The probe is the one that was searched",
    3: "Original and enhancement agree with the log",
    4: "Every entry is in the log, under the checkpoint",
    5: "The checkpoint is signed by a trusted key",
    6: "One intent and one outcome, of one person, case and purpose",
    7: "The answer is the one that was given, byte for byte",
    8: "The candidate list is whole and in order",
    9: "Model, thresholds and gallery snapshot are those of the log",
    10: "Every adjudication is in the log, and none of the entries given is left out",
    11: "The gallery snapshot is that of the ledger",
    12: "A second person approved the recipient",
    13: "Remarks are those that were signed",
    14: "No judgement is kept back",
}

# From the intent in the log to the bundle it takes seconds; a clock may be put right in between.
_MAKING_S: Final = 300.0
_PERSONAL: Final = "Personal data: not to be copied, passed on or published."
_APPROVAL_ID: Final = "approval"
_APPROVAL: Final = frozenset({_APPROVAL_ID, "recipient", "reason", "approved_by", "approved_at"})

NOT_PROVEN: Final = (
    "that the search was lawful or its candidates are the person: it proves what was done, not that it was right",
    "that no judgement was taken out together with its entry: give --log with an export of the whole log",
    "that no other search was made of this probe: for that the whole log is exported and verified",
    "that entries of this search written after the checkpoint do not exist: ask for a newer disclosure",
    "that the same search gives the same list today: for that `likeness disclosure replay` runs it again",
)


class CheckFailed(Exception):
    """A check failed; `detail` says how."""

    def __init__(self, check: int, detail: str) -> None:
        super().__init__(detail)
        self.check = check
        self.detail = detail


@dataclass
class Report:
    """What was verified. Made only when every check has passed."""

    bundle: Bundle
    outcomes: dict[int, str] = field(default_factory=dict)
    facts: list[str] = field(default_factory=list)


def verify_bundle(
    path: Path,
    *,
    witness: Path | None = None,
    public_keys: Sequence[Ed25519PublicKey] = (),
    ledger: str | None = None,
    log: Path | None = None,
) -> Report:
    """Make the checks of this module; CheckFailed names the first that fails.

    `ledger`: ingest's database URL. `log`: an export of the whole log, or its store.
    """
    try:
        bundle = read_bundle(path)  # 1
    except ValueError as error:
        raise CheckFailed(1, str(error)) from error
    report = Report(bundle, {1: "passed"})
    try:
        for number, check in _CHECKS.items():
            report.outcomes[number] = check(bundle)
        report.outcomes[5] = _check_signature(bundle, witness, public_keys)
        report.outcomes[11] = _check_ledger(bundle, ledger)
        report.outcomes[12] = _check_approval(bundle)
        report.outcomes[13] = _check_judgements(bundle)
        report.outcomes[14] = _check_whole(bundle, log, witness, public_keys)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        number = max(report.outcomes) + 1
        raise CheckFailed(number, f"the bundle lacks what the check needs: {error}") from error
    report.outcomes = dict(sorted(report.outcomes.items()))
    report.facts = _describe(bundle)
    return report


def _check_approval(bundle: Bundle) -> str:  # 12
    stated = {name: str(value) for name, value in bundle.approval.items()}
    if not stated:
        if any(_APPROVAL_ID in entry.facts["details"] for entry in bundle.entries):
            raise CheckFailed(12, "the log names an approval and its recipient, the bundle does not")
        return (
            "no recipient is named: made before disclosures were approved, or what named one was taken out; "
            "when it was made is not checked"
        )
    if missing := _APPROVAL - stated.keys():
        raise CheckFailed(12, f"the approval lacks {', '.join(sorted(missing))}")
    if is_same_person(stated["approved_by"], bundle.made_by):
        raise CheckFailed(12, f"{bundle.made_by} made it on their own approval")
    marked = f"Disclosed to {stated['recipient']} alone, search {bundle.search_id}, approval {stated[_APPROVAL_ID]}."
    if bundle.watermark != f"{marked} {_PERSONAL}":
        raise CheckFailed(12, "the watermark names another recipient, search or approval, or says something else")
    begun = _check_approval_entries(bundle, stated)
    _check_made_at(bundle, begun)
    return f"passed: {stated['recipient']}, approved by {stated['approved_by']}"


def _check_made_at(bundle: Bundle, begun: Sequence[Mapping[str, Any]]) -> None:
    """By the clock of the service that made it, which dated the intent as well."""
    made = _moment(bundle.made_at)
    since = [(made - _moment(str(facts["occurred_at"]))).total_seconds() for facts in begun]
    if not any(abs(waited_s) <= _MAKING_S for waited_s in since):
        raise CheckFailed(12, f"it says that it was made at {bundle.made_at}; the log has it begun at another time")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CheckFailed(12, f"{text[:40]!r} is no time") from error
    if moment.tzinfo is None:
        raise CheckFailed(12, f"{text!r} is a time without its zone")
    return moment


def _check_approval_entries(bundle: Bundle, stated: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
    """The log says the same of who approved it, who made it and for whom; the intents of its making."""
    # Why it was made is said by whoever made it, beside why it was approved.
    own = {**stated, "reason": bundle.reason}
    sought = (
        ("disclosure_approval", "DONE", stated["approved_by"], stated),
        ("search_disclosure", "INTENT", bundle.made_by, own),
    )
    found: list[Mapping[str, Any]] = []
    for activity, phase, person, details in sought:
        found = [entry.facts for entry in bundle.entries if _tells(entry.facts, activity, phase, person, details)]
        if not found:
            raise CheckFailed(12, f"no entry {activity} ({phase}) of {person} names this approval and recipient")
    makers = [entry.facts for entry in bundle.entries if entry.facts["activity"] == "search_disclosure"]
    if not any(
        maker["actor"] == {**maker["actor"], "person_id": bundle.made_by, "force": bundle.force} for maker in makers
    ):
        raise CheckFailed(12, f"{bundle.made_by} of {bundle.force} did not make it")
    return found


def _check_judgements(bundle: Bundle) -> str:  # 13
    if not bundle.judgements:
        return "none given: the findings alone are in the log"
    signed = {
        str(entry.facts["details"]["judgement_sha256"])
        for entry in bundle.entries
        if entry.facts["service"] == "review" and "judgement_sha256" in entry.facts["details"]
    }
    given = {hashlib.sha256(canonical_bytes(one)).hexdigest() for one in bundle.judgements}
    if given - signed:
        raise CheckFailed(13, f"nobody signed a judgement with the digest {min(given - signed)}")
    if signed - given:
        raise CheckFailed(13, f"the signed judgement with the digest {min(signed - given)} is left out")
    return f"passed: {len(given)} signed"


def _check_whole(
    bundle: Bundle, log: Path | None, witness: Path | None, public_keys: Sequence[Ed25519PublicKey]
) -> str:  # 14
    if log is None:
        return "no log given"
    try:
        count = compare_with_log(bundle, log, _adjudicates, witness=witness, public_keys=public_keys)
    except (ValueError, VerificationFailed) as error:
        raise CheckFailed(14, str(error)) from error
    return f"passed: {count} adjudications in the whole log"


def _tells(facts: Mapping[str, Any], activity: str, phase: str, person: str, details: Mapping[str, str]) -> bool:
    said = (facts["activity"], facts["phase"], facts["actor"]["person_id"])
    return said == (activity, phase, person) and all(facts["details"].get(name) == details[name] for name in details)


def _check_probe(bundle: Bundle) -> str:  # 2
    digest = hashlib.sha256(bundle.probe).hexdigest()
    for name, stated in (("the bundle", bundle.probe_sha256), ("the answer", bundle.answer["probe"]["sha256"])):
        if digest != stated:
            raise CheckFailed(2, f"the probe's bytes have the digest {digest}, {name} names {stated}")
    return "passed"


def _check_origin(bundle: Bundle) -> str:  # 3
    if not bundle.enhancement:
        if bundle.original_sha256 != bundle.probe_sha256:
            raise CheckFailed(3, "the probe is not the original, but no step between them is recorded")
        return "passed: searched as received"
    for entry in bundle.entries:
        told = entry.facts["details"].get(f"enhancement:{bundle.probe_sha256}")
        if told is not None:
            made = json.loads(told)
            if made["original_sha256"] != bundle.original_sha256:
                raise CheckFailed(3, f"entry {entry.sequence} names another original")
            if made["steps"] != list(bundle.enhancement):
                raise CheckFailed(3, f"entry {entry.sequence} names other steps of enhancement")
            return f"passed: {len(bundle.enhancement)} steps, entry {entry.sequence}"
    raise CheckFailed(3, "no entry of the log names this original and these steps")


def _check_entries(bundle: Bundle) -> str:  # 4
    head = bundle.checkpoint
    for entry in bundle.entries:
        try:
            stated = parse_entry(entry.canonical, entry.sequence)["sequence"]
            if stated != str(entry.sequence):
                raise CheckFailed(4, f"what is given as entry {entry.sequence} is entry {stated}")
            check_inclusion(leaf_hash(entry.canonical), entry.sequence, head.tree_size, entry.path, head.root_hash)
        except VerificationFailed as error:
            raise CheckFailed(4, f"entry {entry.sequence}: {error.detail}") from error
    sequences = [entry.sequence for entry in bundle.entries]
    if sequences != sorted(set(sequences)):
        raise CheckFailed(4, "the entries are not in the order of the log")
    beside = f"; {bundle.counted} older entries are counted, not proven" if bundle.counted else ""
    return f"passed: {len(sequences)} entries{beside}"


def _check_signature(bundle: Bundle, witness: Path | None, given: Sequence[Ed25519PublicKey]) -> str:  # 5
    head = bundle.checkpoint
    trusted = {key_id_of(key): key for key in given}
    try:
        if witness is not None:
            keys, heads = read_witness(witness)
            trusted |= keys
            same = [kept for kept in heads if (kept.log_id, kept.tree_size) == (head.log_id, head.tree_size)]
            if any(kept.root_hash != head.root_hash for kept in same):
                raise CheckFailed(5, f"the witness holds another root for {head.tree_size} entries")
            _require_not_replaced(head, [kept for kept in heads if kept.log_id == head.log_id])
        trusted |= _endorsed(bundle, trusted)
        own = {name: read_public_key(pem.encode()) for name, pem in bundle.keys.items()}
        check_signature(head, head.log_id, trusted or own)
    except (ValueError, VerificationFailed) as error:
        raise CheckFailed(5, f"the checkpoint over {head.tree_size} entries: {error}") from error
    return "passed" if trusted else "passed by the bundle's own key only: give --witness or --public-key"


def _require_not_replaced(head: Checkpoint, witnessed: Sequence[Checkpoint]) -> None:
    """A key signs until the log goes over to another. CheckFailed where the witness shows that it had."""
    own = [kept.tree_size for kept in witnessed if kept.key_id == head.key_id]
    if not own:
        return  # newer than what the witness has, or not of this log: whether it is trusted is another question
    later = [kept for kept in witnessed if kept.key_id != head.key_id and min(own) < kept.tree_size <= head.tree_size]
    if later:
        since = min(kept.tree_size for kept in later)
        raise CheckFailed(
            5, f"the checkpoint over {head.tree_size} entries is signed by a key that was replaced before entry {since}"
        )


def _endorsed(bundle: Bundle, trusted: Mapping[str, Ed25519PublicKey]) -> dict[str, Ed25519PublicKey]:
    """Keys of the bundle that a trusted key, or one that it endorsed, vouches for."""
    found = dict(trusted)
    for key_id, document in bundle.endorsements.items():
        if document and trusted:
            with suppress(ValueError, TypeError):
                name, key = endorsed_key(document, bundle.keys[key_id], bundle.checkpoint.log_id, found)
                found[name] = key
    return found


def _check_course(bundle: Bundle) -> str:  # 6
    intent, outcome = _intent(bundle), _outcome(bundle)
    if intent.sequence > outcome.sequence:
        raise CheckFailed(6, f"the outcome, {outcome.sequence}, stands before the intent, {intent.sequence}")
    for name in ("actor", "case_reference", "purpose"):
        if intent.facts[name] != outcome.facts[name]:
            raise CheckFailed(6, f"intent and outcome name another {name}")
    request = bundle.answer["request"]
    for name in ("case_reference", "purpose"):
        if outcome.facts[name] != request[name]:
            raise CheckFailed(6, f"the answer names another {name} than the log")
    if bundle.answer["search_id"] != bundle.search_id:
        raise CheckFailed(6, "the answer is that of another search")
    return f"passed: entries {intent.sequence} and {outcome.sequence}"


def _check_answer(bundle: Bundle) -> str:  # 7
    stated = _outcome(bundle).facts["details"]["result_sha256"]
    digest = hashlib.sha256(bundle.answer_text).hexdigest()
    if digest != stated:
        raise CheckFailed(7, f"the answer has the digest {digest}, the log names {stated}")
    return "passed"


def _check_candidates(bundle: Bundle) -> str:  # 8
    candidates, outcome = bundle.candidates, _outcome(bundle).facts
    if [one["rank"] for one in candidates] != list(range(1, len(candidates) + 1)):
        raise CheckFailed(8, "the ranks do not run from 1 without a gap")
    scores = [one["score"] for one in candidates]
    if scores != sorted(scores, reverse=True):
        raise CheckFailed(8, "the scores do not fall with the rank")
    if len({(one["owner"], one["subject_id"]) for one in candidates}) != len(candidates):
        raise CheckFailed(8, "a subject stands on the list twice")
    logged = [name.removeprefix("reference:") for name in outcome["objects"] if name.startswith("reference:")]
    if [one["reference_id"] for one in candidates] != logged:
        raise CheckFailed(8, "the log names other references than the list")
    if str(len(candidates)) != outcome["details"]["candidates"]:
        raise CheckFailed(8, "the log counts other candidates")
    return f"passed: {len(candidates)} candidates"


def _check_versions(bundle: Bundle) -> str:  # 9
    answer, details = bundle.answer, _outcome(bundle).facts["details"]
    if answer["model"]["model_id"] != details["model_id"]:
        raise CheckFailed(9, "the log names another model")
    if str(answer["searchable"]) != details["searchable"]:
        raise CheckFailed(9, "the log names another number of references searched")
    for point in answer["threshold"]["by_watchlist"]:
        stated = details.get(f"threshold:{point['watchlist']}")
        if stated != f"{point['value']} ({point['version']})":
            raise CheckFailed(9, f"the log names another threshold for {point['watchlist']}: {stated}")
    return _check_snapshot(answer, details)


def _check_snapshot(answer: Mapping[str, Any], details: Mapping[str, str]) -> str:
    document = answer.get("gallery_snapshot")
    if document is None:
        if "gallery_snapshot" in details:
            raise CheckFailed(9, "the log names a gallery snapshot, the answer none")
        return "passed; the gallery was one that names no snapshot"
    try:
        snapshot = parse_snapshot(document)
    except ValueError as error:
        raise CheckFailed(9, f"the gallery snapshot: {error}") from error
    if snapshot.snapshot_id != details["gallery_snapshot"]:
        raise CheckFailed(9, "the log names another gallery snapshot")
    if snapshot.model_id != answer["model"]["model_id"]:
        raise CheckFailed(9, "the gallery snapshot is of another model")
    total = sum(part.references for part in snapshot.partitions)
    if snapshot.is_exact and total != answer["searchable"]:
        raise CheckFailed(9, f"the snapshot holds {total} references, the answer says {answer['searchable']}")
    return "passed" if snapshot.is_exact else "passed; references came or went during the search"


def _check_adjudications(bundle: Bundle) -> str:  # 10
    logged = {entry.sequence: entry.facts for entry in bundle.entries if _is_adjudication(entry)}
    for one in bundle.adjudications:
        facts = logged.pop(one["sequence"], None)
        if facts is None:
            raise CheckFailed(10, f"the log holds no adjudication at {one['sequence']}")
        said = {
            "sequence": facts["sequence"],
            "person_id": facts["actor"]["person_id"],
            **{name: facts[name] for name in ("activity", "recorded_at", "objects", "details")},
        }
        if dict(one) != said:
            raise CheckFailed(10, f"the adjudication at {one['sequence']} is not what the log says")
    if logged:
        raise CheckFailed(10, f"the adjudication at {min(logged)} is left out")
    count = len(bundle.adjudications)
    return f"passed: {count} adjudications" if count else "passed: none was made"


def _check_ledger(bundle: Bundle, ledger: str | None) -> str:  # 11
    document = bundle.answer.get("gallery_snapshot")
    if ledger is None or document is None:
        return "no ledger given" if ledger is None else "the gallery was one that names no snapshot"
    begun, ended = bundle.answer["searched_at"], _outcome(bundle).facts["recorded_at"]
    try:
        in_motion = compare_with_ledger(
            parse_snapshot(document), ledger, datetime.fromisoformat(begun), datetime.fromisoformat(ended)
        )
    except ValueError as error:
        raise CheckFailed(11, str(error)) from error
    return "passed" if not in_motion else f"passed; {in_motion} references were coming or going"


# In the order in which they build on one another; check 5 needs what is given by hand and comes last.
_CHECKS = {
    2: _check_probe,
    3: _check_origin,
    4: _check_entries,
    6: _check_course,
    7: _check_answer,
    8: _check_candidates,
    9: _check_versions,
    10: _check_adjudications,
}


def _of_search(bundle: Bundle) -> list[BundledEntry]:
    return [
        entry
        for entry in bundle.entries
        if entry.facts["activity"] == "search" and entry.facts["activity_id"] == bundle.search_id
    ]


def _intent(bundle: Bundle) -> BundledEntry:
    found = [entry for entry in _of_search(bundle) if entry.facts["phase"] == "INTENT"]
    if len(found) != 1:
        raise CheckFailed(6, f"{len(found)} intents of this search are given, not one")
    return found[0]


def _outcome(bundle: Bundle) -> BundledEntry:
    found = [entry for entry in _of_search(bundle) if entry.facts["phase"] != "INTENT"]
    if len(found) != 1 or found[0].facts["phase"] != "DONE":
        phases = [entry.facts["phase"] for entry in found]
        raise CheckFailed(6, f"the outcomes of this search are {phases}, not one DONE")
    return found[0]


def _is_adjudication(entry: BundledEntry) -> bool:
    return _adjudicates(entry.facts)


def _adjudicates(facts: Mapping[str, Any]) -> bool:
    details = facts["details"]
    is_found = "finding" in details or "judgement_sha256" in details
    return bool(facts["service"] == "review" and facts["phase"] == "DONE" and is_found)


def _describe(bundle: Bundle) -> list[str]:
    outcome, answer = _outcome(bundle).facts, bundle.answer
    actor, model = outcome["actor"], answer["model"]
    activities: dict[str, int] = {}
    for entry in bundle.entries:
        if entry.facts["phase"] == "DONE":
            activities[entry.facts["activity"]] = activities.get(entry.facts["activity"], 0) + 1
    others = ", ".join(f"{name} {count}" for name, count in sorted(activities.items()) if name != "search")
    return [
        f"search {bundle.search_id} of {answer['searched_at']} by {actor['person_id']} of {actor['force']}, "
        f"case {outcome['case_reference']}, purpose {outcome['purpose']}",
        f"probe {bundle.probe_sha256}; original {bundle.original_sha256}; {len(bundle.enhancement)} steps between them",
        f"model {model['model_id']}: detector {model['detector_sha256']}, recogniser {model['recogniser_sha256']}, "
        f"preprocessing {model['preprocessing_version']}",
        f"{answer['searchable']} references searched, {len(bundle.candidates)} candidates",
        f"log {bundle.checkpoint.log_id}, checkpoint of {bundle.checkpoint.created_at} over "
        f"{bundle.checkpoint.tree_size} entries",
        f"also in the log: {others or 'nothing else'}",
    ]
