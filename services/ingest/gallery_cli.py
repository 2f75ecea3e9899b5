"""`likeness gallery` and `likeness dlq`: the life of the gallery from the command line, over the same API."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from services.ingest.api_client import IngestApi
from services.ingest.cli_rows import print_rows
from services.shared.errors import InvalidRequest

gallery_app = typer.Typer(no_args_is_help=True, help="Erase, review, reconcile, rebuild, compare.")
dlq_app = typer.Typer(no_args_is_help=True, help="Dead letters of the custody feed.")

TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_CUSTODIAN_TOKEN", help="A file with a custodian's token.")
]
UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_INGEST_URL", help="Where ingest listens.")]
TOKEN = Path("data/tokens/custodian.token")
URL = "http://127.0.0.1:8081"
_ITEMS = 1000


@gallery_app.command("erase")
def erase(  # noqa: PLR0917 - the options of a command
    subject_id: Annotated[str, typer.Argument(help="The owner's own identifier.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    authority: Annotated[str, typer.Option(help="Who decided: a court's order, a request's number, a policy.")],
    quarantine_days: Annotated[int | None, typer.Option(help="Out of search first; 0: erase at once.")] = None,
    wait_s: Annotated[float, typer.Option(help="Wait so long for it to be done, where it is done at once.")] = 120.0,
    certificate: Annotated[Path | None, typer.Option(help="Write the signed certificate here.")] = None,
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Erase a subject everywhere. Exit status 0 when it is erased, or in the quarantine that was asked for."""
    api, console = IngestApi(url, token), Console()
    body = {"subject_id": subject_id, "reason": reason, "authority": authority, "quarantine_days": quarantine_days}
    found = api.json("POST", "/v1/erasures", json=body)
    path = f"/v1/erasures/{found['erasure_id']}"
    ends_s = monotonic() + wait_s
    while found["state"] != "erased" and not found["due_at_ms"] and monotonic() < ends_s:
        sleep(0.5)
        found = api.json("GET", path)
    console.print(f"Erasure {found['erasure_id']}: {found['state']}, {found['enrolments']} enrolments", soft_wrap=True)
    for store, count in sorted(found["stores"].items()):
        console.print(f"  {store}: {count}")
    if found["state"] == "erased" and certificate is not None:
        certificate.write_text(api.call("GET", f"{path}/certificate").text, "utf-8")
        console.print(f"Certificate: {certificate}", soft_wrap=True)
    raise typer.Exit(0 if found["state"] == "erased" or found["due_at_ms"] else 1)


@gallery_app.command("erasures")
def erasures(token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Your force's erasures, newest first."""
    rows = IngestApi(url, token).json("GET", "/v1/erasures")["erasures"]
    print_rows(rows, ("erasure_id", "subject_id", "state", "authority", "reason", "enrolments"))


@gallery_app.command("lift")
def lift(erasure_id: str, token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Take an erasure back while its references are in quarantine."""
    found = IngestApi(url, token).json("POST", f"/v1/erasures/{erasure_id}/lift")
    Console().print(f"{found['put_back']} references go back to search.")


@gallery_app.command("verify-certificate")
def verify_certificate_command(
    path: Annotated[Path, typer.Argument(help="The certificate.", exists=True, dir_okay=False)],
    public_key: Annotated[Path, typer.Option(help="PEM; GET /v1/erasures/certificate-key gives it.", exists=True)],
) -> None:
    """Check a certificate of erasure offline: its form, its signature, the audit log's proofs in it."""
    from services.ingest.life.certificates import verify_certificate  # noqa: PLC0415 - `--help` stays quick

    facts = verify_certificate(path.read_text("utf-8"), public_key.read_bytes())
    console = Console()
    console.print(f"[green]Valid.[/] Erasure {facts['erasure_id']} of {facts['finished_at']}", soft_wrap=True)
    console.print(json.dumps({name: facts[name] for name in ("owner", "reason", "authority", "stores")}, indent=2))
    console.print("Not proven here: that the checkpoint is the log's. `likeness audit verify` compares it.")


@gallery_app.command("reviews")
def reviews(
    until: Annotated[str, typer.Option(help="Due by this day (YYYY-MM-DD); today when left out.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """References whose review is due, the longest due first."""
    parameters: dict[str, str | int] = {"limit": limit, **({"until": until} if until else {})}
    found = IngestApi(url, token).json("GET", "/v1/reviews", params=parameters)
    columns = ("due_on", "enrolment_id", "subject_id", "watchlist", "disposal", "birth_band", "rule", "presume")
    print_rows(found["reviews"], columns)
    console = Console()
    console.print(f"{found['due']} due, {found['without_rule']} without a rule.")
    if not found["is_clock_trusted"]:
        console.print(
            "[red]The clock is not trusted:[/] an administrator has to confirm it (POST /v1/clock/confirmation)."
        )


@gallery_app.command("review")
def review(  # noqa: PLR0917 - the options of a command
    enrolment_id: str,
    decision: Annotated[str, typer.Option(help="retain or erase.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    next_due_on: Annotated[str, typer.Option(help="For retain: YYYY-MM-DD.")] = "",
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Decide about one reference whose review is due."""
    body = {"decision": decision, "reason": reason, "next_due_on": next_due_on or None}
    found = IngestApi(url, token).json("POST", f"/v1/reviews/{enrolment_id}", json=body)
    Console().print(
        f"Kept until {found['next_due_on']}." if found["next_due_on"] else f"Erasure {found['erasure_id']}."
    )


@gallery_app.command("searchability")
def searchability_command(
    since: Annotated[str, typer.Option(help="The first month of capture, YYYY-MM.")] = "1900-01",
    until: Annotated[str, typer.Option(help="The last month of capture, YYYY-MM.")] = "9999-12",
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """How many images cannot be searched, by device and month, and what to change at the camera."""
    parameters = {"since": since, "until": until}
    rows = IngestApi(url, token).json("GET", "/v1/searchability", params=parameters)["rows"]
    print_rows(rows, ("month", "device", "images", "searchable", "with_warning", "reasons", "advice"))


@gallery_app.command("reconcile")
def reconcile(
    deep: Annotated[bool, typer.Option(help="Read every image and compare its bytes with its name.")] = False,
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Compare ledger, gallery and images; put the gallery right. Exit status 1 when anything differed."""
    found = IngestApi(url, token).json("POST", "/v1/gallery/reconciliation", json={"is_deep": deep})
    console = Console()
    whose = "" if found["scope"] == "platform" else "of your force in your watchlists "
    console.print(f"{found['compared']} references, {found['images']} images {whose}compared.")
    for name, value in found.items():
        if isinstance(value, dict) and value["count"]:
            console.print(f"  {name}: {value['count']}  {', '.join(value['ids'][:5])}", soft_wrap=True)
    if found["erased_again"]:
        console.print(f"  erased again: {found['erased_again']}")
    console.print("Nothing differed." if found["is_clean"] else "The gallery has been put right; see above for images.")
    raise typer.Exit(0 if found["is_clean"] else 1)


@gallery_app.command("sweep")
def sweep(
    confirm: Annotated[bool, typer.Option(help="However many there are; needs an administrator's token.")] = False,
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Remove images that nothing names. Exit status 1 when some were held back."""
    found = IngestApi(url, token).json("POST", "/v1/gallery/image-sweep", json={"is_confirmed": confirm})
    console = Console()
    console.print(f"{found['images']} images looked at, {found['orphans']['count']} that nothing names.")
    for name in ("removed", "locked", "spared", "held_back", "young"):
        if found[name]:
            console.print(f"  {name}: {found[name]}")
    if found["held_back"]:
        console.print("Held back: is this the right ledger for these images? See docs/gallery-life.md.", soft_wrap=True)
    raise typer.Exit(1 if found["held_back"] else 0)


@gallery_app.command("rebuild")
def rebuild(token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Fill the gallery anew from the ledger, while searches go on over the one in use."""
    started_s = monotonic()
    found = IngestApi(url, token).json("POST", "/v1/gallery/rebuild")
    count = sum(found["searchable"].values())
    each = ", ".join(f"{watchlist_id} {number}" for watchlist_id, number in sorted(found["searchable"].items()))
    Console().print(f"{count} references in {found['store']}, {monotonic() - started_s:.1f} s: {each}", soft_wrap=True)


@gallery_app.command("compare")
def compare(
    counted: Annotated[Path, typer.Argument(help="CSV: event_id, or subject_id and image_sha256.", exists=True)],
    report: Annotated[Path | None, typer.Option(help="Write where every image is to this CSV file.")] = None,
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Compare your own count of images with the platform's, by id. Exit status 1 when one cannot be searched."""
    api = IngestApi(url, token)
    found = [each for part in _parts(_counted(counted)) for each in _where(api, part)]
    counts = Counter((each["state"], each["reason"]) for each in found)
    table = Table("images", "state", "reason", title="Where they are", title_justify="left")
    for (state, why), count in sorted(counts.items(), key=lambda item: -item[1]):
        table.add_row(str(count), state, why)
    Console().print(table)
    if report is not None:
        with report.open("w", newline="", encoding="utf-8") as file:
            columns = ["event_id", "subject_id", "image_sha256", "state", "reason", "detail", "enrolment_id"]
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows({name: _inert(str(each[name])) for name in columns} for each in found)
    raise typer.Exit(0 if all(each["state"] == "enrolled" for each in found) else 1)


@dlq_app.command("list")
def list_letters(token: TokenOption = TOKEN, url: UrlOption = URL) -> None:
    """Your force's dead letters, oldest first."""
    letters = IngestApi(url, token).json("GET", "/v1/dead-letters")["letters"]
    print_rows(letters, ("place", "subject_id", "event_id", "reason", "detail", "is_settled"))


@dlq_app.command("replay")
def replay(
    places: Annotated[list[str] | None, typer.Argument(help="Which (column `place`); none: all not settled.")] = None,
    token: TokenOption = TOKEN,
    url: UrlOption = URL,
) -> None:
    """Send dead letters through once more, after what was wrong has been mended."""
    found = IngestApi(url, token).json("POST", "/v1/dead-letters/replay", json={"places": places or []})
    Console().print(f"{found['replayed']} sent through once more.")


def _counted(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = {"event_id", "subject_id", "image_sha256"} & set(reader.fieldnames or ())
        if not columns & {"event_id", "image_sha256"}:
            raise InvalidRequest(
                f"{path} has neither a column event_id nor image_sha256.", advice="Name the columns in its first line."
            )
        for line in reader:
            yield {name: (line.get(name) or "").strip() for name in columns}


def _parts(items: Iterator[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    part: list[dict[str, str]] = []
    for item in items:
        part.append(item)
        if len(part) == _ITEMS:
            yield part
            part = []
    if part:
        yield part


def _where(api: IngestApi, part: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.json("POST", "/v1/custody/comparison", json={"images": part})["images"]
    return found


def _inert(text: str) -> str:
    """Spreadsheets take a cell that starts like this for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
