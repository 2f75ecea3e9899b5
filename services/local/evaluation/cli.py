"""`likeness evaluate`: how accurate the running model is on a labelled set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    _write(done, out, watchlist, fpir, console)


def _write(done: Evaluation, out: Path, watchlist: str, fpir: float, console: Console) -> None:
    from services.local.evaluation.discard import draw_discard  # noqa: PLC0415 - `likeness --help` stays quick
    from services.local.evaluation.evaluation import write_json  # noqa: PLC0415
    from services.local.evaluation.plots import draw_plots  # noqa: PLC0415
    from services.local.evaluation.report import write_report  # noqa: PLC0415

    figures = write_json(done, out)
    proposal = _propose(done, out, watchlist, fpir, console) if fpir else None
    plots = draw_plots(done.summaries, out)
    if done.discard is not None:
        plots["Error versus discard"] = draw_discard([done.discard.curve], out / "discard.png")
    report = write_report(done, plots, out, proposal)
    console.print(_table(done))
    console.print(f"Report: {report}\nFigures: {figures}", soft_wrap=True)


def _propose(done: Evaluation, out: Path, watchlist: str, fpir: float, console: Console) -> TpirAtFpir | None:
    import orjson  # noqa: PLC0415 - `likeness --help` stays quick

    from services.local.evaluation.evidence import operating_points_document, propose_threshold  # noqa: PLC0415
    from services.shared.errors import InvalidRequest  # noqa: PLC0415

    try:
        point = propose_threshold(done.main, fpir)
    except InvalidRequest as error:
        console.print(f"No threshold is proposed: {error.detail} {error.advice}", soft_wrap=True)
        return None
    facts = {"measured_on": done.measured_on, "manifest_sha256": done.labelled.manifest_sha256}
    document = operating_points_document(
        point,
        model_id=done.model["model_id"],
        watchlist=watchlist,
        enrolled=len(done.gallery.enrolled),
        facts=facts,
    )
    path = out / "operating_points.json"
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    console.print(
        f"Threshold {point.threshold:.4f} for an FPIR of {fpir:.2%}: {path}\n"
        "Search loads it from LIKENESS_SEARCH__OPERATING_POINTS_PATH.",
        soft_wrap=True,
    )
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
