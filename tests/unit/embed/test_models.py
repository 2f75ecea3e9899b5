"""Networks come from where the manifest says, are what it says, and answer as they did before preparation."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from services.embed.adapters.onnxruntime_session import OnnxruntimeSession
from services.embed.models.manifest import Manifest, ModelEntry, load_manifest
from services.embed.models.prepare import prepare
from services.embed.models.store import ModelStore, PreparedModel
from services.shared.errors import ConfigurationError

CPU = ["CPUExecutionProvider"]


def _prelu_network(slopes: list[float]) -> bytes:
    """Published as such networks are: the weights stand among the inputs too, the batch is fixed."""
    shape = [1, len(slopes), 4, 4]
    slope = numpy_helper.from_array(np.array(slopes, np.float32).reshape(-1, 1, 1), "slope")
    graph = helper.make_graph(
        [helper.make_node("PRelu", ["data", "slope"], ["out"])],
        "prelu",
        [
            helper.make_tensor_value_info("data", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("slope", TensorProto.FLOAT, [len(slopes), 1, 1]),
            helper.make_tensor_value_info("unused", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [slope],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def _entry(content: bytes, **changes: object) -> ModelEntry:
    values = {
        "name": "sample",
        "role": "recogniser",
        "kind": "sface",
        "file": "sample.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "licence": "none",
        "input": "noise",
        "dimension": 3,
    }
    return ModelEntry.model_validate({**values, **changes})


@pytest.fixture
def network() -> bytes:
    return _prelu_network([-0.5, 0.25, 1.75])


@pytest.fixture
def folder(tmp_path: Path, network: bytes) -> Path:
    """An administrator's folder."""
    path = tmp_path / "given"
    path.mkdir()
    (path / "sample.onnx").write_bytes(network)
    return path


def test_prelu_is_the_same_function_for_slopes_outside_zero_to_one(network: bytes) -> None:
    batch = np.random.default_rng(1).normal(size=(5, 3, 4, 4)).astype(np.float32)
    (out,) = OnnxruntimeSession(prepare(network, "recogniser"), providers=CPU).run(batch).values()
    slopes = np.array([-0.5, 0.25, 1.75], np.float32).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(out, np.where(batch > 0, batch, slopes * batch), rtol=1e-6, atol=1e-6)


def _mobile_network(rng: np.random.Generator) -> bytes:
    """The pattern of SFace in small: convolution, normalisation, PReLU, depthwise, and so on to a matrix product."""

    def noise(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    constants = {"w1": noise(4, 3, 3, 3), "w2": noise(4, 1, 3, 3), "b2": noise(4), "w3": noise(6, 4, 1, 1)}
    constants |= {"wg": noise(5, 6 * 36), "bg": noise(5)}
    nodes = []

    def normalise(value: str, channels: int) -> str:
        names = [f"{value}_{part}" for part in ("gain", "offset", "mean", "variance")]
        constants.update({name: noise(channels) for name in names[:3]})
        constants[names[3]] = rng.uniform(0.5, 2, channels).astype(np.float32)
        nodes.append(helper.make_node("BatchNormalization", [value, *names], [f"{value}_n"], epsilon=1e-3))
        return f"{value}_n"

    def bend(value: str, channels: int) -> str:
        constants[f"{value}_slope"] = rng.uniform(-1, 3, (channels, 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("PRelu", [value, f"{value}_slope"], [f"{value}_p"]))
        return f"{value}_p"

    nodes.append(helper.make_node("Conv", ["data", "w1"], ["c1"], pads=[1] * 4))
    value = bend(normalise("c1", 4), 4)
    nodes.append(helper.make_node("Conv", [value, "w2", "b2"], ["c2"], group=4, pads=[1] * 4))
    value = bend(normalise("c2", 4), 4)
    nodes.append(helper.make_node("Conv", [value, "w3"], ["c3"]))
    value = bend(normalise("c3", 6), 6)
    nodes.append(helper.make_node("Flatten", [value], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "wg", "bg"], ["g"], transB=1))
    out = normalise("g", 5)
    graph = helper.make_graph(
        nodes,
        "mobile",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def test_passes_leave_the_function_of_a_network_as_it_is() -> None:
    rng = np.random.default_rng(6)
    network = _mobile_network(rng)
    prepared = prepare(network, "recogniser")
    kinds = {node.op_type for node in onnx.load_model_from_string(prepared).graph.node}
    assert kinds == {"Conv", "Relu", "Add", "Mul", "Flatten", "Gemm"}
    before, after = OnnxruntimeSession(network, providers=CPU), OnnxruntimeSession(prepared, providers=CPU)
    for _ in range(5):
        data = rng.normal(size=(1, 3, 6, 6)).astype(np.float32)
        (expected,), (found,) = before.run(data).values(), after.run(data).values()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_preparation_is_repeatable_and_strips_what_dangles(network: bytes) -> None:
    prepared = prepare(network, "recogniser")
    assert prepared == prepare(network, "recogniser")
    assert [item.name for item in onnx.load_model_from_string(prepared).graph.input] == ["data"]


def test_blocked_weights_are_folded_as_the_standard_says() -> None:
    rng = np.random.default_rng(2)
    quantised = rng.integers(-128, 127, (4, 6), dtype=np.int8)
    scale = rng.uniform(0.01, 1, (4, 2)).astype(np.float32)
    zero = rng.integers(-8, 8, (4, 2), dtype=np.int8)
    arrays: dict[str, np.ndarray] = {"quantised": quantised, "scale": scale, "zero": zero}
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", list(arrays), ["weight"], axis=1, block_size=3),
            helper.make_node("Gemm", ["data", "weight"], ["out"], transB=1),
        ],
        "blocked",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 6])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    prepared = onnx.load_model_from_string(prepare(model.SerializeToString(), "recogniser"))
    (weight,) = (numpy_helper.to_array(item) for item in prepared.graph.initializer if item.name == "weight")
    blocks = (quantised.reshape(4, 2, 3).astype(np.float32) - zero[:, :, None]) * scale[:, :, None]
    np.testing.assert_array_equal(weight, blocks.reshape(4, 6))


def test_a_folder_comes_before_the_package(tmp_path: Path, folder: Path, network: bytes) -> None:
    store = ModelStore(tmp_path / "cache")
    path = store.fetch(_entry(network), [folder], prepare)
    assert store.open(_entry(network)).path == path
    assert store.open(_entry(network)).read() == prepare(network, "recogniser")


def test_a_network_that_no_source_has_is_named_with_what_to_do(tmp_path: Path, network: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"no source has sample") as caught:
        ModelStore(tmp_path / "cache").fetch(_entry(network), [tmp_path], prepare)
    assert "--from" in caught.value.advice


def test_other_bytes_in_the_folder_are_refused(tmp_path: Path, folder: Path, network: bytes) -> None:
    (folder / "sample.onnx").write_bytes(network + b"\0")
    with pytest.raises(ConfigurationError, match="expected"):
        ModelStore(tmp_path / "cache").fetch(_entry(network), [folder], prepare)


@pytest.mark.parametrize("part", ["sources/sample.onnx", "prepared/*.onnx", "prepared/*.json"])
def test_one_wrong_byte_anywhere_stops_the_start(tmp_path: Path, folder: Path, network: bytes, part: str) -> None:
    store = ModelStore(tmp_path / "cache")
    store.fetch(_entry(network), [folder], prepare)
    (path,) = (tmp_path / "cache" / "models").glob(part)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        store.open(_entry(network))


def test_a_file_that_changes_after_the_start_is_not_loaded(tmp_path: Path, folder: Path, network: bytes) -> None:
    store = ModelStore(tmp_path / "cache")
    store.fetch(_entry(network), [folder], prepare)
    opened = store.open(_entry(network))
    opened.path.write_bytes(opened.path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ConfigurationError, match="expected") as caught:
        opened.read()
    assert "was changed" in caught.value.advice


def test_a_pinned_preparation_must_come_out_the_same(tmp_path: Path, folder: Path, network: bytes) -> None:
    with pytest.raises(ConfigurationError, match="pins"):
        ModelStore(tmp_path / "cache").fetch(_entry(network, prepared_sha256="0" * 64), [folder], prepare)


def test_an_administrators_manifest_adds_and_replaces(tmp_path: Path) -> None:
    extra = tmp_path / "models.toml"
    extra.write_text(
        '[[model]]\nname = "other"\nrole = "recogniser"\nkind = "arcface"\nfile = "other.onnx"\n'
        f'sha256 = "{"a" * 64}"\nlicence = "ours"\ninput = "RGB"\ndimension = 512\n'
    )
    manifest = load_manifest(extra)
    assert manifest.get("other", "recogniser").dimension == 512
    assert manifest.get("yunet-2023mar-int8bq", "detector").licence
    with pytest.raises(ConfigurationError, match="no detector named 'other'"):
        manifest.get("other", "detector")
    extra.write_text('[[model]]\nname = "other"\n')
    with pytest.raises(ConfigurationError, match=r"models\.toml"):
        load_manifest(extra)


def test_the_manifest_pins_what_is_in_the_cache(manifest: Manifest, prepared_models: dict[str, PreparedModel]) -> None:
    assert set(prepared_models) == {"detector", "recogniser"}
    for model in prepared_models.values():
        assert model.entry.prepared_sha256 == model.sha256, "the pin in models.toml no longer fits preparation"


def test_a_provider_that_is_missing_is_an_error_unless_falling_back_is_allowed(network: bytes) -> None:
    prepared = prepare(network, "recogniser")
    wanted = ["NoSuchExecutionProvider", *CPU]
    with pytest.raises(ConfigurationError, match="NoSuchExecutionProvider is not there"):
        OnnxruntimeSession(prepared, providers=wanted)
    assert OnnxruntimeSession(prepared, providers=wanted, allow_fallback=True).provider == CPU[0]
    with pytest.raises(ConfigurationError, match="cannot run the network"):
        OnnxruntimeSession(b"no network", providers=CPU)
