"""`likeness transparency report · check`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from services.audit.adapters.sql_log_store import SqlLogStore
from services.audit.cli import STORE_IN_DATA, WITNESS_IN_DATA
from services.audit.reading import export_lines
from services.audit.statistics.aggregates import Aggregates, count, months_of, parse_aggregates
from services.audit.statistics.report import AGGREGATES, PAGE, PAPER, headline, period, render_html, render_pdf
from services.audit.verification import Checkpoint, VerificationFailed, check_signature, key_id_of, read_public_key
from services.audit.verifying import verify
from services.shared.errors import ConfigurationError, IntegrityError
from services.shared.settings import DatabaseSettings

_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")

transparency_app = typer.Typer(no_args_is_help=True, help="Publish figures from the audit log, and check them.")

ExportOption = Annotated[Path | None, typer.Option(help="An export of the audit log.", exists=True, dir_okay=False)]
DataOption = Annotated[Path | None, typer.Option(help="Data folder of a platform, running or stopped.")]
WitnessOption = Annotated[Path | None, typer.Option(help="Folder of witnessed checkpoints.")]


@transparency_app.command("report")
def report_command(
    out: Annotated[Path, typer.Argument(help="The folder to write to; made when it is not there.")],
    data: DataOption = None,
    export: ExportOption = None,
    witness: WitnessOption = None,
    month: Annotated[
        list[str] | None, typer.Option(help="A month, as 2026-10 (repeatable); all that the log knows when not given.")
    ] = None,
) -> None:
    """Verify the log, count it, and write the report: aggregates.json, report.html, report.pdf.

    Nothing in them names a person; counts from 1 to 4 are withheld.
    """
    for given in month or []:
        if not _MONTH.fullmatch(given):
            raise typer.BadParameter(f"{given} is no month: write it as 2026-10")
    console = Console(highlight=False, soft_wrap=True)
    with _export(data, export) as (source, own_witness):
        for line in write_report(source, out, witness=witness or own_witness, months=month):
            console.print(line, markup=False)


def write_report(
    source: Path, out: Path, *, witness: Path | None = None, months: list[str] | None = None
) -> Iterator[str]:
    """Verify an export, count it and write the three files; what is told of them. Raises IntegrityError."""
    aggregates = counted(source, witness, months)
    out.mkdir(parents=True, exist_ok=True)
    (out / AGGREGATES).write_bytes(aggregates.document())
    (out / PAGE).write_text(render_html(aggregates), "utf-8")
    (out / PAPER).write_bytes(render_pdf(aggregates))
    yield f"{period(aggregates.months)}: {out / PAGE}, {PAPER}, {AGGREGATES}"
    for name, value in headline(aggregates):
        yield f"  {name}: {value}"


@transparency_app.command("check")
def check_command(
    folder: Annotated[Path, typer.Argument(help="A published report.", exists=True, file_okay=False)],
    export: ExportOption = None,
    data: DataOption = None,
    public_key: Annotated[Path | None, typer.Option(help="PEM of the log's signing key that you trust.")] = None,
) -> None:
    """Make a published report again and compare. Exit code 0 when every check passes.

    \b
    1. The aggregates hold together: sums hold, no small count is published.
    2. The checkpoint that they were counted under is signed.
    3. The page is what these aggregates make, byte for byte.
    4. With an export or data folder: the log verifies, holds that checkpoint, and gives these aggregates.
    """
    console = Console(highlight=False, soft_wrap=True)
    if absent := [name for name in (AGGREGATES, PAGE) if not (folder / name).is_file()]:
        raise typer.BadParameter(f"{folder} holds no published report: {', '.join(absent)} is not there")
    content = (folder / AGGREGATES).read_bytes()
    try:
        aggregates = parse_aggregates(content)
    except ValueError as error:
        raise _failed(console, 1, str(error)) from error
    console.print("  1. The aggregates hold together: passed", style="green")
    console.print(f"  2. The checkpoint is signed: {_check_head(console, aggregates, public_key)}", style="green")
    if render_html(aggregates) != (folder / PAGE).read_text("utf-8"):
        raise _failed(console, 3, f"{PAGE} is not what the aggregates make")
    console.print("  3. The page is what the aggregates make: passed", style="green")
    if export is None and data is None:
        console.print("  4. The log gives these aggregates: no export given", style="yellow")
        return
    with _export(data, export) as (source, own_witness):
        again = recounted(source, own_witness, aggregates)
    if again.document() != content:
        raise _failed(console, 4, "the log gives other aggregates")
    console.print("  4. The log gives these aggregates: passed", style="green")


def counted(source: Path, witness: Path | None, months: list[str] | None) -> Aggregates:
    """Aggregates of a verified export. Raises IntegrityError."""
    head = _verified(source, witness)
    wanted = months or months_of(entries_of(source))
    return count(entries_of(source), wanted, head, keys_of(source))


def recounted(source: Path, witness: Path | None, published: Aggregates) -> Aggregates:
    """Aggregates of the same entries as the published ones, from a verified export that may have grown since.

    Raises IntegrityError when the export does not hold the checkpoint of the published ones.
    """
    head = published.checkpoint
    _verified(source, witness, head)
    return count(entries_of(source), list(published.months), head, dict(published.keys))


def entries_of(export: Path) -> Iterator[Mapping[str, Any]]:
    """The entries of an export, in order."""
    with export.open("rb") as stream:
        for line in stream:
            if line.startswith(b'{"entry":'):
                yield orjson.loads(line)["entry"]


def keys_of(export: Path) -> dict[str, str]:
    with export.open("rb") as stream:
        header = orjson.loads(stream.readline())["export"]
    return {key["key_id"]: key["public_key"] for key in header["keys"]}


def _verified(source: Path, witness: Path | None, *heads: Checkpoint) -> Checkpoint:
    try:
        report = verify(source, witness=witness, checkpoints=heads)
    except VerificationFailed as failure:
        raise IntegrityError(
            f"The audit log does not verify (check {failure.check}): {failure.detail}",
            advice="Run `likeness audit verify` and call whoever is responsible for the log.",
        ) from failure
    if report.newest_checkpoint is None:
        raise ConfigurationError("The log has no checkpoint yet.", advice="Start the audit service once.")
    return report.newest_checkpoint


@contextmanager
def _export(data: Path | None, export: Path | None) -> Iterator[tuple[Path, Path | None]]:
    """An export to read, and the witness beside its store: the file given, or one made from a platform's data."""
    if (data is None) == (export is None):
        raise typer.BadParameter("give either --data or --export")
    if export is not None:
        yield export, None
        return
    store_path = (data or Path()) / STORE_IN_DATA
    if not store_path.exists():
        raise ConfigurationError(f"There is no audit store at {store_path}.", advice="Give the platform's data folder.")
    witness = (data or Path()) / WITNESS_IN_DATA
    with tempfile.TemporaryDirectory(prefix="likeness-transparency-") as folder:
        path = Path(folder) / "export.jsonl"
        store = SqlLogStore(DatabaseSettings(url=f"sqlite:///{store_path.resolve()}"), write_timeout_s=1.0)
        try:
            newest = store.newest_checkpoint()
            if newest is None:
                raise ConfigurationError("The log has no checkpoint yet.", advice="Start the audit service once.")
            with path.open("wb") as stream:
                stream.writelines(export_lines(store, newest))
        finally:
            store.close()
        yield path, witness if witness.is_dir() else None


def _check_head(console: Console, aggregates: Aggregates, public_key: Path | None) -> str:
    head = aggregates.checkpoint
    try:
        pems = [public_key.read_bytes()] if public_key else [pem.encode() for pem in aggregates.keys.values()]
        keys = [read_public_key(pem) for pem in pems]
        check_signature(head, head.log_id, {key_id_of(key): key for key in keys})
    except (OSError, ValueError) as error:
        raise _failed(console, 2, f"the checkpoint over {head.tree_size} entries: {error}") from error
    return "passed" if public_key else "passed, by the key published with it"


def _failed(console: Console, number: int, detail: str) -> typer.Exit:
    console.print(f"  {number}. FAILED: {detail}", style="bold red", markup=False)
    return typer.Exit(1)
