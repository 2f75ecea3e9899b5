"""k8s/monitoring: what a cluster's Prometheus scrapes, and that the autoscalers get the numbers that they ask for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.shared.telemetry import Metrics
from tests.stack.servers.base import run
from tests.stack.servers.prometheus import tool
from tests.stack.servers.tools import validator

ROOT = Path(__file__).parent.parent.parent
MONITORING = ROOT / "k8s" / "monitoring"
# As the adapter asks for the pods of one autoscaler.
MATCHERS = 'namespace="likeness",pod=~"a|b"'
POD = 'namespace="likeness",pod="{}"'


def _rules() -> dict[str, dict[str, Any]]:
    """By the name of the metric that the cluster sees."""
    found = yaml.safe_load((MONITORING / "adapter.yaml").read_text("utf-8"))["rules"]
    return {rule["name"]["as"]: rule for rule in found}


def _series(rule: dict[str, Any]) -> str:
    return re.split(r"\{", str(rule["seriesQuery"]))[0]


def _query(rule: dict[str, Any]) -> str:
    """The rule's query with the adapter's templates filled in, for a metric of pods."""
    filled = rule["metricsQuery"].replace("<<.Series>>", _series(rule))
    return str(filled.replace("<<.LabelMatchers>>", MATCHERS).replace("<<.GroupBy>>", "pod"))


def test_every_autoscaler_reads_a_metric_that_the_adapter_makes() -> None:
    documents = yaml.safe_load_all((ROOT / "k8s" / "base" / "availability.yaml").read_text("utf-8"))
    wanted = {
        metric["pods"]["metric"]["name"]
        for each in documents
        if each["kind"] == "HorizontalPodAutoscaler"
        for metric in each["spec"]["metrics"]
    }
    assert wanted == set(_rules())


def test_every_rule_reads_a_metric_that_a_service_has() -> None:
    families = list(Metrics(CollectorRegistry()).registry.collect())
    known = {family.name for family in families} | {f"{family.name}_bucket" for family in families}
    for rule in _rules().values():
        assert _series(rule) in known
        assert rule["resources"]["overrides"] == {
            "namespace": {"resource": "namespace"},
            "pod": {"resource": "pod"},
        }


@pytest.mark.parametrize(
    ("metric", "series", "expected"),
    [
        pytest.param(
            "likeness_search_total_seconds_p95",
            {
                # a: all searches between 0.25 and 0.5 s; b: none at all since the start
                f'likeness_search_stage_seconds_bucket{{{POD.format("a")},stage="total",le="0.25"}}': "0x20",
                f'likeness_search_stage_seconds_bucket{{{POD.format("a")},stage="total",le="0.5"}}': "0+60x20",
                f'likeness_search_stage_seconds_bucket{{{POD.format("a")},stage="total",le="+Inf"}}': "0+60x20",
                f'likeness_search_stage_seconds_bucket{{{POD.format("b")},stage="total",le="0.5"}}': "0x20",
                f'likeness_search_stage_seconds_bucket{{{POD.format("b")},stage="total",le="+Inf"}}': "0x20",
                # another deployment's, and another stage's
                f'likeness_search_stage_seconds_bucket{{{POD.format("c")},stage="total",le="+Inf"}}': "0+60x20",
                f'likeness_search_stage_seconds_bucket{{{POD.format("a")},stage="gate",le="+Inf"}}': "0+60x20",
            },
            {"a": 0.4875, "b": 0},
            id="search-on-latency",
        ),
        pytest.param(
            "likeness_embed_queue_images",
            {
                f"likeness_embed_queue_images{{{POD.format('a')}}}": "12x20",
                f"likeness_embed_queue_images{{{POD.format('b')}}}": "0x20",
            },
            {"a": 12, "b": 0},
            id="embed-on-queue-depth",
        ),
        pytest.param(
            "likeness_ingest_consumer_lag_events",
            {
                f"likeness_ingest_consumer_lag_events{{{POD.format('a')}}}": "900x20",
                f"likeness_ingest_consumer_lag_events{{{POD.format('b')}}}": "900x20",
            },
            {"a": 450, "b": 450},
            id="ingest-on-lag",
        ),
    ],
)
def test_the_adapter_gets_the_number_of_each_pod(
    metric: str, series: dict[str, str], expected: dict[str, float], tmp_path: Path
) -> None:
    samples = [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in expected.items()]
    document = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{"expr": _query(_rules()[metric]), "eval_time": "5m", "exp_samples": samples}],
            }
        ],
    }
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump(document))
    run([tool("promtool"), "test", "rules", file], f"promtool test rules ({metric})", timeout_s=300)


def test_prometheus_accepts_the_scrape_configuration(tmp_path: Path) -> None:
    """But for the discovery in a cluster, which Debian's build leaves out: that part is looked at here."""
    document = yaml.safe_load((MONITORING / "scrape.yml").read_text("utf-8"))
    [scrape] = document["scrape_configs"]
    assert scrape.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["likeness"]}}]
    # The rules and dashboards tell services by this label, the adapter pods by these.
    assert {each.get("target_label") for each in scrape["relabel_configs"]} >= {"service", "namespace", "pod"}
    # promtool looks whether it is there.
    (tmp_path / "token").write_text("token")
    assert scrape.pop("authorization") == {"credentials_file": "/config/metrics/token"}
    scrape["authorization"] = {"credentials_file": str(tmp_path / "token")}
    scrape["static_configs"] = [{"targets": ["search:8080"]}]
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(document))
    run([tool("promtool"), "check", "config", config], "promtool check config", timeout_s=300)


def test_it_builds_and_is_valid(tmp_path: Path) -> None:
    built = tmp_path / "monitoring.yaml"
    built.write_text(run([validator("kubectl"), "kustomize", MONITORING], "kustomize monitoring", timeout_s=120))
    run([validator("kubernetes-validate"), "--strict", built], "kubernetes-validate", timeout_s=300)
    names = {each["metadata"]["name"] for each in yaml.safe_load_all(built.read_text())}
    assert names == {"likeness-prometheus", "likeness-prometheus-adapter"}


def test_the_rules_are_those_that_are_tested() -> None:
    """kustomize reads nothing outside its folder."""
    copy, original = MONITORING / "likeness.yml", ROOT / "deploy" / "prometheus" / "rules" / "likeness.yml"
    assert copy.read_text("utf-8") == original.read_text("utf-8")
