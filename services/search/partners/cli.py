"""`likeness partners`: a signing key, and what a partner file says; how an answer with partners is printed."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.shared.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

partners_app = typer.Typer(no_args_is_help=True, help="Other forces' platforms, asked and answered by agreement.")


@partners_app.command("new-key")
def new_key(path: Annotated[Path, typer.Argument(help="Where the private key is written; it must not exist.")]) -> None:
    """Make the key by which this platform signs its questions. Prints what partners put into their files."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - `likeness --help` stays quick
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be made: {error}", advice="Give a new file's path.") from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(pem)
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    sys.stdout.write(f'token_key = "{base64.b64encode(raw).decode()}"\n')


@partners_app.command("check")
def check(path: Annotated[Path, typer.Argument(help="The partner file.", exists=True, dir_okay=False)]) -> None:
    """Read a partner file with its keys and certificates, and say who may ask whom for what. Nobody is called."""
    from services.search.partners.config import PartnerFile  # noqa: PLC0415 - `likeness --help` stays quick

    partners = PartnerFile(path).current()
    sys.stdout.write(f"{partners.own.name} speaks for {', '.join(partners.own.forces)}\n")
    for partner in partners.all:
        asked = f"asked at {partner.address} for {_listed(partner.ask_watchlists)} within {partner.timeout_s:g} s"
        sys.stdout.write(
            f"{partner.name} speaks for {', '.join(partner.forces)}: "
            f"{asked if partner.address else 'not asked'}; may ask for {_listed(partner.answer_watchlists)}\n"
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"


def print_consortium(console: Console, answer: Mapping[str, Any]) -> None:
    """Each list with whose it is, and every partner that gave none. What came from elsewhere is data: no markup."""
    from rich.table import Table  # noqa: PLC0415 - `likeness --help` stays quick
    from rich.text import Text  # noqa: PLC0415

    home = answer["home"]
    console.print(f"consortium search {answer['consortium_id']}  at home {home['source']}, search {home['search_id']}")
    for told in answer["partners"]:
        if told["answer"] is None:
            problem = told["problem"]
            console.print(Text(f"{told['partner']}: {told['status']}. {problem['detail']} {problem['advice']}"))
        else:
            console.print(Text(f"{told['partner']}: answered, its search {told['answer']['search_id']}"))
    for group in answer["lists"]:
        console.print(Text(f"{' and '.join(group['sources'])}, model {group['model_id']}"))
        table = Table("rank", "score", "source", "its rank", "subject", "watchlist", "owner")
        for one in group["candidates"]:
            names = (one[name] for name in ("subject_id", "watchlist", "owner"))
            places = (str(one["rank"]), f"{one['score']:.4f}", Text(str(one["source"])), str(one["source_rank"]))
            table.add_row(*places, *(Text(str(name)) for name in names))
        console.print(table if group["candidates"] else "No candidate.")
    for statement in answer["statements"]:
        console.print(Text(f"• {statement}"))
