"""Settings of review, from LIKENESS_REVIEW__…"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.review.console.app import ConsoleSettings
from services.review.unsolved.settings import UnsolvedSettings
from services.review.uploads import FilmSettings
from services.shared.settings import DatabaseSettings, ImageStoreSettings, ScannerSettings, ServiceSettings


class ReviewSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="LIKENESS_REVIEW__", env_nested_delimiter="__", extra="forbid")

    http_port: int = 8083
    grpc_port: int = 50065
    database: DatabaseSettings = DatabaseSettings(url="sqlite:///review.sqlite")
    # Originals of requests, their working and enhanced copies: apart from enrolled images and from search's probes.
    images: ImageStoreSettings = ImageStoreSettings(path=Path("requests"), bucket="likeness-requests")
    # What looks at originals before they are stored; nothing by default.
    scanner: ScannerSettings = ScannerSettings()
    # How long a candidate has to be looked at before it can be judged.
    min_view_s: float = Field(default=5.0, ge=0, le=600)
    # The operator's console: sessions, and where custodians' and auditors' pages read.
    console: ConsoleSettings = ConsoleSettings()
    films: FilmSettings = FilmSettings()
    # `evaluation.json` of `likeness evaluate`, made with the model in service: the error rates on released results.
    evaluation_path: Path | None = None
    # The unsolved file: how often kept probes are searched again.
    unsolved: UnsolvedSettings = UnsolvedSettings()
