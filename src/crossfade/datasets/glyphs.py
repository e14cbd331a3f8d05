"""The built-in data set: printed characters and their Unicode names, with nothing to download.

Matplotlib carries the DejaVu and STIX typefaces, Python carries the Unicode character names. An image is one character
in one typeface; its caption is the character's name, such as ``BLACK CHESS KNIGHT``::

    image id  glyph/0416/DejaVuSans-Bold   metadata: typeface, script, label (the code point, hexadecimal)
    text id   name/0416                    metadata: script
    link      the name -> that character in every typeface of the split

Three splits, two of them held out:

=====================  ==================================  =========================
split                  characters                          typefaces
=====================  ==================================  =========================
``train``              seen                                seen
``unseen-faces``       seen                                unseen
``unseen-characters``  held out                            all, seen and unseen
=====================  ==================================  =========================

A character is held out by a SHA-256 of its code point and the seed, and an image is part of a ``share`` of the training
set by one of code point, typeface and seed: the splits depend on no order, and a smaller share is a subset of a larger.
A character that no seen typeface has is in no split unless it is held out.

As labelled images, a character is a class and its typefaces are the samples: ``Glyphs(characters=200)`` to train on and
``Glyphs("unseen-faces", characters=200)`` to test with are the same 200 classes in other typefaces. Mirroring an image
makes another character of it.

The task is a real one, with real ambiguities that are left in: every image is scaled to fill its frame, so that some
case pairs (Cyrillic ZHE and zhe) and many homoglyphs (Latin A, Greek ALPHA, Cyrillic A) have nearly or exactly the same
image.

Rendering is deterministic for one version of FreeType; its pixels may differ a little between versions.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, get_args

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem
from crossfade.errors import ConfigError

__all__ = ["TYPEFACES", "UNSEEN_CHARACTERS", "UNSEEN_FACES", "Glyphs", "Split", "render"]

Split = Literal["train", "unseen-faces", "unseen-characters"]

TYPEFACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
)
UNSEEN_FACES = ("DejaVuSans-BoldOblique", "DejaVuSerif-BoldItalic", "STIXGeneralBol", "STIXGeneralItalic")
UNSEEN_CHARACTERS = 0.04  # of all characters: about 2,300 images

_MARGIN = 1 / 16  # of the frame, left white on each side of the glyph
_OVERSAMPLING = 4  # a glyph is drawn at this many frame sizes per em, then reduced
_INDEX_EM = 24  # pixels per em at which a glyph is tested for ink
_UNASSIGNED = "\U0010ffff"  # a noncharacter, which every typeface draws as .notdef
# fmt: off
_SCRIPTS = frozenset([
    "ARABIC", "ARMENIAN", "BRAILLE", "CANADIAN", "COPTIC", "CYRILLIC", "GEORGIAN", "GREEK", "HEBREW", "LAO", "LATIN",
    "LISU", "NKO", "OGHAM", "TIFINAGH", "MATHEMATICAL", "MODIFIER", "COMBINING", "BOX", "DOMINO", "PLAYING", "CIRCLED",
    "APL", "TETRAGRAM", "HEXAGRAM",
])
# fmt: on
_SCRIPT_OF_CATEGORY = {"L": "LETTER", "M": "COMBINING", "N": "NUMBER", "P": "PUNCTUATION", "Sm": "MATHEMATICAL"}


@dataclass(frozen=True)
class Glyphs(Dataset):
    """One split of the printed characters.

    Attributes:
        split: ``train``, ``unseen-faces`` or ``unseen-characters``; see the module's table.
        share: the share of the training images to keep, in (0, 1]; only for ``train``. Characters of which no image is
            kept drop out with their names.
        size: the side of an image, in pixels.
        seed: of the hash that holds characters out and chooses the share and the characters.
        characters: keep so many, the same in ``train`` and ``unseen-faces``: of those that both have the ones that most
            typefaces have, and among equals by a hash; a smaller number is part of a larger. 0 keeps all.
        unseen_faces: the typefaces that are not trained on.
    """

    split: Split = "train"
    share: float = 1.0
    size: int = 40
    seed: int = 0
    characters: int = 0
    unseen_faces: tuple[str, ...] = UNSEEN_FACES
    name: str = field(default="glyphs", init=False)

    def __post_init__(self) -> None:
        if self.split not in get_args(Split):
            raise ConfigError(f"A split of the glyphs is one of {', '.join(get_args(Split))}; found {self.split!r}.")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share must be above 0 and at most 1; found {self.share}.")
        if self.share != 1 and self.split != "train":
            raise ConfigError(f"share thins out the split 'train' only; leave it at 1 for {self.split!r}.")
        if self.size < 16:
            raise ConfigError(f"A glyph needs a size of at least 16 pixels to be legible; found {self.size}.")
        if self.characters < 0:
            raise ConfigError(f"characters must be at least 1, or 0 for all; found {self.characters}.")
        unknown = [face for face in self.unseen_faces if face not in TYPEFACES]
        if unknown or not 0 < len(set(self.unseen_faces)) < len(TYPEFACES):
            raise ConfigError(
                f"unseen_faces must name some of {', '.join(TYPEFACES)}, and not all; found "
                f"{', '.join(unknown or self.unseen_faces) or 'none'}."
            )

    def images(self) -> Iterator[ImageItem]:
        """Every character in every typeface of the split, by code point, then by typeface."""
        for code, typefaces in self._members():
            for typeface in typefaces:
                metadata = {"typeface": typeface, "script": _script(code), "label": f"{code:04X}"}
                yield ImageItem(
                    _image_id(code, typeface), partial(render, chr(code), typeface, size=self.size), metadata
                )

    def texts(self) -> Iterator[TextItem]:
        """The name of every character of the split, by code point."""
        for code, _ in self._members():
            yield TextItem(_text_id(code), unicodedata.name(chr(code)), {"script": _script(code)})

    def links(self) -> Iterator[Link]:
        """Each name, to its character in every typeface of the split."""
        for code, typefaces in self._members():
            for typeface in typefaces:
                yield Link(_text_id(code), _image_id(code, typeface))

    def _members(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        kept = self._kept()
        for code, typefaces in _characters().items():
            if kept is not None and code not in kept:
                continue
            seen, unseen = self._divided(typefaces)
            held_out = self._is_held_out(code)
            if self.split == "unseen-characters" and held_out:
                yield code, typefaces
            elif self.split == "unseen-faces" and not held_out and seen and unseen:
                yield code, unseen
            elif self.split == "train" and not held_out:
                faces = tuple(face for face in seen if _draw(code, f"{self.seed}/share/{face}") < self.share)
                if faces:
                    yield code, faces

    def _kept(self) -> frozenset[int] | None:
        """The code points that ``characters`` keeps; None for all."""
        if not self.characters:
            return None
        if self.split == "unseen-characters":
            able = {code: faces for code, faces in _characters().items() if self._is_held_out(code)}
        else:
            able = {
                code: faces
                for code, faces in _characters().items()
                if not self._is_held_out(code) and all(self._divided(faces))
            }
        if self.characters > len(able):
            raise ConfigError(
                f"characters must be at most {len(able)}, as many as there are in {self.split!r}; found "
                f"{self.characters}."
            )
        order = sorted(able, key=lambda code: (-len(able[code]), _draw(code, f"{self.seed}/characters")))
        return frozenset(order[: self.characters])

    def _divided(self, typefaces: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(the seen, the unseen) of them."""
        unseen = tuple(face for face in typefaces if face in self.unseen_faces)
        return tuple(face for face in typefaces if face not in self.unseen_faces), unseen

    def _is_held_out(self, code: int) -> bool:
        return _draw(code, f"{self.seed}/held-out") < UNSEEN_CHARACTERS


def render(character: str, typeface: str, *, size: int) -> Image.Image:
    """Draw a character black on white, scaled to fill a frame and centred in it.

    Args:
        character: one character that the typeface has.
        typeface: one of :data:`TYPEFACES`.
        size: the side of the frame, in pixels.

    Returns:
        An RGB image of ``size`` by ``size`` pixels.
    """
    ink = _ink(character, _font(typeface, _OVERSAMPLING * size))
    room = size - 2 * round(_MARGIN * size)
    scale = room / max(ink.size)
    width, height = (max(1, round(scale * side)) for side in ink.size)
    glyph = ink.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    frame = Image.new("L", (size, size), 255)
    frame.paste(0, ((size - width) // 2, (size - height) // 2), glyph)
    return frame.convert("RGB")


def _ink(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The character white on black, cropped to its ink; an image of size (0, 0) where it has none."""
    left, top, right, bottom = (round(side) for side in font.getbbox(character))
    canvas = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), character, fill=255, font=font)
    return canvas.crop(canvas.getbbox() or (0, 0, 0, 0))


@lru_cache(maxsize=64)
def _font(typeface: str, em: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_path(typeface), em, layout_engine=ImageFont.Layout.BASIC)


def _path(typeface: str) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{typeface}.ttf"


@lru_cache(maxsize=1)
def _characters() -> dict[int, tuple[str, ...]]:
    """Code point -> the typefaces that have ink of their own for it, both in order."""
    typefaces_of: dict[int, list[str]] = {}
    for typeface in TYPEFACES:
        font = _font(typeface, _INDEX_EM)
        missing = _ink(_UNASSIGNED, font)
        for code, glyph in FT2Font(str(_path(typeface))).get_charmap().items():
            if glyph and _has_a_name_worth_reading(chr(code)) and _has_ink(chr(code), font, missing):
                typefaces_of.setdefault(code, []).append(typeface)
    return {code: tuple(typefaces_of[code]) for code in sorted(typefaces_of)}


def _has_ink(character: str, font: ImageFont.FreeTypeFont, missing: Image.Image) -> bool:
    """Whether a character has ink, and other ink than what the typeface draws for those that it misses."""
    box = font.getmask(character).getbbox()
    if box is None:
        return False
    left, top, right, bottom = box
    return (right - left, bottom - top) != missing.size or _ink(character, font).tobytes() != missing.tobytes()


def _has_a_name_worth_reading(character: str) -> bool:
    """Not a separator, a control or private-use character, nor one whose name is no more than its number."""
    name = unicodedata.name(character, "")
    numbered = name.endswith(f"-{ord(character):04X}") or name.startswith("HANGUL SYLLABLE")
    return bool(name) and not numbered and unicodedata.category(character)[0] not in "ZC"


def _script(code: int) -> str:
    """The first word of the name where it is a script or a block of symbols, else a class of Unicode category."""
    first = unicodedata.name(chr(code)).split()[0]
    category = unicodedata.category(chr(code))
    if first in _SCRIPTS:
        return first
    return _SCRIPT_OF_CATEGORY.get(category, _SCRIPT_OF_CATEGORY.get(category[0], "SYMBOL"))


def _draw(code: int, purpose: str) -> float:
    """A number in [0, 1) that depends on the code point and the purpose alone."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{code:04X}".encode()).digest()[:8], "big") / 2**64


def _image_id(code: int, typeface: str) -> str:
    return f"glyph/{code:04X}/{typeface}"


def _text_id(code: int) -> str:
    return f"name/{code:04X}"
