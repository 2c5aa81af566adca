"""The printed architectures, layer by layer, and the pieces of SimCLR."""

import math

import pytest
import torch
from torch import nn

from lfx_utils.models import autoencoders, sequences, simclr


def kinds(module):
    return [type(layer).__name__ for layer in module.modules() if not list(layer.children())]


def test_table_5_as_printed():
    encoder, decoder = autoencoders.image_encoder(4), autoencoders.image_decoder(4)
    assert kinds(encoder) == [
        "Conv2d",
        "ReLU",
        "Conv2d",
        "ReLU",
        "BatchNorm2d",
        "ReLU",
        "Conv2d",
        "ReLU",
        "Flatten",
        "Linear",
        "ReLU",
        "Linear",
    ]
    assert [p.shape[0] for n, p in encoder.named_parameters() if n.endswith("weight")] == [8, 16, 16, 32, 128, 4]
    assert kinds(decoder)[-1] == "Sigmoid"
    images = torch.rand(3, 1, 28, 28)
    reconstruction = autoencoders.mnist_autoencoder()(images)
    assert encoder(images).shape == (3, 4) and reconstruction.shape == images.shape
    assert 0 < reconstruction.min() and reconstruction.max() < 1


def test_no_relu_is_used_twice_since_deeplift_forbids_it():
    relus = [m for m in autoencoders.image_encoder().modules() if isinstance(m, nn.ReLU)]
    assert len({id(m) for m in relus}) == 5 and not any(m.inplace for m in relus)


def test_table_6_as_printed():
    model = sequences.ecg_autoencoder(latent=32)
    assert [(m.input_size, m.hidden_size) for m in model.modules() if isinstance(m, nn.LSTM)] == [
        (1, 64),
        (64, 32),
        (32, 32),
        (32, 64),
    ]
    assert model(torch.rand(2, 140, 1)).shape == (2, 140, 1)


def test_the_lstm_representation_is_the_last_output():
    encoder, beats = sequences.LSTMEncoder(4).eval(), torch.rand(2, 9, 1)
    step, state = None, (None, None)
    for t in range(9):
        hidden, first = encoder.first(beats[:, t : t + 1], state[0])
        step, second = encoder.second(hidden, state[1])
        state = (first, second)
    assert torch.allclose(encoder(beats), step[:, 0], atol=1e-6)


def test_the_transformer_sees_order():
    encoder, beats = sequences.WindowTransformer(8).eval(), torch.rand(2, 140, 1)
    assert encoder(beats).shape == (2, 8)
    assert not torch.allclose(encoder(beats), encoder(beats.flip(1)), atol=1e-4)
    with pytest.raises(ValueError, match="multiple of window, got steps=140 and window=9"):
        sequences.WindowTransformer(8, window=9)


def test_table_7_keeps_the_resolution_of_small_images():
    encoder = simclr.cifar_resnet18().eval()
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, 512)
    assert encoder.conv1.stride == (1, 1) and isinstance(encoder.maxpool, nn.Identity)
    head = simclr.projected(encoder, 512).head
    assert [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)] == [(512, 2048), (2048, 128)]
    assert simclr.small_encoder(8)(torch.rand(2, 3, 32, 32)).shape == (2, 32)


def test_contrastive_loss_against_the_formula_term_by_term():
    first, second, tau = torch.randn(5, 7), torch.randn(5, 7), 0.3
    z = [v / v.norm() for v in torch.cat([first, second])]
    terms = []
    for i in range(10):
        positive = (i + 5) % 10
        total = sum(math.exp(float(z[i] @ z[k]) / tau) for k in range(10) if k != i)
        terms.append(-math.log(math.exp(float(z[i] @ z[positive]) / tau) / total))
    assert simclr.nt_xent(first, second, tau).item() == pytest.approx(sum(terms) / 10, rel=1e-5)


def test_augmentation_draws_for_each_image_and_repeats_with_its_generator():
    images = torch.rand(1, 3, 32, 32).expand(6, -1, -1, -1)
    views = simclr.augment(images, torch.Generator().manual_seed(0))
    assert views.shape == images.shape and 0 <= views.min() and views.max() <= 1
    assert len({tuple(v.flatten().tolist()) for v in views}) == 6
    assert torch.equal(views, simclr.augment(images, torch.Generator().manual_seed(0)))
    state = torch.get_rng_state()
    simclr.augment(images, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
