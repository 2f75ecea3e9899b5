"""jnbis: somebody else's reader of ANSI/NIST-ITL transactions, in Java, from Maven. It reads and does not write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.stack.servers.base import ServerUnavailable, install_once, program, run

_ARTIFACT = "com.github.mhshams:jnbis:2.1.2"
_SHA256 = "275046559dbfcf11adf0811fcc71646627f00964b8421029b2d1e8340b292fe5"
_JAR = "jnbis-2.1.2.jar"
_READER = Path(__file__).parent / "ReadType10.java"


def _install(folder: Path) -> None:
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
    command = [program("mvn", "maven"), "-B", "-q", goal, f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={folder}"]
    run(command, "jnbis from Maven", cwd=folder)
    found = hashlib.sha256((folder / _JAR).read_bytes()).hexdigest()
    if found != _SHA256:
        raise ServerUnavailable(f"{_JAR} has the SHA-256 {found}, not the one that is pinned")


def read_with_jnbis(*transactions: Path) -> list[Mapping[str, Any]]:
    """What jnbis says of each file: `transaction`, `texts` and `faces`, whose `image` is in base64."""
    jar = install_once("jnbis", "2.1.2", _install) / _JAR
    program("javac", "openjdk-17-jdk-headless")  # `java` compiles a single file only where a compiler is
    java = program("java", "openjdk-17-jdk-headless")
    said = run([java, "-Xmx256m", "-cp", jar, _READER, *transactions], "jnbis", timeout_s=300)
    return [json.loads(line) for line in said.splitlines()]
