"""What administrators do with the policy: read it, and try a change on the requests of the last month."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2
from services.search.agreements.book import AgreementBook
from services.search.agreements.ports import AgreementStore
from services.search.policy import PolicyEngine, PolicyText, Rulebook, Rules
from services.search.policy.dry_run import DryRun, RequestRecords, dry_run
from services.shared.clock import Clock, rfc3339
from services.shared.errors import ConfigurationError, Forbidden, InvalidRequest
from services.shared.ids import new_id
from services.shared.tokens import Principal
from services.shared.watchlists import Watchlists, parse_watchlists

READERS = frozenset({"administrator", "auditor", "supervisor"})
DRY_RUNNERS = frozenset({"administrator"})
MONTH = timedelta(days=31)
MAX_REQUESTS = 20_000
READING, DRY_RUN = "policy_reading", "policy_dry_run"


class _Given:
    """Watchlists that an administrator has brought along."""

    def __init__(self, watchlists: Watchlists) -> None:
        self._watchlists = watchlists

    def current(self) -> Watchlists:
        return self._watchlists


class PolicyReview:
    """Both are recorded, refusals too. Every method raises Forbidden, AuditUnavailable, DependencyUnavailable."""

    def __init__(
        self,
        rules: Rulebook,
        agreements: AgreementStore,
        records: RequestRecords,
        recorder: AuditRecorder,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._agreements = agreements
        self._records = records
        self._recorder = recorder
        self._clock = clock

    def read(self, principal: Principal) -> Rules:
        """The rules in force."""
        activity_id = new_id()
        self._require(principal, READERS, READING, activity_id)
        rules = self._rules.current()
        self._record(principal, audit_pb2.DONE, READING, activity_id, {"policy": rules.engine.text.digest})
        return rules

    def try_change(
        self, principal: Principal, policies: str | None, schema: str | None, watchlists: str | None
    ) -> tuple[DryRun, Rules, Rules]:
        """Requests of the caller's force in the last month, the newest 20,000, under the rules in force and under the
        change. Returns the outcome and both rules. What is None stays as it is. Raises InvalidRequest for a change that
        does not hold together.
        """
        activity_id = new_id()
        self._require(principal, DRY_RUNNERS, DRY_RUN, activity_id)
        now = self._rules.current()
        changed = self._changed(now, policies, schema, watchlists)
        details = {"policy": now.engine.text.digest, "changed_policy": changed.engine.text.digest}
        self._record(principal, audit_pb2.INTENT, DRY_RUN, activity_id, details)
        # One more than are looked at tells that there are more.
        found = self._records.since(self._clock.now() - MONTH, principal.force, MAX_REQUESTS + 1)
        recorded = found[-MAX_REQUESTS:]
        outcome = dry_run(recorded, now, changed)
        if len(found) > len(recorded):
            outcome = replace(outcome, left_out_before=recorded[0].opened_at)
            details["left_out_before"] = rfc3339(recorded[0].opened_at)
        details |= {"requests": str(outcome.considered), "differing": str(outcome.differing)}
        self._record(principal, audit_pb2.DONE, DRY_RUN, activity_id, details)
        return outcome, now, changed

    def _changed(self, now: Rules, policies: str | None, schema: str | None, watchlists: str | None) -> Rules:
        try:
            engine = now.engine
            if policies is not None or schema is not None:
                text = engine.text
                written = text.source if policies is None else policies
                spoken = text.schema_source if schema is None else schema
                engine = PolicyEngine(PolicyText(written, spoken, "the changed policy"))
            known = now.watchlists
            if watchlists is not None:
                given = _Given(parse_watchlists(watchlists, "the changed watchlists"))
                known = AgreementBook(given, self._agreements).current()
        except ConfigurationError as error:
            raise InvalidRequest(error.detail, advice=error.advice, code="policy_invalid") from error
        return Rules(engine, known)

    def _require(self, principal: Principal, roles: frozenset[str], activity: str, activity_id: str) -> None:
        if roles & principal.roles:
            return
        self._record(principal, audit_pb2.REFUSED, activity, activity_id, {"reason": "forbidden"})
        raise Forbidden(
            f"This needs the role {' or '.join(sorted(roles))}.", advice="Ask your administrator for the role."
        )

    def _record(
        self,
        principal: Principal,
        phase: audit_pb2.Phase.ValueType,
        activity: str,
        activity_id: str,
        details: dict[str, str],
    ) -> None:
        recipients = [f"person:{principal.person_id}"] if phase == audit_pb2.DONE else []
        self._recorder.record(
            audit_pb2.CONSULTATION, phase, activity, activity_id, principal, recipients=recipients, details=details
        )
