"""Opening an image: fully decoded, upright, RGB; and a :class:`~crossfade.errors.CorruptItem` where that cannot be.

* The EXIF orientation is applied, so that a photograph stands as its viewer shows it.
* Transparency is flattened on white: an emoji or a product cut-out is seen as on a page. (A plain conversion to RGB
  would instead uncover whatever colour the transparent pixels hide, usually black.)
* 16-bit grey becomes 8-bit grey by its high byte; of an animation the first frame counts.
* An image of more pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` is refused, for it may be a decompression bomb.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossfade.errors import CorruptItem

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGE_SUFFIXES", "ImageFile", "ImageSlice", "image_suffix", "open_image"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def image_suffix(name: str) -> str:
    """The suffix of a file name with its dot, in lower case; empty where there is none."""
    _, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and "/" not in suffix else ""


def open_image(source: Path | bytes, *, item: str = "") -> Image:
    """Open and fully decode one image, RGB.

    Args:
        source: a file, or the bytes of one.
        item: the item's id, for the error.

    Raises:
        CorruptItem: the file is missing, truncated, damaged, of an unknown format, or suspiciously large.
    """
    import PIL.Image

    name = item or (str(source) if isinstance(source, Path) else "an image")
    place = f" ({source})" if isinstance(source, Path) and item else ""
    try:
        with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            _refuse_bomb(opened, name)
            opened.load()
            return _rgb(_upright(opened))
    except (CorruptItem, MemoryError):
        raise
    except FileNotFoundError as error:
        raise CorruptItem(f"The image {name} is missing{place}. Check the folder of images that you named.") from error
    except PIL.UnidentifiedImageError as error:
        raise CorruptItem(
            f"The image {name}{place} must be a JPEG, PNG, WebP or another format that Pillow reads, and is not. "
            "Replace or drop it."
        ) from error
    except Exception as error:  # Pillow's decoders raise whatever damaged data leads them to
        raise CorruptItem(f"The image {name}{place} cannot be decoded: {error}. Replace or drop it.") from error


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A ``load`` that knows its file, so that a missing one can be found without opening it."""

    path: Path
    item: str

    def __call__(self) -> Image:
        return open_image(self.path, item=self.item)

    def exists(self) -> bool:
        """Whether a file stands there."""
        return self.path.is_file()


@dataclass(frozen=True, slots=True)
class ImageSlice:
    """A ``load`` from ``size`` bytes at ``offset`` of a file that holds many images, such as a tar shard."""

    path: Path
    offset: int
    size: int
    item: str

    def __call__(self) -> Image:
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise CorruptItem(
                f"The image {self.item} cannot be read from {self.path}: {error.strerror or error}."
            ) from error
        return open_image(data, item=self.item)


def _refuse_bomb(image: Image, name: str) -> None:
    import PIL.Image

    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise CorruptItem(
            f"The image {name} must have at most {limit} pixels and has {image.width} × {image.height}: it may be a "
            "decompression bomb. Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        )


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block says nothing about the picture, which has been decoded whole
        return image


def _rgb(image: Image) -> Image:
    import PIL.Image

    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        shift = 8 if grey.max(initial=0) > 255 else 0
        image = PIL.Image.fromarray(np.clip(grey >> shift, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return image.convert("RGB")
