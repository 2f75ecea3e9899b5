"""The platform that is evaluated: one that runs already, or a fresh one on a temporary data folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jwt

from services.local import background
from services.local.deployment import HOST, DataFolder
from services.shared.errors import ConfigurationError

# The protocol enrols every gallery picture, bystanders or not: the most prominent face is the subject. A custodian
# would crop such a picture, and in service it is refused.
_EVALUATION_SETTINGS = {
    "LIKENESS_INGEST__QUALITY__DEFAULT__RIVAL_SIZE_RATIO": "1",
    "LIKENESS_INGEST__QUALITY__DEFAULT__RIVAL_DETECTION_SCORE": "1",
    # One person searches everything, every picture nine times where it is made worse, and nothing stored is any secret.
    "LIKENESS_SEARCH__NEAR_DUPLICATES__PER_CASE": "1000000",
    "LIKENESS_SEARCH__NEAR_DUPLICATES__PER_PERSON": "1000000",
    "LIKENESS_SEARCH__NEAR_DUPLICATES__PROBES_PER_PERSON": "1000000",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where to enrol and search, with token files of a custodian and an operator of one force."""

    ingest_url: str
    search_url: str
    custodian_token: Path
    operator_token: Path

    def owner(self) -> str:
        """The custodian's force, whose references the evaluation's will be. Raises ConfigurationError."""
        try:
            claims = jwt.decode(self.custodian_token.read_text("utf-8").strip(), options={"verify_signature": False})
            return str(claims["force"])
        except (OSError, jwt.PyJWTError, KeyError) as error:
            raise ConfigurationError(
                f"The custodian's token {self.custodian_token} cannot be read: {error}",
                advice="Give --custodian-token FILE; `likeness up` writes DATA/tokens/custodian.token.",
            ) from error


@contextmanager
def fresh_platform() -> Iterator[Target]:
    """A platform of its own on free ports and temporary data; all of it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="likeness-evaluate-") as folder, _environment(_EVALUATION_SETTINGS):
        data = DataFolder(Path(folder))
        try:
            state = background.start(data, "auto", dies_with_caller=True)
            yield Target(
                ingest_url=f"http://{HOST}:{state.ports['ingest'].http}",
                search_url=f"http://{HOST}:{state.ports['search'].http}",
                custodian_token=data.tokens / "custodian.token",
                operator_token=data.tokens / "operator.token",
            )
        finally:
            background.stop(data)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Settings for the platform's processes; what the caller has set already stands."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
