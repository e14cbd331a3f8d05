"""Small vision transformers (Dosovitskiy et al., 2010.11929) in the sizes of DeiT (Touvron et al., 2012.12877).

An image becomes patches, each a token of ``width`` numbers; to a class token before them and a learned position on each::

    x ← x + Attention(LayerNorm(x)),  x ← x + MLP(LayerNorm(x))            depth times
    feature = LayerNorm(x)[class token]                                    pool cls, the paper's
    feature = mean over patches of LayerNorm(x), and no class token        pool mean

============  =====  =====  =====
name          width  heads  depth
============  =====  =====  =====
``vit_tiny``    192      3     12
``vit_small``   384      6     12
============  =====  =====  =====

Not specified by the papers (our choice): patches of 4 pixels for images of 32, fewer blocks where they are asked for, and
no dropout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import nn
from torch.nn import functional

from crossfade.backbones.base import Backbone, initialised
from crossfade.backbones.images import ImageFormat
from crossfade.errors import ConfigError

__all__ = ["Pool", "ViT", "ViTOptions"]

Pool = Literal["cls", "mean"]

SIZES = {"vit_tiny": (192, 3), "vit_small": (384, 6)}
EXPANSION, EPSILON, DEVIATION = 4, 1e-6, 0.02
"""The MLP's hidden width over the tokens'; of the layer norms; of the weights' truncated normal start."""


@dataclass(frozen=True)
class ViTOptions:
    """Attributes:
    patch: pixels a side of a patch.
    pool: what stands for an image: the class token, or the mean of the patches.
    depth: blocks.
    """

    patch: int = 4
    pool: Pool = "cls"
    depth: int = 12

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise ConfigError(f"patch must be at least 1 pixel; found {self.patch}.")
        if self.depth < 1:
            raise ConfigError(f"depth must be at least 1 block; found {self.depth}.")
        if self.pool not in get_args(Pool):
            raise ConfigError(f"pool must be one of {', '.join(get_args(Pool))}; found {self.pool!r}.")


@final
class ViT(Backbone):
    """A vision transformer.

    Args:
        name: ``vit_tiny`` or ``vit_small``.
        options: see :class:`ViTOptions`.
        images: what it expects of an image; it takes this size only, a multiple of the patch.
        dimension: of the features; by default the width.
        seed: of the weights.
    """

    Options = ViTOptions

    def __init__(
        self, name: str, options: ViTOptions, *, images: ImageFormat, dimension: int | None, seed: int
    ) -> None:
        super().__init__()
        if images.size % options.patch:
            raise ConfigError(
                f"{name} cuts images into whole patches; found {images.size} pixels and patches of {options.patch}. "
                "Choose a patch that divides the size."
            )
        width, heads = SIZES[name]
        patches, self._size = (images.size // options.patch) ** 2, images.size
        self._pool: Pool = options.pool
        with initialised(seed):
            self.patches = nn.Conv2d(3, width, options.patch, stride=options.patch)
            if options.pool == "cls":
                self.token = nn.Parameter(torch.zeros(1, 1, width))
            self.positions = nn.Parameter(torch.zeros(1, patches + (options.pool == "cls"), width))
            self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(options.depth)))
            self.norm = nn.LayerNorm(width, eps=EPSILON)
            self._start()
            self._finish(name, options, images, own=width, dimension=dimension)

    def network(self, images: torch.Tensor) -> torch.Tensor:
        """See :meth:`Backbone.network`.

        Raises:
            ConfigError: the images are of another size than the one that it was built for.
        """
        if images.shape[2:] != (self._size, self._size):
            raise ConfigError(
                f"{self.name} was built for images of {self._size} pixels; found {tuple(images.shape[2:])}. Resize them, "
                "or build it for another size."
            )
        x = self.patches(images).flatten(2).transpose(1, 2)
        if self._pool == "cls":
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        x = self.norm(self.blocks(x + self.positions))
        features: torch.Tensor = x[:, 0] if self._pool == "cls" else x.mean(dim=1)
        return features

    def _start(self) -> None:
        drawn = [layer for layer in self.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        for layer in drawn:
            nn.init.trunc_normal_(layer.weight, std=DEVIATION)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.positions, std=DEVIATION)
        if self._pool == "cls":
            nn.init.trunc_normal_(self.token, std=DEVIATION)


class _Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPSILON), nn.LayerNorm(width, eps=EPSILON)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        hidden = EXPANSION * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._attended(self.norm1(x))
        total: torch.Tensor = x + self.mlp(self.norm2(x))
        return total

    def _attended(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        attended: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(n, tokens, width))
        return attended
