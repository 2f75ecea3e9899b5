"""`likeness identify`: search one probe through the REST API."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx
    from rich.console import Console
    from rich.table import Table

TIMEOUT_S = 60.0

WatchlistOption = Annotated[list[str], typer.Option("--watchlist", help="Which watchlist to search. Repeatable.")]
CaseOption = Annotated[str, typer.Option("--case", help="Crime or occurrence number.")]
TokenOption = Annotated[
    Path, typer.Option("--token", envvar="LIKENESS_OPERATOR_TOKEN", help="A file with an operator's token.")
]
UrlOption = Annotated[str, typer.Option(envvar="LIKENESS_SEARCH_URL", help="Where search listens.")]
SourceOption = Annotated[
    str, typer.Option(help="cctv, body_worn_video, social_media, phone, document or other: where the image is from.")
]
NatureOption = Annotated[
    str,
    typer.Option(
        help="What kind of picture: photograph, video_frame, retouched or rephotographed; others are refused."
    ),
]
ModeOption = Annotated[
    str, typer.Option(help="investigation: a list of fixed length. identification: only over the threshold.")
]

_EVIDENCE_SHOWN = 3  # candidates whose scores are spoken of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(identify)


def identify(  # noqa: PLR0917 - the options of a command
    image: Annotated[Path, typer.Argument(help="The probe.", exists=True, dir_okay=False)],
    watchlist: WatchlistOption,
    case: CaseOption,
    purpose: Annotated[str, typer.Option(help="The policing purpose, for example prevention_and_detection.")],
    offence: Annotated[str, typer.Option(help="What is investigated.")],
    source: SourceOption,
    nature: NatureOption = "unstated",
    mode: ModeOption = "investigation",
    max_candidates: Annotated[int, typer.Option(min=2, max=50, help="Length of the list.")] = 20,
    face: Annotated[int | None, typer.Option(min=0, help="Which face to search, where there are several.")] = None,
    partner: Annotated[list[str] | None, typer.Option(help="A partner to ask too, by its name. Repeatable.")] = None,
    authority: Annotated[str, typer.Option(help="With --partner: by whose authority the probe goes there.")] = "",
    token: TokenOption = Path("data/tokens/operator.token"),
    url: UrlOption = "http://127.0.0.1:8080",
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it is, for programs.")] = False,
) -> None:
    """Search one probe and print the ranked candidates. For intelligence only: a candidate is no identification.

    Exit status 0 with an answer, 2 when a face has to be chosen, 1 otherwise.
    """
    form = {
        "case_reference": case,
        "purpose": purpose,
        "offence": offence,
        "source": source,
        "nature": nature,
        "watchlists": watchlist,
        "mode": mode,
        "max_candidates": str(max_candidates),
        **({} if face is None else {"face": str(face)}),
        **({"partners": partner, "authority": authority} if partner else {}),
    }
    from services.shared.rest_client import error_in, object_in  # noqa: PLC0415 - `likeness --help` stays quick

    response = _post("/v1/consortium-searches" if partner else "/v1/searches", url.rstrip("/"), token, form, image)
    body = object_in(response)
    if response.status_code == 200:
        _print_answer(response, body, as_json=as_json)
    elif body.get("code") == "face_choice_needed" and not as_json:
        _print_faces(body)
        raise typer.Exit(2)
    elif as_json:
        sys.stdout.write(response.text + "\n")
        raise typer.Exit(2 if body.get("code") == "face_choice_needed" else 1)
    else:
        raise error_in(body)


def _post(path: str, url: str, token: Path, form: dict[str, Any], image: Path) -> httpx.Response:
    """Whatever is answered, refusals too. Partners are waited for beside the search at home."""
    import httpx  # noqa: PLC0415 - `likeness --help` stays quick

    from services.shared.rest_client import read_token, unreachable  # noqa: PLC0415

    headers = {"Authorization": f"Bearer {read_token(token)}"}
    try:
        with image.open("rb") as file:
            # A platform of the force is not behind a proxy to the internet.
            return httpx.post(
                url + path,
                headers=headers,
                data=form,
                files={"image": ("probe", file)},
                timeout=TIMEOUT_S,
                trust_env=False,
            )
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise unreachable("search", url, error) from error


def _print_answer(response: httpx.Response, body: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(response.text + "\n")
    elif "consortium_id" in body:
        from services.search.partners.cli import print_consortium  # noqa: PLC0415

        print_consortium(_console(), body)
    else:
        print_search(_console(), body)


def print_search(console: Console, body: Mapping[str, Any]) -> None:
    """One answer for a person: the face that was searched, the candidates, what their scores are worth, the caveats."""
    from rich.text import Text  # noqa: PLC0415 - `likeness --help` stays quick

    face, candidates = body["faces"][body["face"]], body["candidates"]
    console.print(
        f"search {body['search_id']}  face {body['face']} of {len(body['faces'])}, "
        f"{face['inter_eye_px']:.0f} px between the eyes, quality {face['quality']['unified']:.0f} of 100"
    )
    for flag in body["probe"]["flags"]:
        console.print(Text(f"needs a supervisor: {flag['detail']}"))
    console.print(_candidate_table(candidates) if candidates else "No candidate.")
    for line in _evidence(candidates[:_EVIDENCE_SHOWN]):
        console.print(Text(line))
    console.print(Text(body["threshold"]["why"]))
    console.print("  ".join(f"{stage} {took_ms:.1f} ms" for stage, took_ms in (body["timings_ms"] or {}).items()))
    for statement in body["statements"]:
        console.print(Text(f"• {statement}"))


def _candidate_table(candidates: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table  # noqa: PLC0415 - `likeness --help` stays quick
    from rich.text import Text  # noqa: PLC0415

    table = Table("rank", "score", "subject", "watchlist", "owner", "reference")
    for candidate in candidates:
        # What was enrolled is data: no markup in it counts.
        names = (candidate[name] for name in ("subject_id", "watchlist", "owner", "reference_id"))
        table.add_row(str(candidate["rank"]), f"{candidate['score']:.4f}", *(Text(str(name)) for name in names))
    return table


def _evidence(candidates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is known of the candidates' scores; what is said of several is said once, with their ranks."""
    ranks: dict[str, list[str]] = {}
    for candidate in candidates:
        if known := candidate.get("score_evidence"):
            ranks.setdefault(known["says"], []).append(str(candidate["rank"]))
    for says, ranked in ranks.items():
        yield f"{'rank' if len(ranked) == 1 else 'ranks'} {', '.join(ranked)}: {says}"


def _print_faces(body: dict[str, Any]) -> None:
    from rich.table import Table  # noqa: PLC0415 - `likeness --help` stays quick

    table = Table("face", "left", "top", "width", "height", "between the eyes", "quality")
    for face in body["faces"]:
        box = face["box"]
        sizes = (f"{box[side]:.0f}" for side in ("x", "y", "width", "height"))
        table.add_row(str(face["index"]), *sizes, f"{face['inter_eye_px']:.0f} px", f"{face['quality']['unified']:.0f}")
    console = _console()
    console.print(table)
    console.print(f"{body['detail']} Choose one with --face N.")


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - `likeness --help` stays quick

    return Console(highlight=False, soft_wrap=False)
