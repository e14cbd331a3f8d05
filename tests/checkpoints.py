"""Tiny real checkpoints with random weights, in the formats that the encoders read, saved by their own libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = [
    "a",
    "the",
    "of",
    "red",
    "green",
    "blue",
    "small",
    "large",
    "cat",
    "dog",
    "tree",
    "house",
    "black",
    "white",
    "runs",
]
WORDS += ["sits", "on"]
SENTENCES = (
    "a cat",
    "the small red dog runs on the large green tree",
    "black",
    "a large white house sits on the tree of the small blue cat " * 4,
    "Dog!",
    "",
)


def pictures() -> list[Image.Image]:
    """Images of several shapes, among them the shapes that trip image processors up: 1 × 1, 3 × 3, very long."""
    generator = np.random.default_rng(0)
    sizes = [(40, 30), (64, 64), (3, 3), (1, 1), (200, 9), (33, 47)]
    return [Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8), "RGB") for w, h in sizes]


def _seed() -> None:
    import torch

    torch.manual_seed(0)


def _byte_vocabulary(specials: Sequence[str]) -> dict[str, int]:
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*specials, *letters, *(letter + "</w>" for letter in letters)]
    return {token: i for i, token in enumerate(tokens)}


def _bert(folder: Path, length: int) -> int:
    from transformers import BertTokenizer

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "!"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    BertTokenizer(vocab=vocabulary, model_max_length=length).save_pretrained(folder)
    return len(vocabulary)


def clip(folder: Path, *, dimension: int = 16, seed: int = 0) -> Path:
    """CLIP, with its byte-pair tokenizer."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    specials = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = _byte_vocabulary(list(specials.values()))
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=24, **specials).save_pretrained(folder)
    towers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    # An end token of 2 selects the older rule of CLIP, the largest token id; this one must be the end token itself.
    tokens["eos_token_id"] = vocabulary["</s>"]
    config = CLIPConfig(
        text_config={**towers, **tokens, "vocab_size": len(vocabulary), "max_position_embeddings": 24},
        vision_config={**towers, "image_size": 32, "patch_size": 8},
        projection_dim=dimension,
    )
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**sizes).save_pretrained(folder)
    return folder


def _siglip_tokenizer(folder: Path) -> int:
    from transformers import Siglip2Tokenizer

    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "!", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    Siglip2Tokenizer(vocab=vocabulary, merges=[], padding_side="right").save_pretrained(folder)
    return len(vocabulary)


def siglip(folder: Path) -> Path:
    """SigLIP, whose tokenizer knows no limit, as those of the fixed-resolution SigLIP 2 do."""
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    size = _siglip_tokenizer(folder)
    towers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**towers, "vocab_size": size, "max_position_embeddings": 20, "pad_token_id": 0, "projection_size": 32}
    _seed()
    config = SiglipConfig(text_config=text, vision_config={**towers, "image_size": 32, "patch_size": 8})
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def siglip2(folder: Path) -> Path:
    """SigLIP 2 of variable resolution."""
    from transformers import Siglip2Config, Siglip2ImageProcessorPil, Siglip2Model

    size = _siglip_tokenizer(folder)
    towers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**towers, "vocab_size": size, "max_position_embeddings": 20, "pad_token_id": 0, "projection_size": 32}
    _seed()
    config = Siglip2Config(text_config=text, vision_config={**towers, "num_patches": 16, "patch_size": 8})
    Siglip2Model(config).save_pretrained(folder)
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)
    return folder


def align(folder: Path) -> Path:
    """ALIGN: an EfficientNet and a BERT."""
    from transformers import AlignConfig, AlignModel, EfficientNetImageProcessorPil

    size = _bert(folder, 24)
    vision = {
        "image_size": 32,
        "width_coefficient": 0.25,
        "depth_coefficient": 0.3,
        "kernel_sizes": [3, 3],
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 6],
        "hidden_dim": 16,
    }
    towers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**towers, "vocab_size": size, "max_position_embeddings": 32}
    _seed()
    AlignModel(AlignConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    EfficientNetImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def altclip(folder: Path) -> Path:
    """AltCLIP: an XLM-R text tower, whose positions begin after the padding's."""
    from transformers import AltCLIPConfig, AltCLIPModel, CLIPImageProcessorPil, XLMRobertaTokenizer

    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "▁", *("▁" + word for word in WORDS), "!"]
    XLMRobertaTokenizer(vocab=[(token, -1.0) for token in tokens]).save_pretrained(folder)
    towers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**towers, "vocab_size": len(tokens), "max_position_embeddings": 26, "pad_token_id": 1, "project_dim": 24}
    _seed()
    vision = {**towers, "image_size": 32, "patch_size": 8}
    AltCLIPModel(AltCLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**sizes).save_pretrained(folder)
    return folder


def chinese_clip(folder: Path) -> Path:
    """Chinese-CLIP: a BERT text tower."""
    from transformers import ChineseCLIPConfig, ChineseCLIPImageProcessorPil, ChineseCLIPModel

    size = _bert(folder, 24)
    towers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**towers, "vocab_size": size, "max_position_embeddings": 32}
    vision = {**towers, "image_size": 32, "patch_size": 8}
    _seed()
    config = ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    ChineseCLIPModel(config).save_pretrained(folder)
    ChineseCLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
    return folder


DUAL: dict[str, Callable[[Path], Path]] = {
    "clip": clip,
    "siglip": siglip,
    "siglip2": siglip2,
    "align": align,
    "altclip": altclip,
    "chinese_clip": chinese_clip,
}


def vit(folder: Path, *, classifier: bool = False) -> Path:
    """A ViT; one that was trained to classify is saved without the pooler's weights."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil, ViTModel

    _seed()
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    (ViTForImageClassification if classifier else ViTModel)(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def resnet(folder: Path) -> Path:
    """A convolutional network."""
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    _seed()
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    ConvNextImageProcessorPil(size={"shortest_edge": 32}).save_pretrained(folder)
    return folder


def dinov2(folder: Path) -> Path:
    """A self-supervised vision transformer."""
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    _seed()
    towers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(image_size=32, patch_size=8, **towers)).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    BitImageProcessorPil(**sizes).save_pretrained(folder)
    return folder
