"""A second embed for a model migration, as compose and a cluster are told of it; validated by their own tools."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import yaml

from services.local.deployment import CANDIDATE, HOST, ServicePorts, free_ports
from services.local.issuing import issue
from services.local.process import ServiceProcess, describe_exit
from services.local.readiness import waiting_for
from services.rpc.clients import EmbedClient
from services.shared.clock import SystemClock
from services.shared.packages import cache_folder
from services.shared.settings import TlsSettings
from tests.stack.overlays import built_with
from tests.stack.servers.base import run
from tests.stack.servers.tools import validator
from tests.stack.test_deploy import DEPLOY, K8S, ROOT, Document, allowed_pairs, is_setting
from tests.support.channels import ready_channel
from tests.support.platform import READY_TIMEOUT_S, STOP_TIMEOUT_S
from tests.support.waiting import wait_until

ADDRESS = "embed-candidate:50062"
_PACKAGED, _MOVED = "sface-2021dec-int8bq", "sface-moved"


def _composed(tmp_path: Path, recogniser: str) -> Document:
    """The services of both compose files together, as compose itself reads them."""
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("local", ".env"))
    run([sys.executable, ROOT / "scripts" / "stack_secrets.py", folder], "stack_secrets.py", cwd=ROOT, timeout_s=300)
    files: list[str | Path] = ["-f", folder / "compose.yaml", "-f", folder / "compose.candidate.yaml"]
    candidate = {
        "CANDIDATE_MODELS": str(tmp_path),
        "CANDIDATE_DETECTOR": "yunet-2023mar-int8bq",
        "CANDIDATE_RECOGNISER": recogniser,
    }
    shown = subprocess.run(
        [validator("docker-compose"), *files, "config"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **candidate},
    )
    assert shown.returncode == 0, shown.stderr
    services: Document = yaml.safe_load(shown.stdout)["services"]
    return services


def test_compose_takes_a_second_embed_beside_the_first(tmp_path: Path) -> None:
    services = _composed(tmp_path, "arcface-r50")
    for name in ("search", "ingest"):
        assert services[name]["environment"][f"LIKENESS_{name.upper()}__CANDIDATE_EMBED"] == ADDRESS
    first, second = services["embed"], services["embed-candidate"]
    assert second["environment"]["LIKENESS_EMBED__MODEL__RECOGNISER"] == "arcface-r50"
    assert all(is_setting(variable) for variable in second["environment"] if variable.startswith("LIKENESS_"))
    assert "LIKENESS_EMBED__MODEL__RECOGNISER" not in first["environment"]
    for kept in ("read_only", "user", "cap_drop", "security_opt", "networks", "image", "healthcheck"):
        assert second[kept] == first[kept], kept
    assert second["depends_on"]["certificates"]["condition"] == "service_healthy"


def test_both_embeds_run_side_by_side_as_compose_starts_them(tmp_path: Path) -> None:
    """Their images' entry point with their environments of compose; only where a container would have its own folders
    and ports do they get some of this machine."""
    services = _composed(tmp_path, _MOVED)
    models = _candidate_models(tmp_path / "models")
    issue(tmp_path / "authority", tmp_path / "tls", SystemClock())
    ports = free_ports(("embed", CANDIDATE))
    running: dict[str, ServiceProcess] = {}
    try:
        for name, own in (("embed", None), (CANDIDATE, models)):
            composed = services["embed" if own is None else "embed-candidate"]
            environment = _here(composed["environment"], ports[name], tmp_path, own)
            running[name] = ServiceProcess("embed", environment, tmp_path / f"{name}.log")
            running[name].start()
        for name, process in running.items():
            wait_until(partial(_is_ready, process, ports[name]), READY_TIMEOUT_S, partial(_told, name, process))
        described = {}
        for name, pair in ports.items():
            with ready_channel(f"{HOST}:{pair.grpc}", _tls(tmp_path, "search"), "embed") as channel:
                described[name] = EmbedClient(channel).describe_model()
        assert described["embed"].model_id != described[CANDIDATE].model_id
        assert _MOVED in described[CANDIDATE].model_id
    finally:
        for process in running.values():
            if process.is_running():
                process.send(signal.SIGTERM)
        stubborn = [name for name, process in running.items() if not process.wait(STOP_TIMEOUT_S)]
        assert not stubborn, f"did not stop on SIGTERM: {stubborn}"


def _candidate_models(folder: Path) -> Path:
    """What `likeness models fetch` makes of a manifest, as docs/operations/model-migration.md says; the packaged
    recogniser under another name is another model to everything."""
    folder.mkdir()
    packaged = (ROOT / "services" / "embed" / "models" / "models.toml").read_text("utf-8").split("[[model]]")
    [entry] = [part for part in packaged if f'name = "{_PACKAGED}"' in part]
    (folder / "models.toml").write_text("[[model]]" + entry.replace(_PACKAGED, _MOVED))
    fetch: list[str | Path] = [
        sys.executable,
        "-m",
        "services.cli",
        "models",
        "fetch",
        "--manifest",
        folder / "models.toml",
    ]
    sources = cache_folder() / "models" / "sources"
    fetch += ["--from", sources]
    run(fetch, "models fetch", env={"LIKENESS_CACHE": str(folder)}, cwd=ROOT, timeout_s=300)
    return folder


def _here(composed: Document, ports: ServicePorts, root: Path, models: Path | None) -> dict[str, str]:
    """A container's environment with this machine's places for its mounts."""
    places = {
        "/config/tls": root / "tls" / "embed",
        "/config/tokens": root / "deploy" / "local" / "public",
        "/config/watchlists.toml": K8S / "base" / "watchlists.toml",
        "/data/spool": root / "spool",
        "/models": models or root,
    }
    own = {name: value for name, value in os.environ.items() if not name.startswith("LIKENESS_")}
    if models is None:
        own["LIKENESS_CACHE"] = str(cache_folder())  # where the image has its models
    for name, value in composed.items():
        text = str(value)
        for inside, outside in places.items():
            if text == inside or text.startswith(f"{inside}/"):
                text = f"{outside}{text.removeprefix(inside)}"
        own[name] = text
    assert (own["LIKENESS_EMBED__HTTP_HOST"], own["LIKENESS_EMBED__GRPC_HOST"]) == ("0.0.0.0", "0.0.0.0")
    addresses = {"HTTP_HOST": HOST, "GRPC_HOST": HOST, "HTTP_PORT": str(ports.http), "GRPC_PORT": str(ports.grpc)}
    return own | {f"LIKENESS_EMBED__{name}": value for name, value in addresses.items()}


def _is_ready(process: ServiceProcess, ports: ServicePorts) -> bool:
    code = process.exit_code()
    assert code is None, f"it ended ({describe_exit(code)}):\n" + "\n".join(process.last_lines(30))
    return not waiting_for(ports.http)


def _told(name: str, process: ServiceProcess) -> str:
    return f"{name} to be ready:\n" + "\n".join(process.last_lines(10))


def _tls(root: Path, caller: str) -> TlsSettings:
    folder = root / "tls" / caller
    return TlsSettings(ca_path=folder / "ca.crt", cert_path=folder / "tls.crt", key_path=folder / "tls.key")


def test_a_cluster_takes_it_as_a_component(tmp_path: Path) -> None:
    models = {"name": "likeness-candidate", "literals": ["detector=yunet", "recogniser=arcface-r50"]}
    documents = built_with("candidate", tmp_path, configMapGenerator=[models])
    deployments = {each["metadata"]["name"]: each for each in documents if each["kind"] == "Deployment"}
    for name in ("search", "ingest"):
        [container] = deployments[name]["spec"]["template"]["spec"]["containers"]
        assert {"name": f"LIKENESS_{name.upper()}__CANDIDATE_EMBED", "value": ADDRESS} in container["env"]
        assert len(container["env"]) > 10, "what it was told before stands"
    pairs = set(allowed_pairs([each for each in documents if each["kind"] == "NetworkPolicy"]))
    assert {pair for pair in pairs if pair[1] == "embed-candidate"} == {
        ("search", "embed-candidate", 50062),
        ("ingest", "embed-candidate", 50062),
    }
    [service] = [each for each in documents if each["kind"] == "Service" and each["metadata"]["name"] == "embed"]
    assert service["spec"]["selector"] == {"app.kubernetes.io/name": "embed"}, "nobody is sent to the other model"
    _differs_in_its_model_alone(deployments)


def _differs_in_its_model_alone(deployments: Document) -> None:
    """Whoever changes one embed changes the other."""
    first, second = (deployments[name]["spec"]["template"]["spec"] for name in ("embed", "embed-candidate"))
    [one], [other] = first.pop("containers"), second.pop("containers")
    given = [each for each in other.pop("env") if "__MODEL__" not in each["name"]]
    assert given == one.pop("env")
    assert all(is_setting(each["name"]) for each in given if each["name"].startswith("LIKENESS_"))
    assert [each for each in other.pop("volumeMounts") if each["name"] != "models"] == one.pop("volumeMounts")
    assert other == one
    assert [each for each in second.pop("volumes") if each["name"] != "models"] == first.pop("volumes")
    for spec in (first, second):
        spec.pop("topologySpreadConstraints")
    assert second == first
