"""`likeness policy`: try policies on a table of cases, and on what was searched in the last month."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.shared.errors import ConfigurationError

if TYPE_CHECKING:
    from services.search.policy import PolicyEngine

policy_app = typer.Typer(no_args_is_help=True, help="Try policies on cases and on past searches, before they count.")

PolicyOption = Annotated[
    Path | None, typer.Option("--policy", help="A folder with policies.cedar; the packaged policies when left out.")
]
WatchlistsOption = Annotated[
    Path | None, typer.Option("--watchlists", help="A watchlists.toml; the packaged one when left out.")
]
TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_ADMINISTRATOR_TOKEN", help="A file with an administrator's token.")
]
UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_SEARCH_URL", help="Where search listens.")]


@policy_app.command("test")
def test_table(
    table: Annotated[
        Path | None, typer.Argument(help="A CSV of cases; the packaged one when left out.", dir_okay=False)
    ] = None,
    policy: PolicyOption = None,
    watchlists: WatchlistsOption = None,
) -> None:
    """Decide every case of a table and compare with what it expects, without a platform.

    Exit status 1 when one differs.
    """
    from services.search.policy.table import read_table, run_table  # noqa: PLC0415 - `likeness --help` stays quick
    from services.shared.watchlists import WatchlistFile  # noqa: PLC0415

    engine = _engine(policy)
    path = table or Path(__file__).parent / "cases.csv"
    results = run_table(read_table(path), engine, WatchlistFile(watchlists).current())
    for result in results:
        mark = "ok    " if result.is_as_expected else "DIFFER"
        print_line(f"{mark} {result.case.line:>4}  {result.case.name}")
        if not result.is_as_expected:
            print_line(f"         expected  {result.case.expected}")
            print_line(f"         decided   {result.found}")
    wrong = sum(not result.is_as_expected for result in results)
    print_line(f"{len(results)} cases, {wrong} differ; policy {engine.text.digest}")
    if wrong:
        raise typer.Exit(1)


@policy_app.command("dry-run")
def dry_run(
    change: Annotated[
        Path,
        typer.Argument(
            help="A changed policies.cedar, schema.cedarschema or watchlists.toml, or a folder with any.", exists=True
        ),
    ],
    token: TokenOption = Path("data/tokens/administrator.token"),
    url: UrlOption = "http://127.0.0.1:8080",
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it is, for programs.")] = False,
) -> None:
    """Decide the requests of your force in the last month by a changed policy, and list what would differ.

    Nothing is changed. Exit status 0 when nothing would differ, 2 when something would.
    """
    from services.search.admin_client import AdminClient, dump  # noqa: PLC0415 - `likeness --help` stays quick

    with AdminClient(url, token) as client:
        outcome = client.post("/v1/policy/dry-runs", _change(change))
    if as_json:
        print_line(dump(outcome))
    else:
        _print_outcome(outcome)
    if outcome["differing"]:
        raise typer.Exit(2)


def print_line(text: str) -> None:
    sys.stdout.write(text + "\n")


def _engine(folder: Path | None) -> PolicyEngine:
    from services.search.policy import PolicyEngine, PolicyFolder  # noqa: PLC0415 - `likeness --help` stays quick

    return PolicyEngine(PolicyFolder(folder).current())


def _change(path: Path) -> dict[str, str]:
    names = {"policies.cedar": "policies", "schema.cedarschema": "cedar_schema", "watchlists.toml": "watchlists"}
    if path.is_dir():
        found = {field: (path / name).read_text("utf-8") for name, field in names.items() if (path / name).exists()}
    else:
        fields = {".toml": "watchlists", ".cedarschema": "cedar_schema"}
        found = {fields.get(path.suffix, "policies"): path.read_text("utf-8")}
    if not found:
        raise ConfigurationError(
            f"{path} holds nothing that could be changed.", advice=f"Put one of {', '.join(names)} into it."
        )
    return found


def _print_outcome(outcome: dict[str, Any]) -> None:
    for one in outcome["differences"]:
        asked = f"{one['purpose']} {one['case_type']} {'+'.join(one['watchlists'])}"
        print_line(f"{one['at']}  {one['request_id']}  {asked}")
        print_line(f"    now      {_verdict(one['now'])}")
        print_line(f"    changed  {_verdict(one['changed'])}")
    print_line(
        f"{outcome['considered']} requests, {outcome['differing']} would be decided otherwise: "
        f"{outcome['newly_permitted']} newly permitted, {outcome['newly_denied']} newly denied."
    )
    if len(outcome["differences"]) < outcome["differing"]:
        print_line(f"Listed are the first {len(outcome['differences'])} of them.")
    if outcome["left_out_before"]:
        print_line(
            f"NOT ALL OF THE MONTH: only the newest {outcome['considered']} requests were decided, none of those from "
            f"before {outcome['left_out_before']}."
        )
    if outcome["drifted"]:
        print_line(f"{outcome['drifted']} are already decided otherwise today than when they came.")


def _verdict(verdict: dict[str, Any]) -> str:
    if not verdict["is_permitted"]:
        return "deny " + " ".join(verdict["denials"])
    return "permit " + " ".join(f"{name}={'+'.join(owners)}" for name, owners in verdict["owners"].items())
