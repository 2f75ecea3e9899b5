"""`python -m tests.accuracy`: the naive pipeline, the steps beyond it, and the tables of docs/accuracy.md.

Runs on the development faces (LIKENESS_SHARED_DATA); templates are kept under LIKENESS_CACHE, so a second run is quick.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer

from services.local.evaluation.degrade import SERIES, Degradation, inter_eye, inter_eye_jpeg
from services.local.evaluation.labelled_set import LabelledSet, read_labelled_set
from services.local.evaluation.records import Run
from services.local.evaluation.summary import plain, summarise
from tests.accuracy import calibrating
from tests.accuracy.clustering import clustering_table
from tests.accuracy.cohort import write_cohort_mean
from tests.accuracy.crowds import crowds_table
from tests.accuracy.detection import detection_tables
from tests.accuracy.naive import OpenCvPipeline, naive_degraded, naive_templates
from tests.accuracy.offline import embed_templates, search_offline
from tests.accuracy.paired import paired_differences, run_from_json
from tests.accuracy.quality import report, study, table_of, write_bands
from tests.accuracy.quality_data import collect, in_process_analyser
from tests.accuracy.signals import signals_table
from tests.accuracy.steps import STEPS, Views, judge_step, measure_views
from tests.accuracy.tables import differences_table, side_by_side, steps_table
from tests.support.faces import shared_data

COHORT_MEANS = Path("services/embed/models/cohort_means.json")
app = typer.Typer(no_args_is_help=True, help=__doc__)
# The first was looked at while the steps were chosen, the others were not.
CONDITIONS = (inter_eye_jpeg(24, 20), inter_eye(16), inter_eye_jpeg(16, 20))


def development_set() -> LabelledSet:
    folder = shared_data() / "faces"
    return read_labelled_set(folder, folder / "manifest.csv")


def naive_runs(labelled: LabelledSet, *, degrade: bool) -> list[Run]:
    """The naive pipeline under every condition, judged as the platform is."""
    pipeline = OpenCvPipeline()
    clean = naive_templates(pipeline, labelled.stills)
    runs = [search_offline(labelled, clean, clean, leave_one_out=True)]
    for degradation in SERIES if degrade else ():
        worse = naive_degraded(pipeline, labelled.stills, clean, degradation.name, degradation.apply)
        runs.append(search_offline(labelled, worse, clean, degradation.name, leave_one_out=False))
    return runs


@app.command()
def naive(degrade: Annotated[bool, typer.Option("--degrade")] = False, out: Path | None = None) -> None:
    """Measure OpenCV's own pipeline; `--out` writes the figures as JSON."""
    summaries = [summarise(run) for run in naive_runs(development_set(), degrade=degrade)]
    if out is not None:
        out.write_text(json.dumps(plain([asdict(summary) for summary in summaries])), encoding="utf-8")
    for summary in summaries:
        print(summary.condition, summary.ranks, summary.at_fpir, summary.at_fpir_leaving_one_out, sep="\n  ")


@app.command()
def table(evaluation: Annotated[Path, typer.Argument(help="evaluation.json of `likeness evaluate`.")]) -> None:
    """Naive beside Likeness, as Markdown."""
    document: dict[str, Any] = json.loads(evaluation.read_text("utf-8"))
    runs = naive_runs(development_set(), degrade=len(document["summaries"]) > 1)
    ours = plain([asdict(summarise(run)) for run in runs])
    print(side_by_side(ours, document["summaries"]))
    for run in runs:
        theirs = run_from_json(run.condition, document["searches"][run.condition])
        print(differences_table(run.condition, paired_differences(run, theirs)))


@app.command()
def steps() -> None:
    """What each step beyond the naive pipeline brings, on people that it was not tuned on."""
    cv2.setNumThreads(1)
    labelled, pipeline = development_set(), OpenCvPipeline()
    galleries = {again: _views(labelled, pipeline, None, looks_again=again) for again in (False, True)}
    print(steps_table("as they are", [judge_step(labelled, s, *[galleries[s.looks_again]] * 2) for s in STEPS]))
    for condition in CONDITIONS:
        probes = {again: _views(labelled, pipeline, condition, looks_again=again) for again in (False, True)}
        results = [judge_step(labelled, s, probes[s.looks_again], galleries[s.looks_again]) for s in STEPS]
        print(steps_table(condition.name, results))


def _views(
    labelled: LabelledSet, pipeline: OpenCvPipeline, condition: Degradation | None, *, looks_again: bool
) -> Views:
    stills = labelled.stills
    if condition is None:
        return measure_views(
            pipeline, stills, "clean", lambda at: stills[at].path.read_bytes(), looks_again=looks_again
        )
    clean, degrade = naive_templates(pipeline, stills), condition.apply

    def file(at: int) -> bytes | None:
        if stills[at].split != "probe":
            return None
        return degrade(stills[at].path.read_bytes(), float(clean.inter_eye_px[at]))

    return measure_views(pipeline, stills, condition.name, file, looks_again=looks_again)


@app.command()
def cohort_mean() -> None:
    """Measure the cohort's mean template again and write it where embed reads it. A new model_id follows from it."""
    write_cohort_mean(development_set().stills, COHORT_MEANS)


@app.command()
def quality(
    minutes: Annotated[float, typer.Option(help="Go on measuring for so long before the fit.")] = 0.0,
    figure: Path = Path("docs/figures/accuracy_discard.png"),
    bands: Annotated[Path | None, typer.Option(help="Write the table of grades here.")] = None,
) -> None:
    """Fit the unified quality score to false non-match, cross-fitted; the error-versus-discard curve and the bands."""
    labelled = development_set()
    data = collect(labelled, minutes * 60)
    measured = table_of(labelled, data)
    found = study(measured)
    if bands is not None:
        write_bands(found, bands)
    print(report(found, measured, list(data.measured.values()), figure))


@app.command()
def detection(count: Annotated[int, typer.Option(help="How many stills.")] = 60) -> None:
    """Which faces are found when they are turned, dark, covered, cut off or small, in group pictures and crowds."""
    labelled = development_set()
    print(detection_tables(labelled, count))
    print(crowds_table(labelled, in_process_analyser()[0]))


@app.command()
def signals(
    count: Annotated[int, typer.Option(help="How many stills are made into something else.")] = 40,
    only: Annotated[str, typer.Option(help="Just the rows whose name holds this.")] = "",
) -> None:
    """How often each signal against a probe is raised on real pictures, on screens, prints, drawings, composites."""
    print(signals_table(development_set(), count, only))


@app.command()
def clustering(minutes: Annotated[float, typer.Option(help="Go on templating for so long first.")] = 2.0) -> None:
    """B-cubed precision and recall of grouping the development faces by who they are."""
    print(clustering_table(development_set(), minutes * 60))


@app.command()
def calibration(
    evaluation: Annotated[Path, typer.Argument(help="evaluation.json of `likeness evaluate --degrade`.")],
    out: Annotated[
        Path | None, typer.Option(help="Write what scores are worth into this operating points file.")
    ] = None,
) -> None:
    """Whether thresholds by quality help, and how well an FPIR is carried to a gallery of another size."""
    document: dict[str, Any] = json.loads(evaluation.read_text("utf-8"))
    if out is not None:
        calibrating.write_packaged(document, out)
    labelled = development_set()
    print(calibrating.report(document, labelled, collect(labelled, 0)))


@app.command()
def offline(embed: Annotated[str, typer.Option(help="host:port of embed's gRPC")] = "127.0.0.1:50062") -> None:
    """1:N over templates of a running embed service, without the rest of the platform."""
    labelled = development_set()
    templates = embed_templates(embed, labelled.stills)
    summary = summarise(search_offline(labelled, templates, templates, leave_one_out=True))
    print(summary.ranks, summary.at_fpir, summary.at_fpir_leaving_one_out, sep="\n")


if __name__ == "__main__":
    app()
