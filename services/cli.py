"""The command line: assembles the parts that each service and the local platform bring."""

import typer

app = typer.Typer(no_args_is_help=True, help=__doc__)


def main() -> None:
    app()
