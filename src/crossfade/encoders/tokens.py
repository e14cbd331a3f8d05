"""How many texts are longer than a text tower takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["overlong"]


def overlong(tokenizer: Any, texts: Sequence[str], *, limit: int) -> int:
    """How many of the texts have more than ``limit`` tokens, the special ones included, and lose their ends.

    Args:
        tokenizer: of transformers.
        texts: with their prefixes.
        limit: tokens that the tower takes.
    """
    room = limit - tokenizer.num_special_tokens_to_add() - 1  # one for the mark that some put before the first word
    doubtful = [text for text in texts if len(text) > room or not text.isascii()]  # a token covers a letter or more
    if not doubtful:
        return 0
    tokens = tokenizer(doubtful, truncation=False, padding=False, return_attention_mask=False, verbose=False)
    return sum(len(row) > limit for row in tokens["input_ids"])
