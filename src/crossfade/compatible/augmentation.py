"""From stored pixels to what a network takes: augmented while training, plain otherwise; always whole batches at once.

What is drawn for an image depends on the seed, the image's number and the step alone: u = draw(seed, number, step). It
is a hash and no generator, so the same image gets the same crop in the same step on every device, however the batch is
divided into micro-batches and over processes, and a resumed run needs no state. An image comes once an epoch, each time
at another step, and so at another crop. Call :meth:`ImageInputs.augmented` in ``Task.losses``, which knows the step;
``Task.load`` then only copies bytes.

``padded``  (CIFAR recipe, 1512.03385)::

    stored [S, S] ── pad by p ──▶ [S + 2p, S + 2p] ── cut [size, size] at (y, x), y and x uniform ──▶ mirror, u < ½

``resized`` (Inception's, 1409.4842, the usual one of ImageNet)::

    a ~ U(area)·S²,  r ~ exp U(log aspect),  w = round √(a·r),  h = round √(a/r)                       (1)
    a window of h × w at a uniform place, resized to [size, size] by bilinear interpolation, mirrored where u < ½   (2)

where a window of (1) that does not fit is drawn again, at most nine times; then the whole image is taken.

Our choice, as the recipes leave it open: the hash; ``resized`` interpolates between the window's own pixels and does not
smooth where it reduces; where the network takes more pixels than are stored (CIFAR at 224), ``padded`` and plain images
are enlarged, bilinearly, after the crop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch.nn import functional

from crossfade.errors import ConfigError

__all__ = ["AUGMENTATIONS", "Augmentation", "ImageInputs", "draws"]

Crop = Literal["off", "padded", "resized"]

ATTEMPTS = 10
"""Windows that ``resized`` draws before it takes the whole image."""

_BITS = 24  # of a draw
_WORD = 2**64


@dataclass(frozen=True)
class Augmentation:
    """What happens to an image while training.

    Attributes:
        crop: ``padded``, ``resized`` or ``off`` (the centre).
        padding: p, pixels on each side that ``padded`` adds.
        fill: the value of these pixels, 0 (black) to 255 (white).
        area: the least and the greatest share of the image that ``resized`` cuts out.
        aspect: the least and the greatest width over height of what it cuts out.
        flip: whether half of the images are mirrored, left to right. A mirrored character is another character.
    """

    crop: Crop = "padded"
    padding: int = 4  # 1512.03385, section 4.2
    fill: int = 0
    area: tuple[float, float] = (0.08, 1.0)  # 1409.4842, section 6
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # the same
    flip: bool = True

    def __post_init__(self) -> None:
        if self.crop not in get_args(Crop):
            raise ConfigError(f"A crop is one of {', '.join(get_args(Crop))}; found {self.crop!r}.")
        if self.padding < 0 or not 0 <= self.fill <= 255:
            raise ConfigError(
                f"padding must be 0 or more and fill from 0 to 255; found {self.padding} and {self.fill}."
            )
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ConfigError(f"area must be two shares, 0 < least ≤ greatest ≤ 1; found {self.area}.")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ConfigError(f"aspect must be two ratios, 0 < least ≤ greatest; found {self.aspect}.")


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "cifar": Augmentation(),
    "imagenet": Augmentation(crop="resized"),
    "glyphs": Augmentation(fill=255, flip=False),
    "off": Augmentation(crop="off", flip=False),
}
"""The usual ones, by name."""


@final
class ImageInputs:
    """Makes a network's inputs of stored pixels, on whatever device these are.

    Args:
        size: the side of the images that the network takes. Of stored images that are larger, the centre or a crop.
        mean: of each channel, subtracted; on the scale 0 … 1.
        std: of each channel, divided by.
        augmentation: what :meth:`augmented` does.
        seed: of all draws.

    Raises:
        ConfigError: not three positive deviations, or a size below 1.
    """

    def __init__(
        self,
        size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation,
        seed: int = 0,
    ) -> None:
        if size < 1 or len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
            raise ConfigError(
                f"Inputs need a size of at least 1, three means and three deviations above 0; found {size}, {mean}, "
                f"{std}."
            )
        self.size = size
        self.augmentation = augmentation
        self.seed = seed
        self._scale = torch.tensor([1 / (255 * float(value)) for value in std])
        self._shift = torch.tensor([-float(m) / float(s) for m, s in zip(mean, std, strict=True)])

    def plain(self, pixels: torch.Tensor) -> torch.Tensor:
        """The centre of each image, normalised: float32 [n, 3, size, size].

        Args:
            pixels: uint8 [n, S, S, 3].
        """
        stored = pixels.shape[1]
        side = min(self.size, stored)
        start = (stored - side) // 2
        return self._enlarged(self._normalised(pixels[:, start : start + side, start : start + side]))

    def augmented(self, pixels: torch.Tensor, numbers: torch.Tensor, step: int) -> torch.Tensor:
        """Each image as it is drawn for this step, normalised: float32 [n, 3, size, size].

        Args:
            pixels: uint8 [n, S, S, 3].
            numbers: of the images in the training set, int64 [n], on the same device.
            step: of the training, counted from 0.
        """
        config = self.augmentation
        drawn = draws(numbers, step, seed=self.seed, count=3 + 2 * ATTEMPTS * (config.crop == "resized"))
        flip = drawn[:, 0] < 1 << (_BITS - 1) if config.flip else torch.zeros_like(numbers, dtype=torch.bool)
        if config.crop == "resized":
            top, left, height, width = _windows(drawn[:, 1:], pixels.shape[1], config)  # Eq. (1)
            return _resized(self._normalised(pixels), top, left, height, width, flip, self.size)  # Eq. (2)
        padding = config.padding if config.crop == "padded" else 0
        side = min(self.size, pixels.shape[1])
        room = pixels.shape[1] + 2 * padding - side
        if config.crop == "padded":
            top, left = _below(drawn[:, 1], room + 1), _below(drawn[:, 2], room + 1)
        else:
            top = left = torch.full_like(numbers, room // 2)
        padded = functional.pad(pixels, (0, 0, padding, padding, padding, padding), value=config.fill)
        return self._enlarged(self._normalised(_cut(padded, top, left, flip, side)))

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """(x / 255 − mean) / std as [n, 3, h, w] of uint8 [n, h, w, 3].

        In memory the channels stay last, in which order convolutions are faster on CPUs and GPUs alike.
        """
        values = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
        scale, shift = (one.to(pixels.device)[:, None, None] for one in (self._scale, self._shift))
        return values.mul_(scale).add_(shift)

    def _enlarged(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] == self.size:
            return images
        return functional.interpolate(images, size=(self.size, self.size), mode="bilinear", align_corners=False)


def draws(numbers: torch.Tensor, step: int, *, seed: int, count: int) -> torch.Tensor:
    """Uniform whole numbers below 2²⁴ that depend on the seed, the image's number and the step: int64 [n, count].

    SplitMix64's finaliser, over the seed, the step, the number and the column in turn.

    Args:
        numbers: int64 [n].
        step: from 0.
        seed: any whole number.
        count: draws for each image.
    """
    start = _mixed_int(_mixed_int(seed) + step)
    images = _mixed(numbers + _signed(start))
    columns = torch.arange(1, count + 1, device=numbers.device) * _signed(0x9E3779B97F4A7C15)
    return (_mixed(images[:, None] + columns) >> (64 - _BITS)) & ((1 << _BITS) - 1)


def _mixed(words: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser on int64, which overflows as unsigned words do; ``>>`` keeps the sign, hence the masks."""
    words = (words ^ ((words >> 30) & ((1 << 34) - 1))) * _signed(0xBF58476D1CE4E5B9)
    words = (words ^ ((words >> 27) & ((1 << 37) - 1))) * _signed(0x94D049BB133111EB)
    return words ^ ((words >> 31) & ((1 << 33) - 1))


def _mixed_int(word: int) -> int:
    """The same on one Python number, as unsigned."""
    word = (word + 0x9E3779B97F4A7C15) % _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % _WORD
    return word ^ (word >> 31)


def _signed(word: int) -> int:
    return word - _WORD if word >= _WORD // 2 else word


def _below(drawn: torch.Tensor, bound: torch.Tensor | int) -> torch.Tensor:
    """A draw as a whole number below ``bound``."""
    return (drawn * bound) >> _BITS


def _cut(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, flip: torch.Tensor, side: int) -> torch.Tensor:
    """[side, side] at (top, left) of each image, mirrored where ``flip``: of and as uint8 [n, h, w, 3]."""
    count, height, width, _ = images.shape
    along = torch.arange(side, device=images.device)
    rows = (torch.arange(count, device=images.device) * height + top)[:, None] + along
    columns = left[:, None] + torch.where(flip[:, None], side - 1 - along, along)
    places = rows[:, :, None] * width + columns[:, None, :]
    return images.reshape(-1, 3).index_select(0, places.reshape(-1)).view(count, side, side, 3)


def _windows(
    drawn: torch.Tensor, stored: int, config: Augmentation
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(top, left, height, width) of each image's window, int64 [n] each, of draws [n, 2 + 2·ATTEMPTS]."""
    unit = drawn[:, 2:].to(torch.float32) / (1 << _BITS)
    low, high = (math.log(ratio) for ratio in config.aspect)
    area = (config.area[0] + (config.area[1] - config.area[0]) * unit[:, :ATTEMPTS]) * stored**2
    ratio = torch.exp(low + (high - low) * unit[:, ATTEMPTS:])
    widths, heights = torch.sqrt(area * ratio).round().long(), torch.sqrt(area / ratio).round().long()  # Eq. (1)
    fits = (widths >= 1) & (widths <= stored) & (heights >= 1) & (heights <= stored)
    first = fits.to(torch.int8).argmax(dim=1, keepdim=True)  # the first that fits, where one does
    some = fits.any(dim=1)
    width = torch.where(some, widths.gather(1, first)[:, 0], stored)
    height = torch.where(some, heights.gather(1, first)[:, 0], stored)
    return _below(drawn[:, 0], stored - height + 1), _below(drawn[:, 1], stored - width + 1), height, width


def _resized(
    images: torch.Tensor,
    top: torch.Tensor,
    left: torch.Tensor,
    height: torch.Tensor,
    width: torch.Tensor,
    flip: torch.Tensor,
    size: int,
) -> torch.Tensor:
    """Each image's window, mirrored where ``flip``, resized: [n, 3, size, size] of [n, 3, S, S]."""
    stored = images.shape[-1]
    along = torch.arange(size, device=images.device)
    rows = _positions(along.expand(len(images), size), top, height, size)
    columns = _positions(torch.where(flip[:, None], size - 1 - along, along), left, width, size)
    grid = torch.stack([columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], dim=-1)
    grid = (2 * grid + 1) / stored - 1  # as grid_sample counts: −1 and 1 are the outer edges
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)  # Eq. (2)


def _positions(along: torch.Tensor, start: torch.Tensor, length: torch.Tensor, size: int) -> torch.Tensor:
    """Where, in stored pixels, the output pixels ``along`` [n, size] lie: within the window's own pixels."""
    positions = start[:, None] + (along + 0.5) * (length[:, None] / size) - 0.5
    return positions.clamp(start[:, None], (start + length - 1)[:, None])
