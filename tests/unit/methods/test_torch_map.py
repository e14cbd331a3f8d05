"""An adapter as a PyTorch module is the same map, and turns back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import worlds

from crossfade.errors import FitError
from crossfade.methods import METHODS, Adapter
from crossfade.methods.torch_map import torch_map
from crossfade.spaces import Modality

SMALL = {
    "residual_mlp": {"epochs": 1, "hidden": 8, "batch": 128},
    "contrastive": {"steps": 4, "evaluations": 2, "batch": 64, "gallery": 128},
    "ridge": {},
    "procrustes": {},
}


@pytest.fixture(scope="module", params=[*SMALL, "projection"])
def adapter(request: pytest.FixtureRequest, two_modalities: worlds.World) -> Adapter:
    if request.param == "projection":
        return projection(two_modalities)
    return METHODS[request.param](**SMALL[request.param]).fit(two_modalities.pairs(), seed=0)


def projection(world: worlds.World) -> Adapter:
    from crossfade.methods.projection import ProjectionAdapter

    draw = np.random.default_rng(0).standard_normal
    d_s, d_t, h = world.source.dimension, world.target.dimension, 7
    parameters = {
        "matrix": draw((d_s, d_t)),
        "offset": draw(d_t),
        "inner.1": draw((d_s, h)),
        "inner_offset.1": draw(h),
        "gain.1": draw(h),
        "shift.1": draw(h),
        "outer": draw((h, d_t)),
    }
    means: dict[Modality, tuple[np.ndarray, np.ndarray]] = {m: (draw(d_s), draw(d_t)) for m in ("image", "text")}
    return ProjectionAdapter(
        world.source, world.target, modalities=("image", "text"), parameters=parameters, means=means
    )


@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_module_maps_as_the_adapter_does(
    adapter: Adapter, two_modalities: worlds.World, modality: Modality
) -> None:
    vectors = two_modalities.new[modality].matrix()
    with torch.no_grad():
        mapped = torch_map(adapter)(torch.from_numpy(vectors), modality).numpy()
    np.testing.assert_allclose(mapped, adapter.map(vectors, modality), atol=1e-5)


def test_it_turns_back_into_the_same_bytes(adapter: Adapter) -> None:
    again = torch_map(adapter).adapter(adapter.source, adapter.target, modalities=adapter.modalities)
    assert type(again) is type(adapter)
    assert {n: t.tobytes() for n, t in again.tensors().items()} == {
        n: t.tobytes() for n, t in adapter.tensors().items()
    }


def test_every_matrix_trains_and_the_adapter_stays_as_it_was(adapter: Adapter, two_modalities: worlds.World) -> None:
    before = {name: tensor.tobytes() for name, tensor in adapter.tensors().items()}
    module = torch_map(adapter)
    for modality in ("image", "text"):
        target = torch.from_numpy(two_modalities.old[modality].matrix())
        loss = (module(torch.from_numpy(two_modalities.new[modality].matrix()), modality) - target).square().sum()
        loss.backward()
    moving = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moving >= {name for name, p in module.named_parameters() if p.ndim == 2}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    assert {name: tensor.tobytes() for name, tensor in adapter.tensors().items()} == before


def test_an_adapter_without_a_module_is_named(two_modalities: worlds.World) -> None:
    adapter = METHODS["slerp"]().fit(two_modalities.pairs(), seed=0)
    with pytest.raises(FitError, match=r"there is of ContrastiveAdapter, LinearAdapter, .*; found SlerpAdapter"):
        torch_map(adapter)
