"""Settings of review, from LIKENESS_REVIEW__…"""

from pydantic_settings import SettingsConfigDict

from services.shared.settings import ServiceSettings


class ReviewSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="LIKENESS_REVIEW__", env_nested_delimiter="__", extra="forbid")

    http_port: int = 8083
    grpc_port: int = 50065
