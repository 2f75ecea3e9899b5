"""`likeness flags`: what a custodian should look at, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from services.ingest.api_client import IngestApi
from services.ingest.cli_rows import print_rows

flags_app = typer.Typer(no_args_is_help=True, help="Probable duplicates, one person under two subjects, odd images.")

TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_CUSTODIAN_TOKEN", help="A file with a custodian's token.")
]
UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_INGEST_URL", help="Where ingest listens.")]
TOKEN = Path("data/tokens/custodian.token")
URL = "http://127.0.0.1:8081"


@flags_app.command("list")
def list_flags(
    state: Annotated[str, typer.Option(help="open, dismissed, acted or lapsed.")] = "open",
    kind: Annotated[
        str, typer.Option(help="probable_duplicate, probable_same_person or wrong_subject_suspected.")
    ] = "",
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Your force's flags, oldest first."""
    api, after, flags = IngestApi(url, token), "", []
    while True:
        parameters = {"state": state, "after": after, **({"kind": kind} if kind else {})}
        page = api.json("GET", "/v1/flags", params=parameters)
        flags += [{**flag, "references": _ids(flag)} for flag in page["flags"]]
        after = page["next"]
        if not after:
            break
    print_rows(flags, ("flag_id", "kind", "watchlist", "band", "subject_ids", "references", "state", "reason"))


def _ids(flag: dict[str, Any]) -> list[str]:
    return [each["enrolment_id"] for each in flag["references"]]


@flags_app.command("decide")
def decide(
    flag_id: str,
    decision: Annotated[str, typer.Option(help="dismissed or acted.")],
    reason: Annotated[str, typer.Option(help="What you found.")],
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Record what you found. Nothing is merged, moved or withdrawn by it."""
    body = {"decision": decision, "reason": reason}
    found = IngestApi(url, token).json("POST", f"/v1/flags/{flag_id}/decision", json=body)
    Console().print(f"Flag {found['flag_id']}: {found['state']}.", soft_wrap=True)


@flags_app.command("scan")
def scan(token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Check every reference in your watchlists once more, in the background."""
    found = IngestApi(url, token).json("POST", "/v1/flags/scan")
    Console().print(f"Checked once more: {', '.join(found['watchlists'])}.")
