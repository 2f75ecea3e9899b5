"""Documents with facts in them: `<!--fact NAME-->value<!--/fact-->`. People write around them; the values are ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path

import jinja2

from services.local.assurance.facts import Facts

DOCUMENTS = ("model-card.md", "dpia.md", "equality-assessment.md", "configuration.md")
_MARK = re.compile(r"<!--fact ([a-z0-9_.-]+)-->(.*?)<!--/fact-->", re.DOTALL)


class Kind(StrEnum):
    """CHANGED: the document says another value. UNKNOWN: what it names is not configured any more. LACKING: the
    template has a fact that the document left out. MISSING: there is no such document."""

    CHANGED = "changed"
    UNKNOWN = "unknown"
    LACKING = "lacking"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between a document and the configuration."""

    document: str
    kind: Kind
    fact: str
    said: str
    now: str


def render(name: str, facts: Facts) -> str:
    """A document from its template. Raises KeyError for a fact that the template names and nobody gathers."""
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True)  # noqa: S701 - Markdown
    environment.globals["fact"] = lambda fact: mark(fact, facts[fact])
    template = environment.from_string(_template(name))
    watchlists = [one for one in facts["watchlists"].split(", ") if one]
    return template.render(facts=facts, watchlists=watchlists, settings=_settings(facts)) + "\n"


def mark(fact: str, value: str) -> str:
    return f"<!--fact {fact}-->{_plain(value)}<!--/fact-->"


def updated(text: str, facts: Facts) -> str:
    """The document with every known fact as it is now; what people wrote stays."""

    def now(found: re.Match[str]) -> str:
        value = facts.get(found[1])
        return found[0] if value is None else mark(found[1], value)

    return _MARK.sub(now, text)


def drift(folder: Path, facts: Facts) -> Iterator[Drift]:
    """Every difference, document by document."""
    for name in DOCUMENTS:
        path = folder / name
        if not path.exists():
            yield Drift(name, Kind.MISSING, "", "", "")
            continue
        said = {found[1]: found[2] for found in _MARK.finditer(path.read_text("utf-8"))}
        yield from _differences(name, said, facts)
        wanted = {found[1] for found in _MARK.finditer(render(name, facts))}
        for fact in sorted(wanted - said.keys()):
            yield Drift(name, Kind.LACKING, fact, "", facts[fact])


def _differences(name: str, said: Mapping[str, str], facts: Facts) -> Iterator[Drift]:
    for fact, value in said.items():
        if fact not in facts:
            yield Drift(name, Kind.UNKNOWN, fact, value, "")
        elif value != _plain(facts[fact]):
            yield Drift(name, Kind.CHANGED, fact, value, facts[fact])


def _settings(facts: Facts) -> list[str]:
    return [name for name in facts if name.startswith("setting.")]


def _plain(value: str) -> str:
    """One line that cannot end its own mark or a table's cell."""
    return " ".join(value.split()).replace("<!--", "").replace("|", "/")


def _template(name: str) -> str:
    return resources.files("services.local.assurance").joinpath("templates", f"{name}.j2").read_text("utf-8")
