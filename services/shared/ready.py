"""`python -m services.shared.ready`: exit code 0 when this container's service is ready. For health checks."""

from __future__ import annotations

import http.client
import os
import sys

HTTP_PORTS = {"search": 8080, "ingest": 8081, "audit": 8082, "review": 8083, "embed": 8084}
_TIMEOUT_S = 2.0


def main() -> int:
    service = os.environ["LIKENESS_SERVICE"]
    port = int(os.environ.get(f"LIKENESS_{service.upper()}__HTTP_PORT", HTTP_PORTS[service]))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        sys.stdout.write(answer.read(1000).decode("utf-8", "replace") + "\n")  # why not, where an operator looks
        is_ready = answer.status == 200
    except OSError as error:
        sys.stdout.write(f"{service} does not answer: {error}\n")
        is_ready = False
    finally:
        connection.close()
    return 0 if is_ready else 1


if __name__ == "__main__":
    sys.exit(main())
