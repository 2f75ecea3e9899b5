"""Networks on onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnxruntime

from services.embed.ports import Tensor
from services.shared.errors import ConfigurationError


class OnnxruntimeSession:
    """One network on the first of the wanted providers that this machine has.

    Raises ConfigurationError when that is not the first one named and `allow_fallback` is off, or the network is not
    one that onnxruntime can run.
    """

    def __init__(
        self, model: bytes, *, providers: Sequence[str], allow_fallback: bool = False, threads: int = 1
    ) -> None:
        usable = _usable(providers, allow_fallback=allow_fallback)
        try:
            self._session = onnxruntime.InferenceSession(model, _options(threads), providers=usable)
        except Exception as error:  # onnxruntime's errors share no base class
            raise ConfigurationError(
                f"onnxruntime cannot run the network: {error}", advice="Run `likeness models fetch`, check providers."
            ) from error
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]
        if self.provider != providers[0] and not allow_fallback:
            raise _missing(providers[0], [self.provider])

    def run(self, batch: Tensor) -> Mapping[str, Tensor]:
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._input: batch}), strict=True))


def runtime_name() -> str:
    return f"onnxruntime {onnxruntime.__version__}"


def _usable(providers: Sequence[str], *, allow_fallback: bool) -> list[str]:
    available = onnxruntime.get_available_providers()
    usable = [name for name in providers if name in available]
    if providers[0] not in available and not allow_fallback:
        raise _missing(providers[0], available)
    if not usable and not allow_fallback:
        raise _missing(providers[0], available)
    return usable or ["CPUExecutionProvider"]


def _missing(wanted: str, available: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(
        f"execution provider {wanted} is not there; this machine has {', '.join(available)}",
        advice="Install the `gpu` extra and the driver, or set LIKENESS_EMBED__MODEL__ALLOW_FALLBACK=true.",
    )


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads of several workers take the cores from each other: two to three times slower.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # onnxruntime's own arena never shrinks: one picture with many faces would cost its memory for ever. The C library's
    # allocator is as fast once it keeps what is freed (services.shared.memory).
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return options
