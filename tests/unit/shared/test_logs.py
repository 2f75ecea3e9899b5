"""What libraries say is in the log as services say it."""

from __future__ import annotations

import json
import logging
import sys

from services.shared.telemetry import _JsonLine


def test_a_library_makes_no_line_of_its_own() -> None:
    try:
        int("none")
    except ValueError:
        record = logging.LogRecord(
            "library", logging.ERROR, "file", 1, "asked for %s", ("x\r\ny",), exc_info=sys.exc_info()
        )
    line = _JsonLine("review").format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert (said["event"], said["service"], said["level"]) == ("asked for x\r\ny", "review", "error")
    assert "\nValueError: " in said["exception"], "a traceback has lines, the log has one"
    assert said["timestamp"].endswith("Z")
