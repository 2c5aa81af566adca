"""The decoder against counts done by hand and against what a U-Net must be able to do."""

import pytest
import torch
from torch import nn

from lfx_utils.models.unet import STANDARD, ThinDecoder, UNetDecoder


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def parameters(module):
    return sum(each.numel() for each in module.parameters())


def test_standard_decoder_has_the_papers_size_on_a_resnet50():
    skips = [64, 256, 512, 1024, 2048]
    inputs = [2048 + 1024, 256 + 512, 128 + 256, 64 + 64, 32]
    by_hand = sum(9 * i * o + 9 * o * o + 4 * o for i, o in zip(inputs, STANDARD)) + 9 * 16 + 1
    assert parameters(UNetDecoder(skips)) == by_hand
    assert round(by_hand / 1e6, 1) == 9.0  # Section 4.1: from 9M to 10.1M


def thick(skips):
    return UNetDecoder(skips, (16, 8, 8))


@pytest.mark.parametrize("make", [thick, ThinDecoder])
@pytest.mark.parametrize("size", [(64, 64), (65, 47)])
def test_masks_have_the_pictures_size_and_lie_between_0_and_1(make, size):
    maps = [torch.randn(3, 4, -(-size[0] // s), -(-size[1] // s)) * 50 for s in (2, 4, 8)]
    masks = make([4, 4, 4]).eval()(maps, size)
    assert masks.shape == (3, 1, *size)
    assert masks.min() >= 0 and masks.max() <= 1


@pytest.mark.parametrize("make", [thick, ThinDecoder])
def test_every_map_reaches_the_mask(make):
    maps = [torch.randn(2, 4, side, side, requires_grad=True) for side in (16, 8, 4)]
    make([4, 4, 4])(maps, (16, 16)).sum().backward()
    assert all(each.grad.abs().max() > 0 for each in maps)


@pytest.mark.parametrize("make", [thick, ThinDecoder])
def test_images_of_a_batch_do_not_see_one_another(make):
    decoder, maps = make([4, 8]).eval(), [torch.randn(3, 4, 8, 8), torch.randn(3, 8, 4, 4)]
    alone = torch.cat([decoder([each[i : i + 1] for each in maps], (16, 16)) for i in range(3)])
    torch.testing.assert_close(decoder(maps, (16, 16)), alone)


@pytest.mark.parametrize("make", [thick, ThinDecoder])
def test_shallow_map_brings_what_the_deep_one_cannot_resolve(make):
    # The target is one bright pixel in sixteen; deep maps are blank, so only the shallow map can tell where it is.
    place = torch.randint(16, (64,))
    target = nn.functional.one_hot(place, 16).float().view(-1, 1, 4, 4)
    decoder = make([1, 1])
    adam = torch.optim.Adam(decoder.parameters(), lr=0.02)
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy(decoder([target, torch.zeros(64, 1, 2, 2)], (4, 4)), target)
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = decoder.eval()([target, torch.zeros(64, 1, 2, 2)], (4, 4)).flatten(1).argmax(1)
    assert torch.equal(found, place)


@pytest.mark.parametrize("skips", [[], [1] * 6])
def test_number_of_maps_is_checked(skips):
    with pytest.raises(ValueError, match="skips must name from 1 to 5 maps"):
        UNetDecoder(skips)
    with pytest.raises(ValueError, match="skips must name"):
        UNetDecoder([]) if skips else ThinDecoder(skips)
