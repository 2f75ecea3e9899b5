"""Addresses and environments of a local platform."""

import socket
from pathlib import Path

import pytest

from services.local.deployment import (
    CANDIDATE,
    DEFAULT_PORTS,
    HOST,
    SERVICES,
    DataFolder,
    ServicePorts,
    environment,
    has_candidate,
    module_of,
    parse_ports,
)
from services.local.ports import reserve_ports
from services.review.settings import ReviewSettings
from services.shared.errors import ConfigurationError


def test_default_ports_are_those_of_the_services_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PORT", "GRPC_PORT"):
        monkeypatch.delenv(f"LIKENESS_REVIEW__{name}", raising=False)
    settings = ReviewSettings()
    assert DEFAULT_PORTS["review"] == ServicePorts(settings.http_port, settings.grpc_port)


def test_a_change_touches_one_side_of_one_service() -> None:
    ports = parse_ports("search=9080, audit.grpc=51064")
    assert ports["search"] == ServicePorts(9080, DEFAULT_PORTS["search"].grpc)
    assert ports["audit"] == ServicePorts(DEFAULT_PORTS["audit"].http, 51064)
    assert {name: pair for name, pair in ports.items() if name not in {"search", "audit"}} == {
        name: pair for name, pair in DEFAULT_PORTS.items() if name not in {"search", "audit"}
    }


def test_free_ports_are_all_different() -> None:
    ports = parse_ports("auto")
    assert set(ports) == set(SERVICES)
    assert len({number for pair in ports.values() for number in (pair.http, pair.grpc)}) == 2 * len(SERVICES)


def test_a_candidate_s_embed_is_one_more_service_with_settings_of_its_own() -> None:
    inherited = {"LIKENESS_EMBED__MODEL__KIND": "onnx", "LIKENESS_CANDIDATE__MODEL__KIND": "stub"}
    ports = parse_ports("candidate=9085,candidate.grpc=9086", with_candidate=has_candidate(inherited))
    told = {
        service: environment(service, DataFolder(Path("/data")), ports, inherited) for service in (*SERVICES, CANDIDATE)
    }
    assert told[CANDIDATE]["LIKENESS_EMBED__MODEL__KIND"] == "stub"
    assert told["embed"]["LIKENESS_EMBED__MODEL__KIND"] == "onnx"
    assert told[CANDIDATE]["LIKENESS_EMBED__GRPC_PORT"] == "9086"
    assert told[CANDIDATE]["LIKENESS_EMBED__TLS__KEY_PATH"] == told["embed"]["LIKENESS_EMBED__TLS__KEY_PATH"]
    assert {told[name][f"LIKENESS_{name.upper()}__CANDIDATE_EMBED"] for name in ("search", "ingest")} == {
        f"{HOST}:9086"
    }
    assert not any("PEERS__CANDIDATE" in name for each in told.values() for name in each)
    assert module_of(CANDIDATE) == "embed"
    assert not has_candidate({"LIKENESS_EMBED__MODEL__KIND": "onnx"})
    with pytest.raises(ConfigurationError):
        parse_ports("candidate=9085")


def test_reserved_ports_are_refused_to_chance_but_not_to_whoever_asks_for_them() -> None:
    ports = reserve_ports(HOST, 20)
    assert len(set(ports)) == 20
    others = [socket.create_server((HOST, 0)) for _ in range(50)]
    assert not {other.getsockname()[1] for other in others} & set(ports)
    for other in others:
        other.close()
    for _ in range(2):  # a server that ended finds its port again
        with socket.create_server((HOST, ports[0])), socket.create_connection((HOST, ports[0])):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, ports[0]))


@pytest.mark.parametrize("text", ["serch=1", "search=x", "search.udp=1", "search", "=80"])
def test_a_wrong_change_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_ports(text)
    assert text in caught.value.detail
    assert "search=9080" in caught.value.advice


def test_own_settings_choose_adapters_but_not_addresses(tmp_path: Path) -> None:
    inherited = {
        "LIKENESS_INGEST__DATABASE__URL": "postgresql+psycopg://db/ingest",
        "LIKENESS_INGEST__HTTP_PORT": "1",
        "PATH": "/bin",
    }
    made = environment("ingest", DataFolder(tmp_path), DEFAULT_PORTS, inherited)
    assert made["LIKENESS_INGEST__DATABASE__URL"] == "postgresql+psycopg://db/ingest"
    assert made["LIKENESS_INGEST__HTTP_PORT"] == "8081"
    assert made["LIKENESS_INGEST__PEERS__AUDIT"] == "127.0.0.1:50064"
    assert made["LIKENESS_INGEST__ALLOW_SYNTHETIC"] == "false"
    assert made["PATH"] == "/bin"


def test_everything_that_is_kept_lies_in_the_data_folder(tmp_path: Path) -> None:
    for service in SERVICES:
        made = environment(service, DataFolder(tmp_path), DEFAULT_PORTS, {})
        kept = {name: value for name, value in made.items() if name.endswith(("PATH", "URL"))}
        places = [value for value in kept.values() if not value.startswith("http://127.0.0.1:")]  # other services
        assert all(str(tmp_path) in place for place in places), places
