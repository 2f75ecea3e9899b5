"""`likeness export`: references for another body, as ANSI/NIST-ITL Type-10."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.ingest.api_client import IngestApi
from services.ingest.cli_rows import print_rows

export_app = typer.Typer(no_args_is_help=True, help="Give enrolled references to another body, under four eyes.")

TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_CUSTODIAN_TOKEN", help="A file with a custodian's token.")
]
UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_INGEST_URL", help="Where ingest listens.")]
TOKEN = Path("data/tokens/custodian.token")
URL = "http://127.0.0.1:8081"


@export_app.command("type-10")
def type10(  # noqa: PLR0917 - the options of a command
    subject_id: Annotated[list[str], typer.Option(help="A subject of your force; several times for several.")],
    recipient: Annotated[str, typer.Option(help="The body that gets it.")],
    purpose: Annotated[str, typer.Option(help="A purpose of the watchlist.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    watchlist: Annotated[str, typer.Option(help="The watchlist that they stand on.")] = "custody",
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Ask for an export. Another custodian approves it; then it can be fetched."""
    body = {
        "watchlist": watchlist,
        "subject_ids": subject_id,
        "recipient": recipient,
        "purpose": purpose,
        "reason": reason,
    }
    found = IngestApi(url, token).json("POST", "/v1/exports/type-10", json=body)
    Console().print(
        f"Export {found['export_id']}: {found['state']}. Now another custodian approves it.", soft_wrap=True
    )


@export_app.command("approve")
def approve(export_id: str, token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Approve what another custodian has asked for."""
    found = IngestApi(url, token).json("POST", f"/v1/exports/{export_id}/approval")
    Console().print(f"Export {found['export_id']}: {found['state']}.", soft_wrap=True)


@export_app.command("fetch")
def fetch(
    export_id: str,
    out: Annotated[Path, typer.Option(help="Write it here; .an2 of one subject, .zip of several.")],
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Fetch an approved export. Exit status 1 when an image of it was left out."""
    if out.exists():
        raise typer.BadParameter(f"{out} exists already.", param_hint="--out")
    answer = IngestApi(url, token).call("GET", f"/v1/exports/{export_id}/content")
    with out.open("xb") as file:
        out.chmod(0o600)  # people's images
        file.write(answer.content)
    console, left_out = Console(), answer.headers["x-likeness-left-out"]
    form = "a zip file of transactions" if answer.content.startswith(b"PK") else "one transaction"
    console.print(f"{out}: {form}, {answer.headers['x-likeness-records']} images", soft_wrap=True)
    if left_out:
        console.print(f"[red]Left out,[/] neither JPEG nor PNG: {left_out}", soft_wrap=True)
    raise typer.Exit(1 if left_out else 0)


@export_app.command("list")
def list_exports(token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Your force's exports, newest first."""
    columns = ("export_id", "watchlist", "recipient", "state", "requested_by", "approved_by", "subject_ids")
    print_rows(IngestApi(url, token).json("GET", "/v1/exports")["exports"], columns)
