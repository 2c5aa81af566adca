"""A reader's own: encoders of three hubs, with random weights, and photographs of every kind."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision import models

from lfx_utils import datasets, encoders
from lfx_utils.encoders.hubs import Pooled


def test_timm_s_encoder():
    torch.manual_seed(0)
    encoder = encoders.from_timm("resnet18", pretrained=False)
    theirs = timm.create_model("resnet18", num_classes=0).eval()
    theirs.load_state_dict(encoder.network.state_dict())
    images = torch.rand(2, 3, 64, 48)
    mean, std = (torch.tensor(theirs.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.allclose(encoder(images), theirs((images - mean) / std), atol=1e-5)
    assert encoder.size == 224 and not any(module.training for module in encoder.modules())
    assert not any(getattr(module, "inplace", False) for module in encoder.modules())


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("mobilenet_v3_small", 1024)])
def test_torchvision_s_encoder(name, width):
    torch.manual_seed(0)
    encoder = encoders.from_torchvision(name, pretrained=False)
    images = torch.rand(2, 3, 64, 64)
    latents = encoder(images)
    assert latents.shape == (2, width) and not any(parameter.requires_grad for parameter in encoder.parameters())
    seen = []
    theirs = models.get_model(name).eval()
    last = [module for module in theirs.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    theirs.load_state_dict(encoder.network.state_dict(), strict=False)  # without the last layer
    theirs(encoder.normalise(images))
    assert torch.allclose(latents, seen[0], atol=1e-5)


def test_an_encoder_of_one_size_says_so():
    for encoder in (encoders.from_timm("vit_tiny_patch16_224", False), encoders.from_torchvision("vit_b_32", False)):
        with pytest.raises(ValueError, match="takes images of 224 × 224 pixels, got 64 × 96; resize them first"):
            encoder(torch.rand(1, 3, 64, 96))
    with pytest.raises(ValueError, match=r"images must have shape \(B, 3, H, W\), got \(1, 1, 8, 8\)"):
        encoders.from_timm("resnet18", False)(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="ends in a linear layer; squeezenet1_0 ends in"):
        encoders.from_torchvision("squeezenet1_0", False)


def test_hugging_face_s_encoder(tmp_path):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    theirs = transformers.ViTModel(transformers.ViTConfig(**small), add_pooling_layer=False).eval()
    theirs.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]
    ).save_pretrained(tmp_path)
    encoder, images = encoders.from_hugging_face(str(tmp_path)), torch.rand(2, 3, 32, 32)
    scaled = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    # The file has no pooler: a random one would give a map of a network that nobody trained.
    assert torch.allclose(encoder(images), theirs(scaled).last_hidden_state[:, 0], atol=1e-5) and encoder.size == 32


def test_maps_are_averaged():
    maps = torch.rand(2, 4, 5, 6)
    assert torch.allclose(Pooled(nn.Identity(), (0.0,) * 3, (1.0,) * 3, 8)(maps[:, :3]), maps[:, :3].mean((2, 3)))


# Photographs


def striped(height=40, width=60):
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2] = 255, 0, 0  # red above
    return Image.fromarray(picture)


def test_a_photograph_is_the_central_square_in_colours(tmp_path):
    striped().save(tmp_path / "a.png")
    image = datasets.photograph(tmp_path / "a.png", 20)
    assert image.shape == (3, 20, 20) and image.dtype == torch.float32
    assert image[0, 0].min() == 1 and image[0, -1].max() == 0 and not image[1:].any()
    assert torch.equal(datasets.photograph(striped(), 20), image)
    assert datasets.photograph(striped(), 300).shape == (3, 300, 300)


def test_a_turned_photograph_is_turned_back(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90° clockwise
    striped().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert torch.allclose(datasets.photograph(tmp_path / "a.png", 20), datasets.photograph(striped(), 20))


def test_grey_deep_and_transparent_photographs():
    ramp = np.linspace(0, 1, 32 * 32).reshape(32, 32)
    grey = datasets.photograph(Image.fromarray((ramp * 255).round().astype(np.uint8)), 32)
    deep = datasets.photograph(Image.fromarray((ramp * 65535).round().astype(np.uint16)), 32)
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])
    assert torch.allclose(deep, grey, atol=1 / 250) and torch.allclose(
        deep[0], torch.tensor(ramp).float(), atol=1 / 250
    )
    half = striped().convert("RGBA")
    half.putalpha(0)
    assert datasets.photograph(half, 20).min() == 1


def test_what_is_no_photograph(tmp_path):
    with pytest.raises(ValueError, match="at least 16 pixels a side, got 60 × 8"):
        datasets.photograph(striped(8))
    (tmp_path / "a.jpg").write_text("no picture", encoding="utf-8")
    with pytest.raises(ValueError, match="a picture that Pillow can read; .*a.jpg is none"):
        datasets.photograph(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError):
        datasets.photograph(tmp_path / "b.jpg")
    with pytest.raises(ValueError, match="8 or 16 bits a channel: a picture of mode F has no white"):
        datasets.photograph(Image.fromarray(np.zeros((20, 20), np.float32)))


def test_examples():
    images, names = datasets.from_skimage(32)
    assert images.shape == (8, 3, 32, 32) and len(names) == 8 and images.flatten(1).std(1).min() > 0.02
