"""`likeness films`: the films that are kept, given up and erased, as over REST."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from services.search.cli import TokenOption, UrlOption
from services.shared.rest_client import RestClient

films_app = typer.Typer(no_args_is_help=True, help="Films that were handed in: list them, give one up, erase one.")

_TOKEN = Path("data/tokens/operator.token")
_URL = "http://127.0.0.1:8080"
FilmArgument = Annotated[str, typer.Argument(metavar="FILM_ID", help="As `likeness films list` shows it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print what REST answers.")]


@films_app.command("list")
def list_films(token: TokenOption = _TOKEN, url: UrlOption = _URL, *, as_json: JsonOption = False) -> None:
    """List the films of your force that are kept, without anybody in them."""
    with RestClient("search", url, token) as client:
        found = client.json("GET", "/v1/films")
    if as_json:
        _print_json(found)
    else:
        _print_films(found["films"])


@films_app.command("cancel")
def cancel(film_id: FilmArgument, token: TokenOption = _TOKEN, url: UrlOption = _URL) -> None:
    """Give a film up: it is read no further and what was read is erased; the sealed original stays."""
    with RestClient("search", url, token) as client:
        given_up = client.json("DELETE", f"/v1/films/{film_id}")
    sys.stdout.write(f"film {given_up['film_id']}: {given_up['status']}\n")


@films_app.command("erase")
def erase(
    film_id: FilmArgument,
    reason: Annotated[str, typer.Option(help="Why; it stays in the log and with what is left of the film.")],
    token: TokenOption = _TOKEN,
    url: UrlOption = _URL,
) -> None:
    """Erase a film that has ended, with its frames; those that were searched stay with their searches."""
    with RestClient("search", url, token) as client:
        erased = client.json("POST", f"/v1/films/{film_id}/erasure", json={"reason": reason})
    sys.stdout.write(f"film {erased['film_id']}: {erased['status']}, {erased['removed']} objects removed\n")


def _print_json(document: dict[str, Any]) -> None:
    import orjson  # noqa: PLC0415

    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")


def _print_films(films: list[dict[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("film", "status", "case", "handed in", "by", "MB", "kept until", "is due")
    for film in films:
        cells = (
            film["film_id"],
            film["status"],
            film["case_reference"],
            film["opened_at"],
            film["opened_by"],
            f"{film['size_bytes'] / 1e6:.1f}",
            film["retain_until"] or "",
            "yes" if film["is_due"] else "no",
        )
        # A reference is data, whatever stands in it.
        table.add_row(*(Text(str(cell), overflow="fold") for cell in cells))
    Console().print(table if films else "No films are kept.")
