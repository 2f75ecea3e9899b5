"""`likeness film`: hand in a film, watch it being read, and lay its people out on a contact sheet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.search.cli import (
    CaseOption,
    ModeOption,
    NatureOption,
    SourceOption,
    TokenOption,
    UrlOption,
    WatchlistOption,
)
from services.search.film.contact_sheet import clock, contact_sheet
from services.shared.errors import DependencyUnavailable

if TYPE_CHECKING:
    from services.shared.rest_client import RestClient

_UPLOAD_S = 3600.0
_POLL_S = 1.0
_ENDED = frozenset({"done", "refused", "cancelled", "failed"})
_GONE_S = 120.0  # how long a service may be away before the command gives up; the job goes on without it


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(film)


def film(  # noqa: PLR0917 - the options of a command
    path: Annotated[Path, typer.Argument(metavar="FILM", help="The film.", exists=True, dir_okay=False)],
    watchlist: WatchlistOption,
    case: CaseOption,
    purpose: Annotated[str, typer.Option(help="The policing purpose, for example prevention_and_detection.")],
    offence: Annotated[str, typer.Option(help="What is investigated.")],
    source: SourceOption,
    nature: NatureOption = "video_frame",
    mode: ModeOption = "investigation",
    max_candidates: Annotated[int, typer.Option(min=2, max=50, help="Length of each list.")] = 20,
    track: Annotated[
        list[int] | None, typer.Option("--track", min=0, help="A track to search. Repeatable; without it none is.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Where the contact sheet goes; FILM.html without it.")] = None,
    film_id: Annotated[str, typer.Option("--id", help="A film that was handed in before, to go on with it.")] = "",
    token: TokenOption = Path("data/tokens/operator.token"),
    url: UrlOption = "http://127.0.0.1:8080",
) -> None:
    """Find the people in a film. Nobody is searched unless a track is named: look at the contact sheet first.

    Interrupt it at will: the film is read on, and --id shows it again.
    """
    from services.shared.rest_client import RestClient, error_in  # noqa: PLC0415 - `likeness --help` stays quick

    form = {
        "case_reference": case,
        "purpose": purpose,
        "offence": offence,
        "source": source,
        "nature": nature,
        "watchlists": watchlist,
        "mode": mode,
        "max_candidates": str(max_candidates),
    }
    with RestClient("search", url, token) as client:
        wanted = film_id or _hand_in(client, form, path)
        found = _followed(client, wanted)
        if found["status"] != "done":
            raise error_in(found["problem"] or {"detail": f"The film is {found['status']}."})
        target = sheet or path.with_suffix(path.suffix + ".html")
        target.write_text(contact_sheet(found, path.name), "utf-8")
        _print_film(found, target)
        if track:
            _print_searches(client.json("POST", f"/v1/films/{wanted}/searches", json={"tracks": track}))


def _hand_in(client: RestClient, form: dict[str, Any], path: Path) -> str:
    with path.open("rb") as file:
        answer = client.json("POST", "/v1/films", data=form, files={"film": ("film", file)}, timeout=_UPLOAD_S)
    return str(answer["film_id"])


def _followed(client: RestClient, film_id: str) -> dict[str, Any]:
    """The film once it has ended, with a bar until then. A service that is started again is waited for."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task(f"film {film_id}", total=1.0)
        while True:
            found = _looked_at(client, film_id)
            looked = found["progress"]["frames_looked_at"]
            progress.update(
                bar, completed=found["progress"]["share"], description=f"{found['status']}, {looked} frames looked at"
            )
            if found["status"] in _ENDED:
                return found
            time.sleep(_POLL_S)


def _looked_at(client: RestClient, film_id: str) -> dict[str, Any]:
    """How far the film is; asked again while nobody answers, for as long as a service takes to start."""
    asked_s = time.monotonic()
    while True:
        try:
            return client.json("GET", f"/v1/films/{film_id}", params={"chips": "true"})
        except DependencyUnavailable:
            if time.monotonic() - asked_s > _GONE_S:
                raise
            time.sleep(_POLL_S)


def _print_film(found: dict[str, Any], target: Path) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    table = Table("track", "seen", "frames", "quality", "best frames")
    for track in found["tracks"]:
        seen = ", ".join(f"{clock(span['from_s'])}-{clock(span['until_s'])}" for span in track["appearances"][:4])
        more = " ..." if len(track["appearances"]) > 4 else ""
        frames = ", ".join(str(still["frame_number"]) for still in track["stills"])
        table.add_row(str(track["track"]), seen + more, str(track["frames_seen"]), f"{track['quality']:.0f}", frames)
    console.print(table if found["tracks"] else "Nobody was found.")
    for warning in found["warnings"]:
        console.print(f"! {warning}", markup=False)
    console.print(f"film {found['film_id']}, contact sheet {target}", markup=False)


def _print_searches(body: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    for search in body["searches"]:
        if search["answer"] is None:
            problem = search["problem"]
            console.print(Text(f"track {search['track']} was not searched: {problem['detail']} {problem['advice']}"))
            continue
        answer = search["answer"]
        console.print(Text(f"track {search['track']}: search {answer['search_id']}"))
        for candidate in answer["candidates"][:5]:
            words = (
                f"{candidate['rank']:3d} {candidate['score']:.4f} {candidate['subject_id']} {candidate['watchlist']}"
            )
            console.print(Text("  " + words))
        for statement in answer["statements"]:
            console.print(Text(f"• {statement}"))
