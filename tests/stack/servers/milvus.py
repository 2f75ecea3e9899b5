"""Milvus standalone (the real core) from its PyPI wheel, in an environment of its own."""

from __future__ import annotations

import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.stack.servers.base import ServerProcess, free_ports, install_once, run, temporary_data

VERSION = "2.3.5"
_REQUIREMENTS = Path(__file__).parent / "milvus-requirements.txt"
_PLACE = re.compile(r"\{\{\s*(\w+)(?:\(\w+\))?\s*(?::\s*(.*?))?\s*}}")
# The wheel carries the server compressed; its own launcher unpacks 450 MB into every data folder. Once is enough.
_UNPACK = "import milvus, sys; milvus._initialize_data_files(sys.argv[1])"
_TEMPLATE = "import milvus, os; print(os.path.dirname(milvus.__file__))"


def _install(folder: Path) -> None:
    run([sys.executable, "-m", "venv", folder / "venv"], "an environment for Milvus")
    python = folder / "venv" / "bin" / "python"
    quiet = ["-q", "--disable-pip-version-check"]
    run(
        [python, "-m", "pip", "install", *quiet, "--require-hashes", "-r", _REQUIREMENTS],
        "Milvus from PyPI",
    )
    run([python, "-c", _UNPACK, folder], "unpacking Milvus")
    package = run([python, "-c", _TEMPLATE], "finding Milvus").strip()
    for name in ("config.yaml.template", "glog.conf"):
        (folder / name).write_bytes((Path(package) / "data" / name).read_bytes())
    shutil.rmtree(folder / "venv")  # what runs is unpacked now


def _settings(data: Path) -> dict[str, str]:
    """Every placeholder of the server's configuration that has to differ between two servers of one machine."""
    names = (
        "proxy_port",
        "proxy_internal_port",
        "root_coord_port",
        "query_coord_port",
        "query_node_port",
        "index_coord_port",
        "index_node_port",
        "data_coord_port",
        "data_node_port",
        "etcd_port",
    )
    ports = dict(zip(names, map(str, free_ports(len(names))), strict=True))
    return {
        **ports,
        "etcd_log_path": str(data / "etcd.log"),
        "system_log_path": str(data / "logs"),
        "etcd_data_dir": str(data / "etcd"),
        "local_storage_dir": str(data / "storage"),
        "rocksmq_data_dir": str(data / "rocksmq"),
    }


def _render(template: str, settings: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: settings.get(place[1], place[2] or ""), template)


def milvus_server() -> tuple[ServerProcess, str]:
    """A standalone server that is not started yet, and its URI."""
    installed = install_once("milvus", VERSION, _install)
    data = temporary_data("milvus")
    settings = _settings(data)
    configs = data / "configs"
    configs.mkdir()
    (configs / "milvus.yaml").write_text(_render((installed / "config.yaml.template").read_text(), settings))
    (configs / "glog.conf").write_bytes((installed / "glog.conf").read_bytes())
    (peer, metrics), client = free_ports(2), settings["etcd_port"]
    (configs / "etcd.yaml").write_text(
        f"listen-client-urls: http://127.0.0.1:{client}\nadvertise-client-urls: http://127.0.0.1:{client}\n"
        f"listen-peer-urls: http://127.0.0.1:{peer}\ninitial-advertise-peer-urls: http://127.0.0.1:{peer}\n"
        f"initial-cluster: default=http://127.0.0.1:{peer}\n"
    )
    server = ServerProcess(
        f"Milvus {VERSION}",
        [installed / "bin" / "milvus", "run", "standalone"],
        data,
        is_ready=lambda: _is_healthy(metrics),
        ready_timeout_s=240,
        env={
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(metrics),
            "MILVUSCONF": str(configs),
            "MILVUS_RUN_DIR": str(data / "run"),
            "ETCD_CONFIG_PATH": str(configs / "etcd.yaml"),
            "LD_LIBRARY_PATH": str(installed / "bin"),
            "HOME": str(data),
            # As in deploy/: a write is served after a tick or two, and the default of 200 ms makes that 0.6 s.
            "PROXY_TIMETICKINTERVAL": "20",
        },
    )
    return server, f"http://127.0.0.1:{settings['proxy_port']}"


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return bool(b"OK" in answer.read())
    except (urllib.error.URLError, OSError):
        return False
