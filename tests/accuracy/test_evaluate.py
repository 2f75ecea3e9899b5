"""`likeness evaluate` over a real platform, and the naive pipeline, on a few development faces."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import assemble
from services.local.evaluation.labelled_set import LabelledSet, read_labelled_set
from services.local.evaluation.summary import summarise
from services.search.identification.operating_points import parse_operating_points
from tests.accuracy.naive import OpenCvPipeline, naive_templates
from tests.accuracy.offline import search_offline
from tests.support.faces import DevelopmentFaces
from tests.support.platform import Platform

_PEOPLE = 14
_STRANGERS = 12


@pytest.fixture(scope="module")
def manifest(faces: DevelopmentFaces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few people with a probe each, strangers enrolled as distractors, and one who is not enrolled."""
    pairs = [pair for pair in faces.mated_pairs() if "lfw" in str(pair[0].path)][:_PEOPLE]
    enrolled = {still.identity for still in faces.split("gallery")}
    unknown = next(still for still in faces.split("probe") if still.identity not in enrolled)
    rows = [*(still for pair in pairs for still in pair), *faces.split("distractor")[:_STRANGERS], unknown]
    path = tmp_path_factory.mktemp("set") / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "identity", "split", "source", "group_initial"])
        for still in rows:
            name = str(still.path.relative_to(faces.root))
            writer.writerow([name, still.identity, still.split, still.source, still.identity[0]])
    return path


@pytest.fixture(scope="module")
def evaluation_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("evaluated")) as running:
        yield running


@pytest.fixture(scope="module")
def written(
    faces: DevelopmentFaces,
    manifest: Path,
    evaluation_platform: Platform,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out, tokens = tmp_path_factory.mktemp("out"), evaluation_platform.data.tokens
    command = ["evaluate", str(faces.root), "--manifest", str(manifest), "--out", str(out), "--fpir", "0.1"]
    command += ["--url", evaluation_platform.url("search"), "--ingest-url", evaluation_platform.url("ingest")]
    command += ["--token", str(tokens / "operator.token"), "--custodian-token", str(tokens / "custodian.token")]
    answer = CliRunner().invoke(assemble(command), command, catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return out


def test_every_probe_is_searched_and_judged(written: Path) -> None:
    document = json.loads((written / "evaluation.json").read_text("utf-8"))
    (summary,) = document["summaries"]
    assert document["enrolled"] + len(document["refused"]) == _PEOPLE + _STRANGERS
    assert (summary["mated"], summary["non_mated"]) == (_PEOPLE, 1)
    assert len(document["searches"]["as they are"]) == _PEOPLE + 1
    assert summary["ranks"]["1"]["estimate"] >= 0.9
    assert summary["at_fpir"][0]["tpir"] is None, "one non-mated probe carries no rate"
    assert {part["name"] for part in summary["slices"]["initial"]} >= {"A"}


def test_no_template_is_written_down(written: Path) -> None:
    text = (written / "evaluation.json").read_text("utf-8")
    assert "vector" not in text
    assert "template" not in text
    assert not re.search(r"(-?0\.\d+,\s*){100}", text)


def test_the_report_stands_alone(written: Path) -> None:
    report = (written / "report.html").read_text("utf-8")
    assert "data:image/png;base64," in report
    assert "data:image/jpeg;base64," in report
    assert not re.search(r"""(src|href)=["'](?!data:)""", report)
    for name in ("cmc", "det", "scores", "slices"):
        assert (written / f"{name}.png").stat().st_size > 5_000


def test_the_threshold_is_one_that_search_loads(written: Path) -> None:
    content = (written / "operating_points.json").read_bytes()
    (point,) = parse_operating_points(content, "written")
    assert point.watchlist == "custody"
    assert point.evidence.fpir is not None
    assert point.evidence.fpir <= 0.1


def test_each_still_has_one_enrolment(
    faces: DevelopmentFaces, manifest: Path, evaluation_platform: Platform, written: Path
) -> None:
    assert written.exists()
    with evaluation_platform.client("ingest", "custodian") as client:
        counts = client.get("/v1/enrolments", params={"limit": 1}).json()["counts"]
    labelled = read_labelled_set(faces.root, manifest)
    assert sum(counts.values()) == len(labelled.enrolled)


def test_the_naive_pipeline_finds_the_same_people(faces: DevelopmentFaces, manifest: Path) -> None:
    labelled: LabelledSet = read_labelled_set(faces.root, manifest)
    templates = naive_templates(OpenCvPipeline(), labelled.stills)
    summary = summarise(search_offline(labelled, templates, templates, leave_one_out=True))
    assert summary.mated == _PEOPLE
    assert summary.ranks[1].estimate >= 0.9
    # It misses a face now and then, and what it does not enrol it does not search.
    assert summary.non_mated_leaving_one_out >= len(labelled.stills) - 2
