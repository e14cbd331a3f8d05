"""export: an adapter as an ONNX graph for other runtimes, checked against the original before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.errors import ExportError, MissingExtra
from crossfade.files import atomic_file
from crossfade.methods.base import Adapter
from crossfade.spaces import Modality, Space

__all__ = ["export_onnx"]

TOLERANCE = 1e-5
"""The largest difference of any component of a unit vector that counts as the same output."""

CHECKED_ROWS = 64


def export_onnx(adapter: Adapter, path: str | Path, *, modality: Modality, opset: int = 17, seed: int = 0) -> float:
    """Write the map of one modality as ONNX, after running it in onnxruntime on random vectors.

    The graph has the input ``vectors`` float32 [batch, d_source], for two-encoder adapters also ``old`` float32
    [batch, d_target], and the output ``mapped`` float32 [batch, d_target]; any batch.

    Args:
        adapter: any adapter.
        path: the .onnx file.
        modality: whose map to write; an adapter may treat images and texts differently.
        opset: version of the ONNX operators, at least 13.
        seed: of the vectors that the check runs on.

    Returns:
        The largest absolute difference to the original's output, over all components and vectors.

    Raises:
        FitError: the adapter was not fitted for this modality.
        ExportError: the graph is not valid, or gives another output than the original.
        MissingExtra: onnx or onnxruntime is not installed.
        StorageError: the file cannot be written.
    """
    adapter.require_modality(modality)
    try:
        import onnx
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtra(error.name or "onnx", extra="onnx", feature="ONNX export") from error
    serialized = _model(adapter, modality, opset).SerializeToString()
    generator = np.random.default_rng(seed)
    inputs = {"vectors": _random(adapter.source, generator)}
    if adapter.two_encoders:
        inputs["old"] = _random(adapter.target, generator)
    try:
        onnx.checker.check_model(onnx.load_from_string(serialized))
        session = onnxruntime.InferenceSession(serialized, providers=["CPUExecutionProvider"])
        (mapped,) = session.run(["mapped"], inputs)
    except Exception as error:  # onnxruntime's errors share no public base class
        raise ExportError(f"The ONNX graph could not be run ({error}). Try another opset than {opset}.") from error
    expected = adapter.map(inputs["vectors"], modality, old=inputs.get("old"))
    difference = float(np.abs(mapped - expected).max())
    scale = max(1.0, float(np.abs(expected).max()))
    if not difference <= TOLERANCE * scale:
        raise ExportError(
            f"The exported graph must give the adapter's output to within {TOLERANCE * scale:.0e}; it differs by "
            f"{difference:.1e}. Nothing was written; please report this adapter's config.json."
        )
    with atomic_file(Path(path)) as temporary:
        temporary.write_bytes(serialized)
    return difference


def _random(space: Space, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    vectors = generator.standard_normal((CHECKED_ROWS, space.dimension))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit, dtype=np.float32)


def _model(adapter: Adapter, modality: Modality, opset: int) -> Any:
    from onnx import TensorProto, helper

    graph = _OnnxGraph()
    result = adapter.draw(graph, modality)
    graph.nodes.append(helper.make_node("Identity", [result], ["mapped"]))
    inputs = [helper.make_tensor_value_info(graph.vectors, TensorProto.FLOAT, ["batch", adapter.source.dimension])]
    if adapter.two_encoders:
        inputs.append(helper.make_tensor_value_info(graph.old, TensorProto.FLOAT, ["batch", adapter.target.dimension]))
    output = helper.make_tensor_value_info("mapped", TensorProto.FLOAT, ["batch", adapter.target.dimension])
    drawn = helper.make_graph(graph.nodes, "adapter", inputs, [output], initializer=graph.constants)
    model = helper.make_model(drawn, producer_name="crossfade", opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    for key, space in (("source", adapter.source), ("target", adapter.target)):
        model.metadata_props.add(key=f"{key}_fingerprint", value=space.fingerprint)
        model.metadata_props.add(key=f"{key}_model", value=space.model)
    model.metadata_props.add(key="modality", value=modality)
    return model


class _OnnxGraph:
    """The :class:`~crossfade.methods.base.Graph` that adapters draw into."""

    def __init__(self) -> None:
        self.vectors = "vectors"
        self.old = "old"
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: npt.NDArray[np.float32] | float) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return name

    def apply(self, operator: str, *inputs: str, attributes: Mapping[str, Any] | None = None) -> str:
        from onnx import helper

        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **(attributes or {})))
        return name
