"""The two towers and their tokenizer, in the transformers CLIP format."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from demo_encoders.data import MEAN, STD
from demo_encoders.recipes import Shape

__all__ = ["build", "save", "train_tokenizer"]

_SPECIAL = {
    "pad_token": "<|pad|>",
    "bos_token": "<|startoftext|>",
    "unk_token": "<|unknown|>",
    "eos_token": "<|endoftext|>",  # id 3: with id 2, CLIP would pool at the largest id instead of here
}
_LAST = [f"{character}</w>" for character in string.ascii_lowercase + string.digits + "-"]  # each may end a new word


def train_tokenizer(names: Sequence[str], *, vocabulary: int, context: int) -> CLIPTokenizer:
    """CLIP's own tokenizer, with a vocabulary of byte-pair merges of the names."""
    blank = CLIPTokenizer(vocab={token: i for i, token in enumerate(_SPECIAL.values())}, merges=[], **_SPECIAL)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*_SPECIAL.values(), *_LAST],  # with ids given here, or ties between merges fall at random
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    blank.backend_tokenizer.train_from_iterator(names, trainer)
    bpe = json.loads(blank.backend_tokenizer.to_str())["model"]
    merges: Any = [tuple(pair) for pair in bpe["merges"]]
    return CLIPTokenizer(vocab=bpe["vocab"], merges=merges, model_max_length=context, **_SPECIAL)


def build(shape: Shape, tokenizer: CLIPTokenizer, *, seed: int) -> CLIPModel:
    """A freshly initialised dual encoder."""
    torch.manual_seed(seed)
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.text_width,
        "intermediate_size": 4 * shape.text_width,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": shape.text_heads,
        "max_position_embeddings": shape.context,
        "projection_dim": shape.dimension,
        "hidden_act": "gelu",
    }
    vision = {
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
        "hidden_size": shape.image_width,
        "intermediate_size": 4 * shape.image_width,
        "num_hidden_layers": shape.image_layers,
        "num_attention_heads": shape.image_heads,
        "projection_dim": shape.dimension,
        "hidden_act": "gelu",
    }
    config = CLIPConfig(text_config=text | tokens, vision_config=vision, projection_dim=shape.dimension, **tokens)
    model = CLIPModel(config)
    _start_like_a_trained_image_tower(model)
    return model


def save(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the model, its tokenizer and its image processor; weights in float16, to be loaded as float32."""
    model.config.dtype = torch.float32
    model.config.architectures = ["CLIPModel"]
    model.config.save_pretrained(folder)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    vision: Any = model.config.vision_config
    CLIPImageProcessorPil(
        size={"height": vision.image_size, "width": vision.image_size},
        do_center_crop=False,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    ).save_pretrained(folder)


@torch.no_grad()
def _start_like_a_trained_image_tower(model: CLIPModel) -> None:
    """Start attention local and near the identity, as it is in trained image towers.

    Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers" (2023): with two-dimensional sinusoids as
    positions, W_Q W_K^T = a Z + b I and W_V W_O = a Z - b I, where Z is Gaussian with variance 1 / width.

    Deviation: the last two layers keep their usual start, or the class token would attend to little but itself.
    """
    vision = model.vision_model
    positions = vision.embeddings.position_embedding.weight
    positions[0] = 0
    positions[1:] = 0.5 * _sinusoids(math.isqrt(len(positions) - 1), positions.shape[1])
    for layer in vision.encoder.layers[:-2]:
        attention = layer.self_attn
        width, heads = attention.embed_dim, attention.num_heads
        for rows in torch.arange(width).view(heads, width // heads):
            u, s, v = torch.linalg.svd(0.7 * torch.randn(width, width) / width**0.5 + 0.7 * torch.eye(width))
            root = s[: len(rows)].sqrt()
            attention.q_proj.weight[rows] = (u[:, : len(rows)] * root).T
            attention.k_proj.weight[rows] = (v[: len(rows)].T * root).T
        u, s, v = torch.linalg.svd(0.4 * torch.randn(width, width) / width**0.5 - 0.4 * torch.eye(width))
        attention.v_proj.weight.copy_((v.T * s.sqrt()).T)
        attention.out_proj.weight.copy_(u * s.sqrt())


def _sinusoids(side: int, width: int) -> Tensor:
    """Two-dimensional sine and cosine positions, [side * side, width]."""
    quarter = width // 4
    frequency = 1 / 100 ** (torch.arange(quarter) / quarter)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [wave(axis.reshape(-1, 1) * frequency) for axis in (x, y) for wave in (torch.sin, torch.cos)]
    return torch.cat(waves, 1)
