"""Apache Kafka: one broker that is its own controller (KRaft), from Maven artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.stack.servers.base import (
    ServerProcess,
    accepts_connections,
    free_ports,
    install_once,
    program,
    run,
    temporary_data,
)

VERSION = "4.1.1"
_INSTALLED = f"{VERSION}-tools"  # the broker with its command-line tools
_POM = Path(__file__).parent / "kafka-pom.xml"
_MEMORY = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def _install(folder: Path) -> None:
    pom = folder / "pom.xml"
    shutil.copy(_POM, pom)
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    maven = program("mvn", "maven")
    run(
        [maven, "-B", "-q", "-f", pom, goal, f"-DoutputDirectory={folder / 'libs'}", "-DincludeScope=runtime"],
        "Kafka from Maven",
    )


def _libs() -> Path:
    return install_once("kafka", _INSTALLED, _install) / "libs"


def console_producer(folder: Path) -> Path:
    """Kafka's own producer of lines, as the script of its distribution starts it."""
    java, script = program("java", "openjdk-17-jre-headless"), folder / "kafka-console-producer.sh"
    log4j = Path(__file__).parent / "kafka-log4j2.properties"
    options = " ".join([*_MEMORY, f"-Dlog4j2.configurationFile={log4j}"])
    script.write_text(
        f"#!/bin/sh\nexec {java} {options} -cp '{_libs()}/*' org.apache.kafka.tools.ConsoleProducer \"$@\"\n"
    )
    script.chmod(0o755)
    return script


def _properties(data: Path, broker: int, controller: int) -> str:
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "log.dirs": data / "log",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # A broker that was killed is let in again after this long, not after nine seconds.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "auto.create.topics.enable": "false",  # the adapter states partitions; a typo must not make a topic
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def kafka_server() -> tuple[ServerProcess, str]:
    """A broker that is not started yet, and its address."""
    libs = _libs()
    java = program("java", "openjdk-17-jre-headless")
    data = temporary_data("kafka")
    broker, controller = free_ports(2)
    config = data / "server.properties"
    config.write_text(_properties(data, broker, controller))
    log4j = Path(__file__).parent / "kafka-log4j2.properties"
    base = [java, *_MEMORY, f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{libs}/*"]
    cluster = run([*base, "kafka.tools.StorageTool", "random-uuid"], "Kafka's StorageTool", timeout_s=300)
    run(
        [*base, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster.split()[-1], "-c", config],
        "Kafka's StorageTool",
        timeout_s=300,
    )
    server = ServerProcess(
        f"Kafka {VERSION}", [*base, "kafka.Kafka", config], data, is_ready=lambda: accepts_connections(broker)
    )
    return server, f"127.0.0.1:{broker}"
