"""Which model embed runs: asked for at start and again from time to time, remembered while embed is away."""

from __future__ import annotations

from threading import Lock

from services.ingest.ports import EnrolmentLedger, FaceAnalyser
from services.shared.biometric import ModelProvenance
from services.shared.errors import DependencyUnavailable


class CurrentModel:
    """The model that new enrolments are keyed by. Safe for several threads."""

    def __init__(self, analyser: FaceAnalyser, ledger: EnrolmentLedger) -> None:
        self._analyser = analyser
        self._ledger = ledger
        self._lock = Lock()
        self._model_id: str | None = None

    @property
    def is_known(self) -> bool:
        return self._model_id is not None

    def model_id(self) -> str:
        """The id of the model in use; of the last one in use while embed does not answer.

        Raises DependencyUnavailable when there never was one.
        """
        if self._model_id is None:
            with self._lock:
                if self._model_id is None:
                    self._find_out()
        if self._model_id is None:
            raise DependencyUnavailable(
                "The model is not known yet, because embed does not answer.", advice="Try again in a few seconds."
            )
        return self._model_id

    def refresh(self) -> ModelProvenance:
        """Ask embed. Raises DependencyUnavailable."""
        model = self._analyser.describe_model()
        self._model_id = model.model_id
        return model

    def _find_out(self) -> None:
        try:
            self.refresh()
        except DependencyUnavailable:
            self._model_id = self._ledger.last_model_id()
