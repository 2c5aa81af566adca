"""What a GPU does: the same results as the CPU, and how fast. Nobody has run it on one yet.

    python -m benchmarks.gpu                 # at most 8 minutes on a data-centre GPU; goes on where it was cut off
    python -m benchmarks.gpu --device cpu --tiny --out gpu.json      # every part, in small, without one

Each part's results are written to `data/benchmarks/gpu.json` once it is done, and a part that is there is left out; so
a second call does what the first had no time for. Seconds are the clock's, after the device has finished, the least of
three after one that warms up.
"""

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from captum.attr import IntegratedGradients, Saliency
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torchvision.models import resnet18, resnet50

from lfx_utils import LabelFree, measures
from lfx_utils.examples import dknn, influence, merge, near, represent, shard, simplex, top, tracin
from lfx_utils.models import vae
from lfx_utils.models.autoencoders import mnist_autoencoder
from lfx_utils.models.simclr import augment, cifar_resnet18, nt_xent, projected, small_encoder
from lfx_utils.nemu import NEMU
from lfx_utils.relax import RELAX, Cells, u_relax
from lfx_utils.training import ensembles

OUT = Path(__file__).resolve().parents[1] / "data" / "benchmarks" / "gpu.json"


def seconds(function: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    found = []
    for _ in range(repeats + 1):
        finished(device)
        start = time.perf_counter()
        function()
        finished(device)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x).square().mean()


def public(device: torch.device) -> dict[str, Callable[[], object]]:
    """What each public function returns for the same small inputs on a device."""
    torch.manual_seed(0)
    model, images = mnist_autoencoder().eval(), torch.rand(12, 1, 28, 28)
    encoder, pictures = small_encoder(8).eval(), torch.rand(3, 3, 32, 32)
    explainer = NEMU(encoder, decoder="thin").build(pictures[:1]).eval()
    h, masks = torch.randn(40, 20), torch.zeros(3, 1, 32, 32, dtype=torch.bool)
    masks[..., 8:20, 8:20] = True
    model, images, encoder, pictures, explainer, h, masks = (
        part.to(device) for part in (model, images, encoder, pictures, explainer, h, masks)
    )
    given, maps = (model, loss, images[:3], images[3:]), pictures.mean(1, keepdim=True)
    state = [(model.state_dict(), 0.1)]
    relax = RELAX(encoder, lambda count, shape, generator: fixed_masks(count, shape).to(device))
    return {
        "represent": lambda: represent(encoder, pictures),
        "dknn": lambda: dknn(h[:5], h[5:], 3),
        "simplex": lambda: simplex(h[:5], h[5:]),
        "top": lambda: top(h @ h.T, 4),
        "shard and merge": lambda: merge(
            [shard(near(h[:5]), h[5 + 7 * n : 12 + 7 * n], 3, start=7 * n) for n in (0, 1)]
        ),
        "tracin": lambda: tracin(model, loss, state, images[:3], images[3:]),
        "tracin, projected": lambda: tracin(model, loss, state, images[:3], images[3:], projection=64),
        "influence, direct": lambda: influence(*given, damping=1e-2),
        "influence, cg": lambda: influence(*given, damping=1e-2, solver="cg"),
        "influence, ekfac": lambda: influence(*given, damping=1e-2, solver="ekfac"),
        "LabelFree(IntegratedGradients)": lambda: LabelFree(IntegratedGradients, encoder).attribute(
            pictures, torch.zeros_like(pictures)
        ),
        "LabelFree(Saliency)": lambda: LabelFree(Saliency, encoder).attribute(pictures),
        "RELAX": lambda: relax.attribute(pictures, n_masks=40, return_uncertainty=True),
        "u_relax": lambda: u_relax(maps, maps.flip(0)),
        "NEMU": lambda: torch.no_grad()(explainer)(pictures),
        "pointing_game": lambda: measures.pointing_game(maps, masks),
        "top_k": lambda: measures.top_k(maps, masks),
        "relevance_rank": lambda: measures.relevance_rank(maps, masks),
        "relevance_mass": lambda: measures.relevance_mass(maps, masks),
        "complexity": lambda: measures.complexity(maps),
        "sparseness": lambda: measures.sparseness(maps),
    }


def fixed_masks(count: int, shape: tuple[int, ...]) -> Tensor:
    """The same masks on every device, whose generators differ."""
    return Cells(4)(count, shape, torch.Generator().manual_seed(0))


def agreement(device: torch.device, tiny: bool) -> dict:
    """Largest difference to the CPU, relative to the largest value; the tolerance is 1e-3, of TF32-free float32."""
    reference, found = public(torch.device("cpu")), {}
    for name, function in public(device).items():
        try:
            pairs = zip(tensors(function()), tensors(reference[name]()), strict=True)
            found[name] = max(
                ((ours.cpu().double() - cpu.double()).abs().max() / cpu.double().abs().max().clamp_min(1e-12)).item()
                for ours, cpu in pairs
            )
        except Exception as error:  # What fails on a device is a result as well.
            found[name] = f"{type(error).__name__}: {error}"[:200]
    agrees = [name for name, value in found.items() if isinstance(value, float) and value <= 1e-3]
    return {"differences": found, "agree": len(agrees), "of": len(found)}


def tensors(value) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [each for part in value for each in tensors(part)]


def nem(device: torch.device, tiny: bool) -> dict:
    """NU's Table 1: seconds an image of NEM-U, saliency, integrated gradients and RELAX, batch 1 and the best batch."""
    side, batches, masks = (32, (1, 2), 8) if tiny else (224, (1, 8, 32, 128), 3_000)
    network = resnet18(weights=None) if tiny else resnet50(weights=None)
    network.fc = nn.Identity()
    encoder = network.eval().requires_grad_(False).to(device)
    images = torch.rand(max(batches), 3, side, side, device=device)
    explainer = NEMU(encoder, decoder="standard").build(images[:1]).eval()
    ways = {
        "encoder alone": torch.no_grad()(encoder),
        "NEM-U": torch.no_grad()(explainer),
        "saliency": LabelFree(Saliency, encoder).attribute,
        "integrated gradients, 50 steps": lambda x: LabelFree(IntegratedGradients, encoder).attribute(
            x, torch.zeros_like(x), n_steps=2 if tiny else 50, internal_batch_size=64
        ),
    }
    found = {
        name: {size: seconds(lambda: way(images[:size]), device) / size for size in batches}  # noqa: B023
        for name, way in ways.items()
    }
    relax = RELAX(encoder, Cells(7))
    one = partial(relax.attribute, images[:1], n_masks=masks, internal_batch_size=min(masks, 256))
    found["RELAX, 3,000 masks"] = {1: seconds(one, device, 1)}
    return {name: {"batch 1": each[1], "best": min(each.values())} for name, each in found.items()}


def relax(device: torch.device, tiny: bool) -> dict:
    """RELAX against the plain loop, the same number of masks through a ResNet-18."""
    side, masks, rows = (32, 8, 4) if tiny else (224, 2_000, 256)
    network = resnet18(weights=None)
    network.fc = nn.Identity()
    encoder, x = network.eval().to(device), torch.rand(1, 3, side, side, device=device)

    @torch.no_grad()
    def plain():
        latent, total, weight = encoder(x), 0, 0
        for _ in range(0, masks, rows):
            cells = (torch.rand(rows, 1, 7, 7, device=device) < 0.5).float()
            drawn = functional.interpolate(cells, size=side, mode="bilinear")
            scores = functional.cosine_similarity(encoder(x * drawn), latent)
            total, weight = total + torch.einsum("n,nchw->chw", scores, drawn), weight + drawn.sum(0)
        return total / weight

    ours = partial(RELAX(encoder, Cells(7)).attribute, x, n_masks=masks, internal_batch_size=rows)
    return {"ours": seconds(ours, device, 2), "plain loop": seconds(plain, device, 2), "masks": masks}


def traces(device: torch.device, tiny: bool) -> dict:
    """TracIn on a ResNet-18 against `vmap(grad)` with the test side held, and with projected gradients."""
    few, many = (2, 3) if tiny else (24, 480)
    network = resnet18(weights=None, num_classes=10).eval().to(device)
    test, train = (torch.rand(count, 3, 32, 32, device=device) for count in (few, many))
    weights = {name: tensor.detach() for name, tensor in network.named_parameters()}
    rest = dict(network.named_buffers())

    def value(weights, x):
        return functional_call(network, (weights, rest), (x[None],)).square().mean()

    def rows(images):
        found = vmap(grad(value), (None, 0))(weights, images)
        return torch.cat([slopes.flatten(1) for slopes in found.values()], 1)

    def plain():
        held = torch.cat([rows(part) for part in test.split(8)])
        return torch.cat([held @ rows(part).T for part in train.split(8)], 1)

    given = network, lambda model, x: model(x).square().mean(), [(network.state_dict(), 1.0)], test, train
    return {
        "ours": seconds(partial(tracin, *given, part="", memory=4_096), device, 1),
        "ours, projected to 4,096 numbers a layer": seconds(
            partial(tracin, *given, part="", projection=4_096), device, 1
        ),
        "vmap(grad)": seconds(plain, device, 1),
    }


def vaes(device: torch.device, tiny: bool) -> dict:
    """Thirty VAEs trained together, and one after another."""
    count, steps, batch = (2, 2, 8) if tiny else (30, 20, 100)
    images = torch.rand(steps * batch, 1, 32, 32, device=device).round()
    weights = tuple(zip(*(vae.weights("beta", 1 + n % 3) for n in range(count)), strict=True))

    def trained(together: bool):
        models = [model.to(device) for model in ensembles.build(partial(vae.VAE, 32, 3), range(count))]
        options = {"settings": weights, "noise": 3, "epochs": 1, "batch_size": batch, "together": together}
        ensembles.fit(models, vae.objective, images, seeds=list(range(count)), **options)

    return {
        "together": seconds(partial(trained, True), device, 1),
        "in turn": seconds(partial(trained, False), device, 1),
    }


def simclr(device: torch.device, tiny: bool) -> dict:
    """Seconds an epoch of SimCLR on 50,000 images of 32×32, extrapolated from a few steps at a batch of 512."""
    size, batch = (16, 8) if tiny else (5_120, 512)
    encoder = projected(small_encoder(8), 32) if tiny else projected(cifar_resnet18(), 512)
    model, images = copy.deepcopy(encoder).to(device), torch.rand(size, 3, 32, 32, device=device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch():
        for part in images.split(batch):
            optimiser.zero_grad()
            nt_xent(model(augment(part)), model(augment(part))).backward()
            optimiser.step()

    return {"an epoch": seconds(epoch, device, 1) * 50_000 / size, "images timed": size}


PARTS = {"agreement": agreement, "nem": nem, "relax": relax, "tracin": traces, "ensembles": vaes, "simclr": simclr}


def main(device: str, tiny: bool, out: Path, limit: float) -> dict:
    where, begun = torch.device(device), time.monotonic()
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if where.type == "cuda" else f"{device} {platform.machine()}"
    kept = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    if kept.get("device", name) != name or kept.get("tiny", tiny) != tiny:
        raise SystemExit(f"{out} is of another device or size ({kept['device']}); delete it, or name another.")
    kept |= {"device": name, "tiny": tiny, "torch": torch.__version__}
    for part, function in PARTS.items():
        if part in kept or time.monotonic() - begun > limit:
            continue
        print(part, flush=True)
        start = time.monotonic()
        kept[part] = function(where, tiny) | {"seconds of the part": round(time.monotonic() - start, 1)}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(json.dumps(kept[part], ensure_ascii=False), flush=True)
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--limit", type=float, default=400, help="seconds after which no further part begins")
    asked = parser.parse_args()
    if asked.device:
        main(**vars(asked))
    else:
        print("There is no GPU: nothing to measure (see --tiny).")
