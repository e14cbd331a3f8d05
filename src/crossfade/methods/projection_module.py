"""φ as a PyTorch module: the same map as :class:`~crossfade.methods.projection.ProjectionAdapter`, to train and to
train through.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from crossfade.methods.layers import LAYER_NORM_EPSILON
from crossfade.methods.projection import ProjectionAdapter
from crossfade.spaces import Modality, Space

__all__ = ["Projection"]


class Projection(nn.Module):
    """φ with gradients; its parameters are those of an adapter, to which :meth:`adapter` turns it back.

    Args:
        adapter: whose tensors it starts from.
        dropout: the share of each block's outputs that is dropped while training.
    """

    def __init__(self, adapter: ProjectionAdapter, *, dropout: float = 0.0) -> None:
        super().__init__()
        p = {name: torch.from_numpy(array.copy()) for name, array in adapter.parameters.items()}
        self.normalized = adapter.target.normalized
        self.centred = adapter.means is not None
        self.linear = _linear(p["matrix"], p["offset"])
        self.blocks = nn.ModuleList()
        for k in range(1, adapter.depth + 1):
            norm = nn.LayerNorm(len(p[f"gain.{k}"]), eps=LAYER_NORM_EPSILON)
            norm.load_state_dict({"weight": p[f"gain.{k}"], "bias": p[f"shift.{k}"]})
            inner = _linear(p[f"inner.{k}"], p[f"inner_offset.{k}"])
            self.blocks.append(nn.Sequential(inner, norm, nn.GELU(approximate="tanh"), nn.Dropout(dropout)))
        self.outer = _linear(p["outer"], None)
        for modality, (mu, nu) in (adapter.means or {}).items():
            self.register_buffer(f"source_mean_{modality}", torch.from_numpy(mu.copy()))
            self.register_buffer(f"target_mean_{modality}", torch.from_numpy(nu.copy()))

    def forward(self, vectors: torch.Tensor, modality: Modality = "text") -> torch.Tensor:
        """φ(v): [n, d_s] → [n, d_t], of unit norm where the target space is normalised."""
        start = vectors - getattr(self, f"source_mean_{modality}") if self.centred else vectors  # Eq. (1)
        h = start
        for block in self.blocks:
            h = block(h)  # Eq. (2)
        mapped: torch.Tensor = self.linear(start) + self.outer(h)
        if self.centred:
            mapped = mapped + getattr(self, f"target_mean_{modality}")  # Eq. (3)
        return nn.functional.normalize(mapped, dim=-1) if self.normalized else mapped  # Eq. (4)

    def adapter(self, source: Space, target: Space, *, modalities: tuple[Modality, ...]) -> ProjectionAdapter:
        """The map as it is now, as an adapter that needs NumPy alone."""
        parameters = {"matrix": _array(self.linear.weight.T), "offset": _array(self.linear.bias)}
        for k, block in enumerate(self.blocks, start=1):
            inner, norm = block[0], block[1]  # type: ignore[index]
            parameters |= {f"inner.{k}": _array(inner.weight.T), f"inner_offset.{k}": _array(inner.bias)}
            parameters |= {f"gain.{k}": _array(norm.weight), f"shift.{k}": _array(norm.bias)}
        parameters["outer"] = _array(self.outer.weight.T)
        means = None
        if self.centred:
            means = {
                m: (_array(getattr(self, f"source_mean_{m}")), _array(getattr(self, f"target_mean_{m}")))
                for m in modalities
            }
        return ProjectionAdapter(source, target, modalities=modalities, parameters=parameters, means=means)


def _linear(matrix: torch.Tensor, offset: torch.Tensor | None) -> nn.Linear:
    below, above = matrix.shape
    layer = nn.Linear(below, above, bias=offset is not None, device="meta")
    layer.weight = nn.Parameter(matrix.T.contiguous())
    if offset is not None:
        layer.bias = nn.Parameter(offset)
    return layer


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.detach().float().cpu().numpy().copy()
    return array
