"""A tuned encoder: the new model with LoRA and prompts beside its weights, then φ; its vectors live in the old space.

::

    folder/
      config.json              format, format_version, base, source and target space, tuning, summary of the training
      projection/              φ, as crossfade.save_pretrained writes an adapter
      lora/                    adapter_config.json, adapter_model.safetensors: as peft writes and loads them
      prompts.safetensors      ``text`` [p, width] and ``image`` [p, width], whichever there are
      fitted_on.npy            keys of the items it was trained on, uint64
      README.md                a model card

The base model is not in the folder: it is found again by its hub id and commit, or by its folder, and must be the same
checkpoint. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from crossfade.encoders.base import Encoder, Role
from crossfade.encoders.saved import has_format, read_tensors, refuse_unsafe
from crossfade.encoders.torch_runtime import forward, to_unit_rows
from crossfade.encoders.towers.tuning import Tuning
from crossfade.encoders.transformers_dual import TransformersDualEncoder
from crossfade.encoders.vectors import no_rows
from crossfade.errors import ConfigError, EncoderError, FormatError
from crossfade.files import atomic_folder, read_npy, write_json, write_npy
from crossfade.spaces import MODALITIES, Modality, Space, require_same

if TYPE_CHECKING:
    from PIL.Image import Image

    from crossfade.encoders.towers.tuned import TunedTowers
    from crossfade.methods.base import Adapter

__all__ = ["FORMAT", "FORMAT_VERSION", "TunedEncoder", "is_tuned_encoder"]

FORMAT = "crossfade-tuned-encoder"
FORMAT_VERSION = 1
CONFIG = "config.json"
PROJECTION = "projection"
LORA_CONFIG = "lora/adapter_config.json"
LORA_TENSORS = "lora/adapter_model.safetensors"
PROMPTS = "prompts.safetensors"
FITTED_ON = "fitted_on.npy"
CARD = "README.md"


@final
class TunedEncoder(Encoder):
    """A dual encoder with LoRA and prompts, followed by an adapter.

    Args:
        base: the untouched encoder, whose weights are shared and never change.
        adapter: φ, from the base's space.
        towers: the towers of ``base`` with what was learned.
        summary: how it was trained, as JSON values.
        fitted_on: keys of the items it was trained on, sorted uint64.

    Attributes:
        base: as given.
        adapter: as given.
        towers: as given.
        summary: as given.
        fitted_on: as given.

    Raises:
        SpaceMismatch: the adapter maps from another space than the base's.
    """

    def __init__(
        self,
        base: TransformersDualEncoder,
        adapter: Adapter,
        towers: TunedTowers,
        *,
        summary: Mapping[str, Any] | None = None,
        fitted_on: npt.NDArray[np.uint64] | None = None,
    ) -> None:
        require_same(base.space, adapter.source, what="The base encoder's vectors")
        self.base = base
        self.adapter = adapter
        self.towers = towers.eval()
        self.summary = dict(summary or {})
        self.fitted_on = np.empty(0, dtype=np.uint64) if fitted_on is None else fitted_on
        self.space = adapter.target

    def encode_images(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        """See :meth:`Encoder.encode_images`; in the old space."""
        return self._encode("image", images)

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
        """See :meth:`Encoder.encode_texts`; in the old space."""
        return self._encode("text", texts)

    def save_pretrained(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the folder that the module describes, all or nothing.

        Raises:
            ConfigError: φ does not say which method made it.
            StorageError: the folder exists and may not be replaced, or cannot be written.
        """
        from safetensors.torch import save_file

        prompts = self.towers.prompts()
        with atomic_folder(Path(path), overwrite=overwrite) as temporary:
            self.adapter.save_pretrained(temporary / PROJECTION)
            for lora in self.towers.loras:
                (temporary / LORA_CONFIG).parent.mkdir()
                write_json(temporary / LORA_CONFIG, lora.configuration())
                save_file(lora.tensors(), temporary / LORA_TENSORS, metadata={"format": "pt"})
            if prompts:
                save_file(prompts, temporary / PROMPTS)
            write_npy(temporary / FITTED_ON, self.fitted_on)
            write_json(temporary / CONFIG, self._config())
            (temporary / CARD).write_text(_card(self), encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        base: str | TransformersDualEncoder | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ) -> TunedEncoder:
        """Open what :meth:`save_pretrained` wrote.

        Args:
            path: the folder.
            base: where the base model is: a folder, a hub id, or the encoder itself; by default where it was when this
                was trained.
            device: as :func:`crossfade.load_encoder` takes it; unused where ``base`` is an encoder.
            dtype: the number format it was tuned in, since another one gives other vectors.

        Raises:
            ConfigError: it was tuned in another number format.
            FormatError: it is damaged, or no tuned encoder.
            NewerFormat: a later Crossfade wrote it.
            UnsafeFormat: its weights would need pickle to be read.
            EncoderError: the base model is not where it was; name it by ``base``.
            SpaceMismatch: ``base`` is another checkpoint than the one that was tuned.
            MissingExtra: peft or transformers is not installed.
        """
        from crossfade.artifacts import from_pretrained, read_config
        from crossfade.encoders.towers.dual import dual_towers
        from crossfade.encoders.towers.tuned import TunedTowers

        folder = Path(path)
        config = read_config(folder, kind="tuned encoder", format_=FORMAT, version=FORMAT_VERSION)
        refuse_unsafe(folder, what="A tuned encoder")
        try:
            source, target = Space.from_dict(config["source"]), Space.from_dict(config["target"])
            location, summary = dict(config["base"]), dict(config["summary"])
            tuning = Tuning.from_dict(config["tuning"])
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{folder / CONFIG} lacks or garbles the field {error}. Copy the folder again."
            ) from error
        adapter = from_pretrained(folder / PROJECTION)
        for what, found, recorded in (("source", adapter.source, source), ("target", adapter.target, target)):
            if found != recorded or config[what].get("fingerprint") != recorded.fingerprint:
                raise FormatError(
                    f"The {what} space of {folder / CONFIG} must be that of {folder / PROJECTION}, unchanged; it has "
                    f"fingerprint {recorded.fingerprint}, and {config[what].get('fingerprint')} was recorded. Copy the "
                    "folder again."
                )
        tuned_in = source.runtime.partition("/")[0]
        if tuned_in != dtype:
            raise ConfigError(f"{folder} was tuned in {tuned_in}; found {dtype}. Load it with dtype={tuned_in!r}.")
        encoder = _base(base, location, device=device, dtype=dtype)
        require_same(
            encoder.space,
            source,
            what=f"The base model of {folder}",
            hint="Name the checkpoint that was tuned: TunedEncoder.from_pretrained(…, base=…).",
        )
        towers = TunedTowers(dual_towers(encoder), tuning)
        towers.to(encoder.device)
        for lora in towers.loras:
            lora.load(read_tensors(folder / LORA_TENSORS))
        if towers.prompts():
            towers.load_prompts(read_tensors(folder / PROMPTS))
        fitted_on = np.array(read_npy(folder / FITTED_ON, memory_map=False), dtype=np.uint64)
        return cls(encoder, adapter, towers, summary=summary, fitted_on=fitted_on)

    def __repr__(self) -> str:
        return f"TunedEncoder({self.base!r} → {self.space})"

    def _encode(self, modality: Modality, contents: Sequence[Any]) -> npt.NDArray[np.float32]:
        self.adapter.require_modality(modality)
        if not contents:
            return no_rows(self.space.dimension)
        name = self.base.space.model
        with forward(name):
            inputs = self.towers.tower(modality).prepare(contents)
            device = next(self.towers.parameters()).device
            features = self.towers.features(modality, {k: v.to(device) for k, v in inputs.items()})
        return self.adapter.map(to_unit_rows(features, model=name, rows=len(contents)), modality)

    def _config(self) -> dict[str, Any]:
        source, target = self.adapter.source, self.adapter.target
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "base": _location(self.base),
            "source": {**source.to_dict(), "fingerprint": source.fingerprint},
            "target": {**target.to_dict(), "fingerprint": target.fingerprint},
            "modalities": list(self.adapter.modalities),
            "tuning": self.towers.tuning.to_dict(),
            "summary": self.summary,
        }


def is_tuned_encoder(path: str | Path) -> bool:
    """Whether a folder holds a tuned encoder, of whatever version."""
    return has_format(path, FORMAT)


def _location(encoder: TransformersDualEncoder) -> dict[str, str]:
    """Where the model of an encoder came from: a folder here, or a commit on the hub."""
    folder = Path(str(encoder.model.name_or_path))
    if folder.name == encoder.space.model and folder.is_dir():
        return {"model": encoder.space.model, "folder": str(folder)}
    return {"model": encoder.space.model, "revision": encoder.space.revision}


def _base(
    given: str | TransformersDualEncoder | None, recorded: Mapping[str, str], *, device: str, dtype: str
) -> TransformersDualEncoder:
    from crossfade.encoders.loading import load_encoder

    if isinstance(given, TransformersDualEncoder):
        return given
    name = given or recorded.get("folder") or f"{recorded.get('model')}@{recorded.get('revision')}"
    if given is None and "folder" in recorded and not Path(name).is_dir():
        raise EncoderError(
            f"A tuned encoder needs the model that was tuned; {recorded.get('model')} is not at {name} any more. Name "
            "its folder or its hub id: TunedEncoder.from_pretrained(…, base=…)."
        )
    encoder = load_encoder(name, device=device, dtype=dtype)
    if not isinstance(encoder, TransformersDualEncoder):
        raise EncoderError(f"The base of a tuned encoder must be a dual encoder; {name} is a {type(encoder).__name__}.")
    return encoder


def _card(encoder: TunedEncoder) -> str:
    from crossfade.model_card import card

    source, target = encoder.adapter.source, encoder.adapter.target
    tuning = encoder.towers.tuning
    added = [
        f"{modality}: LoRA of rank {tuning.rank} on {', '.join(tuning.targets(modality)) or 'nothing'}, "
        f"{tuning.prompts(modality)} prompts"
        for modality in MODALITIES
    ]
    lines = [
        f"{source} with parameters beside its own weights, which are unchanged, and a projection into {target}: its "
        "image and text vectors search, and may join, a gallery that the old model filled.",
        "",
        *(f"* {line}" for line in added),
        "",
        "```python",
        "import crossfade as cf",
        "",
        'encoder = cf.load_encoder("path/to/this/folder")',
        'query = encoder.encode_texts(["a text"])  # now search the old gallery with it',
        "```",
        "",
        "Nothing was measured of it when it was saved. Evaluate it on held-out queries before use.",
    ]
    return card(f"{source.model} → {target.model}, tuned", lines)
