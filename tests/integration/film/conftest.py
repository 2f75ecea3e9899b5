from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from services.embed.film.analyse import AnalyseFilm
from services.embed.film.settings import FilmSettings
from services.embed.plan import plan_workers
from services.embed.settings import EmbedSettings, InferenceSettings, ModelSettings
from services.embed.workers.inference_pool import InferencePool
from services.shared.biometric import ModelProvenance
from services.shared.telemetry import Metrics


@pytest.fixture(scope="module")
def inference() -> Iterator[tuple[InferencePool, ModelProvenance]]:
    """Real inference workers with the stand-in for networks, which sees one face in every picture."""
    settings = EmbedSettings(model=ModelSettings(kind="stub"), inference=InferenceSettings(workers=1))
    plan = plan_workers(settings)
    pool = InferencePool(settings.inference, plan.order, Metrics(CollectorRegistry()))
    pool.start()
    yield pool, plan.model
    pool.close()


def reader(inference: tuple[InferencePool, ModelProvenance], **settings: object) -> AnalyseFilm:
    pool, model = inference
    return AnalyseFilm(FilmSettings.model_validate(settings), pool, model, Metrics(CollectorRegistry()))
