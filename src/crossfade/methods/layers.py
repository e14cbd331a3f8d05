"""The layers of learned maps in NumPy alone, and as they are drawn into a computation graph.

Equations::

    g(x) = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))                      (1), GELU in its tanh form
    N(x) = (x − mean(x)) / √(var(x) + ε) · gain + shift                   (2), LayerNorm over the last axis

Sources: GELU 1606.08415, LayerNorm 1607.06450; ε is PyTorch's default. Both are what ``torch.nn.functional`` computes,
up to rounding.
"""

from __future__ import annotations

import math

import numpy as np

from crossfade.methods.base import Floats, Graph

__all__ = ["LAYER_NORM_EPSILON", "draw_gelu", "draw_layer_norm", "gelu", "layer_norm"]

GELU_SCALE = math.sqrt(2.0 / math.pi)
GELU_CUBIC = 0.044715
LAYER_NORM_EPSILON = 1e-5


def gelu(x: Floats) -> Floats:
    """GELU in its tanh form; any shape."""
    result: Floats = (
        np.float32(0.5) * x * (1 + np.tanh(np.float32(GELU_SCALE) * (x + np.float32(GELU_CUBIC) * x * x * x)))
    )
    return result  # Eq. (1)


def layer_norm(x: Floats, gain: Floats, shift: Floats) -> Floats:
    """LayerNorm of each row of ``x`` [n, h] or [h]; ``gain`` and ``shift`` [h]."""
    about = x - x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...j,...j->...", about, about)[..., None] / np.float32(x.shape[-1])
    result: Floats = about / np.sqrt(variance + np.float32(LAYER_NORM_EPSILON)) * gain + shift
    return result  # Eq. (2)


def draw_gelu(graph: Graph, x: str) -> str:
    """GELU in a graph."""
    cube = graph.apply("Mul", x, graph.apply("Mul", x, x))
    bent = graph.apply("Add", x, graph.apply("Mul", cube, graph.constant(GELU_CUBIC)))
    bent = graph.apply("Tanh", graph.apply("Mul", bent, graph.constant(GELU_SCALE)))
    gate = graph.apply("Add", bent, graph.constant(1.0))
    return graph.apply("Mul", graph.apply("Mul", x, gate), graph.constant(0.5))


def draw_layer_norm(graph: Graph, x: str, gain: Floats, shift: Floats) -> str:
    """LayerNorm in a graph, of operators whose form is the same in every opset from 13 on."""
    average = graph.constant(np.full((len(gain), 1), 1.0 / len(gain), dtype=np.float32))
    about = graph.apply("Sub", x, graph.apply("MatMul", x, average))
    variance = graph.apply("MatMul", graph.apply("Mul", about, about), average)
    deviation = graph.apply("Sqrt", graph.apply("Add", variance, graph.constant(LAYER_NORM_EPSILON)))
    scaled = graph.apply("Mul", graph.apply("Div", about, deviation), graph.constant(gain))
    return graph.apply("Add", scaled, graph.constant(shift))
