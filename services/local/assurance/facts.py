"""What the documents say of a platform, read from its configuration, its data folder and, if it runs, the platform."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from services.audit.settings import AuditSettings
from services.embed.models.manifest import load_manifest
from services.embed.settings import EmbedSettings
from services.embed.version import model_id_of, preprocessing_version
from services.ingest.settings import IngestSettings
from services.local.deployment import DEFAULT_PORTS, DataFolder, environment
from services.local.state import running_state
from services.review.settings import ReviewSettings
from services.search.identification.operating_points import OperatingPoint, parse_operating_points
from services.search.settings import SearchSettings
from services.shared.errors import ConfigurationError
from services.shared.settings import ServiceSettings
from services.shared.watchlists import WatchlistFile

Facts = Mapping[str, str]

SETTINGS: Mapping[str, type[ServiceSettings]] = {
    "embed": EmbedSettings,
    "ingest": IngestSettings,
    "search": SearchSettings,
    "review": ReviewSettings,
    "audit": AuditSettings,
}
# Of places, addresses and secrets it is said that there is one: which one, some must not read.
_ONLY_WHETHER = frozenset(
    {"path", "url", "uri", "token", "key", "password", "username", "endpoint", "bucket", "address"}
)
# Where the services of one platform find each other, and what they write of themselves.
_LEFT_OUT = frozenset({"host", "port", "peers"})
_SET = "set"
_NOT_RUNNING = "not running"
NONE = "none"


def gather(data: DataFolder, inherited: Mapping[str, str]) -> Facts:
    """Every fact by its name. Raises ConfigurationError when the configuration does not hold together."""
    settings = {name: _settings(kind, name, data, inherited) for name, kind in SETTINGS.items()}
    facts = {
        **_model(settings["embed"]),
        **_running(data),
        **_thresholds(settings["search"]),
        **_watchlists(settings["search"]),
    }
    for name, one in settings.items():
        facts |= {f"setting.{name}.{key}": value for key, value in _leaves(one)}
    return dict(sorted(facts.items()))


def _settings(
    kind: type[ServiceSettings], name: str, data: DataFolder, inherited: Mapping[str, str]
) -> ServiceSettings:
    own = environment(name, data, DEFAULT_PORTS, inherited)
    prefix = f"LIKENESS_{name.upper()}__"
    try:
        with _environment({key: value for key, value in own.items() if key.startswith(prefix)}):
            return kind()
    except ValidationError as error:
        raise ConfigurationError(
            f"the settings of {name} do not hold together: {error}", advice="Mend the named settings."
        ) from error


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Settings read the process's environment and nothing else; what was there comes back."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("LIKENESS_")]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _model(settings: ServiceSettings) -> dict[str, str]:
    assert isinstance(settings, EmbedSettings)  # noqa: S101 - by the table above
    chosen, detection = settings.model, settings.detection
    if chosen.kind == "stub":
        return {"model.id": "stub, which recognises nobody"}
    manifest = load_manifest(chosen.manifest_path)
    detector, recogniser = (manifest.get(name, role) for name, role in _networks(chosen.detector, chosen.recogniser))
    return {
        "model.id": model_id_of(detector, recogniser, detection, chosen.mirror),
        "model.detector": detector.name,
        "model.detector_sha256": detector.sha256,
        "model.detector_licence": detector.licence,
        "model.recogniser": recogniser.name,
        "model.recogniser_sha256": recogniser.sha256,
        "model.recogniser_licence": recogniser.licence,
        "model.dimension": str(recogniser.dimension),
        "model.preprocessing": preprocessing_version(recogniser, detection, chosen.mirror),
        "model.providers": ", ".join(chosen.providers),
    }


def _networks(detector: str, recogniser: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (detector, "detector"), (recogniser, "recogniser")


def _running(data: DataFolder) -> dict[str, str]:
    """What embed says that it runs: the configuration of a platform that was not restarted since may be another."""
    state = running_state(data)
    answer: dict[str, Any] = {}
    if state is not None:
        try:
            answer = httpx.get(f"http://127.0.0.1:{state.ports['embed'].http}/readyz", timeout=5.0).json()
        except (httpx.HTTPError, ValueError):
            answer = {}
    return {
        "running.model_id": str(answer.get("model_id", _NOT_RUNNING)),
        "running.runtime": str(answer.get("runtime", _NOT_RUNNING)),
        "running.provider": str(answer.get("provider", _NOT_RUNNING)),
    }


def _thresholds(settings: ServiceSettings) -> dict[str, str]:
    assert isinstance(settings, SearchSettings)  # noqa: S101 - by the table above
    path = settings.operating_points_path
    if path is None:
        return {"thresholds": "the packaged default, which no measurement of this unit stands behind"}
    try:
        points = parse_operating_points(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigurationError(f"operating points cannot be read: {error}", advice="Put the file back.") from error
    return {"thresholds": "; ".join(_threshold(point) for point in points) or NONE}


def _threshold(point: OperatingPoint) -> str:
    evidence = point.evidence
    rates = "".join(
        f", {name.upper()} {value:g}"
        for name, value in (("fpir", evidence.fpir), ("fnir", evidence.fnir))
        if value is not None
    )
    return f"{point.watchlist}: {point.threshold:g} ({point.version}{rates}; {evidence.reference})"


def _watchlists(settings: ServiceSettings) -> dict[str, str]:
    path = settings.watchlists_path
    # A platform that has never run has no copy of its own yet.
    watchlists = WatchlistFile(path if path is not None and path.exists() else None).current()
    today = date.today()  # noqa: DTZ011 - agreements name days of the unit's own calendar
    facts = {"watchlists": ", ".join(watchlists.ids), "purposes": ", ".join(sorted(watchlists.purposes))}
    for watchlist_id in watchlists.ids:
        found = watchlists.get(watchlist_id)
        if found is None:
            continue
        for name, value in found.model_dump(mode="json", exclude={"id"}).items():
            facts[f"watchlist.{watchlist_id}.{name}"] = _text(value)
        agreements = (one.reference for one in watchlists.agreements_in_force(watchlist_id, today))
        facts[f"watchlist.{watchlist_id}.agreements"] = ", ".join(agreements) or NONE
    return facts


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in model.model_dump(mode="json").items():
        yield from _leaf(f"{prefix}{name}", value)


def _leaf(name: str, value: Any) -> Iterator[tuple[str, str]]:
    last = name.rpartition(".")[2]
    words = set(last.split("_"))
    if words & _LEFT_OUT or last in {"log_level", "workers"}:  # as many as the machine has processors
        return
    if isinstance(value, dict):
        for inner, one in value.items():
            yield from _leaf(f"{name}.{inner}", one)
    elif words & _ONLY_WHETHER and not isinstance(value, bool | int | float):
        yield name, NONE if value is None or value in ("", []) else _SET
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value) or NONE
    return NONE if value is None or value == "" else str(value)
