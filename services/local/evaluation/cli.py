"""`likeness evaluate`: how accurate the running model is on a labelled set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from services.local.evaluation.evaluation import Evaluation
    from services.local.evaluation.metrics import Rate, TpirAtFpir

ManifestOption = Annotated[
    Path | None,
    typer.Option(help="CSV with path, identity, split (gallery, distractor, probe). FOLDER/manifest.csv."),
]
UrlOption = Annotated[str, typer.Option(help="Search API of a running platform; a fresh one is started without it.")]
GroupOption = Annotated[list[str] | None, typer.Option("--group", help="A column to report by. Repeatable.")]
FpirOption = Annotated[
    float, typer.Option(min=0, max=1, help="Propose a threshold for this FPIR and write its evidence; 0 for none.")
]
EnrolledOption = Annotated[
    int, typer.Option(min=0, help="References in service, where they are not as many as are enrolled here.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(  # noqa: PLR0917 - the options of a command
    folder: Annotated[Path, typer.Argument(help="The folder with the pictures.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Where report, plots and figures are written.")],
    manifest: ManifestOption = None,
    url: UrlOption = "",
    ingest_url: Annotated[str, typer.Option(help="Enrolment API, with --url.")] = "http://127.0.0.1:8081",
    token: Annotated[Path, typer.Option(help="An operator's token, with --url.")] = Path("data/tokens/operator.token"),
    custodian_token: Annotated[Path, typer.Option(help="A custodian's token, with --url.")] = Path(
        "data/tokens/custodian.token"
    ),
    watchlist: Annotated[str, typer.Option(help="Where the gallery is enrolled and searched.")] = "custody",
    group: GroupOption = None,
    degrade: Annotated[bool, typer.Option("--degrade", help="Search worse versions of every probe, too.")] = False,
    fpir: FpirOption = 0.01,
    in_service: EnrolledOption = 0,
    leave_one_out: Annotated[
        bool, typer.Option(help="Search what is enrolled as well, its own subject left out: carries smaller FPIRs.")
    ] = True,
) -> None:
    """Enrol a labelled gallery, search its probes through the REST API, and report every rate with its interval.

    The report holds pictures of people: it is for use in the unit, not for publication.
    """
    from services.local.evaluation.evaluation import Plan  # noqa: PLC0415
    from services.local.evaluation.evaluation import evaluate as run_evaluation  # noqa: PLC0415
    from services.local.evaluation.labelled_set import read_labelled_set  # noqa: PLC0415
    from services.local.evaluation.target import Target, fresh_platform  # noqa: PLC0415
    from services.shared.clock import SystemClock  # noqa: PLC0415

    console = Console()
    labelled = read_labelled_set(folder, manifest or folder / "manifest.csv", group or ())
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(watchlist=watchlist, is_degrading=degrade, leave_one_out=leave_one_out)
    given = Target(ingest_url, url, custodian_token, token)
    with nullcontext(given) if url else fresh_platform() as target, _Bars(console) as bars:
        done = run_evaluation(target, labelled, plan, SystemClock().now(), bars)
    _write(done, out, Wish(watchlist, fpir, in_service), console)


@dataclass(frozen=True, slots=True)
class Wish:
    """For which watchlist which FPIR is wished, with how many references (0: as many as were enrolled here)."""

    watchlist: str
    fpir: float
    in_service: int = 0


def _write(done: Evaluation, out: Path, wish: Wish, console: Console) -> None:
    from services.local.evaluation.discard import draw_discard  # noqa: PLC0415 - `likeness --help` stays quick
    from services.local.evaluation.evaluation import write_json  # noqa: PLC0415
    from services.local.evaluation.plots import draw_plots  # noqa: PLC0415
    from services.local.evaluation.report import write_report  # noqa: PLC0415

    figures = write_json(done, out)
    proposal = _propose(done, out, wish, console)
    plots = draw_plots(done.summaries, out)
    if done.discard is not None:
        plots["Error versus discard"] = draw_discard([done.discard.curve], out / "discard.png")
    report = write_report(done, plots, out, proposal)
    console.print(_table(done))
    console.print(f"Report: {report}\nFigures: {figures}", soft_wrap=True)


def _propose(done: Evaluation, out: Path, wish: Wish, console: Console) -> TpirAtFpir | None:
    """Write what search loads: what scores are worth, and the threshold where one is wished and can be told."""
    import orjson  # noqa: PLC0415 - `likeness --help` stays quick

    from services.local.evaluation.calibration import calibration_document  # noqa: PLC0415
    from services.local.evaluation.evidence import operating_points_document  # noqa: PLC0415

    model_id, enrolled = done.model["model_id"], len(done.gallery.enrolled)
    facts: dict[str, Any] = {
        "measured_on": done.measured_on,
        "manifest_sha256": done.labelled.manifest_sha256,
    }
    document: dict[str, Any] = {"format": 1, "operating_points": []}
    point = _threshold(done, wish, console) if wish.fpir else None
    if point is not None:
        served = {"in_service": wish.in_service, "fpir_in_service": wish.fpir} if wish.in_service else {}
        document = operating_points_document(
            point, model_id=model_id, watchlist=wish.watchlist, enrolled=enrolled, facts={**facts, **served}
        )
    document["calibrations"] = [
        calibration_document(done.runs, model_id=model_id, watchlist=wish.watchlist, enrolled=enrolled, facts=facts)
    ]
    path = out / "operating_points.json"
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    console.print(f"Search loads {path} from LIKENESS_SEARCH__OPERATING_POINTS_PATH.", soft_wrap=True)
    return point


def _threshold(done: Evaluation, wish: Wish, console: Console) -> TpirAtFpir | None:
    from services.local.evaluation.evidence import fpir_as_measured, propose_threshold  # noqa: PLC0415
    from services.shared.errors import InvalidRequest  # noqa: PLC0415

    enrolled = len(done.gallery.enrolled)
    try:
        wished = fpir_as_measured(wish.fpir, enrolled, wish.in_service) if wish.in_service else wish.fpir
        point = propose_threshold(done.main, wished)
    except InvalidRequest as error:
        console.print(f"No threshold is proposed: {error.detail} {error.advice}", soft_wrap=True)
        return None
    told = f"Threshold {point.threshold:.4f} for an FPIR of {wish.fpir:g} with {wish.in_service or enrolled:,} enrolled"
    console.print(told, soft_wrap=True)
    return point


def _table(done: Evaluation) -> Table:
    table = Table("probes", "rank 1", "rank 5", "rank 20", "TPIR at FPIR 10 %", "at 1 %", "not acquired")
    for summary in done.summaries:
        points = {point.wished_fpir: point.tpir for point in summary.at_fpir_leaving_one_out}
        table.add_row(
            summary.condition,
            *(_text(summary.ranks[rank]) for rank in (1, 5, 20)),
            _text(points[0.1]),
            _text(points[0.01]),
            str(sum(summary.failures.values())),
        )
    return table


def _text(rate: Rate | None) -> str:
    return "too few" if rate is None else f"{rate.estimate:.4f} [{rate.low:.3f}, {rate.high:.3f}]"


class _Bars:
    """Progress on the terminal, a bar a stage."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage(self, title: str, total: int) -> Callable[[int], None]:
        task = self._progress.add_task(title, total=total)

        def advance(count: int) -> None:
            self._progress.advance(task, count)

        return advance
