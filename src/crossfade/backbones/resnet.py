"""Residual networks (He et al., 1512.03385), for images of 32 pixels and of 64 and more.

``resnet8 … resnet110`` are those of its section 4.2, for CIFAR: three stages of n blocks of two 3×3 convolutions, 6n + 2
layers, 16, 32 and 64 channels, and shortcuts without parameters (its option A: every other pixel, new channels zero).

``resnet18``, ``resnet34`` and ``resnet50`` are those of its table 1: four stages and shortcuts by 1×1 convolutions where
shapes change (option B). Their first layers, the *stem*, are

* ``imagenet``  a 7×7 convolution of stride 2 and a max-pooling of stride 2, the paper's, for 64 pixels and more;
* ``cifar``     a 3×3 convolution of stride 1, for smaller images, of which the other would leave one pixel.

Deviations: in bottleneck blocks the 3×3 convolution has the stride, not the first 1×1, as in every public implementation
since. The features are the mean over the last stage's positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import nn
from torch.nn import functional

from crossfade.backbones.base import Backbone, averaged, initialised, kaiming
from crossfade.backbones.images import ImageFormat
from crossfade.errors import ConfigError

__all__ = ["CifarResNet", "CifarResNetOptions", "ResNet", "ResNetOptions", "Stem"]

Stem = Literal["auto", "cifar", "imagenet"]

SMALLEST_FOR_IMAGENET_STEM = 64
"""Pixels a side: at 64 the last stage of the paper's network still has 2 × 2 positions."""

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
EXPANSION = 4
"""How many times as many channels leave a bottleneck block as its 3×3 convolution has."""


@dataclass(frozen=True)
class CifarResNetOptions:
    """Attributes:
    width: channels of the first stage; the second has twice and the third four times as many.
    """

    width: int = 16

    def __post_init__(self) -> None:
        _require_width(self.width)


@dataclass(frozen=True)
class ResNetOptions:
    """Attributes:
    width: channels of the first stage's 3×3 convolutions.
    stem: the first layers; ``auto`` takes ``cifar`` for images below 64 pixels, and else ``imagenet``.
    """

    width: int = 64
    stem: Stem = "auto"

    def __post_init__(self) -> None:
        _require_width(self.width)
        if self.stem not in get_args(Stem):
            raise ConfigError(f"stem must be one of {', '.join(get_args(Stem))}; found {self.stem!r}.")


@final
class CifarResNet(Backbone):
    """A network of section 4.2.

    Args:
        name: ``resnet`` and the number of layers, 6n + 2.
        options: see :class:`CifarResNetOptions`.
        images: what it expects of an image.
        dimension: of the features; by default four times the width.
        seed: of the weights.
    """

    Options = CifarResNetOptions

    def __init__(
        self, name: str, options: CifarResNetOptions, *, images: ImageFormat, dimension: int | None, seed: int
    ) -> None:
        super().__init__()
        blocks, odd = divmod(int(name.removeprefix("resnet")) - 2, 6)
        if odd or blocks < 1:
            raise ConfigError(f"A CIFAR ResNet has 6n + 2 layers (8, 14, 20, …); found {name}.")
        width = options.width
        with initialised(seed):
            self.stem = _cifar_stem(width)
            stages, channels = [], width
            for stage in range(3):
                for block in range(blocks):
                    stride = 2 if stage and not block else 1
                    shortcut = _Subsampled(width * 2**stage - channels, stride) if stride > 1 else nn.Identity()
                    stages.append(_Block(_basic(channels, width * 2**stage, stride), shortcut))
                    channels = width * 2**stage
            self.stages = nn.Sequential(*stages)
            kaiming(self)
            self._finish(name, options, images, own=channels, dimension=dimension)

    def network(self, images: torch.Tensor) -> torch.Tensor:
        """See :meth:`Backbone.network`."""
        return averaged(self.stages(self.stem(images)))


@final
class ResNet(Backbone):
    """A network of table 1.

    Args:
        name: ``resnet18``, ``resnet34`` or ``resnet50``.
        options: see :class:`ResNetOptions`.
        images: what it expects of an image.
        dimension: of the features; by default 512, of ``resnet50`` 2048 (for a width of 64).
        seed: of the weights.
    """

    Options = ResNetOptions

    def __init__(
        self, name: str, options: ResNetOptions, *, images: ImageFormat, dimension: int | None, seed: int
    ) -> None:
        super().__init__()
        width, bottleneck = options.width, name == "resnet50"
        with initialised(seed):
            self.stem = _imagenet_stem(width) if _has_imagenet_stem(options.stem, images) else _cifar_stem(width)
            stages, channels = [], width
            for stage, blocks in enumerate(STAGES[name]):
                inner = width * 2**stage
                outer = inner * EXPANSION if bottleneck else inner
                for block in range(blocks):
                    stride = 2 if stage and not block else 1
                    residual = _bottleneck(channels, inner, stride) if bottleneck else _basic(channels, inner, stride)
                    stages.append(_Block(residual, _projected(channels, outer, stride)))
                    channels = outer
            self.stages = nn.Sequential(*stages)
            kaiming(self)
            self._finish(name, options, images, own=channels, dimension=dimension)

    def network(self, images: torch.Tensor) -> torch.Tensor:
        """See :meth:`Backbone.network`."""
        return averaged(self.stages(self.stem(images)))


class _Block(nn.Module):
    """relu(F(x) + x), the second term through the shortcut."""

    def __init__(self, residual: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual, self.shortcut = residual, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = self.residual(x) + self.shortcut(x)
        return functional.relu(total, inplace=True)


class _Subsampled(nn.Module):
    """Option A: every ``stride``-th pixel, and ``added`` channels of zeros."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = functional.avg_pool2d(x, 1, self.stride)  # windows of one pixel; slices would lose the order in memory
        return functional.pad(pixels, (0, 0, 0, 0, 0, self.added))


def _basic(below: int, above: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(below, above, 3, stride),
        nn.BatchNorm2d(above),
        nn.ReLU(inplace=True),
        _convolution(above, above, 3),
        nn.BatchNorm2d(above),
    )


def _bottleneck(below: int, inner: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(below, inner, 1),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        _convolution(inner, inner, 3, stride),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        _convolution(inner, inner * EXPANSION, 1),
        nn.BatchNorm2d(inner * EXPANSION),
    )


def _projected(below: int, above: int, stride: int) -> nn.Module:
    """Option B: a 1×1 convolution where the shape changes."""
    if below == above and stride == 1:
        return nn.Identity()
    return nn.Sequential(_convolution(below, above, 1, stride), nn.BatchNorm2d(above))


def _convolution(below: int, above: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(below, above, kernel, stride=stride, padding=kernel // 2, bias=False)


def _cifar_stem(width: int) -> nn.Sequential:
    return nn.Sequential(_convolution(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _imagenet_stem(width: int) -> nn.Sequential:
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(_convolution(3, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True), pool)


def _has_imagenet_stem(stem: Stem, images: ImageFormat) -> bool:
    return stem == "imagenet" or (stem == "auto" and images.size >= SMALLEST_FOR_IMAGENET_STEM)


def _require_width(width: int) -> None:
    if width < 1:
        raise ConfigError(f"width must be at least 1 channel; found {width}.")
