"""Start Kafka, MinIO, Milvus and PostgreSQL as processes and print the settings that put a platform on them.

    python scripts/stack_up.py > stack.env &
    set -a; . ./stack.env; set +a; likeness up

Runs until Ctrl-C; the servers' data is removed then.
"""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Event

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.stack.databases import database_on
from tests.stack.real_platform import DATABASES, Names, Servers, settings
from tests.stack.servers.base import ServerProcess
from tests.stack.servers.kafka import kafka_server
from tests.stack.servers.milvus import milvus_server
from tests.stack.servers.minio import s3_server
from tests.stack.servers.postgres import postgres_server


def main() -> None:
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as stack:

        def started(server: ServerProcess) -> None:
            print(f"starting {server.name}", file=sys.stderr, flush=True)
            stack.callback(server.discard)
            server.start()

        kafka, kafka_address = kafka_server()
        started(kafka)
        store, s3_address = s3_server()
        started(store)
        postgres, postgres_url = postgres_server()
        started(postgres)
        milvus, milvus_uri = milvus_server()
        started(milvus)
        databases = {name: stack.enter_context(database_on(postgres_url)) for name in DATABASES}
        servers = Servers(kafka_address, milvus_uri, s3_address, postgres_url)
        for name, value in settings(servers, Names.new(), databases).items():
            print(f"{name}={value}")
        sys.stdout.flush()
        print("running; Ctrl-C ends it", file=sys.stderr, flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
