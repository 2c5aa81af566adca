"""The encoders: architectures, what the project ships and its cards, and loading the papers' to the network's edge."""

import functools
import hashlib
import http.server
import json
import os
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import skimage
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet50

from lfx_utils import encoders
from lfx_utils.datasets import Annotated, Unavailable, files, load, load_annotated
from lfx_utils.encoders import imagenet, published, shipped
from lfx_utils.encoders.pretraining import RECIPES
from lfx_utils.encoders.published import Source
from lfx_utils.measures.probes import probe
from lfx_utils.models.resnet import Normalise, Padded, cifar_resnet, small_resnet
from lfx_utils.models.vit import ViT

REAL = Path(os.environ.get("LFX_DATA", "nowhere"))
OURS = [name for name in encoders.names() if name != imagenet.NAME]
WIDTHS = {"resnet": 192, "narrow": 128, "vit": 96, "efficientnet-lite0": 1280}


# Architectures


def test_small_resnet():
    torch.manual_seed(0)
    encoder, images = small_resnet().eval(), torch.rand(2, 3, 64, 64)
    shapes, features = {}, images
    for name, part in encoder.named_children():
        features = part(features)
        shapes[name] = tuple(features.shape[1:])
    assert shapes["stem"] == shapes["stage1"] == (16, 32, 32)
    assert [shapes[f"stage{stage}"] for stage in (2, 3, 4)] == [(48, 16, 16), (96, 8, 8), (192, 4, 4)]
    assert torch.equal(features, encoder(images)) and features.shape == (2, 192)
    assert encoder(torch.rand(1, 3, 40, 96)).shape == (1, 192)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 680_688


def test_normalise():
    images = torch.rand(2, 3, 4, 4)
    scaled = Normalise((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))(images)
    for channel, (mean, std) in enumerate(((0.1, 1), (0.2, 2), (0.3, 4))):
        assert torch.allclose(scaled[:, channel], (images[:, channel] - mean) / std)


def test_cifar_resnet():
    features = torch.rand(1, 4, 6, 6)
    more = Padded()(features)
    assert more.shape == (1, 8, 3, 3) and not more[:, [0, 1, 6, 7]].any()
    assert all(
        more[0, 2 + c, i, j] == features[0, c, 2 * i, 2 * j] for c in range(4) for i in range(3) for j in range(3)
    )
    # He et al., Table 6, with the last layer's 64 × 10 + 10.
    assert sum(parameter.numel() for parameter in cifar_resnet(20).parameters()) + 650 == 269_722
    with pytest.raises(ValueError, match="depth must be 6n"):
        cifar_resnet(21)


def test_vit():
    torch.manual_seed(0)
    encoder = ViT().eval()
    images = torch.rand(2, 3, 64, 64)
    assert encoder(images).shape == (2, 96) and encoder(torch.rand(1, 3, 32, 80)).shape == (1, 96)
    assert encoder.tokens(images).shape == (2, 96, 8, 8)
    whole = encoder.sequence(images)
    assert torch.equal(whole[:, 0], encoder(images))
    assert torch.equal(whole[1, 1 + 8 * 2 + 5], encoder.tokens(images)[1, :, 2, 5])
    with pytest.raises(ValueError, match="multiples of 8, got"):
        encoder(torch.rand(1, 3, 60, 64))


def test_attention_by_hand():
    torch.manual_seed(0)
    encoder, images = ViT(depth=2).eval(), torch.rand(2, 3, 64, 64)
    tokens = encoder.blocks[0](encoder._embed(images))
    layer = encoder.blocks[1].self_attention
    query, key, _ = F.linear(encoder.blocks[1].ln_1(tokens), layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)
    for head in range(3):
        place = slice(32 * head, 32 * head + 32)
        weights = (query[:, :1, place] @ key[..., place].transpose(1, 2) / 32**0.5).softmax(-1)[:, 0, 1:]
        for block in (1, -1):
            assert torch.allclose(encoder.attention(images, block)[:, head].flatten(1), weights, atol=1e-6)
    assert (encoder.attention(images).sum((2, 3)) < 1).all()


def test_the_vit_is_timm_s():
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
    theirs = timm.models.VisionTransformer(num_classes=0, **shape).eval()
    empty = ViT(32, 8, 48, 2, 3, 96, convolutions=False, normalise=Normalise(*published.IMAGENET))
    ours = published._filled(empty, theirs.state_dict(), "here")
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(ours(images), theirs(Normalise(*published.IMAGENET)(images)), atol=1e-5)


# What the project ships


def test_shipped_files():
    # An hour of many cores is needed for `cifar-simclr`.
    assert set(encoders.names()) - {"cifar-simclr"} == set(RECIPES) - {"cifar-simclr"} | {imagenet.NAME}
    assert (shipped.CHECKPOINTS / "efficientnet-lite0.safetensors").stat().st_size <= 9.5e6
    assert sum(path.stat().st_size for path in shipped.CHECKPOINTS.iterdir()) <= 20 * 2**20


@pytest.mark.parametrize("name", OURS)
def test_cards(name):
    card, recipe = encoders.card(name), RECIPES[name]
    assert card["command"] == f"python -m lfx_utils.encoders.pretraining {name} --seed {card['seed']}"
    assert {key: card.get(key) for key in vars(recipe)} == vars(recipe)
    scores = [card[key]["mean_ap"] for key in ("linear_probe", "linear_probe_untrained")]
    assert 1 >= scores[0] > scores[1] > 0 and card["linear_probe"]["chance"] == card["linear_probe_untrained"]["chance"]
    assert card["cpu_seconds"] > 0 and all(card[key] for key in ("provenance", "device", "licence"))


@pytest.mark.parametrize("name", encoders.names())
def test_shipped_encoders(name):
    encoder, images = encoders.load(name), torch.rand(2, 3, 64, 64)
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert {value.dtype for value in encoder.state_dict().values()} <= {torch.float32, torch.int64}
    latents = encoder(images)
    assert latents.shape == (2, WIDTHS[encoders.card(name)["architecture"]])
    assert torch.isfinite(latents).all() and torch.equal(latents, encoders.load(name)(images))


@functools.cache
def fresh_scenes(shortcut):
    return [load_annotated("scenes", split=split, count=500, seed=9, shortcut=shortcut) for split in ("train", "test")]


@pytest.mark.parametrize("name", [name for name in encoders.names() if name.startswith("scenes")])
def test_scores_on_the_cards_are_the_encoders(name):
    card = encoders.card(name)
    parts = fresh_scenes(card.get("shortcut"))
    # Fitted on fewer scenes than the card's probe, it may do worse, and not better than chance variation allows.
    assert probe(encoders.load(name), *parts)["mean_ap"] == pytest.approx(card["linear_probe"]["mean_ap"], abs=0.12)


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    for suffix in (".safetensors", ".json"):
        path = (shipped.CHECKPOINTS / "scenes-supervised").with_suffix(suffix)
        (tmp_path / path.name).write_bytes(path.read_bytes() + b" ")
    monkeypatch.setattr(shipped, "CHECKPOINTS", tmp_path)
    assert encoders.names() == ("scenes-supervised",)
    with pytest.raises(ValueError, match="is not the file that its card describes"):
        encoders.load("scenes-supervised")


def test_unknown_names():
    for function in (encoders.load, encoders.card):
        with pytest.raises(ValueError, match="name must be one of .*scenes-dino, .*; got 'resnet-1000'"):
            function("resnet-1000")
    with pytest.raises(ValueError, match="name must be one of supervised, simclr, .*; got 'clip'"):
        encoders.pretrained("clip")


# ImageNet's encoder


def cat(size=224):
    picture = torch.tensor(skimage.data.chelsea()).permute(2, 0, 1)[None, :, :, 75:375].float() / 255
    return F.interpolate(picture, size=size, mode="bilinear", antialias=True)


def test_efficientnet_is_timm_s():
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    whole, encoder = encoders.classifier(), encoders.load("efficientnet-lite0")
    theirs.load_state_dict(dict(zip(theirs.state_dict(), whole.state_dict().values(), strict=True)))
    for images in (torch.rand(2, 3, 64, 64), torch.rand(1, 3, 33, 97)):
        scaled = 2 * images - 1
        assert torch.allclose(whole(images), theirs(scaled), atol=1e-4)
        latents = theirs.forward_head(theirs.forward_features(scaled), pre_logits=True)
        assert torch.allclose(encoder(images), latents, atol=1e-4) and latents.shape[1] == 1280


def test_the_cat_is_a_cat():
    logits = encoders.classifier()(cat())
    assert logits.shape == (1, 1000) and torch.isfinite(logits).all()
    assert set(logits.topk(5).indices[0].tolist()) & imagenet.CLASSES["cat"]
    assert logits.argmax().item() in imagenet.CLASSES["cat"]


def test_parts_of_efficientnet():
    features, sides = torch.rand(1, 3, 224, 224), {}
    for name, part in encoders.classifier().named_children():
        features = part(features)
        sides[name] = features.shape[-1]
    assert list(sides.items())[1:10] == [
        ("stem", 112), ("stage1", 112), ("stage2", 56), ("stage3", 28), ("stage4", 14), ("stage5", 14),
        ("stage6", 7), ("stage7", 7), ("head", 7),
    ]  # fmt: skip


def test_relu6_of_efficientnet_is_seen_by_explainers_and_keeps_its_input():
    network = encoders.load("efficientnet-lite0")
    kinds = [module for module in network.modules() if isinstance(module, torch.nn.ReLU | torch.nn.ReLU6)]
    assert len(kinds) == 33 and all(isinstance(module, torch.nn.ReLU) and not module.inplace for module in kinds)
    values = torch.tensor([-1.0, 3.0, 7.0])
    assert kinds[0](values).tolist() == [0, 3, 6] and values.tolist() == [-1, 3, 7]


def test_untrained_twins():
    state = torch.get_rng_state()
    one, two, other = (encoders.untrained("efficientnet-lite0", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    trained = encoders.load("efficientnet-lite0")
    assert {name: value.shape for name, value in one.state_dict().items()} == {
        name: value.shape for name, value in trained.state_dict().items()
    }
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(one(images), two(images)) and not torch.equal(one(images), other(images))
    assert not any(module.training for module in one.modules())
    assert not any(parameter.requires_grad for parameter in one.parameters())
    assert encoders.untrained("scenes-dino")(images).shape == (2, 96)


def test_folded_copies_give_the_same_representations():
    encoder = encoders.untrained("efficientnet-lite0")
    images = torch.rand(2, 3, 64, 64)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    swift = encoders.folded(encoder)
    assert torch.allclose(encoder(images), swift(images), atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in swift.modules())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_folding_where_a_norm_does_not_follow_its_neighbour_is_refused():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.norm.running_mean += 1

        def forward(self, images):
            return self.norm(self.conv(images).square()).mean((2, 3))

    with pytest.raises(ValueError, match="changes when its norms are folded"):
        encoders.folded(Crossed().eval())
    with pytest.raises(ValueError, match="training mode"):
        encoders.folded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))


def test_the_card_of_efficientnet():
    card = encoders.card("efficientnet-lite0")
    assert card["source_sha256"] == imagenet.SHA256 and "Apache-2.0" in card["licence"]
    assert "Apache License" in (shipped.CHECKPOINTS / "efficientnet-lite0.LICENSE").read_text(encoding="utf-8")
    trained, untrained = card["scores"], card["scores_untrained"]
    assert trained["voc_animals_imagenet"]["top5"] > 0.7 > 0.2 > untrained["voc_animals_imagenet"]["top5"]
    assert trained["voc_animals_5_nearest"] > 0.7 > 0.4 > untrained["voc_animals_5_nearest"]
    probes = [scores["voc2007_linear_probe"] for scores in (trained, untrained)]
    assert probes[0]["mean_ap"] > 2 * probes[1]["mean_ap"] > 2 * probes[1]["chance"]
    assert card["rounding"]["largest_difference"] < 0.1 * card["rounding"]["spread_of_logits"]


@pytest.mark.skipif(not (REAL / "weights").is_dir(), reason="LFX_DATA has no EfficientNet-Lite0")
def test_half_precision_costs_what_the_card_says():
    exact = imagenet.converted(REAL / "weights" / "efficientnet-lite0-57934424.pth")(cat())
    halved = encoders.classifier()(cat())
    largest = encoders.card("efficientnet-lite0")["rounding"]["largest_difference"]
    assert 0 < (exact - halved).abs().max() < 2 * largest and exact.argmax() == halved.argmax()


def test_another_file_is_not_converted(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="is not the known file"):
        imagenet.converted(tmp_path / "a.pth")


def test_hits_and_neighbours_by_hand():
    boxes = (
        torch.tensor([[0.0, 0, 9, 9], [0, 0, 2, 2]]),
        torch.tensor([[0.0, 0, 5, 5]]),
        torch.tensor([[0.0, 0, 5, 5]]),
    )
    classes = (torch.tensor([0, 1]), torch.tensor([1]), torch.tensor([1]))
    images = torch.zeros(3, 3, 1, 1)
    animals = Annotated("toy", images, images, boxes, classes, images, ("person", "cat"), "")
    logits = torch.zeros(3, 1000)
    logits[0, 285] = logits[1, 0] = logits[2, 0] = 2.0
    logits[1, 281] = 1.0  # a cat, second
    logits[2, 10:20] = 1.0
    assert imagenet.hits(logits, animals) == {"top1": pytest.approx(1 / 3), "top5": pytest.approx(2 / 3)}
    same = Annotated("toy", images, images, boxes[1:] * 4, classes[1:] * 4, images, ("person", "cat"), "")
    assert imagenet.neighbours(torch.rand(8, 4), same) == 1.0


def test_what_has_no_classifier_and_no_timm(monkeypatch):
    with pytest.raises(ValueError, match="an encoder with a classifier, such as efficientnet-lite0; got 'scenes-dino'"):
        encoders.classifier("scenes-dino")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match="built from timm's parts: `pip install timm`"):
        encoders.load("efficientnet-lite0")


# The papers' encoders


def resnet50_keys():
    with torch.device("meta"):
        return resnet50().state_dict()


@pytest.mark.parametrize("name", ["supervised", "simclr", "swav", "dino"])
def test_keys_fit_resnet50(name):
    with torch.device("meta"):
        wanted = published.PRETRAINED[name][0]().resnet.state_dict()
    heads = {"projection_head.0.weight": torch.zeros(1), "prototypes.weight": torch.zeros(1)}
    for source in published.PRETRAINED[name][1]:
        theirs = {source.prefix + key: value for key, value in (resnet50_keys() | heads).items()}
        theirs |= {"optimizer": torch.zeros(1)} if source.prefix else {}
        kept = published.own(theirs, source.prefix)
        assert {key: value.shape for key, value in kept.items()} == {key: value.shape for key, value in wanted.items()}


@pytest.mark.parametrize(
    ("name", "recipe", "theirs", "width"),
    [
        ("dinov2-vit", published.IMAGENET, partial(timm.create_model, "vit_small_patch14_dinov2", num_classes=0), 384),
        ("clip-vit", published.CLIP,
         partial(timm.create_model, "vit_base_patch32_clip_quickgelu_224", num_classes=512), 512),
    ],
)  # fmt: skip
def test_today_s_transformers(name, recipe, theirs, width, tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = theirs(img_size=224, dynamic_img_size=True, depth=1).eval()
    state = network.state_dict()
    build = published.PRETRAINED[name][0]
    assert {key.split(".")[0] for key in build().vit.state_dict()} == {key.split(".")[0] for key in state}
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *names, **options: create(*names, img_size=224, depth=1, **options)
    )
    (tmp_path / "weights").mkdir()
    with pytest.raises(Unavailable, match=f"{name} cannot be had: there is no"):
        encoders.pretrained(name, tmp_path)
    if name == "clip-vit":
        save_file(state, tmp_path / "weights" / "clip-vit.safetensors")
    else:
        extra = {"mask_token": torch.zeros(1, 384)}
        torch.save(state | extra, tmp_path / "weights" / "dinov2_vits14_pretrain.pth")
    encoder, images = encoders.pretrained(name, tmp_path), torch.rand(2, 3, 224, 224)
    assert torch.allclose(encoder(images), network(Normalise(*recipe)(images)), atol=1e-5)
    assert encoder(images).shape == (2, width) and not any(module.training for module in encoder.modules())
    assert encoder.origin.startswith(name)
    side = 4 * encoder.vit.patch_embed.patch_size[0]  # another size than it was trained on
    assert encoder(torch.rand(1, 3, side, side)).shape == (1, width)


def test_damaged_safetensors(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "clip-vit.safetensors").write_bytes(b"no weights")
    with pytest.raises(Unavailable, match="clip-vit.safetensors is damaged"):
        encoders.pretrained("clip-vit", tmp_path)


def test_checksums_are_the_publishers_own():
    for _, sources in published.PRETRAINED.values():
        for source in sources:
            assert source.address.startswith("https://")
            assert source.sha256 in Path(source.address).stem  # the name's last part, where there is one


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve a folder, and let `simclr` be a small network to be had there."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            if self.path == "/broken.ckpt":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"half")
            else:
                super().do_GET()

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(files, "PAUSE", 0.0)
    yield folder, f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def offer(monkeypatch, *sources):
    monkeypatch.setitem(published.PRETRAINED, "simclr", (partial(published.cifar10_resnet, 8), sources))


def weights(prefix="encoder."):
    torch.manual_seed(3)
    state = cifar_resnet(8).state_dict()
    extra = {"projection_head.0.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}
    return state, {prefix + key: value for key, value in (state | extra).items()}


def test_download(server, tmp_path, monkeypatch):
    folder, address = server
    state, theirs = weights()
    torch.save({"epoch": 3, "state_dict": theirs | {"head.weight": torch.zeros(1)}}, folder / "a.ckpt")
    digest = hashlib.sha256((folder / "a.ckpt").read_bytes()).hexdigest()
    offer(monkeypatch, Source(f"{address}/a.ckpt", ("state_dict",), "encoder.", digest[:8]))
    with pytest.raises(Unavailable, match=r"simclr cannot be had: there is no .*a.ckpt; pass download=True"):
        encoders.pretrained("simclr", tmp_path)
    encoder = encoders.pretrained("simclr", tmp_path, download=True)
    assert not encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters())
    assert all(torch.equal(value, state[key]) for key, value in encoder.resnet.state_dict().items())
    (folder / "a.ckpt").unlink()
    assert torch.equal(encoders.pretrained("simclr", tmp_path).resnet.conv1.weight, state["conv1.weight"])
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["a.ckpt"]


def test_the_second_source_is_tried(server, tmp_path, monkeypatch):
    folder, address = server
    state, theirs = weights("module.")
    torch.save(theirs, folder / "b.tar")
    offer(monkeypatch, Source(f"{address}/gone.ckpt"), Source(f"{address}/b.tar", prefix="module."))
    encoder = encoders.pretrained("simclr", tmp_path, download=True)
    assert torch.equal(encoder.resnet.conv1.weight, state["conv1.weight"])


def test_wrong_checksum(server, tmp_path, monkeypatch):
    folder, address = server
    torch.save(weights("")[1], folder / "a.ckpt")
    offer(monkeypatch, Source(f"{address}/a.ckpt", sha256="00000000"))
    with pytest.raises(Unavailable, match="what was downloaded as a.ckpt is not the known file"):
        encoders.pretrained("simclr", tmp_path, download=True)
    assert not (tmp_path / "weights").exists()
    (tmp_path / "weights").mkdir()
    (folder / "a.ckpt").rename(tmp_path / "weights" / "a.ckpt")
    with pytest.raises(Unavailable, match="a.ckpt is not the known file"):
        encoders.pretrained("simclr", tmp_path)


def test_broken_download(server, tmp_path, monkeypatch):
    offer(monkeypatch, Source(f"{server[1]}/broken.ckpt"))
    with pytest.raises(Unavailable, match="could not be downloaded in 3 attempts"):
        encoders.pretrained("simclr", tmp_path, download=True)
    assert not (tmp_path / "weights").exists()


def lacking():
    state = weights("")[1]
    del state["layer3.0.conv2.weight"]
    return state


def misshapen():
    return weights("")[1] | {"conv1.weight": torch.zeros(16, 1, 3, 3)}


def surplus():
    return weights("")[1] | {"layer4.0.conv1.weight": torch.zeros(1)}


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lacking, "does not fit the architecture .*layer3.0.conv2.weight"),
        (misshapen, "does not fit the architecture .*conv1.weight"),
        (surplus, "does not fit the architecture .*layer4.0.conv1.weight"),
        (lambda: {"state": 1}, "does not fit the architecture"),
        (lambda: [1, 2], "is damaged"),
        (lambda: weights("")[1] | {"callback": Bomb()}, "holds more than tensors and plain values"),
        (lambda: b"no checkpoint", "is damaged"),
    ],
)
def test_files_that_do_not_fit(content, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    offer(monkeypatch, Source("https://example.org/a.ckpt"))
    Path("weights").mkdir()
    value = content()
    if isinstance(value, bytes):
        Path("weights/a.ckpt").write_bytes(value)
    else:
        torch.save(value, "weights/a.ckpt")
    with pytest.raises(Unavailable, match=said):
        encoders.pretrained("simclr", tmp_path)
    assert not Path("exploded").exists()


def test_converted_weights_are_taken(tmp_path, monkeypatch):
    offer(monkeypatch, Source("https://example.org/a.ckpt"))
    (tmp_path / "weights").mkdir()
    state = weights("")[0]
    save_file(state, tmp_path / "weights" / "simclr.safetensors")
    assert torch.equal(encoders.pretrained("simclr", tmp_path).resnet.conv1.weight, state["conv1.weight"])


@pytest.mark.skipif(not (REAL / "weights" / "resnet20-12fca82f.th").exists(), reason="LFX_DATA has no CIFAR-10 ResNet")
def test_real_cifar_resnet():
    data = load("cifar10", train=1, test=400)
    encoder = encoders.pretrained("cifar10-resnet20")
    state = torch.load(REAL / "weights" / "resnet20-12fca82f.th", map_location="cpu", weights_only=True)["state_dict"]
    scores = F.linear(encoder(data.test), state["module.linear.weight"], state["module.linear.bias"])
    assert (scores.argmax(1) == data.test_labels).float().mean() > 0.87  # 0.917 on all of them


def test_cards_are_plain_json():
    for path in shipped.CHECKPOINTS.glob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["name"] == path.stem
