"""The use case of giving a subject what is held of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.ingest.access.facts import Facts, HeldEnrolment, Prover, Releases, Returns, SubjectFacts, SubjectLedger
from services.ingest.access.package import (
    README,
    checkpoint_facts,
    image_name,
    json_file,
    proof_facts,
    readme,
    require_size,
    sha256_of,
    sign_package,
)
from services.ingest.enrolling.checks import MAX_TEXT
from services.ingest.life.certificates import CertificateSigner
from services.rpc.open_acts import OpenAct, OpenActs
from services.rpc.v1 import audit_pb2
from services.shared.clock import Clock, rfc3339
from services.shared.errors import Forbidden, IntegrityError, InvalidRequest, NotFound
from services.shared.ids import new_id
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal

ACCESS = "subject_access"
MAX_ENROLMENTS = 1000
NOT_FOUND = "Nothing of this subject stands in the ledger."


@dataclass(frozen=True, slots=True)
class AccessCommand:
    """Whose package, why, on which request. `withheld_because` is not empty where searches and disclosures are kept
    back (DPA 2018 s.45(4)): it stands in the audit log, never in the package."""

    subject_id: str
    reason: str
    authority: str
    withheld_because: str = ""


class GiveAccess:
    """Puts a package together in this order:

    1. the caller may: a custodian of the owner whose token names every watchlist that the subject stands on;
    2. audit intent (DISCLOSURE), durable before anything is read out;
    3. facts, images (read through their seals and compared with their names), searches, releases, proofs;
    4. manifest with the proof of the intent, signed;
    5. audit outcome with the package's SHA-256; then it leaves.

    What cannot be asked (search or review is away) makes no package: one with a gap would say something untrue.
    """

    def __init__(
        self,
        *,
        ledger: SubjectLedger,
        images: ImageStore,
        returns: Returns,
        releases: Releases,
        acts: OpenActs,
        prover: Prover,
        signer: CertificateSigner,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._images = images
        self._returns = returns
        self._releases = releases
        self._acts = acts
        self._prover = prover
        self._signer = signer
        self._clock = clock

    def give(self, command: AccessCommand, principal: Principal) -> bytes:
        """The zip file. Raises InvalidRequest, NotFound, Forbidden, AuditUnavailable, DependencyUnavailable,
        IntegrityError (an image is damaged)."""
        _check(command)
        facts = self._facts(command, principal)
        package_id = new_id()
        objects = [
            f"subject:{principal.force}/{command.subject_id}",
            *(f"reference:{each.reference_id}" for each in facts.enrolments),
        ]
        details = {"reason": command.reason, "authority": command.authority}
        if command.withheld_because:
            details["searches_withheld"] = command.withheld_because
        act = OpenAct(ACCESS, audit_pb2.DISCLOSURE, principal, objects, details, activity_id=package_id)
        with self._acts.under_way(act) as intent:
            files = self._files(facts, command, principal.force)
            head = {
                "package_id": package_id,
                "owner": principal.force,
                "subject_id": command.subject_id,
                "authority": command.authority,
                "made_at": rfc3339(self._clock.now()),
            }
            package = sign_package(self._signer, head, files, self._proof_of(intent.sequence, intent.leaf_hash))
            self._acts.end(act, audit_pb2.DONE, {"package_sha256": sha256_of(package), "files": str(len(files))})
        return package

    def _facts(self, command: AccessCommand, principal: Principal) -> SubjectFacts:
        facts = self._ledger.facts_of(principal.force, command.subject_id)
        if not facts.enrolments and not facts.custody and not facts.received and not facts.erasures:
            raise NotFound(NOT_FOUND, advice="Check the subject_id.")
        if any(each.watchlist_id not in principal.watchlists for each in facts.enrolments):
            raise Forbidden(
                "The subject stands on a watchlist that your token does not name.",
                advice="Let a custodian make the package whose token names every watchlist.",
            )
        if len(facts.enrolments) > MAX_ENROLMENTS:
            raise InvalidRequest(
                f"{len(facts.enrolments)} enrolments; a package takes {MAX_ENROLMENTS}.",
                advice="Ask the operators.",
                code="package_too_large",
            )
        return facts

    def _files(self, facts: SubjectFacts, command: AccessCommand, owner: str) -> dict[str, bytes]:
        has_searches = not command.withheld_because
        files = self._pictures(facts.enrolments)
        files[README] = readme(owner, rfc3339(self._clock.now()), has_searches=has_searches)
        files["enrolments.json"] = json_file([each.facts for each in facts.enrolments])
        files["custody.json"] = json_file({"records": facts.custody, "received": facts.received})
        files["retention.json"] = json_file({"reviews": facts.reviews, "erasures": facts.erasures})
        files["flags.json"] = json_file(facts.flags)
        if has_searches:
            files |= self._searches(facts, owner)
        files["audit.json"] = json_file({"activities": self._proofs(facts.enrolments)})
        return files

    def _pictures(self, held: Sequence[HeldEnrolment]) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for sha256 in sorted({each.image_sha256 for each in held if each.image_sha256 and not each.is_erased}):
            if not self._images.has(sha256):
                continue  # of a withdrawn one, erased since; the ledger's facts say so
            content = self._images.get(sha256)
            if sha256_of(content) != sha256:
                raise IntegrityError(f"Image {sha256} is damaged.", advice="Restore it from the backup first.")
            files[image_name(sha256, content)] = content
            require_size(files)
        return files

    def _searches(self, facts: SubjectFacts, owner: str) -> dict[str, bytes]:
        references = [each.reference_id for each in facts.enrolments]
        returned = [
            {
                "searched_at": each.searched_at,
                "purpose": each.purpose,
                "force": each.force,
                "watchlist": each.watchlist_id,
                "reference_id": each.reference_id,
            }
            for each in self._returns.list_returns(owner, references)
        ]
        released = [
            {
                "released_at": each.released_at,
                "purpose": each.purpose,
                "force": each.force,
                "watchlist": each.watchlist_id,
                "reference_id": each.reference_id,
                **({"agreement": each.agreement} if each.agreement else {}),
            }
            for each in self._releases.list_releases(owner, references)
        ]
        return {
            "searches.json": json_file(returned),
            "disclosures.json": json_file({"released_as_potential_name": released, "exported": facts.exports}),
        }

    def _proofs(self, held: Sequence[HeldEnrolment]) -> list[dict[str, Any]]:
        proofs = []
        for each in held:
            proven = self._prover.prove_activity(each.enrolment_id, "", [])
            proofs.append(
                {
                    "activity_id": each.enrolment_id,
                    "checkpoint": checkpoint_facts(proven.checkpoint),
                    "entries": [proof_facts(entry) for entry in proven.entries],
                }
            )
        return proofs

    def _proof_of(self, sequence: int, leaf_hash: bytes) -> Facts:
        checkpoint = self._prover.checkpoint()
        proof = self._prover.prove_inclusion(sequence, checkpoint.tree_size)
        entry = {"sequence": sequence, "leaf_hash": leaf_hash.hex(), "path": [step.hex() for step in proof.path]}
        return {"entries": [entry], "checkpoint": checkpoint_facts(checkpoint)}


def _check(command: AccessCommand) -> None:
    texts = {name: getattr(command, name) for name in ("subject_id", "reason", "authority")}
    for name, text in {**texts, "withhold_searches": command.withheld_because or "-"}.items():
        if not text.strip() or len(text) > MAX_TEXT or not text.isprintable():
            raise InvalidRequest(
                f"`{name}` is empty, longer than {MAX_TEXT} characters or not printable.",
                advice="Say whose, why and on which request, each in a line.",
            )
