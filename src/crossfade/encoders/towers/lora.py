"""LoRA on chosen linear layers: y = W x + (alpha / r) B A x, W frozen (2106.09685), by peft."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from crossfade.encoders.packages import need
from crossfade.encoders.towers.tuning import Tuning
from crossfade.errors import ConfigError, FormatError

__all__ = ["LoRA", "linear_layers", "matching"]

_NAME = "default"
_PREFIX = "base_model."
"""Before the names in peft's own files, whose models are wrapped once more."""


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that a model calls, by name.

    Those inside PyTorch's own multi-head attention are left out: it reads their weights and never calls them.
    """
    inside = {
        f"{name}.{inner}" if name else inner
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
        for inner, _ in module.named_modules()
    }
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in inside
    }


def matching(names: Iterable[str], patterns: Sequence[str], *, what: str) -> list[str]:
    """The names that a pattern fits, in their order: by their end, with ``*`` for any part.

    Args:
        names: of layers.
        patterns: see :class:`~crossfade.encoders.towers.tuning.Tuning`.
        what: whose layers they are, for the message.

    Raises:
        ConfigError: a pattern fits none; the message lists the names that exist, numbers given as ``*``.
    """
    known = list(names)
    for pattern in patterns:
        if not any(_fits(name, pattern) for name in known):
            existing = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in known))
            raise ConfigError(
                f"A LoRA target must fit a linear layer of {what}; {pattern!r} fits none. Its layers are "
                f"{', '.join(existing) or 'none at all'}."
            )
    return [name for name in known if any(_fits(name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


class LoRA:
    """Low-rank additions to layers of one model, which changes in place: its layers are wrapped, its weights are not.

    Args:
        model: whose layers are meant.
        names: full names of those layers.
        tuning: rank, alpha and dropout.
        base: the model's name, for the configuration that is saved.

    Raises:
        MissingExtra: peft is not installed.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], tuning: Tuning, *, base: str) -> None:
        self._library = need("peft", extra="peft", feature="LoRA")
        config = self._library.LoraConfig(
            r=tuning.rank, lora_alpha=tuning.alpha, lora_dropout=tuning.dropout, target_modules=list(names), bias="none"
        )
        self._peft = self._library.LoraModel(model, {_NAME: config}, _NAME)
        self._peft.peft_config[_NAME].base_model_name_or_path = base
        for parameter in model.parameters():
            if parameter.requires_grad:  # A and B are float32, whatever the model's format
                parameter.data = parameter.data.float()

    def tensors(self) -> dict[str, torch.Tensor]:
        """A and B of each layer, under peft's own names, contiguous on the CPU."""
        state = self._library.get_peft_model_state_dict(self._peft, save_embedding_layers=False)
        return {f"{_PREFIX}{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Set A and B of each layer.

        Raises:
            FormatError: they are of other layers, or of another rank.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in self.tensors().items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != expected:
            odd = sorted(set(found.items()) ^ set(expected.items()))[0]
            raise FormatError(
                f"LoRA weights must be those of the configured layers and rank; {odd[0]} of shape {odd[1]} is on one "
                "side only. The folder is damaged: copy it again."
            )
        bare = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
        self._library.set_peft_model_state_dict(self._peft, bare)

    def configuration(self) -> dict[str, Any]:
        """The configuration as peft saves it in ``adapter_config.json``."""
        config = self._peft.peft_config[_NAME].to_dict()
        values = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
        return {**values, "inference_mode": True}

    def remove(self) -> None:
        """Put the bare layers back."""
        self._peft.unload()
