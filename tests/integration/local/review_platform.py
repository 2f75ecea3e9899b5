"""Runs the supervisor on review alone, quick to start and to kill: `python -m … DATA HTTP_PORT GRPC_PORT`."""

import os
import sys
from pathlib import Path

from rich.console import Console

from services.local.cli import ConsoleReporter
from services.local.deployment import DataFolder, ServicePorts
from services.local.supervisor import Supervisor
from services.shared.clock import SystemClock
from services.shared.errors import LikenessError


def main() -> int:
    data = DataFolder(Path(sys.argv[1]))
    ports = {"review": ServicePorts(int(sys.argv[2]), int(sys.argv[3]))}
    try:
        Supervisor(data, ports, SystemClock(), ConsoleReporter(Console(), data, ports), os.environ).run()
    except LikenessError as error:
        print(f"{error.detail}\n{error.advice}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
