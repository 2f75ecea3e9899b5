"""`likeness audit`: export the log, and verify an export or a store without the services."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.audit.adapters.sql_log_store import SqlLogStore
from services.audit.reading import export_lines
from services.audit.signing import rotate_key
from services.audit.verification import (
    CHECKS,
    NOT_PROVEN,
    Checkpoint,
    VerificationFailed,
    outcomes,
    parse_checkpoint,
    read_public_key,
)
from services.audit.verifying import LogReport, describe, verify
from services.shared.clock import SystemClock
from services.shared.errors import ConfigurationError, LikenessError
from services.shared.rest_client import RestClient
from services.shared.settings import DatabaseSettings

audit_app = typer.Typer(no_args_is_help=True, help="Export and verify the audit log.")

# Where `likeness up` keeps them in its data folder.
STORE_IN_DATA = Path("audit/audit.sqlite")
WITNESS_IN_DATA = Path("audit-witness")
KEY_IN_DATA = Path("audit/signing-key.pem")


@audit_app.command("verify")
def verify_command(
    path: Annotated[Path, typer.Argument(help="An export, a store (SQLite file), or the data folder of a platform.")],
    witness: Annotated[Path | None, typer.Option(help="Folder of witnessed checkpoints.")] = None,
    checkpoint: Annotated[list[Path] | None, typer.Option(help="A checkpoint that you kept (repeatable).")] = None,
    public_key: Annotated[list[Path] | None, typer.Option(help="PEM of a trusted signing key (repeatable).")] = None,
) -> None:
    """Verify an audit log offline. Exit code 0 when every check passes, 1 when one fails.

    \b
    1. The source is readable and names its log and keys.
    2. Every entry is in canonical form.
    3. Sequence numbers run from 0 without a gap.
    4. No entry id occurs twice.
    5. Stored hashes and columns agree with the entries.
    6. Every checkpoint is signed by a trusted key.
    7. Every checkpoint's root is the root of the entries.
    8. Every witnessed checkpoint's root is the root of the entries.
    9. The newest checkpoint covers every entry.
    """
    console = Console()
    try:
        heads = [parse_checkpoint(file.read_bytes()) for file in checkpoint or []]
        keys = [read_public_key(file.read_bytes()) for file in public_key or []]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise typer.BadParameter(f"a given checkpoint or key cannot be read: {error}") from error
    source = path
    if path.is_dir():
        source = path / STORE_IN_DATA
        if witness is None and (path / WITNESS_IN_DATA).is_dir():
            witness = path / WITNESS_IN_DATA
            console.print(f"witness: {witness}", highlight=False, soft_wrap=True)
    try:
        with _progress(console, "verifying") as progress:
            report = verify(source, witness=witness, checkpoints=heads, public_keys=keys, progress=progress)
    except VerificationFailed as failure:
        _show_failure(console, failure)
        raise typer.Exit(1) from failure
    _show_report(console, report)


def _show_failure(console: Console, failure: VerificationFailed) -> None:
    for number in range(1, failure.check):
        console.print(f"  {number}. {CHECKS[number]}: nothing found before the failure", style="dim", highlight=False)
    console.print(f"  {failure.check}. {CHECKS[failure.check]}: FAILED", style="bold red", highlight=False)
    console.print(f"     {failure.detail}", highlight=False, soft_wrap=True)
    named = "unknown" if failure.sequence is None else failure.sequence
    console.print(f"first bad sequence number: {named}", style="bold red", highlight=False)


def _show_report(console: Console, report: LogReport) -> None:
    for number, outcome in outcomes(report).items():
        style = "green" if outcome == "passed" else "yellow"
        console.print(f"  {number}. {CHECKS[number]}: {outcome}", style=style, highlight=False)
    for line in describe(report):
        console.print(line, highlight=False, soft_wrap=True)
    console.print("What this does not prove:", style="bold")
    for line in NOT_PROVEN:
        console.print(f"  - {line}", highlight=False, soft_wrap=True)


@audit_app.command("rotate-key")
def rotate_key_command(
    data: Annotated[Path | None, typer.Option(help="Data folder of a platform, running or stopped.")] = None,
    key: Annotated[Path | None, typer.Option(help="The signing key's file, where there is no data folder.")] = None,
    log_id: Annotated[str, typer.Option(help="The log's id, with --key; every checkpoint names it.")] = "",
) -> None:
    """Replace the signing key by a new one that the old one endorses. Restart the audit service afterwards.

    The log records the change and the endorsement at the next start; whoever trusts the old key then trusts the new
    one. The old private key is destroyed.
    """
    console = Console(highlight=False, soft_wrap=True)
    if data is not None:
        store = SqlLogStore(DatabaseSettings(url=_store_url(data)), write_timeout_s=1.0)
        newest = store.newest_checkpoint()
        store.close()
        if newest is None:
            raise ConfigurationError("The log has no checkpoint yet.", advice="Start the audit service once.")
        key, log_id = data / KEY_IN_DATA, newest.log_id
    if key is None or not log_id:
        raise typer.BadParameter("give --data, or --key and --log-id")
    old, new = rotate_key(key, log_id, SystemClock().now())
    console.print(f"old key {old}\nnew key {new}, endorsed by the old one\nRestart the audit service now.")


@audit_app.command("approve")
def approve_command(
    recipient: Annotated[str, typer.Option(help="To whom the log is given, in words.")],
    reason: Annotated[str, typer.Option(help="Why; recorded in the log.")],
    url: Annotated[str, typer.Option(help="http(s) address of the audit service.")],
    token: Annotated[
        Path, typer.Option("--token", "--token-file", help="A file with an auditor's or a supervisor's token.")
    ],
) -> None:
    """Approve one export of the whole log to one recipient. An auditor other than you exports it, within 24 hours."""
    with RestClient("audit", url, token) as client:
        made = client.json("POST", "/v1/audit/export-approvals", json={"recipient": recipient, "reason": reason})
    Console().print(
        f"approval {made['approval_id']}, until {made['expires_at']}, for {made['recipient']}",
        highlight=False,
        soft_wrap=True,
    )


@audit_app.command("export")
def export_command(  # noqa: PLR0917 - the options of a command
    out: Annotated[Path, typer.Argument(help="The file to write; must not exist.")],
    data: Annotated[Path | None, typer.Option(help="Data folder of a platform, running or stopped.")] = None,
    url: Annotated[str | None, typer.Option(help="http(s) address of the audit service, or a database URL.")] = None,
    token: Annotated[
        Path | None,
        typer.Option("--token", "--token-file", help="A file with an auditor's token, for an http(s) address."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; recorded in the log by the service.")] = "",
    approval: Annotated[str, typer.Option(help="Of `likeness audit approve`, by somebody else, for http(s).")] = "",
) -> None:
    """Write the whole log, with its checkpoints and public keys, as JSON lines that `verify` reads.

    Over http(s) the service records the disclosure in the log and signs a fresh checkpoint over everything; it needs
    the approval of a second person, and the export names its recipient. Straight from a data folder or a database
    neither happens: the export ends at the newest checkpoint there is, and nobody is named.
    """
    console = Console()
    if (data is None) == (url is None):
        raise typer.BadParameter("give either --data or --url")
    if out.exists():
        raise typer.BadParameter(f"{out} exists already")
    try:
        if url is not None and url.startswith(("http://", "https://")):
            entries = _export_from_service(console, out, url, token, {"reason": reason, "approval": approval})
        else:
            entries = _export_from_store(console, out, url or _store_url(data))
    except LikenessError as error:
        console.print(f"{error.detail} {error.advice}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(f"{entries} entries written to {out}", highlight=False, soft_wrap=True)


def _store_url(data: Path | None) -> str:
    path = (data or Path()) / STORE_IN_DATA
    if not path.exists():
        raise ConfigurationError(f"There is no audit store at {path}.", advice="Give the platform's data folder.")
    return f"sqlite:///{path.resolve()}"


def _export_from_store(console: Console, out: Path, url: str) -> int:
    store = SqlLogStore(DatabaseSettings(url=url), write_timeout_s=1.0)
    try:
        newest = store.newest_checkpoint()
        if newest is None:
            raise ConfigurationError("The log has no checkpoint yet.", advice="Start the audit service once.")
        left = store.size() - newest.tree_size
        _write(console, out, export_lines(store, newest), newest)
        if left:
            console.print(f"{left} newer entries are under no checkpoint yet and were left out", style="yellow")
        return newest.tree_size
    finally:
        store.close()


def _export_from_service(console: Console, out: Path, url: str, token: Path | None, asked: Mapping[str, str]) -> int:
    if token is None:
        raise typer.BadParameter("an http(s) address needs --token")
    try:
        with (
            RestClient("audit", url, token) as client,
            client.streamed("GET", "/v1/audit/export", params=dict(asked)) as answer,
        ):
            _write(console, out, _lines(answer.iter_bytes()), None)
    except (OSError, httpx.HTTPError) as error:
        raise ConfigurationError(
            f"The export could not be fetched from {url}: {error}.", advice="Try again; nothing was written."
        ) from error
    with out.open("rb") as stream:
        return int(orjson.loads(stream.readline())["export"]["tree_size"])


def _lines(portions: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines of a stream that arrives in portions; what stands behind the last newline is cut off and missed."""
    rest = b""
    for portion in portions:
        *whole, rest = (rest + portion).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def _write(console: Console, out: Path, lines: Iterable[bytes], checkpoint: Checkpoint | None) -> None:
    """The file appears whole or not at all."""
    draft = out.with_name(f".{out.name}.part")
    total = checkpoint.tree_size if checkpoint else 0
    try:
        with draft.open("wb") as stream, _progress(console, "exporting") as progress:
            for number, line in enumerate(lines):
                stream.write(line)
                if number == 0 and checkpoint is None:
                    total = int(orjson.loads(line)["export"]["tree_size"])
                if number % 5000 == 0:
                    progress(number, total)
            progress(total, total)
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(out)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{what} entries", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)
