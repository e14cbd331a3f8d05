"""VGG for small images (Simonyan and Zisserman, 1409.1556): stages of 3×3 convolutions, each ended by a pooling.

The convolutions are the paper's configurations A (``vgg11``), B (``vgg13``), D (``vgg16``) and E (``vgg19``).

Our choice, as is usual for 32 pixels: batch norm after each convolution, and no fully connected layers; the features
are the mean over the positions that the last pooling leaves, 1 × 1 for 32 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from crossfade.backbones.base import Backbone, averaged, initialised, kaiming
from crossfade.backbones.images import ImageFormat
from crossfade.errors import ConfigError

__all__ = ["VGG", "VGGOptions"]

CONVOLUTIONS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""A stage; its channels are the width, twice, four and eight times the width, and eight times again."""

GROWTH = (1, 2, 4, 8, 8)
SMALLEST = 2 ** len(GROWTH)


@dataclass(frozen=True)
class VGGOptions:
    """Attributes:
    width: channels of the first stage.
    batch_norm: whether one follows each convolution; the paper has none.
    """

    width: int = 64
    batch_norm: bool = True

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width must be at least 1 channel; found {self.width}.")


@final
class VGG(Backbone):
    """VGG's convolutions.

    Args:
        name: ``vgg11``, ``vgg13``, ``vgg16`` or ``vgg19``.
        options: see :class:`VGGOptions`.
        images: what it expects of an image, 32 pixels or more.
        dimension: of the features; by default eight times the width.
        seed: of the weights.
    """

    Options = VGGOptions

    def __init__(
        self, name: str, options: VGGOptions, *, images: ImageFormat, dimension: int | None, seed: int
    ) -> None:
        super().__init__()
        if images.size < SMALLEST:
            raise ConfigError(f"{name} halves images five times; found {images.size} pixels, fewer than {SMALLEST}.")
        with initialised(seed):
            layers: list[nn.Module] = []
            below = 3
            for convolutions, growth in zip(CONVOLUTIONS[name], GROWTH, strict=True):
                for _ in range(convolutions):
                    layers.append(nn.Conv2d(below, options.width * growth, 3, padding=1))
                    layers += [nn.BatchNorm2d(options.width * growth)] if options.batch_norm else []
                    layers.append(nn.ReLU(inplace=True))
                    below = options.width * growth
                layers.append(nn.MaxPool2d(2))
            self.convolutions = nn.Sequential(*layers)
            kaiming(self)
            self._finish(name, options, images, own=below, dimension=dimension)

    def network(self, images: torch.Tensor) -> torch.Tensor:
        """See :meth:`Backbone.network`."""
        return averaged(self.convolutions(images))
