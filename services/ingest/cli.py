"""`likeness enrol`: a folder of images and its manifest, into the galleries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from services.ingest.bulk.loader import Report
    from services.ingest.bulk.manifest import BulkRow

ManifestOption = Annotated[
    Path | None,
    typer.Option(help="CSV with the columns path, subject_id, and if you like those below. FOLDER/manifest.csv."),
]
TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_CUSTODIAN_TOKEN", help="A file with a custodian's token.")
]
UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_INGEST_URL", help="Where ingest listens.")]
ReportOption = Annotated[Path | None, typer.Option(help="Write what became of every image to this CSV file.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every image has its outcome.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(enrol)


def enrol(  # noqa: PLR0917 - the options of a command
    source: Annotated[
        Path,
        typer.Argument(help="A folder, a zip or tar file with manifest.csv in it, or a .an2 file.", exists=True),
    ],
    manifest: ManifestOption = None,
    watchlist: Annotated[str, typer.Option(help="For every line that does not say.")] = "",
    owner: Annotated[str, typer.Option(help="The force whose images they are.")] = "",
    lawful_basis: Annotated[str, typer.Option(help="For every line that does not say.")] = "",
    captured_on: Annotated[str, typer.Option(help="YYYY-MM-DD, for every line that does not say.")] = "",
    agreement_reference: Annotated[str, typer.Option(help="Only where the watchlist needs one.")] = "",
    token: TokenOption = Path("data/tokens/custodian.token"),
    url: UrlOption = "http://127.0.0.1:8081",
    concurrency: Annotated[int, typer.Option(min=1, max=32, help="Batches under way at once.")] = 2,
    patience: Annotated[float, typer.Option(help="Seconds to wait for a platform that is away or busy.")] = 120.0,
    wait: WaitOption = True,
    report: ReportOption = None,
    rate: Annotated[float, typer.Option(min=0.0, help="Images a second at most; 0: as fast as they go.")] = 0.0,
    subject_field: Annotated[int, typer.Option(help="Type-2 field of a .an2 file that holds the subject's id.")] = 10,
    custody_field: Annotated[int, typer.Option(help="The one that holds the custody reference; 0: none.")] = 0,
) -> None:
    """Enrol the images of a folder, an archive or a transaction; stopped, the same command goes on where it was.

    Exit status 0 when every image was submitted, and settled unless --no-wait; 1 otherwise. Refusals are results.
    """
    from services.ingest.bulk.sources import Type10Mapping, read_source  # noqa: PLC0415 - `likeness --help` stays quick
    from services.shared.work_folder import work_folder  # noqa: PLC0415

    shared = {
        "watchlist": watchlist,
        "owner": owner,
        "lawful_basis": lawful_basis,
        "captured_on": captured_on,
        "agreement_reference": agreement_reference,
    }
    journal = _journal_path(manifest or source, url)
    # What is unpacked are people's images: they are gone when this ends, however it ends.
    with work_folder("enrol") as work:
        rows = read_source(source, manifest, shared, work, mapping=Type10Mapping(subject_field, custody_field))
        done = _load(rows, journal, token=token, url=url, limits=(concurrency, patience, rate), is_waiting=wait)
    _finish(rows, done, report, is_waiting=wait)


def _journal_path(manifest: Path, url: str) -> Path:
    from services.shared.packages import cache_folder  # noqa: PLC0415 - `likeness --help` stays quick

    name = hashlib.sha256(f"{manifest.resolve()}\0{url}".encode()).hexdigest()[:24]
    return cache_folder() / "enrol" / f"{name}.jsonl"


def _load(
    rows: Sequence[BulkRow],
    journal_path: Path,
    *,
    token: Path,
    url: str,
    limits: tuple[int, float, float],
    is_waiting: bool,
) -> Report:
    from services.ingest.bulk.client import EnrolmentClient  # noqa: PLC0415 - `likeness --help` stays quick
    from services.ingest.bulk.journal import Journal  # noqa: PLC0415
    from services.ingest.bulk.loader import BulkLoader, Report  # noqa: PLC0415
    from services.ingest.bulk.screen import Bars  # noqa: PLC0415
    from services.shared.errors import LikenessError  # noqa: PLC0415

    concurrency, patience_s, rate = limits
    stop = Event()
    report = Report()
    client = EnrolmentClient(url, token, patience_s, stop)
    journal = Journal(journal_path)
    try:
        with Bars(Console(stderr=True), len(rows), is_waiting=is_waiting) as bars:
            BulkLoader(client, journal, concurrency, stop, bars, rate_per_s=rate).load(
                rows, report, is_waiting=is_waiting
            )
    except LikenessError as error:
        report.stopped_by = f"{error.detail} {error.advice}".strip()
    except KeyboardInterrupt:
        report.stopped_by = "interrupted; the same command goes on from here"
    finally:
        stop.set()
        journal.close()
        client.close()
    return report


def _finish(rows: Sequence[BulkRow], done: Report, report_path: Path | None, *, is_waiting: bool) -> None:
    from services.ingest.bulk.loader import PENDING  # noqa: PLC0415 - `likeness --help` stays quick
    from services.ingest.bulk.screen import summary, write_report  # noqa: PLC0415

    console = Console()
    console.print(summary(rows, done))
    if report_path is not None:
        write_report(report_path, rows, done)
        console.print(f"Every image by id: {report_path}", soft_wrap=True)
    if done.stopped_by:
        Console(stderr=True).print(f"[red]Stopped:[/] {done.stopped_by}", soft_wrap=True)
    states = {state for state, _ in done.counts(rows)}
    is_incomplete = "not_submitted" in states or (is_waiting and PENDING in states)
    raise typer.Exit(1 if is_incomplete or done.stopped_by else 0)
