"""NEM-U against hand computation, brute force over all masks, and an encoder whose causes are known."""

import copy
import itertools
import json
import math
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from lfx_utils.models.resnet import Normalise
from lfx_utils.models.vit import ViT
from lfx_utils.nemu import NEMU, Objective, fit_together, halved, load, printed, refine, save, statistics
from lfx_utils.nemu.skips import Skip, find, pyramid, recorded


class SeesRed(nn.Module):
    """Represents the red of every pixel and a constant; looks at the other colours without using them."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        self.features(x)
        return torch.cat([2 * x[:, 0].flatten(1) - 1, x.new_ones(len(x), 1)], dim=1)


def convolutional(channels=3, width=8):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    ).eval()  # fmt: skip


def transformer(**options):
    sizes = {"image_size": 32, "patch_size": 4, "num_layers": 5, "num_heads": 2, "hidden_dim": 12, "mlp_dim": 24}
    model = VisionTransformer(**sizes | options)
    model.heads = nn.Identity()
    return model.eval()


def colours(count, seed, shape=(3, 4)):
    """Images whose every pixel has each colour fully or not at all."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *shape, generator=generator).round()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def fitted():
    """A convolutional encoder, its explainer, and the images it was fitted on; tests leave them as they are."""
    torch.manual_seed(0)
    encoder, images = convolutional(), torch.rand(40, 3, 16, 16)
    return encoder, NEMU(encoder, decoder="thin").fit(images, epochs=2, batch_size=16), images


# The objective


@pytest.mark.parametrize("distance", [halved, printed])
def test_objective_by_hand(distance):
    weights = np.random.default_rng(0).normal(size=(3, 8))
    images, masks = np.random.default_rng(1).random((2, 2, 2, 2)), np.random.default_rng(2).random((2, 1, 2, 2))
    losses = []
    for x, m in zip(images, masks):
        kept, left = x.copy(), x.copy()
        for c, i, j in itertools.product(range(2), repeat=3):
            kept[c, i, j] *= m[0, i, j]
            left[c, i, j] *= 1 - m[0, i, j]
        r, a, b = (weights @ each.ravel() for each in (x, kept, left))
        cosines = [u @ v / np.sqrt(u @ u * (v @ v)) for u, v in ((r, a), (a, b))]
        p, n = ((1 - c) / 2 if distance is halved else -c for c in cosines)
        losses.append((1.2 - n) * p + 0.7 * m.sum() / 4)

    def encoder(x):
        return x.flatten(1) @ torch.tensor(weights).T

    terms = Objective(1.2, 0.7, distance)(encoder, torch.tensor(images), torch.tensor(masks))
    np.testing.assert_allclose(terms.loss, losses, rtol=1e-10)
    parts = 1.2 * terms.preservation + 0.7 * terms.size - terms.inverse * terms.preservation
    torch.testing.assert_close(terms.loss, parts)


def test_halves_add_up_with_and_without_noise():
    images, masks = torch.rand(5, 3, 8, 8), torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(sum(Objective().halves(images, masks)), images)
    kept, left = Objective(fill=0.5).halves(images, masks)
    torch.testing.assert_close(kept, masks * images + (1 - masks) * 0.5)
    torch.testing.assert_close(kept + left, images + 0.5)
    mean, deviation = statistics(images)
    kept, left = Objective(noise=(mean, deviation)).halves(images, masks)
    noise = kept + left - images  # what is mixed in is one draw, shared by both halves
    torch.testing.assert_close(kept, masks * images + (1 - masks) * noise)
    torch.testing.assert_close(left, (1 - masks) * images + masks * noise)


def test_noise_has_the_images_mean_and_deviation():
    images = torch.rand(200, 3, 8, 8) * torch.tensor([1.0, 2, 3]).view(3, 1, 1) + 4
    kept, _ = Objective(noise=statistics(images)).halves(images, torch.zeros(200, 1, 8, 8))
    torch.testing.assert_close(torch.tensor(statistics(kept)), torch.tensor(statistics(images)), rtol=0.02, atol=0)


def test_erratum_5_printed_sign_rewards_halves_that_look_alike():
    """The masked image stays put; what it leaves out turns away from it, and the two losses move oppositely."""
    whole, kept = torch.tensor([[1.0, 0]]), torch.tensor([[0.8, 0.6]])
    angles = torch.linspace(0, math.pi, 7)
    left = [torch.tensor([[0.8, 0.6]]) @ torch.tensor([[c, s], [-s, c]]) for c, s in zip(angles.cos(), angles.sin())]
    masks = torch.full((1, 1, 2, 2), 0.5)

    def losses(distance):
        return torch.cat([Objective(distance=distance).terms(whole, kept, each, masks).loss for each in left])

    assert (losses(printed).diff() > 0).all()
    assert (losses(halved).diff() < 0).all()
    # With P = (1 − c)/2 and N likewise, the printed loss is (2λ1 + 2 − 4N)P + 2N + λ2 size − λ1 − 1.
    terms = [Objective().terms(whole, kept, each, masks) for each in left]
    p, n = (torch.cat([getattr(each, name) for each in terms]) for name in ("preservation", "inverse"))
    torch.testing.assert_close(losses(printed), (5 - 4 * n) * p + 2 * n + 0.5 - 2.5)


@pytest.mark.parametrize("name, value", [("preserve", 0), ("preserve", -1.5), ("sparsity", 0.0), ("sparsity", math.nan),
                                         ("sparsity", math.inf), ("preserve", "1.5")])  # fmt: skip
def test_prices_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} .* must be a positive number"):
        Objective(**{name: value})


def test_fill_must_be_a_number():
    with pytest.raises(ValueError, match="fill must be a finite number"):
        Objective(fill=((0.5,), (0.2,)))


# The encoder's own features


def found(encoder, *size, most=5):
    """The names of the layers, and their layouts and sizes."""
    skips = find(encoder.eval(), torch.rand(1, *size), most)
    return [skip.layer for skip in skips], [(skip.layout, skip.size[0]) for skip in skips]


def test_resnet_gives_the_last_map_of_each_resolution():
    encoder = resnet18(weights=None)
    layers, seen = found(encoder, 3, 64, 64)
    assert layers == ["relu", "layer1", "layer2", "layer3", "layer4"]
    assert seen == [("channels first", side) for side in (32, 16, 8, 4, 2)]
    assert found(encoder, 3, 64, 64, most=2)[0] == ["layer3", "layer4"]


def test_transformer_gives_blocks_and_their_grid():
    layers, seen = found(transformer(), 3, 32, 32)
    assert layers == ["encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_4"]  # 16² and 8² of 32²
    assert seen == [("tokens", 8)] * 2
    layers, seen = found(transformer(image_size=64, patch_size=16, num_layers=4), 3, 64, 64)
    assert [name[-1] for name in layers] == ["0", "1", "2", "3"] and seen == [("tokens", 4)] * 4


def swin():
    encoder = SwinTransformer([4, 4], 24, [2, 2, 2], [2, 4, 8], [4, 4])
    encoder.head = nn.Identity()
    return encoder.eval()


def convnext():
    encoder = ConvNeXt([CNBlockConfig(24, 48, 1), CNBlockConfig(48, 96, 1), CNBlockConfig(96, None, 1)])
    encoder.classifier = nn.Flatten()
    return encoder.eval()


@pytest.mark.parametrize("make", [swin, convnext])
@pytest.mark.parametrize("side", ["left", "top"])
def test_maps_lie_where_the_image_does_whatever_the_order_of_the_axes(make, side):
    encoder, images = make(), torch.rand(2, 3, 64, 64)
    other = images.clone()
    strip = other[..., :8] if side == "left" else other[..., :8, :]
    strip.zero_()
    explainer = NEMU(encoder, decoder="thin").build(images[:1])
    assert [skip.size[0] for skip in explainer.skips] == [16, 8, 4]
    with torch.no_grad():
        for one, two in zip(explainer.encode(images)[1], explainer.encode(other)[1]):
            change = (one - two).abs().sum((0, 1))
            change = change if side == "left" else change.T
            assert change[:, : len(change) // 2].sum() > 0.8 * change.sum()
    assert explainer.fit(images, epochs=1).attribute(images).shape == (2, 1, 64, 64)


class Attends(nn.Module):
    """Patches that attend to one another, the attention itself the output of a layer, as of a dropout."""

    def __init__(self, heads, size=8, width=64):
        super().__init__()
        self.patches, self.heads = nn.Conv2d(3, width, 4, 4), heads
        self.queries, self.attention, self.out = nn.Linear(width, width), nn.Softmax(-1), nn.Linear(width, 4)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).mT  # (B, 64, 64)
        if self.heads:
            split = self.queries(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            attention = self.attention(split @ split.mT)
            tokens = (attention @ split).transpose(1, 2).flatten(2)
        else:
            queries = self.queries(tokens)
            tokens = self.attention(queries @ queries.mT) @ queries
        return self.out(tokens).mean(1)


@pytest.mark.parametrize("heads", [0, 1, 4])
def test_attention_is_no_feature(heads):
    encoder = Attends(heads).eval()
    assert "attention" not in found(encoder, 3, 32, 32)[0]


def test_images_of_many_bands():
    def bands(count, *widths):
        layers = [nn.BatchNorm2d(count)]  # which makes no feature, but another picture
        for into, out in zip((count, *widths), widths):
            layers += [nn.Conv2d(into, out, 3, 2, 1), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    assert found(bands(64, 32, 48), 64, 32, 32) == (["2", "4"], [("channels first", 16), ("channels first", 8)])
    assert found(bands(13, 13, 24), 13, 32, 32)[0] == ["2", "4"]
    with pytest.raises(ValueError, match="spatial outputs"):
        found(nn.Sequential(nn.BatchNorm2d(13), nn.Flatten(), nn.Linear(13 * 64, 5)), 13, 8, 8)


def test_transformer_behind_convolutions_gives_their_maps_and_its_last_tokens():
    layers, seen = found(ViT(), 3, 64, 64)
    assert seen[-1] == ("tokens", 8) and layers[-1] == "norm"
    assert [name.split(".")[0] for name in layers] == ["patches"] * 2 + ["norm"]
    explainer = NEMU(ViT().eval()).build(torch.rand(1, 3, 64, 64))
    images = torch.rand(2, 3, 64, 64)
    latents, maps = explainer.encode(images)
    assert [tuple(each.shape[1:]) for each in maps] == [(24, 32, 32), (48, 16, 16), (96, 8, 8)]
    torch.testing.assert_close(maps[-1], explainer.encoder.tokens(images))
    torch.testing.assert_close(latents, explainer.encoder(images))


def test_tokens_lie_where_their_patches_are():
    tokens = torch.cat([torch.full((1, 1, 2), -9.0), torch.arange(12.0).view(1, 6, 2)], dim=1)  # class token first
    deep = Skip("", "tokens", (2, 3)).map(tokens)
    assert deep.shape == (1, 2, 2, 3)
    for row, column, channel in itertools.product(range(2), range(3), range(2)):
        assert deep[0, channel, row, column] == 2 * (3 * row + column) + channel
    assert [each.shape for each in pyramid([deep, deep])] == [(1, 2, 4, 6), (1, 2, 2, 3)]


def test_recording_sees_what_the_layers_return_and_leaves_no_hook():
    encoder, x = convolutional(), torch.rand(2, 3, 16, 16)
    with recorded(encoder, ["2", "5"]) as outputs:
        encoder(x)
    torch.testing.assert_close(outputs["2"], encoder[:3](x))
    torch.testing.assert_close(outputs["5"], encoder[:6](x))
    assert not any(module._forward_hooks for module in encoder.modules())


def test_layer_that_runs_twice_is_no_skip():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten()

        def forward(self, x):
            return self.head(self.again(self.again(self.first(x))))

    assert found(Twice(), 3, 8, 8)[0] == ["first"]


# The explainer


def test_finds_the_known_causes_as_brute_force_over_all_masks_does():
    encoder, objective = SeesRed().eval(), Objective(sparsity=0.5)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=12))).view(-1, 1, 3, 4)
    images = colours(12, seed=1)
    losses = [objective(encoder, image.expand(len(every), -1, -1, -1), every).loss for image in images]
    best = torch.stack([every[loss.argmin()] for loss in losses]).bool()
    assert torch.equal(best, images[:, :1] > 0.5)  # what the encoder sees, and nothing else

    explainer = NEMU(encoder, objective).fit(colours(512, seed=2), epochs=10)
    masks = explainer.attribute(images)
    assert ((masks > 0.5) == best).float().mean() > 0.98
    # Masks between 0 and 1 can do better than any binary one, never worse than the best of these and a margin.
    assert objective(encoder, images, masks).loss.mean() < sum(map(min, losses)) / 12


@pytest.mark.parametrize(
    "make, size", [(convolutional, 16), (transformer, 32), (lambda: resnet18(num_classes=7).eval(), 33)]
)
def test_encoder_is_left_bit_for_bit(make, size):
    encoder, images = make(), torch.rand(12, 3, size, size)
    next(encoder.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    flags = [parameter.requires_grad for parameter in encoder.parameters()]
    outputs = encoder(images).detach()
    explainer = NEMU(encoder, decoder="thin").fit(images, epochs=2, batch_size=6)
    first = [value.clone() for value in explainer.decoder.parameters()]
    explainer.train()
    explainer.eval()
    refine(explainer, images, steps=2)
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in before.items())
    assert torch.equal(encoder(images), outputs)
    assert flags == [parameter.requires_grad for parameter in encoder.parameters()]
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert not any(module._forward_hooks or module.training for module in encoder.modules())
    assert all(map(torch.equal, first, explainer.decoder.parameters()))
    untrained = NEMU(encoder, decoder="thin").build(images[:1]).decoder
    assert not torch.equal(next(untrained.parameters()), first[0])  # but the decoder did train


def test_one_pass_gives_representation_and_mask(fitted):
    encoder, explainer, images = fitted
    passes = []
    hook = encoder.register_forward_hook(lambda *_: passes.append(1))
    representations, masks = explainer(images[:5])
    hook.remove()
    assert len(passes) == 1
    assert torch.equal(representations, encoder(images[:5]))
    assert masks.shape == (5, 1, 16, 16) and masks.min() >= 0 and masks.max() <= 1
    torch.testing.assert_close(explainer.attribute(images[:5], internal_batch_size=2), masks)


def test_two_fits_are_the_same_and_stopping_in_between_changes_nothing(tmp_path):
    encoder, images = convolutional(), torch.rand(20, 3, 16, 16)

    def masks(**options):
        torch.rand(7)  # the global generator's state must not matter
        return NEMU(encoder, decoder="thin").fit(images, batch_size=8, **options).attribute(images)

    once = masks(epochs=3)
    file = tmp_path / "run.pt"
    short = masks(epochs=1, checkpoint=file)
    assert torch.equal(masks(epochs=3), once)
    assert torch.equal(masks(epochs=3, checkpoint=file), once) and not torch.equal(short, once)
    assert not torch.equal(masks(epochs=3, seed=1), once)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    encoder, images, file = convolutional(), torch.rand(16, 3, 16, 16), tmp_path / "run.pt"

    def train(encoder=encoder, objective=None, decoder="thin", images=images, **options):
        return NEMU(encoder, objective, decoder).fit(images, **{"epochs": 1, "checkpoint": file} | options)

    masks = train().attribute(images)
    finer = copy.deepcopy(encoder)
    with torch.no_grad():
        finer[0].weight += 1e-6  # as by a little more training
    brighter = nn.Sequential(Normalise((0.5,) * 3), encoder).eval()  # its buffers are in no state dictionary
    for changed, message in (
        ({"encoder": finer}, "encoder"),
        ({"encoder": brighter}, "encoder"),
        ({"objective": Objective(sparsity=1.1)}, "objectives"),
        ({"objective": Objective(distance=printed)}, "objectives"),
        ({"decoder": "standard"}, "decoders"),
        ({"dtype": torch.bfloat16}, "dtype"),
        ({"images": images.flip(0)}, "data"),
        ({"seed": 1}, "seed"),
        ({"optimiser": torch.optim.Adam}, "optimiser"),
    ):
        with pytest.raises(ValueError, match=f"run.pt is another run's, which differs in: .*{message}"):
            train(**changed)
    assert torch.equal(train().attribute(images), masks)


class Draws(nn.Module):
    """An encoder in evaluation mode whose dropout is always on."""

    def __init__(self):
        super().__init__()
        self.layers = convolutional()

    def forward(self, x):
        return nn.functional.dropout(self.layers(x), 0.5)


class InPlace(nn.Module):
    """An encoder that normalises the images it is given, in place, or a copy of them."""

    def __init__(self, encoder, inplace):
        super().__init__()
        self.encoder, self.inplace = encoder, inplace

    def forward(self, x):
        return self.encoder(x.sub_(0.5).mul_(2) if self.inplace else (x - 0.5) * 2)


def test_an_encoder_that_works_in_place_leaves_images_and_masks_as_they_are():
    images, known = torch.rand(16, 3, 16, 16).contiguous(memory_format=torch.channels_last), []
    kept, encoder = images.clone(), convolutional()
    for inplace in (False, True):
        explainer = NEMU(InPlace(encoder, inplace).eval(), decoder="thin").fit(images, epochs=2, batch_size=8)
        masks = explainer.attribute(images)
        known.append([masks, *explainer(images), refine(explainer, images, steps=2)])
        assert torch.equal(images, kept)
    for copied, own in zip(*known, strict=True):
        torch.testing.assert_close(copied, own)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_encoders_of_another_precision(dtype, fitted, tmp_path):
    whole, explainer, images = fitted
    encoder, few = copy.deepcopy(whole).to(dtype), images.to(dtype)
    own = NEMU(encoder, decoder="thin").build(few[:1])
    own.decoder.load_state_dict(explainer.decoder.state_dict())
    torch.testing.assert_close(own.attribute(few), explainer.attribute(images), atol=0.03, rtol=0)
    save({"one": own}, tmp_path / "n.safetensors")
    assert torch.equal(load(tmp_path / "n.safetensors", encoder)["one"].attribute(few), own.attribute(few))
    whole_masks = explainer.attribute(images)
    torch.testing.assert_close(
        Objective()(encoder, few, whole_masks).loss.float(), Objective()(whole, images, whole_masks).loss, atol=0.01,
        rtol=0,
    )  # fmt: skip
    if dtype == torch.float16:
        for call in (lambda: NEMU(encoder).fit(few), lambda: refine(own, few)):
            with pytest.raises(ValueError, match="encoder is in float16, in which the gradients of masks vanish"):
                call()
        return
    trained = NEMU(encoder, decoder="thin").fit(few, epochs=2, batch_size=16, checkpoint=tmp_path / "n.pt")
    torch.testing.assert_close(trained.attribute(few), explainer.attribute(images), atol=0.05, rtol=0)
    refined = refine(trained, few, steps=2)
    assert (refined - refine(explainer, images, steps=2)).abs().mean() < 0.01


def test_side_by_side_is_as_alone():
    encoder, images = convolutional(), torch.rand(16, 3, 16, 16)
    objectives = Objective(), Objective(3.0, 0.2), Objective(distance=printed)
    together = [NEMU(encoder, each, "thin") for each in objectives]
    options = {"epochs": 3, "batch_size": 8, "optimiser": lambda parameters: torch.optim.Adam(parameters, 1e-2)}
    fit_together(together, images, **options, keep_epochs=True)
    for objective, explainer in zip(objectives, together):
        alone = NEMU(encoder, objective, "thin").fit(images, **options)
        torch.testing.assert_close(explainer.attribute(images), alone.attribute(images), atol=1e-4, rtol=0)
        assert len(explainer.history.snapshots) == 3
        assert explainer.history.snapshots[0].keys() == explainer.decoder.state_dict().keys()
        last = explainer.history.snapshots[-1]
        assert all(torch.equal(last[name], value) for name, value in explainer.decoder.state_dict().items())
    assert not torch.allclose(together[0].attribute(images), together[1].attribute(images), atol=1e-3)


def test_saved_and_loaded_without_pickle(fitted, tmp_path):
    encoder, explainer, images = fitted
    file = tmp_path / "new" / "nemu.safetensors"
    other = NEMU(encoder, Objective(2.0, 0.25, printed, noise=statistics(images)), "thin").fit(images, epochs=1)
    save({"one": explainer, "two": other}, file)
    size = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + size])
    assert json.loads(header["__metadata__"]["nem-u"])["explainers"]["one"]["shape"] == [3, 16, 16]
    assert {name.split("/")[0] for name in header} == {"one", "two", "__metadata__"}
    again = load(file, encoder)
    assert torch.equal(again["one"].attribute(images), explainer.attribute(images))
    assert torch.equal(again["two"].attribute(images), other.attribute(images))
    assert again["one"].objective == explainer.objective
    assert again["two"].objective.distance is printed and again["two"].objective.preserve == 2
    assert [list(each) for each in again["two"].objective.noise] == [list(each) for each in other.objective.noise]
    save({"one": explainer}, tmp_path / "half.safetensors", half=True)
    halved_weights = load(tmp_path / "half.safetensors", encoder)["one"].attribute(images)
    torch.testing.assert_close(halved_weights, explainer.attribute(images), atol=5e-3, rtol=0)


def test_files_of_other_encoders_and_other_kinds(fitted, tmp_path):
    encoder, explainer, _ = fitted
    save({"one": explainer}, tmp_path / "n.safetensors")
    with pytest.raises(ValueError, match="encoder must be the one"):
        load(tmp_path / "n.safetensors", convolutional(width=4))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="explainers were saved to"):
        load(tmp_path / "other.safetensors", encoder)
    with pytest.raises(ValueError, match="explainers must be of one encoder"):
        save(
            {"one": explainer, "two": NEMU(convolutional(), decoder="thin").build(torch.rand(1, 3, 16, 16))},
            tmp_path / "n",
        )


@pytest.mark.parametrize("make, size", [(convolutional, 16), (transformer, 32), (lambda: ViT().eval(), 64)])
def test_exported_program_gives_the_same(make, size):
    images = torch.rand(8, 3, size, size)
    explainer = NEMU(make(), decoder="thin").fit(images, epochs=1)
    program = torch.export.export(explainer, (images[:2],)).module()
    for exported, own in zip(program(images[2:4]), explainer(images[2:4])):
        torch.testing.assert_close(exported, own, atol=1e-5, rtol=1e-5)


def test_onnx_gives_the_same(fitted, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    _, explainer, images = fitted
    file = str(tmp_path / "nemu.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(explainer, (images[:2],), file, dynamo=True, verbose=False)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: images[2:4].numpy()})
    for exported, own in zip(outputs, explainer(images[2:4])):
        np.testing.assert_allclose(exported, own.detach().numpy(), atol=1e-5)


def test_refining_lowers_the_loss_of_each_image_and_finds_the_causes():
    encoder, objective = SeesRed().eval(), Objective(sparsity=0.5)
    explainer = NEMU(encoder, objective, decoder="thin").fit(colours(64, seed=3), epochs=1)
    images = colours(8, seed=4)
    predicted, refined = explainer.attribute(images), refine(explainer, images, steps=60, cells=4)
    before, after = (objective(encoder, images, each).loss for each in (predicted, refined))
    assert (after < before).all()
    assert ((refined > 0.5) == (images[:, :1] > 0.5)).float().mean() > 0.9
    start = torch.full_like(predicted, 0.5)
    anew = refine(explainer, images, steps=60, cells=4, start=start)
    assert ((anew > 0.5) == (images[:, :1] > 0.5)).float().mean() > 0.9


# Bad input


def test_encoder_without_spatial_features():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 4)).eval()
    with pytest.raises(ValueError, match="encoder must have layers with spatial outputs"):
        NEMU(encoder).fit(torch.rand(4, 3, 4, 4), epochs=1)
    with pytest.raises(TypeError, match="encoder must be an nn.Module"):
        NEMU(lambda x: x.flatten(1))


def test_other_size_than_trained_on(fitted):
    _, explainer, images = fitted
    with pytest.raises(ValueError, match=r"\(B, 3, 16, 16\) that the decoder was trained on, got \(2, 3, 24, 24\)"):
        explainer.attribute(torch.rand(2, 3, 24, 24))
    with pytest.raises(ValueError, match="trained on"):
        refine(explainer, torch.rand(2, 1, 16, 16))


def test_black_images(fitted):
    encoder, explainer, images = fitted
    with pytest.raises(ValueError, match="images are all 0, the fill"):
        NEMU(encoder).fit(torch.zeros(4, 3, 16, 16), epochs=1)
    some = torch.cat([images[:6], torch.zeros(2, 3, 16, 16)])
    masks = NEMU(encoder, decoder="thin").fit(some, epochs=1).attribute(some)
    assert masks.isfinite().all()
    black = torch.zeros(2, 3, 16, 16)
    assert explainer.attribute(black).isfinite().all() and refine(explainer, black, steps=3).isfinite().all()


def test_representation_of_norm_zero():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten()).eval()
    images = torch.cat([torch.rand(4, 3, 8, 8), torch.zeros(1, 3, 8, 8)])
    with pytest.raises(ValueError, match="norm zero"):
        NEMU(encoder).fit(images, epochs=1)


def test_diverging_training_is_stopped_and_keeps_the_last_good_epoch():
    encoder, images = convolutional(), torch.rand(24, 3, 16, 16)
    explainer = NEMU(encoder, decoder="thin")

    def bad(parameters):
        return torch.optim.SGD(parameters, lr=1e30)

    with pytest.raises(FloatingPointError, match="NEM-U: the loss is nan in epoch 1"):
        explainer.fit(images, epochs=3, batch_size=8, optimiser=bad)
    first = NEMU(encoder, decoder="thin").fit(images, epochs=1, optimiser=lambda p: torch.optim.SGD(p, lr=0.0))
    torch.testing.assert_close(list(explainer.decoder.parameters()), list(first.decoder.parameters()))
    assert explainer.attribute(images).isfinite().all()
    assert not any(each.training for each in explainer.modules())
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_masks_that_keep_nothing_are_named():
    with pytest.warns(RuntimeWarning, match="masks collapsed: they keep 0"):
        NEMU(convolutional(), Objective(sparsity=100), "thin").fit(torch.rand(32, 3, 16, 16), epochs=40, batch_size=8)


def test_training_mode(fitted):
    encoder = convolutional()
    explainer = NEMU(encoder, decoder="thin").fit(torch.rand(4, 3, 16, 16), epochs=1)
    encoder[1].train()
    for call in (explainer.attribute, explainer, lambda x: NEMU(encoder).fit(x)):
        with pytest.raises(ValueError, match="training mode"):
            call(torch.rand(4, 3, 16, 16))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e, x: NEMU(e.encoder).attribute(x), "not trained yet"),
        (lambda e, x: e.attribute(x * math.nan), "NaN"),
        (lambda e, x: NEMU(e.encoder).fit(x[:0]), "empty batch"),
        (lambda e, x: NEMU(e.encoder).fit(x.flatten(1)), r"\(N, C, H, W\)"),
        (lambda e, x: NEMU(nn.Sequential(e.encoder[:6]).eval()).fit(x), r"shape \(B, D\)"),
        (lambda e, x: fit_together([e, NEMU(convolutional())], x), "share one encoder"),
        (lambda e, x: fit_together([], x), "explainers is empty"),
        (lambda e, x: NEMU(e.encoder).build(x), r"one image \(1, C, H, W\)"),
        (lambda e, x: Objective(noise=((0.5,), (math.nan,))), "noise must be a mean and a deviation"),
        (lambda e, x: Objective(noise=((0.5,), (0.1,))).halves(x, x[:, :1]), "noise must be of 3 channels"),
        (lambda e, x: NEMU(Draws().eval()).fit(x), "two representations of the same inputs"),
        (lambda e, x: refine(e, x, steps=0), "steps must be an integer of at least 1"),
    ],
)
def test_bad_calls(fitted, call, message):
    _, explainer, images = fitted
    with pytest.raises(ValueError, match=message):
        call(explainer, images)


def test_what_a_file_cannot_hold_is_told(fitted, tmp_path):
    encoder, explainer, images = fitted
    own = NEMU(encoder, Objective(distance=lambda a, b: (a - b).square().sum(1))).build(images[:1])
    with pytest.raises(ValueError, match="distance must be"):
        save({"own": own}, tmp_path / "own.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match="whole file"):
        load(tmp_path / "torn.safetensors", encoder)
    with pytest.raises(ValueError, match="internal_batch_size"):
        explainer.attribute(images, internal_batch_size=0)
    with pytest.raises(ValueError, match="start must hold masks"):
        refine(explainer, images[:2], steps=1, start=torch.rand(2, 3, *images.shape[2:]))
