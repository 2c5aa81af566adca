"""The capsule autoencoder against hand-made matrices, images painted by hand, and numbers from the definition."""

import math

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from torch.func import functional_call, grad, vmap

from lfx_utils.models import capsules as caps

TINY = {"parts": 5, "objects": 3, "features": 3, "channels": 8, "size": 16, "template": 7}
HERE = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])  # the pose that changes nothing


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return caps.StackedCapsules(**(TINY | changes))


def digits(count, size=16, seed=0):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


def a_pose(*, x=0.0, y=0.0, width=1.0, height=1.0, angle=0.0, shear=0.0):
    return torch.tensor([x, y, width, height, angle, shear])


def painted(images, *, parts=5, seed=1):
    """Parts of `images` with arbitrary values, and as many votes of three objects."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    many, side = len(images), images.shape[-1]
    pose, rest = rand(many, parts, 6), (rand(many, parts), rand(many, parts, 3), rand(many, parts), rand(many, parts))
    objects = caps.Objects(
        rand(many, 3, parts), rand(many, 3, parts, 6), rand(many, 3, parts, 1) + 0.1, rand(many, 3, 6 * parts)
    )
    return caps.Parts(pose, *rest, rand(many, parts, side, side)), objects


@pytest.mark.parametrize(
    "pose, matrix",
    [
        (a_pose(), [[1, 0, 0], [0, 1, 0]]),
        (a_pose(x=0.3, y=-0.2), [[1, 0, 0.3], [0, 1, -0.2]]),
        (a_pose(width=0.5, height=0.25), [[0.5, 0, 0], [0, 0.25, 0]]),
        (a_pose(angle=math.pi / 2), [[0, -1, 0], [1, 0, 0]]),
        (a_pose(shear=0.4), [[1, 0.4, 0], [0, 1, 0]]),
    ],
)
def test_single_movements(pose, matrix):
    assert torch.allclose(caps.affine(pose), torch.tensor(matrix, dtype=torch.float), atol=1e-6)


def test_movements_follow_one_another():
    x, y, width, height, angle, shear = 0.1, -0.4, 0.7, 0.3, 0.9, -0.5
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ torch.tensor([[1, shear], [0, 1]]) @ torch.diag(torch.tensor([width, height]))
    matrix = caps.affine(torch.tensor([x, y, width, height, angle, shear]))
    assert torch.allclose(matrix, torch.cat([linear, torch.tensor([[x], [y]])], 1), atol=1e-6)


def test_identity_pose_only_resizes_the_template():
    templates = torch.rand(2, 7, 7)
    moved = caps.transform(templates, HERE.expand(3, 2, 6), 16)
    resized = F.interpolate(templates[None], size=(16, 16), mode="bilinear", align_corners=True)
    assert moved.shape == (3, 2, 16, 16)
    assert torch.allclose(moved, resized.expand(3, -1, -1, -1), atol=1e-5)


def test_quarter_turn_turns_the_template():
    template = torch.rand(1, 9, 9)
    moved = caps.transform(template, a_pose(angle=math.pi / 2).expand(1, 1, 6), 9)
    # The image's y axis points down, so the positive angle takes right to bottom: clockwise to the eye.
    assert torch.allclose(moved[0, 0], template[0].rot90(-1), atol=1e-4)


def test_half_size_fills_the_middle_only():
    moved = caps.transform(torch.ones(1, 9, 9), a_pose(width=0.5, height=0.5).expand(1, 1, 6), 17)[0, 0]
    inside = torch.zeros(17, 17)
    inside[4:13, 4:13] = 1
    assert torch.allclose(moved, inside, atol=1e-5)


def test_moving_the_pose_moves_the_drawing():
    pose = torch.tensor([0.0, 0.0, 0.4, 0.3, 0.7, 0.2])
    pixel = 2 / 20  # canvas of 21 pixels, whose centres lie in [-1, 1]
    shifted = pose + torch.tensor([3 * pixel, -2 * pixel, 0, 0, 0, 0])
    template = torch.rand(1, 7, 7)
    before, after = (caps.transform(template, p.expand(1, 1, 6), 21)[0, 0] for p in (pose, shifted))
    assert before.sum() > 1
    assert torch.allclose(after, before.roll((-2, 3), (0, 1)), atol=1e-4)


def test_free_numbers_become_possible_poses():
    pose = caps.bounded(20 * torch.randn(1000, 6, generator=torch.Generator().manual_seed(0)))
    bounds = torch.tensor([[-1, 1], [-1, 1], [0.1, 1], [0.1, 1], [-math.pi, math.pi], [-1, 1]])
    assert (pose >= bounds[:, 0] - 1e-5).all() and (pose <= bounds[:, 1] + 1e-5).all()
    assert torch.isfinite(caps.transform(torch.rand(1000, 3, 3), pose[None], 8)).all()


def test_image_likelihood_pixel_by_pixel():
    images, background, sigma = digits(2, 4), 0.3, 0.2
    parts, _ = painted(images)
    expected = torch.zeros(2)
    for b in range(2):
        for i in range(4):
            for j in range(4):
                y, weighted, total = images[b, 0, i, j].item(), 0.0, 0.0
                for m in range(6):
                    drawn = parts.templates[b, m, i, j].item() if m < 5 else None
                    weight = (parts.presence[b, m] * parts.opacity[b, m]).item() * drawn if m < 5 else background
                    mean = parts.brightness[b, m].item() * drawn if m < 5 else 0.0
                    weighted += weight * math.exp(-((y - mean) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi) / sigma
                    total += weight
                expected[b] += math.log(weighted / total)
    ours = caps.image_log_likelihood(images, parts, torch.tensor(background), sigma)
    assert torch.allclose(ours, expected, rtol=1e-4)


def test_part_likelihood_part_by_part():
    parts, objects = painted(digits(2, 4))
    poses = parts.pose
    expected, belongs = torch.zeros(2), torch.zeros(2, 3, 5)
    for b in range(2):
        for m in range(5):
            joint = []
            for k in range(3):
                density = objects.presence[b, k, m].item() / objects.presence[b].sum().item()
                scale = objects.scale[b, k, m, 0].item()
                for i in range(6):
                    error = (poses[b, m, i] - objects.votes[b, k, m, i]).item() / scale
                    density *= math.exp(-(error**2) / 2) / math.sqrt(2 * math.pi) / scale
                joint.append(density)
            expected[b] += parts.presence[b, m] * math.log(sum(joint))
            belongs[b, :, m] = torch.tensor(joint) / sum(joint)
    ours, probability = caps.part_log_likelihood(poses, parts.presence, objects)
    assert torch.allclose(ours, expected, rtol=1e-3)
    assert torch.allclose(probability, belongs, atol=1e-4)


def test_votes_are_the_objects_pose_after_the_parts_place_in_it():
    decoder, seen = tiny().decoder, {}
    decoder.outputs.data *= 50  # so that poses and shapes lie well away from their resting values
    decoder.pool.register_forward_hook(lambda _, __, output: seen.update(pooled=output))
    parts, _ = painted(digits(2, 4))
    objects = decoder(parts, torch.rand(5, 7, 7))
    below = torch.tensor([[0.0, 0.0, 1.0]])
    for k in range(3):
        numbers = (seen["pooled"][1, k] @ decoder.hidden[k]).relu() @ decoder.outputs[k]
        view = torch.cat([caps.affine(caps.bounded(numbers[6:12])), below])
        for m in range(5):
            place = decoder.shapes[k, m] + numbers[17 + 6 * m : 23 + 6 * m]
            vote = view @ torch.cat([caps.affine(caps.bounded(place)), below])
            assert torch.allclose(objects.votes[1, k, m], vote[:2].flatten(), atol=1e-4)
            there, has = numbers[0], numbers[1 + m]
            assert torch.allclose(objects.presence[1, k, m], there.sigmoid() * has.sigmoid(), atol=1e-5)


def test_reconstruction_is_the_mixture_mean():
    model = tiny().eval()
    images = digits(3)
    parts = model.encoder.parts(images)
    weights, rest = caps.mixing(parts, model.encoder.parts.log_background.exp())
    assert torch.allclose(weights.sum(1) + rest, torch.ones(3, 16, 16), atol=1e-5)
    by_hand = sum(weights[:, m] * parts.brightness[:, m, None, None] * parts.templates[:, m] for m in range(5))
    assert torch.allclose(model.reconstruct(images)[:, 0], by_hand, atol=1e-5)


def test_latent_stacks_each_part():
    encoder = tiny().encoder.eval()
    images = digits(4)
    seen, latents = encoder.parts(images), encoder(images)
    assert latents.shape == (4, 5 * (6 + 1 + 3 + 16 * 16))
    third = latents.view(4, 5, -1)[:, 2]
    assert torch.equal(third[:, :6], seen.pose[:, 2])
    assert torch.equal(third[:, 6], seen.presence[:, 2])
    assert torch.equal(third[:, 7:10], seen.features[:, 2])
    assert torch.equal(third[:, 10:], seen.templates[:, 2].flatten(1))
    assert (seen.presence >= 0).all() and (seen.presence <= 1).all()


def test_default_sizes():
    model = caps.StackedCapsules()
    assert model.encoder.parts.templates.shape == (24, 11, 11)
    assert model.decoder.shapes.shape == (24, 24, 6)
    assert model.encoder(digits(2, 28)).shape == (2, 24 * (6 + 1 + 16 + 28 * 28))


def test_same_seed_same_numbers_and_no_hidden_noise():
    images = digits(4)
    first, second, other = tiny(0), tiny(0), tiny(1)
    assert torch.equal(first.loss(images), second.loss(images))
    assert not torch.equal(first.loss(images), other.loss(images))
    assert torch.equal(first.eval().encoder(images), second.encoder(images))  # evaluating or training: the same
    with torch.no_grad():  # PyTorch's shortcut for transformers in evaluation mode must not change the loss
        assert torch.allclose(first.loss(images), second.train().loss(images), rtol=1e-5)


def test_loss_is_the_sum_of_its_terms_and_teaches_every_parameter():
    model, images = tiny(), digits(6)
    assert torch.allclose(model.loss(images), torch.stack(list(model.terms(images).values())).sum())
    model.loss(images).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-6]
    assert silent == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_objects_teach_the_parts_only_through_their_features():
    model, images = tiny(), digits(6)
    parts = caps.Parts(*(value.detach().requires_grad_() for value in model.encoder.parts(images)))
    objects = model.decoder(parts, model.encoder.parts.templates)
    (objects.votes.sum() + objects.presence.sum()).backward()
    assert parts.features.grad.abs().sum() > 0
    assert parts.pose.grad is None and parts.presence.grad is None
    assert model.encoder.parts.logits.grad is None


def test_training_beats_the_mean_image():
    bars = torch.zeros(14, 1, 16, 16)  # at as many places: easy for parts that move, hard for one mean image
    for n in range(7):
        bars[n, 0, 4:12, 2 * n + 1 : 2 * n + 3] = 1
        bars[n + 7, 0, 2 * n + 1 : 2 * n + 3, 4:12] = 1
    model = tiny(channels=16)
    optimiser = torch.optim.Adam(model.encoder.parameters(), lr=1e-2)
    for _ in range(120):
        optimiser.zero_grad()
        seen = model.encoder.parts
        (-caps.image_log_likelihood(bars, seen(bars), seen.log_background.exp(), 0.25).mean()).backward()
        optimiser.step()
    error = (model.reconstruct(bars) - bars).square().mean()
    assert error < 0.5 * (bars - bars.mean(0)).square().mean()


def test_integrated_gradients_are_complete():
    encoder = tiny().encoder.eval().double()
    images = digits(3).double()
    with torch.no_grad():
        fixed = encoder(images)

    def auxiliary(inputs, latents):
        return (encoder(inputs) * latents).sum(1)

    blank = torch.zeros_like(images)
    maps = IntegratedGradients(auxiliary).attribute(images, blank, additional_forward_args=fixed, n_steps=200)
    due = auxiliary(images, fixed) - auxiliary(blank, fixed)
    assert (maps.sum((1, 2, 3)) - due).abs().max() < 1e-2 * maps.abs().sum((1, 2, 3)).min()


def test_blank_images_have_finite_latents_loss_and_gradients():
    model, images = tiny(), torch.zeros(2, 1, 16, 16, requires_grad=True)
    (model.loss(images) + model.encoder(images).square().sum()).backward()
    assert torch.isfinite(images.grad).all()


def test_an_object_that_explains_nothing_leaves_the_loss_finite(monkeypatch):
    model, images = tiny(), digits(2)
    _, objects = painted(images)
    votes = objects.votes.clone()
    votes[:, 0] = 100.0  # beyond what float32 can tell from probability zero
    votes.requires_grad_()
    monkeypatch.setattr(model.decoder, "forward", lambda *_: objects._replace(votes=votes))
    loss = model.loss(images)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(votes.grad).all()


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_per_sample_gradients_equal_one_at_a_time():
    model, images = tiny().eval(), digits(3)
    parameters = dict(model.named_parameters())

    model.forward = model.loss

    def one(parameters, image):
        return functional_call(model, parameters, (image[None],))

    together = vmap(grad(one), in_dims=(None, 0))(parameters, images)
    for n, image in enumerate(images):
        alone = torch.autograd.grad(model.loss(image[None]), list(parameters.values()))
        for name, value in zip(parameters, alone, strict=True):
            assert torch.allclose(together[name][n], value, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("shape", [(2, 1, 28, 27), (2, 3, 16, 16), (16, 16)])
def test_wrong_images_are_named(shape):
    with pytest.raises(ValueError, match=r"images must have shape \(B, 1, 16, 16\), got \(" + str(shape[0])):
        tiny().encoder(torch.zeros(shape))


def test_pixels_beyond_one_are_named():
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got values from .* to 254"):
        tiny().loss(255 * digits(3))
