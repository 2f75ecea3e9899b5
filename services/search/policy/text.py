"""The policies as they are written: read, checked against their schema, digested."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import cedarpy

from services.shared.canonical import canonical_bytes
from services.shared.errors import ConfigurationError

POLICIES = "policies.cedar"
SCHEMA = "schema.cedarschema"
_PACKAGE = "services.search.policy"


@dataclass(frozen=True, slots=True)
class _Rule:
    """One policy: its place in the file and its annotations."""

    place: int
    id: str
    is_about_caller: bool
    detail: str


class PolicyText:
    """Policies that hold together: they parse, fit the schema, and each has an `@id` of its own."""

    def __init__(self, policies: str, schema: str, where: str) -> None:
        """Raises ConfigurationError that says where and what is wrong."""
        self.digest = hashlib.sha256(canonical_bytes({"policies": policies, "schema": schema})).hexdigest()
        self.where = where
        self.source = policies
        self.schema_source = schema
        try:
            self.schema = cedarpy.Schema.from_str(schema)
            self.policies = cedarpy.PolicySet.from_str(policies)
            parsed = json.loads(cedarpy.policies_to_json_str(policies))
        except ValueError as error:
            raise _wrong(where, str(error)) from error
        checked = cedarpy.validate_policies(policies, self.schema)
        if not checked.validation_passed:
            raise _wrong(where, "; ".join(str(error) for error in checked.errors))
        self._by_cedar_id = dict(_rules(parsed, where))
        self._by_id = {rule.id: rule for rule in self._by_cedar_id.values()}
        if len(self._by_id) < len(self._by_cedar_id):
            raise _wrong(where, "two policies have one @id")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all policies, in the order of the file."""
        return tuple(rule.id for rule in sorted(self._by_id.values(), key=lambda rule: rule.place))

    def in_order(self, names: Iterable[str]) -> Iterator[str]:
        """Ids (Cedar's own or ours) as our ids in the order of the file."""
        rules = {self._by_cedar_id.get(name) or self._by_id[name] for name in names}
        return (rule.id for rule in sorted(rules, key=lambda rule: rule.place))

    def is_about_caller(self, name: str) -> bool:
        rule = self._by_id.get(name)
        return rule is not None and rule.is_about_caller

    def detail(self, name: str, words: Mapping[str, str]) -> str:
        """What a person is told. Only the names between braces are filled in, never what they stand for."""
        detail = self._by_id[name].detail or f"The policy {name} forbids it."
        for word, value in words.items():
            detail = detail.replace("{" + word + "}", value)
        return detail


class PolicySource(Protocol):
    """Where the policies that are in force come from."""

    def current(self) -> PolicyText:
        """Raises ConfigurationError: then nothing is permitted."""
        ...


class PolicyFolder:
    """The policies of a folder, read again when a file of it has changed; the packaged ones where there is none.

    The folder holds policies.cedar and, where it has attributes of its own to speak of, schema.cedarschema. What
    became unreadable raises ConfigurationError rather than leaving yesterday's policy in force.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = Lock()
        self._stamp: tuple[tuple[int, int], ...] | None = None
        self._current: PolicyText | None = None

    def current(self) -> PolicyText:
        with self._lock:
            if self._folder is None:
                if self._current is None:
                    self._current = PolicyText(packaged(POLICIES), packaged(SCHEMA), f"packaged {POLICIES}")
                return self._current
            try:
                stamp = tuple(_stamp(self._folder / name) for name in (POLICIES, SCHEMA))
                if self._current is None or stamp != self._stamp:
                    self._current = read_folder(self._folder)
                    self._stamp = stamp
            except (OSError, UnicodeDecodeError) as error:
                raise _wrong(str(self._folder), str(error)) from error
            return self._current


def read_folder(folder: Path) -> PolicyText:
    """Raises ConfigurationError, OSError."""
    schema = folder / SCHEMA
    schema_text = schema.read_text("utf-8") if schema.exists() else packaged(SCHEMA)
    return PolicyText((folder / POLICIES).read_text("utf-8"), schema_text, str(folder))


def packaged(name: str) -> str:
    return resources.files(_PACKAGE).joinpath(name).read_text("utf-8")


def _stamp(path: Path) -> tuple[int, int]:
    if path.name == SCHEMA and not path.exists():
        return (0, 0)
    status = path.stat()
    return (status.st_mtime_ns, status.st_size)


def _rules(parsed: Mapping[str, Any], where: str) -> Iterator[tuple[str, _Rule]]:
    if parsed["templates"]:
        raise _wrong(where, "templates are not used here; write each policy out")
    for place, (cedar_id, policy) in enumerate(parsed["staticPolicies"].items()):
        annotations = policy.get("annotations", {})
        name = annotations.get("id") or ""
        if not name:
            raise _wrong(where, f"policy number {place + 1} has no @id")
        about, detail = annotations.get("about"), annotations.get("detail") or ""
        yield cedar_id, _Rule(int(cedar_id.removeprefix("policy")), name, about == "caller", detail)


def _wrong(where: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where}: {what}", advice="Mend the policy; `likeness policy test` checks it without a platform."
    )
