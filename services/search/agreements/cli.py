"""`likeness agreements`: make a key, sign an agreement, register and withdraw it."""

from __future__ import annotations

import base64
import os
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.shared.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

agreements_app = typer.Typer(no_args_is_help=True, help="An owner's signed consent that its references are searched.")

KeyOption = Annotated[Path, typer.Option("--key", help="The owner's private key, as `new-key` makes it.")]
KeyIdOption = Annotated[str, typer.Option("--key-id", help="The key's name in the watchlist file.")]
OwnerOption = Annotated[str, typer.Option(help="The force whose references they are.")]
TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_ADMINISTRATOR_TOKEN", help="A file with an administrator's token.")
]
UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_SEARCH_URL", help="Where search listens.")]
_TOKEN = Path("data/tokens/administrator.token")
_URL = "http://127.0.0.1:8080"


@agreements_app.command("new-key")
def new_key(
    path: Annotated[Path, typer.Argument(help="Where the private key is written; it must not exist.")],
    owner: OwnerOption,
    key_id: KeyIdOption,
) -> None:
    """Make an owner's signing key. Prints the entry that an administrator puts into the watchlist file."""
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
    _print(f'[[owner_key]]\nowner = "{owner}"\nkey_id = "{key_id}"\npublic_key = "{base64.b64encode(raw).decode()}"')


@agreements_app.command()
def sign(  # noqa: PLR0917 - the options of a command
    reference: Annotated[str, typer.Argument(help="The agreement's own reference.")],
    watchlist: Annotated[str, typer.Option(help="The watchlist that it is about.")],
    owner: OwnerOption,
    signed_on: Annotated[str, typer.Option(help="YYYY-MM-DD: the first day on which it counts.")],
    expires_on: Annotated[str, typer.Option(help="YYYY-MM-DD: the first day on which it no longer counts.")],
    key: KeyOption,
    key_id: KeyIdOption,
) -> None:
    """Sign an agreement with the owner's key and print it as `register` takes it."""
    from services.search.admin_client import dump  # noqa: PLC0415 - `likeness --help` stays quick
    from services.search.agreements import documents  # noqa: PLC0415

    try:
        grant = documents.Grant(
            reference=reference,
            watchlist=watchlist,
            owner=owner,
            signed_on=date.fromisoformat(signed_on),
            expires_on=date.fromisoformat(expires_on),
        )
    except ValueError as error:
        raise InvalidRequest(f"That is no agreement: {error}", advice="Mend what is named.") from error
    signature = documents.sign(grant, _load(key), key_id)
    _print(dump({"document": grant.model_dump(mode="json"), "signature": signature.model_dump()}))


@agreements_app.command()
def register(
    signed: Annotated[Path, typer.Argument(help="What `sign` printed.", exists=True, dir_okay=False)],
    token: TokenOption = _TOKEN,
    url: UrlOption = _URL,
) -> None:
    """Register a signed agreement; it is in force from the next search on."""
    import json  # noqa: PLC0415 - `likeness --help` stays quick

    from services.search.admin_client import AdminClient, dump  # noqa: PLC0415

    try:
        body = json.loads(signed.read_text("utf-8"))
    except ValueError as error:
        raise InvalidRequest(f"{signed} is no signed agreement: {error}", advice="Give what `sign` printed.") from error
    with AdminClient(url, token) as client:
        _print(dump(client.post("/v1/agreements", body)))


@agreements_app.command()
def withdraw(
    reference: Annotated[str, typer.Argument(help="Which agreement.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    token: TokenOption = _TOKEN,
    url: UrlOption = _URL,
) -> None:
    """Withdraw an agreement of your own force, as of today; the next search no longer finds its references."""
    from urllib.parse import quote  # noqa: PLC0415 - `likeness --help` stays quick

    from services.search.admin_client import AdminClient, dump  # noqa: PLC0415

    with AdminClient(url, token) as client:
        _print(dump(client.post(f"/v1/agreements/{quote(reference, safe='')}/withdrawal", {"reason": reason})))


@agreements_app.command("list")
def list_agreements(token: TokenOption = _TOKEN, url: UrlOption = _URL) -> None:
    """The agreements that you may see, and whether each is in force."""
    from services.search.admin_client import AdminClient  # noqa: PLC0415 - `likeness --help` stays quick

    with AdminClient(url, token) as client:
        for one in client.get("/v1/agreements")["agreements"]:
            state = "in force" if one["is_in_force"] else "not in force"
            ends = one["withdrawn_on"] or one["expires_on"]
            _print(
                f"{one['reference']:<28} {one['watchlist']:<14} {one['owner']:<16} {one['signed_on']} {ends} {state}"
            )


def _load(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - `likeness --help` stays quick
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The key {path} cannot be read: {error}", advice="Give the owner's key.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} is no Ed25519 key.", advice="Make one with `likeness agreements new-key`.")
    return key


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
