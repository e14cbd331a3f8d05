"""What is added to a model beside its weights: LoRA on chosen layers, prompts among its tokens and patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from crossfade.errors import ConfigError, FormatError
from crossfade.spaces import Modality

__all__ = ["Tuning"]


@dataclass(frozen=True)
class Tuning:
    """LoRA (2106.09685) and prompts (CoOp 2109.01134; VPT-shallow 2203.12119) for either tower, alone or together.

    A pattern names linear layers: by the end of their name (``q_proj``, ``layers.0.mlp.fc1``), with ``*`` for any part
    of it (``layers.1*.v_proj``). The defaults are our choice.

    Attributes:
        text_targets: patterns of the text tower's layers that get LoRA.
        image_targets: patterns of the image tower's layers that get LoRA.
        rank: r of the matrices A [r, d_in] and B [d_out, r] that each of those layers gets.
        alpha: their product is scaled by alpha / r.
        dropout: the share of a LoRA's inputs that is dropped while training.
        text_prompts: learned vectors after the text's start token.
        image_prompts: learned tokens after the image's patches.
    """

    text_targets: tuple[str, ...] = ("q_proj", "v_proj")
    image_targets: tuple[str, ...] = ()
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    text_prompts: int = 0
    image_prompts: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0.0:
            raise ConfigError(f"LoRA's rank and alpha must be positive; found {self.rank} and {self.alpha}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is a share from 0 to below 1; found {self.dropout}.")
        if min(self.text_prompts, self.image_prompts) < 0:
            raise ConfigError(
                f"Prompts are counted from 0; found {self.text_prompts} for texts and {self.image_prompts} for images."
            )

    def targets(self, modality: Modality) -> tuple[str, ...]:
        """The patterns of one tower's layers."""
        return self.text_targets if modality == "text" else self.image_targets

    def prompts(self, modality: Modality) -> int:
        """The number of one tower's prompts."""
        return self.text_prompts if modality == "text" else self.image_prompts

    def touches(self, modality: Modality) -> bool:
        """Whether anything is added to this tower."""
        return bool(self.targets(modality)) or self.prompts(modality) > 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tuning:
        """The reverse of :meth:`to_dict`.

        Raises:
            FormatError: a field is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise FormatError(f"A tuning has the fields {sorted(known)}; found {sorted(values)}. Copy it again.")
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**given)
