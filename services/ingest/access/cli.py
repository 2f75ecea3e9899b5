"""`likeness subject`: what a person has a right to be given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.ingest.api_client import IngestApi

subject_app = typer.Typer(no_args_is_help=True, help="Give a subject what is held of them, and check such a package.")

TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_CUSTODIAN_TOKEN", help="A file with a custodian's token.")
]
UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_INGEST_URL", help="Where ingest listens.")]


@subject_app.command("access")
def access(  # noqa: PLR0917 - the options of a command
    subject_id: Annotated[str, typer.Option(help="The owner's own identifier.")],
    owner: Annotated[str, typer.Option(help="The force that holds the images: your own.")],
    out: Annotated[Path, typer.Option(help="Write the package here; it must not exist yet.")],
    authority: Annotated[str, typer.Option(help="The number of the person's request, or the court's order.")],
    reason: Annotated[str, typer.Option(help="Why.")] = "subject access request",
    withhold_searches: Annotated[
        str, typer.Option(help="Why searches and disclosures are left out (DPA 2018 s.45(4)).")
    ] = "",
    token: TokenOption = Path("data/tokens/custodian.token"),
    url: UrlOption = "http://127.0.0.1:8081",
) -> None:
    """Everything that is held of one subject of your force, as a signed zip file."""
    if out.exists():
        raise typer.BadParameter(f"{out} exists already.", param_hint="--out")
    body = {
        "subject_id": subject_id,
        "owner": owner,
        "authority": authority,
        "reason": reason,
        "withhold_searches": withhold_searches,
    }
    content = IngestApi(url, token).call("POST", "/v1/subjects/access", json=body).content
    with out.open("xb") as file:
        out.chmod(0o600)  # a person's images
        file.write(content)
    Console().print(
        f"{out}: {len(content)} bytes. Check it before it is given: likeness subject verify", soft_wrap=True
    )


@subject_app.command("verify")
def verify(
    package: Annotated[Path, typer.Argument(help="The package.", exists=True, dir_okay=False)],
    public_key: Annotated[Path, typer.Option(help="PEM; GET /v1/erasures/certificate-key gives it.", exists=True)],
) -> None:
    """Check a package offline: its signature, every file, the audit log's proofs in it."""
    from services.ingest.access.package import verify_package  # noqa: PLC0415 - `--help` stays quick

    facts = verify_package(package.read_bytes(), public_key.read_bytes())
    console = Console()
    console.print(f"[green]Valid.[/] {len(facts['files'])} files for {facts['authority']}, {facts['made_at']}")
    console.print("Not proven here: that the checkpoints are the log's. `likeness audit verify` compares them.")
