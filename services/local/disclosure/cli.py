"""`likeness disclosure export · verify · replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from rich.console import Console

from services.audit.verification import VerificationFailed, read_public_key
from services.local.disclosure.bundle import read_bundle
from services.local.disclosure.code import CodeRefused, is_code, verify_code
from services.local.disclosure.compare import Comparison, Verdict, compare
from services.local.disclosure.verify import CHECKS, NOT_PROVEN, CheckFailed, Report, verify_bundle
from services.shared.rest_client import RestClient

disclosure_app = typer.Typer(no_args_is_help=True, help="Disclose a search, check a disclosure, run a search again.")

UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_SEARCH_URL", help="Where search listens.")]
TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_OPERATOR_TOKEN", help="A file with an operator's token.")
]
SupervisorOption = Annotated[Path, typer.Option("--token", help="A file with a supervisor's token.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it stands in the audit log.")]
FileArgument = Annotated[Path, typer.Argument(help="A disclosure bundle.", exists=True, dir_okay=False)]


@disclosure_app.command("approve")
def approve_command(
    search: Annotated[str, typer.Argument(help="The search_id.")],
    recipient: Annotated[str, typer.Option(help="To whom it is disclosed, for example a court.")],
    reason: ReasonOption,
    token: SupervisorOption = Path("data/tokens/supervisor.token"),
    url: UrlOption = "http://127.0.0.1:8080",
) -> None:
    """Approve one disclosure of a search, as a supervisor; somebody else then exports it with what is printed."""
    body = {"recipient": recipient, "reason": reason}
    with RestClient("search", url, token) as client:
        made = client.json("POST", f"/v1/searches/{search}/disclosure-approvals", json=body)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"approved for {recipient}, once, until {made['expires_at']}; export it with:", markup=False)
    console.print(f"likeness disclosure export {search} FILE --approval {made['approval_id']}", markup=False)


@disclosure_app.command("export")
def export_command(  # noqa: PLR0917 - options of a command
    search: Annotated[str, typer.Argument(help="The search_id.")],
    out: Annotated[Path, typer.Argument(help="The file to write; must not exist.")],
    reason: ReasonOption,
    approval: Annotated[str, typer.Option(help="The approval of a supervisor other than you.")],
    token: TokenOption = Path("data/tokens/operator.token"),
    url: UrlOption = "http://127.0.0.1:8080",
    review_url: Annotated[str, typer.Option(help="Where review listens: adds what was signed, with its remarks.")] = "",
) -> None:
    """Write everything about one search into one file that can be checked without the platform."""
    if out.exists():
        raise typer.BadParameter(f"{out} exists already")
    asked = {"reason": reason, "approval": approval}
    with RestClient("search", url, token) as client:
        content = client.call("GET", f"/v1/searches/{search}/disclosure", params=asked).content
    if review_url:
        with RestClient("review", review_url, token) as review:
            content = _with_judgements(content, review)
    draft = out.with_name(f".{out.name}.part")
    draft.write_bytes(content)
    draft.rename(out)
    Console().print(f"written to {out}; check it with: likeness disclosure verify {out}", soft_wrap=True)


def _with_judgements(content: bytes, review: RestClient) -> bytes:
    """The bundle with what review keeps of the requests that its entries name. Needs a released request."""
    bundle = orjson.loads(content)
    entries = (orjson.loads(entry["canonical"]) for entry in bundle["audit"]["entries"])
    named = {name for entry in entries for name in entry["objects"] if name.startswith("request:")}
    bundle["judgements"] = [
        one
        for name in sorted(named)
        for one in review.call("GET", f"/v1/casework/{name.removeprefix('request:')}/judgements").json()
    ]
    return orjson.dumps(bundle, option=orjson.OPT_INDENT_2)


@disclosure_app.command("verify")
def verify_command(
    what: Annotated[str, typer.Argument(help="A disclosure bundle, or the code printed on a result.")],
    witness: Annotated[Path | None, typer.Option(help="Folder of witnessed checkpoints and keys.")] = None,
    public_key: Annotated[list[Path] | None, typer.Option(help="PEM of a trusted signing key (repeatable).")] = None,
    ledger: Annotated[
        str | None, typer.Option(help="The enrolment ledger's database URL, or a platform's data folder.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="An audit export, or audit.sqlite; a code needs it.")] = None,
) -> None:
    """Check a disclosure, or a result's code, offline. Exit code 0 when every check passes, 1 when one fails."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        keys = [read_public_key(path.read_bytes()) for path in public_key or []]
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"a given key cannot be read: {error}") from error
    if is_code(what):
        _verify_code(console, what, log, witness, keys)
        return
    file = Path(what)
    if not file.is_file():
        raise typer.BadParameter(f"{file} is neither a disclosure bundle nor a code like likeness:12:ab…")
    try:
        report = verify_bundle(file, witness=witness, public_keys=keys, ledger=_ledger_url(ledger), log=log)
    except CheckFailed as failure:
        console.print(f"  {failure.check}. {CHECKS[failure.check]}: FAILED", style="bold red")
        console.print(f"     {failure.detail}", markup=False)
        raise typer.Exit(1) from failure
    _print_report(console, report)


def _print_report(console: Console, report: Report) -> None:
    for number, outcome in report.outcomes.items():
        style = "green" if outcome.startswith("passed") and "only" not in outcome else "yellow"
        console.print(f"  {number}. {CHECKS[number]}: {outcome}", style=style)
    for line in report.facts:
        console.print(line, markup=False)
    console.print("What this does not prove:", style="bold")
    for line in NOT_PROVEN:
        console.print(f"  - {line}", markup=False)


def _verify_code(
    console: Console, code: str, log: Path | None, witness: Path | None, keys: list[Ed25519PublicKey]
) -> None:
    if log is None:
        raise typer.BadParameter("a code is checked against the audit log: give --log with an export")
    try:
        report, entry = verify_code(code, log, witness=witness, public_keys=keys)
    except (CodeRefused, VerificationFailed) as failure:
        console.print(f"FAILED: {failure}", style="bold red", markup=False)
        raise typer.Exit(1) from failure
    console.print(
        f"The log of {report.entries} entries is whole, and the code stands for this entry of it:", style="green"
    )
    for name in ("activity", "phase", "operation", "occurred_at", "force", "activity_id"):
        console.print(f"  {name}: {entry.get(name, '')}", markup=False)
    console.print("It proves that and when this was recorded, not that what was recorded is right.")


@disclosure_app.command("replay")
def replay_command(
    file: FileArgument,
    reason: ReasonOption,
    token: TokenOption = Path("data/tokens/operator.token"),
    url: UrlOption = "http://127.0.0.1:8080",
) -> None:
    """Run the disclosed search again and compare. Exit code 0 when it is the same or explained, 1 when it differs."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        bundle = read_bundle(file)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with RestClient("search", url, token) as client:
        replay = client.json("POST", f"/v1/searches/{bundle.search_id}/replay", params={"reason": reason})
    comparison = compare(bundle.candidates, replay)
    _show(console, comparison, replay, bundle.answer)
    raise typer.Exit(1 if comparison.verdict is Verdict.DIFFERS else 0)


def _ledger_url(given: str | None) -> str | None:
    if given is None or "://" in given:
        return given
    path = Path(given) / "ingest" / "ingest.sqlite"
    if not path.exists():
        raise typer.BadParameter(f"there is no ledger at {path}")
    return f"sqlite:///{path.resolve()}"


def _show(console: Console, comparison: Comparison, replay: dict[str, Any], answer: Any) -> None:
    styles = {Verdict.SAME: "bold green", Verdict.EXPLAINED: "bold yellow", Verdict.DIFFERS: "bold red"}
    said = {
        Verdict.SAME: "The same candidates, in the same order, with the same scores.",
        Verdict.EXPLAINED: "The same but for what has gone since:",
        Verdict.DIFFERS: "It differs:",
    }
    console.print(said[comparison.verdict], style=styles[comparison.verdict])
    for line in (*comparison.differences, *comparison.explanations):
        console.print(f"  - {line}", markup=False)
    console.print(f"largest change of a score: {comparison.largest_score_change:.1e}")
    then, now = answer.get("gallery_snapshot"), replay.get("gallery_snapshot")
    if then and now:
        same = then["snapshot_id"] == now["snapshot_id"]
        console.print(
            "The gallery holds what it held then."
            if same
            else f"The gallery has changed since; {replay['newcomers']} references enrolled since were left out."
        )
