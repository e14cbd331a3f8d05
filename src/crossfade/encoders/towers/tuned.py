"""Towers with LoRA and prompts: what trains in stage 2 of XBT, and what a tuned encoder runs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from crossfade.encoders.towers.lora import LoRA, matching
from crossfade.encoders.towers.tower import Inputs, Tower
from crossfade.encoders.towers.tuning import Tuning
from crossfade.errors import ConfigError, FormatError
from crossfade.spaces import MODALITIES, Modality

__all__ = ["TunedTowers"]


class TunedTowers(nn.Module):
    """Towers by modality; their weights are frozen, and what ``tuning`` adds to them is all that trains.

    LoRA starts as nothing (B = 0); prompts start at random, and change the features from the start.

    Args:
        towers: one a modality; they change in place.
        tuning: what is added.
        seed: of the first values.

    Raises:
        ConfigError: a pattern fits no layer.
        EncoderError: a tower takes no prompts.
        MissingExtra: peft is not installed.
    """

    def __init__(self, towers: Mapping[Modality, Tower], tuning: Tuning, *, seed: int = 0) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({m: towers[m] for m in MODALITIES if m in towers})
        self.tuning = tuning
        self.requires_grad_(False)
        names: dict[int, list[str]] = {}
        models: dict[int, Tower] = {}
        for modality, tower in towers.items():
            if tuning.touches(modality) and tower.model is None:
                raise ConfigError(
                    f"Only a tower that runs can be tuned; the {modality} features of {tower.name} are cached. Leave "
                    f"{modality}_targets and {modality}_prompts out."
                )
            what = f"the {modality} tower of {tower.name}"
            found = matching(tower.layers(), tuning.targets(modality), what=what) if tuning.targets(modality) else []
            if found:
                names.setdefault(id(tower.model), []).extend(found)
                models[id(tower.model)] = tower
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._loras = [
                LoRA(tower.model, names[key], tuning, base=tower.name)
                for key, tower in models.items()
                if tower.model is not None
            ]
            for modality, tower in towers.items():
                if tuning.prompts(modality):
                    tower.add_prompts(tuning.prompts(modality))
        self.eval()

    def features(self, modality: Modality, inputs: Inputs) -> torch.Tensor:
        """The features of one tower, float32 [n, d], not normalised."""
        features: torch.Tensor = self.towers[modality](inputs)
        return features

    def tower(self, modality: Modality) -> Tower:
        """The tower of one modality."""
        tower = self.towers[modality]
        assert isinstance(tower, Tower)
        return tower

    def put(self, towers: Mapping[Modality, Tower]) -> None:
        """Run these towers from now on: those of the same models, of which some were cached while others trained."""
        for modality, tower in towers.items():
            self.towers[modality] = tower
        self.eval()

    @property
    def loras(self) -> tuple[LoRA, ...]:
        """One for each model that has LoRA: a dual encoder's towers share one."""
        return tuple(self._loras)

    def prompts(self) -> dict[str, torch.Tensor]:
        """Modality → its learned vectors, on the CPU, for the towers that have some."""
        found = {modality: self.tower(modality).prompts() for modality in MODALITIES if modality in self.towers}
        return {
            modality: vectors.detach().cpu().contiguous() for modality, vectors in found.items() if vectors is not None
        }

    def load_prompts(self, prompts: Mapping[str, torch.Tensor]) -> None:
        """Set the learned vectors.

        Raises:
            FormatError: they are of other towers, or of another shape.
        """
        expected = {modality: tuple(vectors.shape) for modality, vectors in self.prompts().items()}
        found = {modality: tuple(vectors.shape) for modality, vectors in prompts.items()}
        if found != expected:
            raise FormatError(f"Prompts must have the shapes {expected}; found {found}. Copy the folder again.")
        for modality in MODALITIES:
            if modality in prompts:
                own = self.tower(modality).prompts()
                assert own is not None
                own.data.copy_(prompts[modality])

    def remove(self) -> None:
        """Take LoRA and prompts off: the towers are the base model's again, bit for bit."""
        for lora in self._loras:
            lora.remove()
        self._loras = []
        for modality in MODALITIES:
            if modality in self.towers:
                self.tower(modality).remove_prompts()
