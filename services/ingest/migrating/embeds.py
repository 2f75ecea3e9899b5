"""The embed of the ledger's own model and the one of a candidate, whichever address each listens at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.ingest.ports import FaceAnalyser
from services.rpc.v1 import embed_pb2
from services.shared.biometric import ImageAnalysis, ModelProvenance
from services.shared.errors import Conflict, DependencyUnavailable


class Embeds:
    """Every embed that ingest knows, told apart by the model that each runs. The first is the one of
    `PEERS__EMBED`."""

    def __init__(self, embeds: Sequence[FaceAnalyser]) -> None:
        self._embeds = tuple(embeds)

    @property
    def first(self) -> FaceAnalyser:
        return self._embeds[0]

    @property
    def has_second(self) -> bool:
        return len(self._embeds) > 1

    def running(self, model_id: str) -> FaceAnalyser:
        """The one that runs this model now. Raises DependencyUnavailable when none of those that answer does."""
        for embed in self._embeds:
            try:
                found = embed.describe_model().model_id
            except DependencyUnavailable:
                continue
            if found == model_id:
                return embed
        raise DependencyUnavailable(
            f"No embed that answers runs {model_id}.",
            advice="Start an embed with that model at the address of CANDIDATE_EMBED or PEERS__EMBED.",
        )

    def candidate(self, base_model_id: str) -> ModelProvenance:
        """The model that is not the base. Raises Conflict when no embed that answers runs another."""
        for embed in self._embeds:
            try:
                model = embed.describe_model()
            except DependencyUnavailable:
                continue
            if model.model_id != base_model_id:
                return model
        raise Conflict(
            "No embed that answers runs another model than the one in service.",
            advice="Start an embed with the candidate model at the address of LIKENESS_INGEST__CANDIDATE_EMBED.",
            code="no_candidate",
        )


class BaseModelSource(Protocol):
    """`services.ingest.adapters.sql_migrations.SqlMigrations`."""

    def base_model_id(self) -> str | None: ...


class BaseEmbed:
    """The embed of the ledger's own model: the first one, unless a finished migration says otherwise."""

    def __init__(self, embeds: Embeds, migrations: BaseModelSource) -> None:
        self._embeds = embeds
        self._migrations = migrations
        self._chosen: FaceAnalyser | None = None

    def analyse(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, *, timeout_s: float
    ) -> ImageAnalysis:
        # Where there is one embed alone there is nothing to choose, and no need to ask it before every image.
        if self._chosen is None and self._embeds.has_second:
            self.describe_model()
        return (self._chosen or self._embeds.first).analyse(image, selection, timeout_s=timeout_s)

    def describe_model(self) -> ModelProvenance:
        """Chooses again, then asks. Raises DependencyUnavailable."""
        base = self._migrations.base_model_id() if self._embeds.has_second else None
        if base is None:
            return self._embeds.first.describe_model()
        try:
            self._chosen = self._embeds.running(base)
        except DependencyUnavailable:
            if self._chosen is None:
                raise
            # What it runs, if it answers, is told as it is: a mismatch is found where models are compared.
        return self._chosen.describe_model()
