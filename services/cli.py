"""The command line: assembles the parts that each service and the local platform bring.

Only the part whose command is called is imported, so that `likeness --help` does not wait for every service.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, NoReturn

import typer

HELP = (
    "Likeness: retrospective facial matching for a police identification unit. "
    "It gives investigators a potential name; it never identifies anyone."
)

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Part:
    """Where a command comes from, and what the list of commands says of it.

    `attribute` is a `register(app)` function that adds the command, or a Typer app that becomes a group of that name.
    """

    module: str
    attribute: str
    help: str

    def add_to(self, app: typer.Typer, name: str) -> None:
        found: Callable[[typer.Typer], None] | typer.Typer = getattr(import_module(self.module), self.attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            found(app)


_LOCAL = "services.local.cli"
PARTS = {
    "up": Part(_LOCAL, "register", "Start every service on this machine, and keep them running until Ctrl-C."),
    "down": Part(_LOCAL, "register", "Stop the platform that runs on a data folder; nothing is lost."),
    "status": Part(_LOCAL, "register", "Say whether a platform runs, and what each service says of itself."),
    "token": Part(_LOCAL, "register", "Issue a token of the local issuer and print it."),
    "revoke": Part(_LOCAL, "register", "Revoke a token, or every token of a person, at once."),
    "backup": Part("services.local.backup.cli", "register", "Back up a platform of this machine, while it runs."),
    "restore": Part("services.local.backup.cli", "register", "Put a backup into an empty data folder, checked."),
    "keys": Part("services.local.backup.keys_cli", "keys_app", "Change keys that no service changes by itself."),
    "images": Part("services.local.backup.images_cli", "images_app", "Copy what an image store holds, and back."),
    "demo": Part("services.local.demo.cli", "register", "Show the whole platform at the unit's size, on real faces."),
    "enrol": Part("services.ingest.cli", "register", "Enrol the images of a folder by its manifest; resumable."),
    "film": Part("services.search.film.cli", "register", "Find the people in a film, and search those that you pick."),
    "films": Part("services.search.film.keeping_cli", "films_app", "List films that are kept, give one up, erase one."),
    "identify": Part("services.search.cli", "register", "Search one probe and print the ranked candidates."),
    "evaluate": Part(
        "services.local.evaluation.cli", "register", "Measure error rates on a labelled set, with intervals."
    ),
    "cluster": Part(
        "services.local.cluster.cli", "register", "Group the faces of a folder of pictures by who they are."
    ),
    "audit": Part("services.audit.cli", "audit_app", "Verify and export the tamper-evident log."),
    "assurance": Part(
        "services.local.assurance.cli", "assurance_app", "Model card, DPIA and equality assessment, bound to what runs."
    ),
    "transparency": Part(
        "services.audit.statistics.cli", "transparency_app", "Publish figures from the audit log, and check them."
    ),
    "disclosure": Part(
        "services.local.disclosure.cli", "disclosure_app", "Disclose a search, check a disclosure, run a search again."
    ),
    "policy": Part("services.search.policy.cli", "policy_app", "Try policies on cases and on past searches."),
    "agreements": Part(
        "services.search.agreements.cli", "agreements_app", "Sign, register and withdraw owners' agreements."
    ),
    "partners": Part(
        "services.search.partners.cli", "partners_app", "Keys and agreements with other forces' platforms."
    ),
    "gallery": Part("services.ingest.gallery_cli", "gallery_app", "Erase, review, reconcile, rebuild, compare."),
    "flags": Part(
        "services.ingest.flags.cli", "flags_app", "Probable duplicates and odd images that a custodian should look at."
    ),
    "export": Part(
        "services.ingest.exports.cli", "export_app", "Give references to another body as ANSI/NIST-ITL Type-10."
    ),
    "subject": Part("services.ingest.access.cli", "subject_app", "Give a subject what is held of them."),
    "dlq": Part("services.ingest.gallery_cli", "dlq_app", "List and replay dead letters of the custody feed."),
    "model": Part("services.ingest.migrating.cli", "model_app", "Move the gallery to another model, step by step."),
    "models": Part("services.embed.cli", "models_app", "Fetch, prepare and list the networks that Likeness runs."),
}


def assemble(arguments: Sequence[str]) -> typer.Typer:
    """The application for one call: the named command alone, or names and help of all of them."""
    app = typer.Typer(no_args_is_help=True, help=HELP, pretty_exceptions_enable=False, add_completion=False)
    app.callback()(_root)  # with one, a lone command stays a command
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    if name in PARTS:
        PARTS[name].add_to(app, name)
    else:
        for listed, part in PARTS.items():
            app.command(listed, help=part.help)(_root)
    return app


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"likeness {version('likeness')}")  # noqa: T201
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run a command; what Likeness refuses on purpose, and what the file system refuses, is told without a traceback.

    Exit status 1 for both; 2 for a command that is written wrongly.
    """
    from services.shared.errors import LikenessError  # noqa: PLC0415 - `likeness --help` stays quick

    try:
        assemble(sys.argv[1:])()
    except LikenessError as error:
        _fail(error.detail, error.advice)
    except OSError as error:
        if error.filename is None and error.errno not in _DISK_FULL:
            raise  # nothing that a person's path explains
        where = f" ({error.filename})" if error.filename is not None else ""
        _fail(f"{error.strerror}{where}.", "Give a path that exists and that you may read and write, with room left.")


def _fail(detail: str, advice: str) -> NoReturn:
    print(f"likeness: {detail}", file=sys.stderr)  # noqa: T201
    if advice:
        print(advice, file=sys.stderr)  # noqa: T201
    sys.exit(1)


if __name__ == "__main__":
    main()
