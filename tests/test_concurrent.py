"""LaFAM and COCOA against their definitions, pair by pair and place by place."""

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from lfx_utils import LabelFree
from lfx_utils.features import Normed, contrast, lafam


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    return nn.Sequential(*layers).eval()


@pytest.fixture
def images():
    return torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def test_lafam_by_hand():
    """One channel that copies the image at half its size: the map is the image, scaled and interpolated."""
    pool = nn.AvgPool2d(2)
    encoder = nn.Sequential(pool, nn.Flatten()).eval()
    image = torch.tensor([[1.0, 1, 2, 2], [1, 1, 2, 2], [5, 5, 3, 3], [5, 5, 3, 3]])[None, None]
    corners = torch.tensor([[0.0, 0.25], [1, 0.5]])
    map_ = lafam(encoder, pool, image)[0, 0]
    assert torch.allclose(map_[::3, ::3], corners)
    assert map_[1, 0].item() == pytest.approx(0.75 * 0 + 0.25 * 1)
    assert map_[1, 1].item() == pytest.approx(0.75 * (0.75 * 0 + 0.25 * 0.25) + 0.25 * (0.75 * 1 + 0.25 * 0.5))


def test_lafam_averages_channels(encoder, images):
    maps = lafam(encoder, encoder[1], images)
    assert maps.shape == (4, 1, 8, 8) and maps.min() >= 0 and maps.max() <= 1
    with torch.no_grad():
        means = encoder[:2](images).mean(1).flatten(1)
    scaled = torch.stack([(row - row.min()) / (row.max() - row.min()) for row in means]).view(4, 4, 4)
    assert torch.allclose(maps[:, 0, ::7, ::7], scaled[:, ::3, ::3], atol=1e-6)
    assert not encoder[1]._forward_hooks


def test_contrast_is_the_difference_of_mean_cosines(encoder, images):
    corpus, foil = torch.rand(3, 2, 8, 8), torch.rand(5, 2, 8, 8)
    with torch.no_grad():
        direction = contrast(encoder(corpus), encoder(foil))
        found = Normed(encoder)(images) @ direction
        for image, score in zip(images, found, strict=True):
            latent = encoder(image[None])
            near = [torch.cosine_similarity(latent, encoder(each[None])).item() for each in corpus]
            far = [torch.cosine_similarity(latent, encoder(each[None])).item() for each in foil]
            assert score.item() == pytest.approx(sum(near) / 3 - sum(far) / 5, abs=1e-6)


def test_each_image_may_have_its_own_corpus():
    corpora, foil = torch.randn(4, 3, 5), torch.randn(7, 5)
    rows = torch.stack([contrast(corpus, foil) for corpus in corpora])
    assert torch.allclose(contrast(corpora, foil), rows)


def test_cocoa_attributions_add_up(encoder, images):
    with torch.no_grad():
        direction, normed = contrast(encoder(images[:2]), encoder(images[2:])), Normed(encoder)
    black = torch.full_like(images, 0.5)
    maps = LabelFree(IntegratedGradients, normed).attribute(images, black, weights=direction, n_steps=300)
    with torch.no_grad():
        gain = (normed(images) - normed(black)) @ direction
    assert torch.allclose(maps.flatten(1).sum(1), gain, atol=1e-3)
    assert gain.abs().max() > 0.01


def test_wrong_use_is_told(encoder, images):
    cases = [
        (lambda: lafam(encoder, nn.ReLU(), images), "from elsewhere"),
        (lambda: lafam(encoder, encoder[4], images), r"output of shape \(B, K, h, w\), got \(4, 5\)"),
        (lambda: lafam(encoder, encoder[1], images[0]), r"images must have shape \(B, C, H, W\)"),
        (lambda: lafam(encoder, encoder[1], images * torch.nan), "images holds 512 NaN"),
        (lambda: lafam(nn.Sequential(encoder, nn.Dropout()), encoder[1], images), "training mode"),
        (lambda: contrast(torch.ones(0, 5), torch.ones(2, 5)), "corpus is an empty batch"),
        (lambda: contrast(torch.ones(2, 5), torch.ones(2, 4)), "corpus and foil must have the same D"),
        (lambda: contrast(torch.ones(2, 5), torch.zeros(2, 5)), "foil has norm zero"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_function_has_no_layers(encoder, images):
    with pytest.raises(TypeError, match="encoder must be an nn.Module"):
        lafam(encoder.forward, encoder[1], images)


def test_a_flat_layer_gives_a_flat_map(encoder):
    flat = lafam(encoder, encoder[2], torch.zeros(1, 2, 8, 8))
    assert not flat.any()


def test_wrapping_leaves_the_modes_of_the_encoders_layers():
    encoder = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten()).train()
    encoder[1].eval()
    Normed(encoder)
    assert [part.training for part in encoder] == [True, False, True]


def test_encoders_in_place_and_in_half_precision(encoder, images):
    layers = nn.Sequential(nn.Hardtanh(0.2, 0.8, inplace=True), *encoder).eval()
    kept = images.clone()
    found, normed = lafam(layers, layers[2], images), Normed(layers)(images)
    assert torch.equal(images, kept)
    layers[0].inplace = False
    assert torch.equal(found, lafam(layers, layers[2], images)) and torch.equal(normed, Normed(layers)(images))
    half = lafam(encoder.half(), encoder[1], images.half())
    assert half.dtype == torch.float32
    assert torch.allclose(half, lafam(encoder.float(), encoder[1], images.half().float()), atol=0.01)
