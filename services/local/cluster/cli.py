"""`likeness cluster`: the people of a folder of pictures, so that an operator picks people, not files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from services.local.cluster.people import Findings
    from services.local.cluster.work import ClusterWork
    from services.rpc.clients import EmbedClient

_START_TIMEOUT_S = 120.0
# Two for each of embed's workers keep it busy.
_CALLERS = 4

CaseOption = Annotated[str, typer.Option("--case", help="Crime or occurrence number that the folder belongs to.")]
OutOption = Annotated[
    Path, typer.Option("--out", help="Where the contact sheet and the work file go; a stopped run goes on from there.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(cluster)


def cluster(
    folder: Annotated[Path, typer.Argument(help="Pictures, in any folders.", exists=True, file_okay=False)],
    case: CaseOption,
    out: OutOption,
    threshold: Annotated[
        float, typer.Option(min=0.1, max=0.9, help="Mean cosine at which groups are one person.")
    ] = 0.38,
    forget: Annotated[
        bool, typer.Option("--forget", help="Delete the work file, which holds templates, once the sheet is written.")
    ] = False,
) -> None:
    """Find every face of a folder, group the faces by who they are, and write a contact sheet. Searches nobody.

    Each content is looked at once, however many copies there are. Ctrl-C stops; the same command goes on.
    """
    from services.local.cluster.people import find_people  # noqa: PLC0415 - `likeness --help` stays quick
    from services.local.cluster.work import ClusterWork  # noqa: PLC0415

    console = Console()
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    work = ClusterWork(out / "work.sqlite")
    try:
        work.require("folder", str(folder.resolve()))
        work.require("case", case)
        model_id = _look(console, folder, work, out)
        findings = find_people(work, threshold)
    finally:
        work.close()
    sheet = _write_findings(findings, out, folder, case, model_id, threshold)
    if forget:
        (out / "work.sqlite").unlink()
    copies = findings.files - findings.contents
    console.print(
        f"{findings.files} files ({copies} of them copies), {len(findings.people)} groups, "
        f"{len(findings.poor)} faces too poor to group.\nContact sheet: {sheet}",
        soft_wrap=True,
    )


def _look(console: Console, folder: Path, work: ClusterWork, out: Path) -> str:
    """Find the faces of every content that was not looked at before, with an embed of one's own; its model."""
    from services.local.cluster.reading import list_files, look_at_pictures  # noqa: PLC0415

    with _bars(console) as bars:
        listing = bars.add_task("Listing files", total=None)
        list_files(folder, work, lambda count: bars.advance(listing, count))
        pending = len(work.pending())
        with _own_embed(out) as embed:
            model_id = embed.describe_model(timeout_s=10.0).model_id
            work.require("model", model_id)
            looking = bars.add_task("Finding faces", total=pending)
            look_at_pictures(folder, work, embed, _CALLERS, lambda count: bars.advance(looking, count))
    return model_id


def _write_findings(  # noqa: PLR0917 - what was done, for whom, and where it goes
    findings: Findings, out: Path, folder: Path, case: str, model_id: str, threshold: float
) -> Path:
    """The contact sheet and the same as JSON, readable by their owner alone; the sheet's path."""
    import orjson  # noqa: PLC0415 - `likeness --help` stays quick

    from services.local.cluster.sheet import write_sheet  # noqa: PLC0415
    from services.shared.clock import SystemClock, rfc3339  # noqa: PLC0415

    made_at = rfc3339(SystemClock().now())
    sheet, people = out / "people.html", out / "people.json"
    write_sheet(findings, sheet, folder=folder.name, case=case, model_id=model_id, threshold=threshold, at=made_at)
    about = {"case": case, "folder": str(folder), "made_at": made_at, "model_id": model_id, "threshold": threshold}
    people.write_bytes(orjson.dumps({**about, **findings.as_json()}, option=orjson.OPT_INDENT_2))
    for path in (sheet, people):
        path.chmod(0o600)  # beside the work file, of the same secrecy
    return sheet


@contextmanager
def _own_embed(out: Path) -> Iterator[EmbedClient]:
    """An embed service of this command alone, on a free port of this machine. Raises DependencyUnavailable."""
    import os  # noqa: PLC0415 - see above
    import signal  # noqa: PLC0415
    from time import monotonic, sleep  # noqa: PLC0415

    from services.local.deployment import HOST, DataFolder, environment, free_ports  # noqa: PLC0415
    from services.local.process import ServiceProcess  # noqa: PLC0415
    from services.local.readiness import waiting_for  # noqa: PLC0415
    from services.rpc.clients import EmbedClient, open_channel  # noqa: PLC0415
    from services.shared.errors import DependencyUnavailable  # noqa: PLC0415

    ports = free_ports()
    variables = environment("embed", DataFolder(out), ports, dict(os.environ), mutual_tls=False)
    process = ServiceProcess("embed", variables, out / "embed.log")
    process.start()
    try:
        deadline_s = monotonic() + _START_TIMEOUT_S
        while waiting_for(ports["embed"].http):
            if not process.is_running() or monotonic() > deadline_s:
                said = "\n".join(process.last_lines(5))
                raise DependencyUnavailable(f"embed does not start:\n{said}", advice="Run `likeness models fetch`.")
            sleep(0.1)
        with open_channel(f"{HOST}:{ports['embed'].grpc}") as channel:
            yield EmbedClient(channel)
    finally:
        process.send(signal.SIGTERM)
        if not process.wait(20.0):
            process.send(signal.SIGKILL)
            process.wait(5.0)


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)
