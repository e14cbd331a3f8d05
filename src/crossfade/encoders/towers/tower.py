"""What a tower is: items of one modality in, features in the new model's space out, with gradients."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from crossfade.datasets.base import ImageItem, TextItem
from crossfade.errors import EncoderError
from crossfade.spaces import Modality

__all__ = ["Inputs", "Tower", "checkpoint_activations", "shared_copy"]

Inputs = Mapping[str, Any]
"""What one forward pass takes: tensors by name, on any device."""


class Tower(nn.Module, ABC):
    """One side of a dual encoder: ``forward(prepare(contents))`` are its features.

    Attributes:
        modality: what it takes.
        name: the model's name, for messages.
        model: the module whose layers LoRA may join; None for a tower that is not there any more.
    """

    modality: Modality
    name: str
    model: nn.Module | None

    def content(self, item: ImageItem | TextItem) -> Any:
        """What :meth:`prepare` wants of an item: the text, or the decoded image.

        Raises:
            CorruptItem: the image cannot be read.
        """
        return item.text if isinstance(item, TextItem) else item.load()

    @abstractmethod
    def prepare(self, contents: Sequence[Any]) -> Inputs:
        """Tokenise texts or preprocess images: tensors on the CPU, for :meth:`forward`; any thread may call it."""

    @abstractmethod
    def forward(self, inputs: Inputs) -> torch.Tensor:
        """The features, float32 [n, d], not normalised."""

    def layers(self) -> dict[str, nn.Linear]:
        """The linear layers that LoRA may join, under their names in :attr:`model`."""
        return {}

    def add_prompts(self, count: int) -> None:
        """Put learned vectors among the tower's tokens or patches.

        Raises:
            EncoderError: this tower takes none.
            ConfigError: there is no room for so many.
        """
        raise EncoderError(f"Prompts need a tower that runs; the {self.modality} tower of {self.name} takes none.")

    def prompts(self) -> torch.Tensor | None:
        """The learned vectors, [p, width]; None where there are none."""
        return None

    def remove_prompts(self) -> None:
        """Take the learned vectors out again."""

    def gradient_checkpointing_enable(self) -> None:
        """Compute the layers' activations again in the backward pass instead of keeping them.

        Raises:
            EncoderError: the model cannot.
        """


def checkpoint_activations(model: Any, *, name: str) -> None:
    """Have a model of transformers compute its layers' activations again in the backward pass.

    Args:
        model: the model.
        name: its name, for the message.

    Raises:
        EncoderError: it cannot.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise EncoderError(f"{name} cannot compute activations again. Train without gradient_checkpointing.")
    settings = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # later versions of transformers 5
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


def shared_copy(model: nn.Module) -> Any:
    """A copy of a model's structure on the same weights: layers of it can be wrapped, and ``model`` stays as it is.

    Gradients of the weights are switched off, for both.
    """
    tensors = (*model.parameters(), *model.buffers())
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    return copied.requires_grad_(False)
