"""Send one custody image to Likeness, as JSON on Kafka. Needs `pip install kafka-python`, nothing of Likeness.

    python send_custody_image.py picture.jpg --owner northshire --subject-id NS-000123 --bootstrap-servers kafka:9092

With --dry-run it prints the record (key, tab, value) instead, which kcat sends as well:

    python send_custody_image.py picture.jpg --owner northshire --subject-id NS-000123 --dry-run \
      | kcat -P -b kafka:9092 -t likeness.custody-image-received.v1 -K '\t' -H content-type=application/json \
          -X message.max.bytes=35000000
"""

from __future__ import annotations

import argparse
import base64
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

TOPIC = "likeness.custody-image-received.v1"


def record(arguments: argparse.Namespace) -> tuple[str, bytes]:
    """Key and value. The key keeps what concerns one subject in order; the event_id makes sending twice harmless."""
    value = {
        "event_id": str(uuid.uuid4()),
        "occurred_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "watchlist_id": arguments.watchlist,
        "owner": arguments.owner,
        "subject_id": arguments.subject_id,
        "lawful_basis": arguments.lawful_basis,
        "captured_on": arguments.captured_on,
        "custody_reference": arguments.custody_reference,
        "is_notice_given": True,
        "birth_band": arguments.birth_band,
        "capture_device": arguments.capture_device,
        "image": base64.b64encode(arguments.image.read_bytes()).decode("ascii"),
    }
    return f"{arguments.owner}/{arguments.subject_id}", json.dumps(value).encode()


def send(servers: str, key: str, value: bytes) -> None:
    from kafka import KafkaProducer  # noqa: PLC0415 - --dry-run needs none

    producer = KafkaProducer(bootstrap_servers=servers.split(","), acks="all", max_request_size=34 * 1024 * 1024)
    headers = [("content-type", b"application/json"), ("schema-version", b"1")]
    producer.send(TOPIC, key=key.encode(), value=value, headers=headers).get(timeout=30)
    producer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("image", type=Path)
    parser.add_argument("--owner", required=True)
    parser.add_argument("--subject-id", required=True)
    parser.add_argument("--watchlist", default="custody")
    parser.add_argument("--lawful-basis", default="pace_1984_s64a")
    parser.add_argument("--captured-on", default=datetime.now(UTC).date().isoformat())
    parser.add_argument("--custody-reference", default="")
    parser.add_argument("--birth-band", default="", choices=["", "under_18", "18_and_over"])
    parser.add_argument("--capture-device", default="")
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    key, value = record(arguments)
    if arguments.dry_run:
        print(f"{key}\t{value.decode()}")  # noqa: T201
    else:
        send(arguments.bootstrap_servers, key, value)


if __name__ == "__main__":
    main()
