"""The demonstration from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.local import background
from services.local.demo.client import DemoClient, timed
from services.local.demo.pictures import prepare_pictures
from services.local.demo.plan import FILLS, PROBES, SUBJECTS, Expectation, Probe
from services.local.demo.results import DemoResult, ProbeResult
from services.local.deployment import DataFolder
from services.local.state import PlatformState, running_state
from services.shared.errors import ConfigurationError, DependencyUnavailable

Say = Callable[[str], None]
_WATCHLISTS = [subject.watchlist for subject in SUBJECTS]


@contextmanager
def platform(data: DataFolder, waiting: Say) -> Iterator[PlatformState]:
    """The platform of this data: the one that runs already, or one of our own that ends with the demonstration.

    Raises ConfigurationError when the data was made with another model than this version runs.
    """

    def tell(reasons: Mapping[str, str]) -> None:
        if _OTHER_MODEL in reasons.get("search", ""):
            raise ConfigurationError(
                f"{data.root} was filled with another model than this version of Likeness runs.",
                advice=f"Templates of two models cannot be compared: delete {data.root} and run it again.",
            )
        waiting(f"Waiting for {', '.join(reasons)}")

    state = running_state(data)
    if state is not None:
        yield state
        return
    try:
        yield background.start(data, "auto", allow_synthetic=True, dies_with_caller=True, waiting=tell)
    finally:
        background.stop(data)


# How search says that it waits for a ledger of its model; nothing in the demonstration will bring one.
_OTHER_MODEL = "templates of model"


def run(data: DataFolder, pictures: Path, step: Say) -> DemoResult:
    """Enrol, fill, search. What earlier runs have done is found done. Raises LikenessError."""
    step("Fetching the demonstration pictures")
    prepare_pictures(pictures)
    step("Starting the services")
    with platform(data, step) as state, DemoClient(data, state) as client:
        for subject in SUBJECTS:
            step(f"Enrolling {subject.subject_id} into {subject.watchlist}")
            found = client.enrol(subject, (pictures / subject.picture).read_bytes())
            if found["state"] != "enrolled":
                raise DependencyUnavailable(f"{subject.subject_id} is {found['state']}: {found['detail']}")
        for fill in FILLS:
            step(f"Filling {fill.watchlist} up to {fill.until_count:,} references with labelled synthetic templates")
            client.fill(fill)
        _warm(client, pictures)
        answers = []
        for number, probe in enumerate(PROBES, 1):
            step(f"Searching probe {number} of {len(PROBES)}: {probe.title}")
            answers.append(_search(client, probe, (pictures / probe.picture).read_bytes()))
        last = answers[-1][1]
        return DemoResult(
            probes=[result for result, _ in answers],
            counts=client.counts(),
            model_id=last["model"]["model_id"],
            gallery=last["gallery"],
            made_on=datetime.now(UTC).date().isoformat(),
        )


def _warm(client: DemoClient, pictures: Path) -> None:
    """One search before those that are timed: a service that has just started has not loaded everything it needs."""
    probe = PROBES[0]
    timed(lambda: client.search(probe, (pictures / probe.picture).read_bytes(), _WATCHLISTS))


def _search(client: DemoClient, probe: Probe, picture: bytes) -> tuple[ProbeResult, dict[str, Any]]:
    body, waited_ms = timed(lambda: client.search(probe, picture, _WATCHLISTS))
    over_threshold = None
    if probe.expectation is Expectation.NOT_ENROLLED:
        identified, _ = timed(lambda: client.search(probe, picture, _WATCHLISTS, mode="identification"))
        over_threshold = len(identified["candidates"])
    return ProbeResult.of(probe, body, waited_ms, over_threshold), body
