"""Prometheus and Alertmanager from Debian's packages: unpacked into the cache, so that no daemon starts by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.stack.servers.base import (
    ServerProcess,
    ServerUnavailable,
    accepts_connections,
    apt_update,
    free_ports,
    install_once,
    run,
    temporary_data,
)

_PACKAGES = ("prometheus", "prometheus-alertmanager")


def _install(folder: Path) -> None:
    if shutil.which("dpkg") is None or shutil.which("apt-get") is None:
        raise ServerUnavailable("Prometheus is taken from Debian's packages, and there is no apt-get here")
    try:
        run(["apt-get", "download", "-qq", *_PACKAGES], "downloading Prometheus", cwd=folder)
    except ServerUnavailable:
        apt_update()  # no package lists yet on a fresh machine
        run(["apt-get", "download", "-qq", *_PACKAGES], "downloading Prometheus", cwd=folder)
    for package in folder.glob("*.deb"):
        run(["dpkg", "-x", package, folder], f"unpacking {package.name}")
        package.unlink()


def tool(name: str) -> Path:
    """The path of `promtool`, `amtool`, `prometheus` or `prometheus-alertmanager`."""
    return install_once("prometheus", "debian", _install) / "usr" / "bin" / name


def prometheus_server(config: str) -> tuple[ServerProcess, str]:
    """A server with this configuration that is not started yet, and its URL."""
    data = temporary_data("prometheus")
    (data / "prometheus.yml").write_text(config)
    (port,) = free_ports(1)
    server = ServerProcess(
        "Prometheus",
        [
            tool("prometheus"),
            f"--config.file={data / 'prometheus.yml'}",
            f"--storage.tsdb.path={data / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        data,
        is_ready=lambda: accepts_connections(port),
    )
    return server, f"http://127.0.0.1:{port}"
