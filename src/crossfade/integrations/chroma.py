"""Chroma: the embedding function of a collection, by any encoder.

With a collection Chroma stores the name of its function and a configuration::

    "crossfade": {"format_version": 1, "space": {…}, "encoder": …, "adapter": …, "upgrade": …, "old": …}

Models are stored by name, adapters and upgrades by folder, and only what was made by
:meth:`CrossfadeEmbeddingFunction.named` has them: an encoder that exists as an object alone cannot be stored. Its space can,
so that the error says which vectors the collection holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
import numpy.typing as npt

from crossfade.artifacts import from_pretrained
from crossfade.encoders import AdaptedEncoder, Encoder, Role, load_encoder
from crossfade.errors import ConfigError, CorruptItem, EncoderError, FormatError, MissingExtra, NewerFormat
from crossfade.integrations.served import ServedEncoder
from crossfade.spaces import Metric, Space, require_same

try:
    from chromadb import EmbeddingFunction
    from chromadb.api.types import Embeddable, Embeddings
    from chromadb.api.types import Space as Distance
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError as missing:
    raise MissingExtra("chromadb", extra="integrations", feature="crossfade.integrations.chroma") from missing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CrossfadeEmbeddingFunction"]

NAME = "crossfade"
FORMAT_VERSION = 1
DISTANCES: dict[Metric, Distance] = {"cosine": "cosine", "dot": "ip", "l2": "l2"}


@final
@register_embedding_function
class CrossfadeEmbeddingFunction(EmbeddingFunction[Embeddable]):
    """Any encoder as the embedding function of a Chroma collection: what is added is encoded in its role ``document``, what is
    searched with in its role ``query``.

    With an :class:`~crossfade.encoders.AdaptedEncoder` or a :class:`~crossfade.integrations.ServedEncoder`, a collection that
    an old model filled is searched by the new one. Chroma opens a collection only with a function of the name that the
    collection was made with, and compares nothing else: give that name as ``made_by``, unless it was ``crossfade``.

    An image is an array of whole numbers from 0 to 255, [h, w], [h, w, 1], RGB [h, w, 3] or RGBA [h, w, 4], which is flattened on
    white.

    Args:
        encoder: of the space that the collection holds. It is not stored with a collection; :meth:`named` gives one that is.
        made_by: the name of the function that the collection was made with, for example ``sentence_transformer``; ``default``
            where none was named. For collections that exist: nothing is stored of it with a new one.
        batch_size: texts or images that the encoder is given at a time, at most.

    Raises:
        ConfigError: it is no encoder, or a batch is empty.
    """

    def __init__(self, encoder: Encoder, *, made_by: str | None = None, batch_size: int = 64) -> None:
        if not isinstance(encoder, Encoder):
            raise ConfigError(
                f"An embedding function takes an encoder; found {type(encoder).__name__}. Load one: crossfade.load_encoder."
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"A batch must have a whole number of items, at least 1; found {batch_size!r}.")
        self.encoder, self.batch_size = encoder, batch_size
        self._foreign = made_by is not None and made_by != NAME
        if made_by is not None:
            self.name = lambda: made_by  # type: ignore[method-assign]

    @classmethod
    def named(
        cls,
        encoder: str,
        *,
        adapter: str | Path | None = None,
        upgrade: str | Path | None = None,
        old: str | None = None,
        made_by: str | None = None,
        batch_size: int = 64,
    ) -> Self:
        """One that Chroma can make again, in another process that has the same files and has imported this module.

        Args:
            encoder: as :func:`crossfade.load_encoder` takes it; the new model where there is an adapter or an upgrade.
            adapter: the folder of a saved adapter, which follows the encoder (:class:`~crossfade.encoders.AdaptedEncoder`).
            upgrade: or the folder of an upgrade (:class:`~crossfade.integrations.ServedEncoder`).
            old: the old model, which the upgrade and some adapters need.
            made_by: as for the constructor.
            batch_size: as for the constructor; it is not stored.

        Raises:
            ConfigError: an adapter and an upgrade, or an old model without either.
            EncoderError: a model cannot be loaded.
        """
        recipe = _Recipe.located(encoder, adapter=adapter, upgrade=upgrade, old=old)
        return cls(_StoredEncoder(_loaded(recipe).space, recipe), made_by=made_by, batch_size=batch_size)

    def __call__(self, input: Embeddable) -> Embeddings:
        """One vector an item, to be stored.

        Args:
            input: texts, or images.

        Raises:
            EncoderError: the encoder cannot encode these, or cannot be made again from what is stored.
            ConfigError: they are neither all texts nor all images.
            CorruptItem: an array is no image.
        """
        return self._embedded(input, "document")

    def embed_query(self, input: Embeddable) -> Embeddings:
        """One vector an item, to be searched with; otherwise as for a call."""
        return self._embedded(input, "query")

    @staticmethod
    def name() -> str:
        """What Chroma knows it by: ``crossfade``; in an instance that was given one, ``made_by``."""
        return NAME

    def is_legacy(self) -> bool:
        """Whether nothing of it is stored with a new collection."""
        return self._foreign

    def default_space(self) -> Distance:
        """Chroma's name of the metric that the vectors are compared by."""
        return DISTANCES[self.encoder.space.metric]

    def supported_spaces(self) -> list[Distance]:
        """That one; all of them where the vectors have unit norm, which every metric ranks alike."""
        return list(DISTANCES.values()) if self.encoder.space.normalized else [self.default_space()]

    def get_config(self) -> dict[str, Any]:
        """What is stored with a collection."""
        recipe = self.encoder.recipe if isinstance(self.encoder, _StoredEncoder) else None
        return {
            "format_version": FORMAT_VERSION,
            "space": self.encoder.space.to_dict(),
            **({} if recipe is None else {name: value for name, value in asdict(recipe).items() if value is not None}),
        }

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> CrossfadeEmbeddingFunction:
        """The reverse of :meth:`get_config`; models are loaded when they are first needed.

        Raises:
            FormatError: it is not what :meth:`get_config` gave.
            NewerFormat: a later Crossfade stored it.
        """
        return CrossfadeEmbeddingFunction(_StoredEncoder.of(config))

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse what :meth:`build_from_config` would refuse."""
        _StoredEncoder.of(config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse another space than that of the vectors that are there. Chroma asks once it has stored the new configuration.

        Raises:
            SpaceMismatch: they differ.
        """
        require_same(
            _StoredEncoder.of(new_config).space,
            _StoredEncoder.of(old_config).space,
            what="The vectors of the new embedding function",
            hint="Chroma has stored it by now: modify the collection again, with a function of the space that it holds.",
        )

    def __repr__(self) -> str:
        return f"CrossfadeEmbeddingFunction({self.encoder!r})"

    def _embedded(self, items: Sequence[Any], role: Role) -> Embeddings:
        texts = [isinstance(item, str) for item in items]
        if any(texts) and not all(texts):
            raise ConfigError(
                f"What is embedded must be all texts or all images; found {sum(texts)} texts of {len(texts)}."
            )
        vectors: Embeddings = []
        for start in range(0, len(items), self.batch_size):
            batch = items[start : start + self.batch_size]
            if texts[start]:
                vectors += list(self.encoder.encode_texts(batch, role=role))
            else:
                pictures = [_picture(item, number) for number, item in enumerate(batch, start)]
                vectors += list(self.encoder.encode_images(pictures))
        return vectors


@final
@dataclass(frozen=True)
class _Recipe:
    """How an encoder is made from names and folders; see :meth:`CrossfadeEmbeddingFunction.named`."""

    encoder: str
    adapter: str | None = None
    upgrade: str | None = None
    old: str | None = None

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in asdict(self).items() if not isinstance(value, str | None)}
        if wrong or not isinstance(self.encoder, str):
            raise ConfigError(f"An encoder is made from names and folders, each a string; found {asdict(self)}.")
        if self.adapter is not None and self.upgrade is not None:
            raise ConfigError("An encoder is followed by an adapter or serves an upgrade; found both. Leave out one.")
        if self.old is not None and self.adapter is None and self.upgrade is None:
            raise ConfigError(
                f"The old model {self.old!r} has a use beside an adapter or an upgrade only. Leave it out."
            )

    @classmethod
    def located(cls, encoder: str, *, adapter: str | Path | None, upgrade: str | Path | None, old: str | None) -> Self:
        """With folders by their whole paths, so that they are found from anywhere."""
        return cls(*(None if each is None else _whole(each) for each in (encoder, adapter, upgrade, old)))  # type: ignore[arg-type]


@lru_cache(maxsize=16)
def _loaded(recipe: _Recipe) -> Encoder:
    """The encoder, loaded once: Chroma makes a function again for each call of a collection that was opened without one."""
    new, old = load_encoder(recipe.encoder), None if recipe.old is None else load_encoder(recipe.old)
    if recipe.upgrade is not None:
        return ServedEncoder(recipe.upgrade, new=new, old=old)
    if recipe.adapter is not None:
        return AdaptedEncoder(new, from_pretrained(recipe.adapter), old=old)
    return new


@final
class _StoredEncoder(Encoder):
    """The encoder that a configuration names, loaded when it is first used.

    Args:
        space: of its vectors, as it was stored.
        recipe: how it is made; None for one that cannot be.
    """

    def __init__(self, space: Space, recipe: _Recipe | None) -> None:
        self.space, self.recipe = space, recipe

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """From a configuration.

        Raises:
            FormatError: it is damaged.
            NewerFormat: a later Crossfade stored it.
        """
        version = config.get("format_version")
        if not isinstance(version, int) or not isinstance(config.get("space"), Mapping):
            raise FormatError(
                f"The configuration of Crossfade's embedding function must have a format_version and a space; found "
                f"{sorted(config)}. Open the collection with embedding_function=."
            )
        if version > FORMAT_VERSION:
            raise NewerFormat(
                f"The configuration has format version {version}; this Crossfade reads up to {FORMAT_VERSION}. Upgrade it."
            )
        made = {name: value for name, value in config.items() if name not in ("format_version", "space")}
        try:
            return cls(Space.from_dict(config["space"]), _Recipe(**made) if made else None)
        except (TypeError, ConfigError) as error:
            raise FormatError(
                f"The configuration of Crossfade's embedding function is damaged ({error}). Open the collection with "
                "embedding_function=."
            ) from error

    def encode_images(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        return self._found().encode_images(images)

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
        return self._found().encode_texts(texts, role=role)

    def truncated(self, texts: Sequence[str], *, role: Role = "document") -> int | None:
        return self._found().truncated(texts, role=role)

    def __repr__(self) -> str:
        return f"StoredEncoder({self.space})"

    def _found(self) -> Encoder:
        if self.recipe is None:
            raise EncoderError(
                f"The collection was made with an encoder of {self.space} that has no name to load it by. Open it with "
                "embedding_function=CrossfadeEmbeddingFunction(ENCODER) of that space."
            )
        encoder = _loaded(self.recipe)
        require_same(
            encoder.space,
            self.space,
            what=f"The vectors of {self.recipe.encoder}, as it is now,",
            hint="Open the collection with embedding_function= of the space that it holds.",
        )
        return encoder


def _picture(item: Any, number: int) -> Image:
    """An array as Chroma gives it, as an RGB image.

    Raises:
        CorruptItem: it is none.
    """
    import PIL.Image

    pixels = np.asarray(item)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not fits or not pixels.size or pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise CorruptItem(
            "An image must be an array of whole numbers from 0 to 255, [h, w] or [h, w, 1, 3 or 4]; found "
            f"{pixels.dtype} {list(pixels.shape)} as item {number}. Decode it to RGB."
        )
    image = PIL.Image.fromarray(pixels.astype(np.uint8))
    if image.mode == "RGBA":
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _whole(name: str | Path) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else str(name)
