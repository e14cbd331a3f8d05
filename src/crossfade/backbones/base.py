"""What a backbone is: images in, features out, and a description from which it can be built again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import nn
from torch.nn import functional

from crossfade.backbones.images import ImageFormat
from crossfade.errors import ConfigError

__all__ = ["Backbone", "Factory", "averaged", "initialised", "kaiming", "options_of"]

Options = TypeVar("Options")


class Backbone(nn.Module, ABC):
    """A network without a classifier; normalised images [n, 3, h, w] → features [n, dimension].

    A subclass makes its layers in ``__init__`` under :func:`initialised` and ends it with :meth:`_finish`.

    Attributes:
        name: as :func:`crossfade.backbones.build_backbone` takes it.
        images: what it expects of an image.
        dimension: of the features. Where it is not the network's own, :attr:`last` is a linear layer; else nothing.
        own: the dimension of the network itself.
    """

    Options: ClassVar[type[Any]]
    """A frozen dataclass of what can be chosen beside dimension and images."""

    name: str
    images: ImageFormat
    dimension: int
    own: int
    last: nn.Module

    @abstractmethod
    def network(self, images: torch.Tensor) -> torch.Tensor:
        """The network's own features, [n, own]."""

    def options(self) -> dict[str, Any]:
        """The options as JSON values."""
        return asdict(self._options)

    def config(self) -> dict[str, Any]:
        """JSON values from which :func:`crossfade.backbones.rebuild_backbone` builds the same network, without weights."""
        return {
            "name": self.name,
            "dimension": self.dimension,
            "images": self.images.config(),
            "options": self.options(),
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The features, [n, dimension], not normalised.

        Args:
            images: float [n, 3, h, w], as :meth:`ImageFormat.normalised` gives them.

        Raises:
            ConfigError: they are of another shape, or not floating-point numbers.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ConfigError(
                f"{self.name} takes float images [n, 3, height, width]; found {images.dtype} {list(images.shape)}. "
                "Prepare them with images.normalised(pixels)."
            )
        features: torch.Tensor = self.last(self.network(images))
        return features

    def _finish(self, name: str, options: Any, images: ImageFormat, *, own: int, dimension: int | None) -> None:
        """Say what was built, and draw the last layer: after the network's, whose weights do not depend on it."""
        if dimension is not None and dimension < 1:
            raise ConfigError(f"dimension must be at least 1; found {dimension}.")
        self.name, self._options, self.images = name, options, images
        self.own, self.dimension = own, own if dimension is None else dimension
        self.last = nn.Identity() if self.dimension == own else nn.Linear(own, self.dimension)


class Factory(Protocol):
    """A subclass of :class:`Backbone`, as the registry calls it."""

    Options: ClassVar[type[Any]]

    def __call__(
        self, name: str, options: Any, *, images: ImageFormat | None, dimension: int | None, seed: int
    ) -> Backbone:
        """Build the network; ``images`` is None only for external ones, which know their own."""


@contextmanager
def initialised(seed: int) -> Iterator[None]:
    """Layers made in the block draw their weights from this seed; the caller's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def kaiming(module: nn.Module) -> None:
    """Start convolutions as He et al. do (1502.01852, by the fan out), in place; batch norm starts as the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def averaged(x: torch.Tensor) -> torch.Tensor:
    """The mean over all positions: [n, channels] of [n, channels, h, w].

    ``mean`` and adaptive pooling would do, but their gradient comes channels first in memory, also for channels-last x.
    """
    return functional.avg_pool2d(x, x.shape[-2:]).flatten(1)


def options_of(kind: type[Options], given: Mapping[str, Any], *, name: str) -> Options:
    """Options of a network from JSON values.

    Raises:
        ConfigError: one that the network does not have.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [option for option in given if option not in known]
    if unknown:
        raise ConfigError(f"The options of {name} are {', '.join(known) or 'none'}; found {', '.join(unknown)}.")
    return kind(**given)
