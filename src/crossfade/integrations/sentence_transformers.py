"""sentence-transformers: an adapter as the last module of a ``SentenceTransformer``, whose vectors then live in the old space."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

from crossfade.artifacts import from_pretrained, read_spaces
from crossfade.encoders import SentenceTransformersEncoder
from crossfade.encoders.vectors import unit_rows
from crossfade.errors import ConfigError, EncoderError, FormatError, MissingExtra, SpaceMismatch
from crossfade.methods.base import Adapter, as_queries
from crossfade.spaces import Metric, require_same

try:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Module
except ImportError as missing:
    raise MissingExtra(
        "sentence-transformers", extra="integrations", feature="crossfade.integrations.sentence_transformers"
    ) from missing

if TYPE_CHECKING:
    from typing import Literal

    from sentence_transformers.base.model import BaseModel

__all__ = ["AdapterModule", "upgraded"]

SIMILARITIES: dict[Metric, Literal["cosine", "dot", "euclidean"]] = {
    "cosine": "cosine",
    "dot": "dot",
    "l2": "euclidean",
}
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
TOKENS = re.compile(r"text: (\d+) tokens")
"""How :class:`~crossfade.encoders.SentenceTransformersEncoder` records where texts are cut off."""


def upgraded(model: SentenceTransformer | SentenceTransformersEncoder, adapter: Adapter) -> SentenceTransformer:
    """The new model, followed by an adapter: its vectors are those of ``AdaptedEncoder``, in the old space.

    ``encode_query`` and ``encode_document`` put the prefixes before a text that the adapter's source space names. The modules
    are those of ``model``, not copies.

    Args:
        model: the new model. Given as Crossfade's encoder, its whole space is compared with the adapter's source; otherwise
            what :class:`AdapterModule` can see of it.
        adapter: for texts, normally new → old.

    Raises:
        SpaceMismatch: the model's vectors are not of the adapter's source.
        FitError: the adapter was not fitted for texts.
        EncoderError: the adapter needs the old model's vectors, too.
    """
    if isinstance(model, SentenceTransformersEncoder):
        require_same(model.space, adapter.source, what="The model's vectors")
    plain: SentenceTransformer = model.model if isinstance(model, SentenceTransformersEncoder) else model
    modules = dict(plain.named_children())
    prefixes = {"query": adapter.source.query_prefix, DOCUMENT_PROMPTS[0]: adapter.source.document_prefix}
    made = SentenceTransformer(
        modules=[*modules.values(), AdapterModule(adapter)],
        device=str(plain.device),
        prompts={name: prompt or "" for name, prompt in plain.prompts.items()} | prefixes,
        default_prompt_name=plain.default_prompt_name,
        similarity_fn_name=SIMILARITIES[adapter.target.metric],
    )
    options = plain.module_kwargs or {}
    made.module_kwargs = OrderedDict((str(number), options.get(name, [])) for number, name in enumerate(modules))
    return made


@final
class AdapterModule(Module):
    """Maps sentence embeddings by an adapter; for inference only, since no gradient passes.

    It runs on the CPU, and gives vectors back on the device and in the number format that it got them. A model that has it must
    end with it. When the model is put together, its dimension, its prompts and its limit of tokens are compared with the
    adapter's source space; its weights, its pooling and its number format are not, nor what is changed afterwards, nor a
    prompt or a ``truncate_dim`` of a single call.

    Args:
        adapter: for texts, normally new → old.

    Raises:
        FitError: the adapter was not fitted for texts.
        EncoderError: the adapter needs the old model's vectors, too.
    """

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        adapter.require_modality("text")
        if adapter.two_encoders:
            raise EncoderError(
                "A module has the new model's vectors alone, and this adapter needs the old model's of the same texts, too. Use "
                "crossfade.encoders.AdaptedEncoder, or another method."
            )
        self.adapter = adapter

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Replace ``sentence_embedding``, [n, d_source], by the mapped vectors, [n, d_target].

        Raises:
            InvalidVectors: another dimension.
            EncoderError: a vector is zero or not finite, in a space that is normalised.
        """
        given, source = features["sentence_embedding"], self.adapter.source
        vectors = given.detach().to("cpu", torch.float32).numpy()
        if source.normalized and vectors.shape[-1] == source.dimension:
            vectors = unit_rows(vectors, model=source.model, rows=len(vectors))
        mapped = self.adapter.map(as_queries(vectors, source), "text")
        features["sentence_embedding"] = torch.from_numpy(mapped).to(device=given.device, dtype=given.dtype)
        return features

    def on_model_ready(self, model: BaseModel) -> None:
        """Compare the model that it is put into with the adapter's source; sentence-transformers calls this.

        Raises:
            ConfigError: it is not the model's last module, or another adapter precedes it.
            SpaceMismatch: the model makes other vectors.
        """
        *before, last = model.children()
        if last is not self or any(isinstance(module, AdapterModule) for module in before):
            names = [type(module).__name__ for module in model.children()]
            raise ConfigError(
                f"A model's adapter must be its last module and its only one; found {names}. "
                "Join adapters by adapter.then()."
            )
        source = self.adapter.source
        found = {
            "dimension": next((d for d in map(_dimension, reversed(before)) if d is not None), source.dimension),
            "query prefix": model.prompts.get("query", ""),
            "document prefix": next((model.prompts[name] for name in DOCUMENT_PROMPTS if name in model.prompts), ""),
        }
        wanted = {
            "dimension": source.dimension,
            "query prefix": source.query_prefix,
            "document prefix": source.document_prefix,
        }
        if recorded := TOKENS.fullmatch(source.preprocessing):
            found["limit of tokens"], wanted["limit of tokens"] = model.max_seq_length, int(recorded[1])
        wrong = [
            f"{name} {found[name]!r} instead of {wanted[name]!r}" for name in wanted if found[name] != wanted[name]
        ]
        if wrong:
            raise SpaceMismatch(
                f"The model's vectors must live in {source}; found {', '.join(wrong)}. Take that model, with its prompts: "
                "crossfade.integrations.sentence_transformers.upgraded(model, adapter) sets them."
            )

    def get_embedding_dimension(self) -> int:
        """Of the mapped vectors."""
        return self.adapter.target.dimension

    def get_config_dict(self) -> dict[str, Any]:
        """What it is, for people to read."""
        return {"source": str(self.adapter.source), "target": str(self.adapter.target)}

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write the adapter as :func:`crossfade.save_pretrained` does: JSON and safetensors, whatever is asked for.

        Raises:
            ConfigError: the adapter does not say which method made it.
            StorageError: the folder holds anything but an adapter, or cannot be written.
        """
        folder = Path(output_path)
        free = not folder.is_dir() or not any(folder.iterdir())
        again = (folder / "config.json").is_file() and read_spaces(folder) is not None
        self.adapter.save_pretrained(folder, overwrite=free or again)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **_: Any,
    ) -> Self:
        """Open what :meth:`save` wrote; ``SentenceTransformer(folder, trust_remote_code=True)`` calls this.

        Raises:
            FormatError: there is none, or it is damaged.
        """
        folder = cls.load_dir_path(
            model_name_or_path,
            subfolder=subfolder,
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        if folder is None:
            raise FormatError(f"{model_name_or_path} has no adapter in {subfolder!r}. Copy the model again.")
        return cls(from_pretrained(folder))


def _dimension(module: torch.nn.Module) -> int | None:
    """Of the vectors that a module gives; None where it does not say."""
    ask = getattr(module, "get_embedding_dimension", None)
    return ask() if callable(ask) else None
