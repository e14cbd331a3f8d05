"""The networks that come with Crossfade: their sizes are the published ones, their layers those of the papers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional

from crossfade.backbones import ImageFormat, build_backbone
from crossfade.backbones.vit import ViT
from crossfade.errors import ConfigError


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def pictures(n: int = 2, side: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "published"),
    [("resnet18", 11_689_512 - 513_000), ("resnet34", 21_797_672 - 513_000), ("resnet50", 25_557_032 - 2_049_000)],
)
def test_resnets_have_the_published_sizes(name: str, published: int) -> None:
    # torchvision's counts, less a classifier of 1,000 classes; a 3×3 stem has fewer weights than a 7×7 one
    assert size(build_backbone(name, images=ImageFormat(64))) == published
    assert size(build_backbone(name)) == published - 3 * 64 * (49 - 9)


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85)]
)
def test_cifar_resnets_have_the_published_sizes(name: str, millions: float) -> None:
    # table 6 of the paper, which counts a classifier of ten classes
    assert (size(build_backbone(name)) + 650) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("name", "published"), [("vit_tiny", 5_717_416 - 193_000), ("vit_small", 22_050_664 - 385_000)]
)
def test_vits_have_the_published_sizes(name: str, published: int) -> None:
    # DeiT-Ti and DeiT-S as in timm, less a classifier of 1,000 classes
    assert size(build_backbone(name, images=ImageFormat(224), options={"patch": 16})) == published


def test_a_vit_has_as_many_blocks_as_are_asked_for() -> None:
    full, two = (build_backbone("vit_tiny", options={"depth": depth}) for depth in (12, 2))
    block = 4 * 192 + (3 * 192 + 192) * 192 + 4 * 192 + 2 * 4 * 192 * 192 + 5 * 192  # norms, attention, perceptron
    assert size(full) == size(build_backbone("vit_tiny"))
    assert size(full) - size(two) == 10 * block


@pytest.mark.parametrize(
    ("name", "published"), [("vgg11", 9_220_480), ("vgg13", 9_404_992), ("vgg16", 14_714_688), ("vgg19", 20_024_384)]
)
def test_vggs_have_the_published_sizes(name: str, published: int) -> None:
    # torchvision's and Keras's counts of the convolutions alone
    assert size(build_backbone(name, options={"batch_norm": False})) == published


def test_the_number_of_layers_is_in_the_name() -> None:
    for name, layers in {"resnet8": 8, "resnet20": 20, "resnet110": 110}.items():
        found = [layer for layer in build_backbone(name).modules() if isinstance(layer, nn.Conv2d)]
        assert len(found) == layers - 1  # the classifier is the last
    convolutions = [layer for layer in build_backbone("alexnet").modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 192, 384, 256, 256]


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg11"])
def test_half_the_width_is_about_a_quarter_of_the_size(name: str) -> None:
    whole = build_backbone(name)
    width = 16 if name == "resnet20" else 64
    half = build_backbone(name, options={"width": width // 2})
    assert half.dimension == whole.dimension // 2
    assert size(whole) / size(half) == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize(("side", "options"), [(32, {}), (64, {}), (32, {"stem": "imagenet"}), (64, {"stem": "cifar"})])
def test_the_stem_goes_by_the_size_unless_it_is_named(side: int, options: dict[str, str]) -> None:
    network = build_backbone("resnet18", images=ImageFormat(side), options={"width": 8, **options})
    seen: list[tuple[int, ...]] = []
    network.get_submodule("stem").register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[2:])))
    network(pictures(side=side))
    reduced = options.get("stem", "imagenet" if side == 64 else "cifar") == "imagenet"
    assert seen == [(side // 4, side // 4) if reduced else (side, side)]


def test_a_cifar_resnet_is_what_the_paper_says() -> None:
    network = build_backbone("resnet8", options={"width": 4}).eval()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    tensors = [tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")]

    def convolved(x: torch.Tensor, stride: int) -> torch.Tensor:
        weight, gain, shift, mean, variance = (tensors.pop(0) for _ in range(5))
        y = functional.conv2d(x, weight, stride=stride, padding=1)
        y = (y - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return y * gain[:, None, None] + shift[:, None, None]

    x = convolved(pictures(), 1).relu()
    for stride in (1, 2, 2):
        y = convolved(convolved(x, stride).relu(), 1)
        shortcut = torch.zeros_like(y)
        shortcut[:, : x.shape[1]] = x[:, :, ::stride, ::stride]
        x = (y + shortcut).relu()
    assert not tensors
    torch.testing.assert_close(network(pictures()), x.mean(dim=(2, 3)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_a_vit_is_what_the_paper_says(pool: str) -> None:
    network = build_backbone("vit_tiny", images=ImageFormat(8), options={"pool": pool}, seed=1).eval()
    assert isinstance(network, ViT)
    images = pictures(side=8)
    tokens = [
        (images[:, :, i : i + 4, j : j + 4].flatten(1) @ network.patches.weight.flatten(1).T) + network.patches.bias
        for i in (0, 4)
        for j in (0, 4)
    ]
    if pool == "cls":
        tokens.insert(0, network.token[0].expand(2, -1))
    x = torch.stack(tokens, dim=1) + network.positions
    for block in network.blocks:
        normed = functional.layer_norm(x, (192,), block.norm1.weight, block.norm1.bias, 1e-6)
        q, k, v = (normed @ block.qkv.weight.T + block.qkv.bias).split(192, dim=2)
        heads = []
        for h in range(3):
            part = slice(64 * h, 64 * (h + 1))
            attention = (q[:, :, part] @ k[:, :, part].transpose(1, 2) / 64**0.5).softmax(dim=2)
            heads.append(attention @ v[:, :, part])
        x = x + torch.cat(heads, dim=2) @ block.out.weight.T + block.out.bias
        normed = functional.layer_norm(x, (192,), block.norm2.weight, block.norm2.bias, 1e-6)
        x = x + functional.gelu(normed @ block.mlp[0].weight.T + block.mlp[0].bias) @ block.mlp[2].weight.T
        x = x + block.mlp[2].bias
    x = functional.layer_norm(x, (192,), network.norm.weight, network.norm.bias, 1e-6)
    expected = x[:, 0] if pool == "cls" else x.mean(dim=1)
    torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=1e-4)


def test_activations_keep_their_size_through_the_layers() -> None:
    for name in ("resnet20", "resnet18", "vgg11", "alexnet"):
        features = build_backbone(name, options={"batch_norm": False} if name == "vgg11" else {})(pictures(8))
        assert 0.05 < float(features.detach().std()) < 20.0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="a patch that divides the size"):
        build_backbone("vit_tiny", images=ImageFormat(30))
    with pytest.raises(ConfigError, match=r"built for images of 32 pixels; found \(40, 40\)"):
        build_backbone("vit_tiny")(pictures(side=40))
    with pytest.raises(ConfigError, match="found 16 pixels, fewer than 32"):
        build_backbone("vgg11", images=ImageFormat(16))
    with pytest.raises(ConfigError, match="found 4 pixels, fewer than 8"):
        build_backbone("alexnet", images=ImageFormat(4))
    for name, options, message in (
        ("resnet18", {"stem": "big"}, "stem must be one of auto, cifar, imagenet; found 'big'"),
        ("resnet20", {"width": 0}, "width must be at least 1 channel; found 0"),
        ("vgg11", {"width": 0}, "width must be at least 1 channel; found 0"),
        ("vit_tiny", {"pool": "max"}, "pool must be one of cls, mean; found 'max'"),
        ("vit_tiny", {"patch": 0}, "patch must be at least 1 pixel; found 0"),
        ("vit_tiny", {"depth": 0}, "depth must be at least 1 block; found 0"),
        ("alexnet", {"dropout": 1.0}, "found 1024 and 1.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_backbone(name, options=options)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "vgg11"])
def test_channels_last_images_stay_so_in_every_layer_both_ways(name: str) -> None:
    network = build_backbone(name, images=ImageFormat(size=32), options={"width": 8}, seed=0)
    orders: list[bool] = []

    def look(_: nn.Module, __: object, features: torch.Tensor) -> None:
        if features.ndim == 4:
            features.register_hook(lambda found: orders.append(found.is_contiguous(memory_format=torch.channels_last)))
            orders.append(features.is_contiguous(memory_format=torch.channels_last))

    for layer in network.modules():
        layer.register_forward_hook(look)
    network(pictures().to(memory_format=torch.channels_last)).square().sum().backward()
    assert len(orders) > 20
    assert all(orders)
