"""`likeness model migration`: from one model to another, over the same API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from services.ingest.api_client import IngestApi
from services.ingest.cli_rows import print_rows
from services.shared.errors import Conflict, InvalidRequest

model_app = typer.Typer(no_args_is_help=True, help="Which model searches are answered with.")
migration_app = typer.Typer(no_args_is_help=True, help="Move the gallery to another model without an outage.")
model_app.add_typer(migration_app, name="migration")

TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_ADMINISTRATOR_TOKEN", help="A file with your token.")
]
UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_INGEST_URL", help="Where ingest listens.")]
IdOption = Annotated[str, typer.Option("--migration", help="Which; the latest when not given.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it stands in the log.")]
TOKEN = Path("data/tokens/administrator.token")
URL = "http://127.0.0.1:8081"
_PATH = "/v1/model-migrations"


@migration_app.command("start")
def start(reason: ReasonOption, token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Begin to embed every enrolled image with the candidate model that runs beside the one in service."""
    _tell(IngestApi(url, token).json("POST", _PATH, json={"reason": reason}))


@migration_app.command("status")
def status(migration: IdOption = "", token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Where a migration stands: state, progress, losses by reason, approvals."""
    api = IngestApi(url, token)
    report = api.json("GET", f"{_PATH}/{_chosen(api, migration)}")
    _tell(report["migration"])
    progress, console = report["progress"], Console()
    console.print(
        f"{progress['embedded']} of {progress['enrolled']} embedded, {progress['missing']} missing, "
        f"{progress['lost']} lost, {progress['not_in_gallery']} not in the gallery yet"
    )
    for reason, count in progress["lost_by_reason"].items():
        console.print(f"  lost: {reason}: {count}")
    for gallery in report["galleries"]:
        total = sum(gallery["searchable_by_watchlist"].values())
        console.print(f"  gallery of {gallery['model_id']}: {gallery['state']}, {total} references", soft_wrap=True)
    for approval in report["migration"]["approvals"]:
        console.print(f"  approved by {approval['person_id']} on {approval['evidence_sha256']}", soft_wrap=True)
    if report["problem"]:
        console.print(f"Search's part is missing: {report['problem']}")


@migration_app.command("report")
def report(migration: IdOption = "", token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """What the shadow searches came to: overlap, changes of rank, scores of each model by itself."""
    api, console = IngestApi(url, token), Console()
    found = api.json("GET", f"{_PATH}/{_chosen(api, migration)}")
    for model_id, part in found["shadow"].get("by_model_in_service", {}).items():
        console.print(f"In service: {model_id}", soft_wrap=True)
        console.print(f"  shadow searches: {part['searches']}, dropped {part['dropped']}, failed {part['failed']}")
        console.print(f"  not comparable: {part['not_comparable']}")
        same = part["rank_1_same"]
        console.print(f"  first candidate the same: {same['count']} of {same['of']}, 95 % {same['interval_95']}")
        console.print(f"  the first now stands at: {part['rank_1_of_served_stands_at']}")
        console.print(f"  overlap of the lists: {part['overlap']}")
        for scored, places in part["scores"].items():
            console.print(_scores(scored, places))
    if found["problem"]:
        console.print(f"Search's part is missing: {found['problem']}")


@migration_app.command("losses")
def losses(migration: IdOption = "", token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """The images of which the candidate makes no template, each with its reason."""
    api = IngestApi(url, token)
    path, after = f"{_PATH}/{_chosen(api, migration)}/losses", ""
    found: list[dict[str, Any]] = []
    while page := api.json("GET", path, params={"after": after, "limit": 1000})["losses"]:
        found += page
        after = page[-1]["enrolment_id"]
    print_rows(found, ("enrolment_id", "owner", "watchlist_id", "reason", "detail"))


@migration_app.command("retry-losses")
def retry_losses(migration: IdOption = "", token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Have the lost images looked at again."""
    api = IngestApi(url, token)
    found = api.json("POST", f"{_PATH}/{_chosen(api, migration)}/losses/retry")
    Console().print(f"{found['retried']} images are looked at again")


@migration_app.command("approve")
def approve(
    evidence: Annotated[Path, typer.Option(help="The evaluation.json of `likeness evaluate` with the candidate.")],
    accept_losses: Annotated[int, typer.Option(help="How many references you accept to lose: as the report says.")],
    migration: IdOption = "",
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Agree to the switch. Two different people have to, on the same evidence."""
    try:
        text = evidence.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{evidence} cannot be read: {error}", advice="Give the file of an evaluation.") from error
    api = IngestApi(url, token)
    body = {"evidence": text, "accepted_losses": accept_losses}
    _tell(api.json("POST", f"{_PATH}/{_chosen(api, migration)}/approvals", json=body))


@migration_app.command("switch")
def switch(migration: IdOption = "", token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Answer searches with the candidate from now on."""
    api = IngestApi(url, token)
    _tell(api.json("POST", f"{_PATH}/{_chosen(api, migration)}/switch"))


@migration_app.command("rollback")
def rollback(reason: ReasonOption, migration: IdOption = "", token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Answer searches with the former model again, at once. Approvals given so far are void."""
    api = IngestApi(url, token)
    _tell(api.json("POST", f"{_PATH}/{_chosen(api, migration)}/rollback", json={"reason": reason}))


@migration_app.command("finish")
def finish(migration: IdOption = "", token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Make the new model the ledger's own. There is no rollback after this."""
    api = IngestApi(url, token)
    found = api.json("POST", f"{_PATH}/{_chosen(api, migration)}/finish")
    _tell(found["migration"])
    Console().print(f"{found['moved']} references stand under the new model")


@migration_app.command("abandon")
def abandon(reason: ReasonOption, migration: IdOption = "", token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Give the candidate up and delete its templates."""
    api = IngestApi(url, token)
    _tell(api.json("POST", f"{_PATH}/{_chosen(api, migration)}/abandon", json={"reason": reason}))


def _chosen(api: IngestApi, migration: str) -> str:
    if migration:
        return migration
    known = api.json("GET", _PATH)["migrations"]
    if not known:
        raise Conflict("There was no migration yet.", advice="likeness model migration start --reason …")
    latest: str = known[0]["migration_id"]
    return latest


def _tell(migration: dict[str, Any]) -> None:
    console = Console()
    console.print(f"Migration {migration['migration_id']}: {migration['state']}", soft_wrap=True)
    console.print(f"  from {migration['from_model_id']}", soft_wrap=True)
    console.print(f"  to   {migration['to_model_id']}", soft_wrap=True)
    console.print(f"  in service: {migration['serving_model_id']}", soft_wrap=True)


def _scores(model_id: str, places: dict[str, dict[str, int]]) -> Table:
    """Scores of two models are not on one scale: each model has a table of its own."""
    table = Table("score from", *places, title=f"scores of {model_id}", title_justify="left")
    edges = sorted({edge for counts in places.values() for edge in counts}, key=float)
    for edge in edges:
        table.add_row(edge, *(str(counts.get(edge, 0)) for counts in places.values()))
    return table
