"""`likeness up · down · status · token · revoke`: a whole platform on one machine."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

from services.local.deployment import HOST, DataFolder, ServicePorts

DEFAULT_DATA = Path("data")

# Where a person begins at each service; the others have nothing to look at.
_PAGES = {"search": "/docs", "ingest": "/docs", "audit": "/docs", "review": "/console/"}

DataOption = Annotated[Path, typer.Option("--data", help="The folder that holds everything the platform keeps.")]
PortsOption = Annotated[
    str, typer.Option("--ports", help="`auto` for free ports, or changes such as `search=9080,audit.grpc=51064`.")
]
SyntheticOption = Annotated[
    bool,
    typer.Option("--allow-synthetic", help="Let the gallery be filled with labelled synthetic references (demo)."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(token)
    app.command()(revoke)


def up(
    data: DataOption = DEFAULT_DATA,
    ports: PortsOption = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return when all is ready; stop with `down`.")] = False,
    allow_synthetic: SyntheticOption = False,
) -> None:
    """Start every service on this machine, and keep them running until Ctrl-C.

    Where variables LIKENESS_CANDIDATE__… are set, with a second embed of the model that the gallery moves to.
    """
    from services.local.deployment import has_candidate, parse_ports  # noqa: PLC0415 - `likeness --help` stays quick
    from services.local.supervisor import Supervisor  # noqa: PLC0415
    from services.shared.clock import SystemClock  # noqa: PLC0415

    folder = DataFolder(data.resolve())
    console = Console()
    if detach:
        _up_in_background(folder, ports, allow_synthetic, console)
        return
    chosen = parse_ports(ports, with_candidate=has_candidate(os.environ))
    reporter = ConsoleReporter(console, folder, chosen)
    with reporter:
        Supervisor(folder, chosen, SystemClock(), reporter, os.environ, allow_synthetic).run()
    console.print("Stopped. Everything is kept in", str(folder.root), soft_wrap=True)


def _up_in_background(folder: DataFolder, ports: str, allow_synthetic: bool, console: Console) -> None:
    from services.local import background  # noqa: PLC0415 - `likeness --help` stays quick

    begun = time.monotonic()
    with console.status("Starting") as status:
        state = background.start(
            folder,
            ports,
            allow_synthetic=allow_synthetic,
            waiting=lambda reasons: status.update(describe_waiting(reasons)),
        )
    console.print(address_table(folder, state.ports))
    console.print(f"Ready after {time.monotonic() - begun:.1f} s. Stop it with `likeness down --data {folder.root}`.")


def down(data: DataOption = DEFAULT_DATA) -> None:
    """Stop the platform that runs on a data folder; nothing is lost."""
    from services.local import background  # noqa: PLC0415 - `likeness --help` stays quick

    folder = DataFolder(data.resolve())
    stopped = background.stop(folder)
    Console().print("Stopped." if stopped else f"Nothing runs on {folder.root}.", soft_wrap=True)


def status(
    data: DataOption = DEFAULT_DATA,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say whether a platform runs, and what each service says of itself. Exit status 1 unless all are ready."""
    from services.local.readiness import waiting_for  # noqa: PLC0415 - `likeness --help` stays quick
    from services.local.state import running_state  # noqa: PLC0415

    folder = DataFolder(data.resolve())
    state = running_state(folder)
    if state is None:
        text = json.dumps({"phase": "stopped"}) if as_json else f"Nothing runs on {folder.root}."
        Console().print(text, soft_wrap=True, highlight=False)
        raise typer.Exit(1)
    reasons = {service: waiting_for(pair.http) for service, pair in state.ports.items()}
    if as_json:
        services = {
            service: {"http": pair.http, "grpc": pair.grpc, "waiting_for": reasons[service]}
            for service, pair in state.ports.items()
        }
        print(json.dumps({"phase": state.phase, "pid": state.pid, "services": services}))  # noqa: T201
    else:
        Console().print(address_table(folder, state.ports, reasons))
    raise typer.Exit(1 if any(reasons.values()) else 0)


def token(
    *,
    role: Annotated[
        str,
        typer.Option(help="operator, custodian, auditor, supervisor, administrator, requester or inspector."),
    ],
    data: DataOption = DEFAULT_DATA,
    force: Annotated[str, typer.Option(help="The force that the person belongs to.")] = "northshire",
    watchlists: Annotated[str, typer.Option(help="Permitted watchlists, with commas; all when not given.")] = "",
    person: Annotated[str, typer.Option(help="The person's identifier, not a name; made up when not given.")] = "",
    hours: Annotated[float, typer.Option(help="How long it is valid.")] = 12.0,
) -> None:
    """Issue a token of the local issuer and print it."""
    from services.local.issuer import LocalIssuer  # noqa: PLC0415 - `likeness --help` stays quick
    from services.local.supervisor import watchlist_ids  # noqa: PLC0415
    from services.shared.clock import SystemClock  # noqa: PLC0415
    from services.shared.errors import ConfigurationError  # noqa: PLC0415

    folder = DataFolder(data.resolve())
    if not folder.tokens.exists():
        raise ConfigurationError(
            f"{folder.root} holds no platform.", advice=f"Start one first: likeness up --data {folder.root}"
        )
    known = watchlist_ids(folder)
    chosen = tuple(part.strip() for part in watchlists.split(",") if part.strip()) or known
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ConfigurationError(
            f"There is no watchlist {', '.join(unknown)}.", advice=f"The watchlists are {', '.join(known)}."
        )
    issued = LocalIssuer.open(folder.tokens, SystemClock()).issue(
        role, chosen, force=force, person_id=person or f"local-{role}-{force}", lifetime=timedelta(hours=hours)
    )
    print(issued)  # noqa: T201 - the token is the command's output


def revoke(
    *,
    data: DataOption = DEFAULT_DATA,
    person: Annotated[str, typer.Option(help="Every token that this person holds now.")] = "",
    given: Annotated[str, typer.Option("--token", help="This token only; `-` reads it from standard input.")] = "",
) -> None:
    """Revoke a token, or every token of a person; every service refuses it from its next request on."""
    from services.local.issuer import LocalIssuer  # noqa: PLC0415 - `likeness --help` stays quick
    from services.shared.clock import SystemClock  # noqa: PLC0415
    from services.shared.errors import ConfigurationError  # noqa: PLC0415

    folder = DataFolder(data.resolve())
    if not folder.tokens.exists():
        raise ConfigurationError(
            f"{folder.root} holds no platform.", advice=f"Start one first: likeness up --data {folder.root}"
        )
    if bool(person) == bool(given):
        raise ConfigurationError("Either --person or --token is needed.", advice="Give one of the two.")
    issuer = LocalIssuer.open(folder.tokens, SystemClock())
    if person:
        issuer.revoke_person(person)
        Console().print(f"Every token that {person} holds is revoked.", soft_wrap=True)
    else:
        owner = issuer.revoke_token(sys.stdin.read().strip() if given == "-" else given.strip())
        Console().print(f"One token of {owner} is revoked.", soft_wrap=True)


def address_table(folder: DataFolder, ports: Mapping[str, ServicePorts], reasons: Mapping[str, str] = {}) -> Table:
    """Where each service listens, and its state."""
    table = Table("service", "HTTP", "gRPC", "state", title=f"Likeness on {folder.root}", title_justify="left")
    for service, pair in ports.items():
        page = _PAGES.get(service, "/readyz")
        reason = reasons.get(service, "")
        state = f"[yellow]{reason}[/]" if reason else "[green]ready[/]"
        table.add_row(service, f"http://{HOST}:{pair.http}{page}", f"{HOST}:{pair.grpc}", state)
    return table


def describe_waiting(reasons: Mapping[str, str]) -> str:
    return "Waiting for " + ", ".join(f"{service} ({reason})" for service, reason in reasons.items())


class ConsoleReporter:
    """Tells on a terminal what the supervisor does: a moving line while it waits, plain lines otherwise."""

    def __init__(self, console: Console, folder: DataFolder, ports: Mapping[str, ServicePorts]) -> None:
        self._console = console
        self._folder = folder
        self._ports = ports
        self._status: Status = console.status("Starting")

    def __enter__(self) -> ConsoleReporter:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def note(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)

    def waiting(self, reasons: Mapping[str, str]) -> None:
        if self._console.is_terminal:
            self._status.update(describe_waiting(reasons))

    def ready(self, elapsed_s: float) -> None:
        self._status.stop()
        self._console.print(address_table(self._folder, self._ports))
        self._console.print(
            f"Ready after {elapsed_s:.1f} s. Tokens for operator, custodian, auditor, ... are in "
            f"{self._folder.tokens}{os.sep}\nCtrl-C stops everything; nothing is lost.",
            soft_wrap=True,
            highlight=False,
        )
