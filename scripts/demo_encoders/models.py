"""The two towers and their tokenizer, in the transformers CLIP format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

PAD, START, UNKNOWN, END = "<|pad|>", "<|startoftext|>", "<|unknown|>", "<|endoftext|>"


@dataclass(frozen=True)
class Shape:
    """The size of a dual encoder; widths and dimensions in numbers of components, images and patches in pixels."""

    dimension: int
    image_size: int
    patch_size: int
    image_width: int
    image_layers: int
    image_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    vocabulary: int
    context: int = 64


def train_tokenizer(names: Sequence[str], *, vocabulary: int) -> CLIPTokenizer:
    """Byte-pair merges of the names, in CLIP's own tokenizer; every byte is a token, so nothing is unknown."""
    special = {"pad_token": PAD, "bos_token": START, "unk_token": UNKNOWN, "eos_token": END}
    blank = CLIPTokenizer(vocab={token: i for i, token in enumerate(special.values())}, merges=[], **special)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe = blank.backend_tokenizer
    bpe.train_from_iterator(names, trainer)
    import json

    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=64, **special)


def build(shape: Shape, tokenizer: CLIPTokenizer, *, seed: int) -> CLIPModel:
    """A freshly initialised dual encoder."""
    torch.manual_seed(seed)
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.text_width,
            "intermediate_size": 4 * shape.text_width,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.text_heads,
            "max_position_embeddings": shape.context,
            "hidden_act": "gelu",
            **tokens,
        },
        vision_config={
            "image_size": shape.image_size,
            "patch_size": shape.patch_size,
            "hidden_size": shape.image_width,
            "intermediate_size": 4 * shape.image_width,
            "num_hidden_layers": shape.image_layers,
            "num_attention_heads": shape.image_heads,
            "hidden_act": "gelu",
        },
        projection_dim=shape.dimension,
        **tokens,
    )
    model = CLIPModel(config)
    _imitate_a_trained_image_tower(model)
    return model


@torch.no_grad()
def _imitate_a_trained_image_tower(model: CLIPModel) -> None:
    """Start attention local and near the identity, as trained image towers have it.

    Trockman and Kolter, "Mimetic initialization of self-attention layers" (2023): with two-dimensional sinusoids as
    positions, W_Q W_K^T = a Z + b I and W_V W_O = a Z - b I, Z Gaussian of variance 1 / width.
    """
    vision = model.vision_model
    positions = vision.embeddings.position_embedding.weight
    side = math.isqrt(len(positions) - 1)
    positions[0] = 0
    positions[1:] = 0.5 * _sinusoids(side, positions.shape[1])
    for layer in vision.encoder.layers[:-2]:
        attention = layer.self_attn
        width = attention.embed_dim
        head = width // attention.num_heads
        for h in range(attention.num_heads):
            rows = slice(h * head, (h + 1) * head)
            product = 0.7 * torch.randn(width, width) / width**0.5 + 0.7 * torch.eye(width)
            u, s, v = torch.linalg.svd(product)
            attention.q_proj.weight[rows] = (u[:, :head] * s[:head].sqrt()).T
            attention.k_proj.weight[rows] = (v[:head].T * s[:head].sqrt()).T
        u, s, v = torch.linalg.svd(0.4 * torch.randn(width, width) / width**0.5 - 0.4 * torch.eye(width))
        attention.v_proj.weight.copy_((v.T * s.sqrt()).T)
        attention.out_proj.weight.copy_(u * s.sqrt())


def _sinusoids(side: int, width: int) -> Tensor:
    """Two-dimensional sine-cosine positions, [side * side, width]."""
    quarter = width // 4
    frequency = 1 / 100 ** (torch.arange(quarter) / quarter)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [f(axis.reshape(-1, 1) * frequency) for axis in (x, y) for f in (torch.sin, torch.cos)]
    return torch.cat(waves, 1)
