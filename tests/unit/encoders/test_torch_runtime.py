"""Errors of the libraries become Crossfade's own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crossfade.encoders.packages import need
from crossfade.encoders.torch_runtime import TorchRuntime, forward, loading
from crossfade.encoders.vectors import unit_rows
from crossfade.errors import ConfigError, EncoderError, MissingExtra, OutOfMemory


def test_a_batch_that_does_not_fit() -> None:
    with pytest.raises(OutOfMemory, match="Use a smaller batch size"), forward("m"):
        torch.empty(2**50)
    with pytest.raises(OutOfMemory), forward("m"):
        np.empty(2**59, dtype=np.uint8)


def test_other_failures_are_named_without_their_data() -> None:
    with pytest.raises(EncoderError, match=r"m failed while encoding \(RuntimeError: mat1 and mat2"), forward("m"):
        torch.ones(2, 3) @ torch.ones(2, 3)
    with pytest.raises(ConfigError), forward("m"):
        raise ConfigError("our own errors pass")


def test_no_gradient_is_kept() -> None:
    weight = torch.ones(3, requires_grad=True)
    with forward("m"):
        assert not (weight * 2).requires_grad


def test_auto_finds_a_device() -> None:
    model, device, dtype = TorchRuntime().place(torch.nn.Linear(2, 2))
    assert next(model.parameters()).device.type == device.type
    assert dtype == torch.float32
    assert not model.training


def test_loading_puts_the_progress_bar_back() -> None:
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    with pytest.raises(EncoderError, match=r"m could not be loaded \(ValueError: no\)"), loading("m"):
        raise ValueError("no")
    assert logging.is_progress_bar_enabled() == before
    with pytest.raises(MissingExtra, match="'sentencepiece'"), loading("m"):
        raise ImportError("XTokenizer requires the SentencePiece library but it was not found")


def test_packages_that_are_missing_or_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('operator x does not exist')")
    (tmp_path / "needy_package.py").write_text("import absent_package")
    (tmp_path / "old_package.py").write_text("from sys import no_such_name")
    with pytest.raises(MissingExtra, match=r"Things needs the package 'absent_package'.*pip install 'crossfade\[x\]'"):
        need("absent_package", extra="x", feature="Things")
    with pytest.raises(MissingExtra, match="'absent_package'"):
        need("needy_package", extra="x", feature="Things")
    with pytest.raises(EncoderError, match="installed but cannot be imported"):
        need("broken_package", extra="x", feature="Things")
    with pytest.raises(EncoderError, match="installed but cannot be imported"):
        need("old_package", extra="x", feature="Things")
    assert need("sys", extra="x", feature="Things") is sys


def test_rows_become_unit_rows() -> None:
    rows = np.asarray([[3, 4], [1e-4, 0], [6e4, 6e4]], dtype=np.float16)
    unit = unit_rows(rows, model="m", rows=3)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [[0.6, 0.8], [1, 0], [0.5**0.5] * 2], atol=1e-7)
    for wrong, message in (
        (np.asarray([[np.nan, 1.0]]), "NaN or infinity for item 0"),
        (np.asarray([[1.0, 1.0], [0.0, 0.0]]), "zero vector for item 1"),
        (np.ones((2, 2, 2)), "one vector an item"),
    ):
        with pytest.raises(EncoderError, match=message):
            unit_rows(wrong, model="m", rows=len(wrong))
    with pytest.raises(EncoderError, match="for 3 items"):
        unit_rows(np.ones((2, 2)), model="m", rows=3)
