"""Networks on onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime

from services.embed.ports import Pixels, Tensor
from services.shared.errors import ConfigurationError

CPU = "CPUExecutionProvider"
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
# What every provider is told. Heuristic: the exhaustive search takes seconds for every shape. No TF32: its ten bits of
# mantissa are seen in the templates.
_PROVIDER_OPTIONS: Mapping[str, Mapping[str, str]] = {
    _CUDA: {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"},
}


class OnnxruntimeSession:
    """One network on the first of the wanted providers that this machine has.

    On a GPU inputs are copied into a buffer that stays on the device while the shape does; there it is not safe for
    several threads. Raises ConfigurationError when the provider is not the first one named and `allow_fallback` is off,
    or the network is not one that onnxruntime can run.
    """

    def __init__(
        self,
        model: bytes,
        *,
        providers: Sequence[str],
        allow_fallback: bool = False,
        threads: int = 1,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """`options`: further options of the first provider, by onnxruntime's names."""
        usable = _usable(providers, allow_fallback=allow_fallback)
        described = [(name, dict(_PROVIDER_OPTIONS.get(name, {}))) for name in usable]
        described[0][1].update(options or {})
        try:
            self._session = onnxruntime.InferenceSession(model, _options(threads), providers=described)
        except Exception as error:  # onnxruntime's errors share no base class
            raise ConfigurationError(
                f"onnxruntime cannot run the network: {error}", advice="Run `likeness models fetch`, check providers."
            ) from error
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]
        if self.provider != providers[0] and not allow_fallback:
            raise _missing(providers[0], [self.provider])
        self._bound: _Bound | None = None

    def run(self, batch: Pixels | Tensor) -> Mapping[str, Tensor]:
        if self.provider in {_CUDA, _TENSORRT}:
            return dict(zip(self._outputs, self._bound_to(batch).run(batch), strict=True))
        return self.run_unbound(batch)

    def run_unbound(self, batch: Pixels | Tensor) -> Mapping[str, Tensor]:
        """The plain way, which copies in and out of memory that is found anew each time."""
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._input: batch}), strict=True))

    def _bound_to(self, batch: Pixels | Tensor) -> _Bound:
        """The device's buffers for the shape of this batch; those for another shape are let go."""
        if self._bound is None or self._bound.shape != batch.shape:
            self._bound = _Bound(self._session, self._input, self._outputs, batch)
        return self._bound


class _Bound:
    """Inputs and outputs of one shape, bound to memory of the device."""

    def __init__(self, session: Any, input_name: str, outputs: Sequence[str], batch: Pixels | Tensor) -> None:
        self.shape = batch.shape
        self._session = session
        self._device_input = onnxruntime.OrtValue.ortvalue_from_numpy(batch, "cuda", 0)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(input_name, self._device_input)
        for name in outputs:
            self._binding.bind_output(name, "cuda", 0)

    def run(self, batch: Pixels | Tensor) -> list[Tensor]:
        self._device_input.update_inplace(batch)
        self._session.run_with_iobinding(self._binding)
        outputs: list[Tensor] = self._binding.copy_outputs_to_cpu()
        return outputs


def runtime_name() -> str:
    return f"onnxruntime {onnxruntime.__version__}"


def _usable(providers: Sequence[str], *, allow_fallback: bool) -> list[str]:
    available = onnxruntime.get_available_providers()
    usable = [name for name in providers if name in available]
    if providers[0] not in available and not allow_fallback:
        raise _missing(providers[0], available)
    return usable or [CPU]


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
    # What goes wrong is raised. Told as errors are also plans that cuDNN tries and gives up for others.
    options.log_severity_level = 4
    return options
