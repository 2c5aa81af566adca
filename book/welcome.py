"""Make the player of the welcome page: six photographs, three encoders, six methods, one sentence for each state.

    python book/welcome.py

The result lies in `book/_static/welcome`: photographs and maps as WebP, numbers and sentences in `states.js`. What is
finished is kept in `_build/welcome`, so an interrupted run resumes. What could be tuned was chosen before any map was
seen: the part of each photograph that a map should find, the settings of the methods, the units.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import skimage
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from PIL import Image

from lfx_utils import RELAX, LabelFree, encoders, lafam, represent, u_relax
from lfx_utils.datasets.own_photographs import photograph
from lfx_utils.measures import relevance_mass
from lfx_utils.measures.maps import rescale
from lfx_utils.nemu.shipped import FOLDER, PUBLISHED, shipped
from lfx_utils.relax.masks import Cells

ROOT = Path(__file__).resolve().parents[1]
OUT, KEPT = ROOT / "book" / "_static" / "welcome", ROOT / "_build" / "welcome"
SIDE, SHOWN, PIECE = 224, 336, 134  # pixels: of what encoders see, of what readers see, of a piece of a photograph
COARSE = 56  # pixels of a map's side as it is shown
STILL = 4  # the photograph that is shown without scripts
VEIL = (24, 16, 48)  # the colour that hides what a map says nothing about
SETTINGS = {"seed": 0, "steps": 32, "masks": 400, "cells": 7, "fill": 0.5, "estimator": "control"}

# name: scikit-image's function, the part that a map should find, and its box of 224 × 224 pixels, marked by eye
PHOTOGRAPHS = {
    "astronaut": ("astronaut", "the head", (64, 5, 134, 82)),
    "cat": ("chelsea", "the eyes and the nose", (42, 60, 204, 202)),
    "coffee": ("coffee", "the cup", (40, 8, 172, 174)),
    "rocket": ("rocket", "the rocket", (104, 64, 122, 212)),
    "camera": ("camera", "the head and the camera", (68, 28, 148, 112)),
    "retina": ("retina", "the optic disc", (18, 88, 54, 122)),
}
ENCODERS = {
    "imagenet": ("efficientnet-lite0", "trained with labels", "EfficientNet-Lite0, trained on ImageNet's labels", SIDE),
    "simclr": ("voc-simclr", "trained without labels", "a small ResNet, trained by SimCLR without labels", 96),
    "untrained": ("efficientnet-lite0", "untrained", "EfficientNet-Lite0 with random weights", SIDE),
}
METHODS = {
    "ig": "Integrated Gradients",
    "relax": "RELAX",
    "urelax": "U-RELAX",
    "nemu": "NEM-U",
    "lafam": "LaFAM",
    "examples": "nearest examples",
}


def pictures(side: int = SIDE) -> torch.Tensor:
    """Return the photographs' central squares, `(6, 3, side, side)` in [0, 1]."""
    found = (getattr(skimage.data, function)() for function, _, _ in PHOTOGRAPHS.values())
    return torch.stack([photograph(Image.fromarray(each), side) for each in found])


def boxes() -> torch.Tensor:
    """Return where the parts are, bool `(6, 1, 224, 224)`."""
    masks = torch.zeros(len(PHOTOGRAPHS), 1, SIDE, SIDE, dtype=torch.bool)
    for mask, (_, _, (left, top, right, bottom)) in zip(masks, PHOTOGRAPHS.values()):
        mask[:, top:bottom, left:right] = True
    return masks


def corners() -> list[tuple[int, int]]:
    """Return left and top of the five pieces of a photograph: its corners and its middle."""
    far = SIDE - PIECE
    return [(0, 0), (far, 0), (0, far), (far, far), (far // 2, far // 2)]


def encoder(key: str) -> torch.nn.Module:
    """Return one of the three encoders."""
    name = ENCODERS[key][0]
    return encoders.untrained(name, SETTINGS["seed"]) if key == "untrained" else encoders.load(name)


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return images `(B, C, H, W)` with this side."""
    return F.interpolate(images, size=side, mode="bilinear", antialias=True, align_corners=False)


def attributed(key: str, method: str) -> dict[str, np.ndarray]:
    """Compute one method on one encoder for all photographs: maps `(6, 1, S, S)`, or cosines `(6, 30)` to pieces."""
    model, side = encoder(key), ENCODERS[key][3]
    images, grey = resized(pictures(), side), SETTINGS["fill"]
    if method == "ig":
        explainer = LabelFree(IntegratedGradients, model)
        baseline = torch.full_like(images, grey)
        maps = explainer.attribute(images, baselines=baseline, n_steps=SETTINGS["steps"], internal_batch_size=16)
        return {"maps": maps.sum(dim=1, keepdim=True).numpy()}
    if method == "relax":
        explainer = RELAX(model, Cells(SETTINGS["cells"], 0.5), fill=grey, channels_last=True)
        options = {"n_masks": SETTINGS["masks"], "seed": SETTINGS["seed"], "internal_batch_size": 24}
        maps, doubt = explainer.attribute(images, estimator=SETTINGS["estimator"], return_uncertainty=True, **options)
        return {"maps": maps.numpy(), "doubt": doubt.numpy()}
    if method == "nemu":
        nemu = shipped(ENCODERS[key][0], decoders(key)[0].stem.partition("-on-")[2])[PUBLISHED]
        return {"maps": nemu.attribute(resized(images, nemu.shape[-1])).numpy()}
    if method == "lafam":
        return {"maps": lafam(model, model.head if hasattr(model, "head") else model.stage4, images).numpy()}
    cut = [pictures()[:, :, top : top + PIECE, left : left + PIECE] for left, top in corners()]
    pieces = resized(torch.stack(cut, dim=1).flatten(0, 1), side)
    both = (F.normalize(represent(model, each), dim=1) for each in (images, pieces))
    whole, parts = both
    return {"cosines": (whole @ parts.T).numpy()}


def decoders(key: str) -> list[Path]:
    """Return the files of decoders that ship for one of the encoders."""
    return [] if key == "untrained" else sorted(FOLDER.glob(f"{ENCODERS[key][0]}-on-*.safetensors"))


def kept(key: str, method: str) -> dict[str, np.ndarray]:
    """Return `attributed`, computed once for each state of the weights and the settings."""
    about = [encoders.card(ENCODERS[key][0])["sha256"], key, method, SETTINGS, PHOTOGRAPHS, ENCODERS[key][3], PIECE]
    if method == "nemu":
        about.append(hashlib.sha256(decoders(key)[0].read_bytes()).hexdigest())
    path = KEPT / f"{key}-{method}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}.npz"
    if not path.is_file():
        print(f"{key}, {method} ...", flush=True)
        found = attributed(key, method)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft.npz")
        np.savez(draft, **found)
        draft.replace(path)
    with np.load(path) as file:
        return dict(file)


def finished(key: str, method: str) -> dict[str, np.ndarray]:
    """Return a method's maps as the sentences judge them: at or above zero, `(6, 1, 224, 224)`; or its cosines."""
    found = kept(key, "relax" if method == "urelax" else method)
    if method == "examples":
        return found
    maps = torch.as_tensor(found["maps"])
    maps = rescale(maps) if method in ("relax", "urelax") else maps.clamp_min(0)
    if method == "urelax":
        maps = u_relax(maps, torch.as_tensor(found["doubt"]))
    return {"maps": resized(maps, SIDE).numpy()}


def aimed(maps: np.ndarray) -> list[dict]:
    """Return of each map the share on its part, the part's share of the picture, and how many pixels are not zero."""
    parts = boxes()
    shares = relevance_mass(torch.as_tensor(maps), parts)
    areas = parts.float().mean(dim=(1, 2, 3))
    covered = (torch.as_tensor(maps) > 0).float().mean(dim=(1, 2, 3))
    return [
        {"share": float(share), "area": float(area), "covered": float(pixels)}
        for share, area, pixels in zip(shares, areas, covered)
    ]


def near(cosines: np.ndarray) -> list[dict]:
    """Return of each photograph its three nearest pieces, how many are its own, and the mean cosine of others."""
    count, found = len(corners()), []
    for number, row in enumerate(cosines):
        owner = np.arange(len(row)) // count
        first = np.argsort(-row)[:3]
        found.append(
            {
                "nearest": [[int(owner[piece]), int(piece % count), round(float(row[piece]), 3)] for piece in first],
                "own": int((owner[first] == number).sum()),
                "others": float(row[owner != number].mean()),
            }
        )
    return found


def said(method: str, numbers: dict | None, part: str = "") -> str:
    """Return the sentence of one state, from its numbers; None stands for a decoder that does not ship."""
    if numbers is None:
        return "No decoder for this encoder ships with the book. NEM-U has to be trained once, as Chapter 7 does."
    if method == "examples":
        own, (nearest, *_) = numbers["own"], numbers["nearest"]
        come = "comes" if own == 1 else "come"
        return (
            f"{own} of the 3 nearest pieces {come} from the same photograph (chance: 0.5). The "
            f"nearest has cosine {nearest[2]:.2f}, a piece of another photograph {numbers['others']:.2f} on average."
        )
    share, area = numbers["share"], numbers["area"]
    ratio = share / area
    against = (
        f"{ratio:.1f} times the share of a random map"
        if ratio >= 1.1
        else "about the share of a random map"
        if ratio > 0.9
        else f"only {ratio:.1f} times the share of a random map"
    )
    before = f"{numbers['covered']:.0%} of the pixels are certain enough to be kept. " if method == "urelax" else ""
    control = f" (the untrained network: {numbers['untrained'] / area:.1f} times)" if "untrained" in numbers else ""
    return (
        f"{before}{share:.0%} of this map lies in the box around {part}, which covers {area:.0%} of the picture: "
        f"{against}{control}."
    )


def veil(maps: np.ndarray) -> np.ndarray:
    """Return maps `(6, 1, 224, 224)` as what hides a photograph where they are low, uint8 `(6, 56, 56, 4)`."""
    small = F.adaptive_avg_pool2d(torch.as_tensor(maps), COARSE)[:, 0]
    top = small.flatten(1).quantile(0.995, dim=1).clamp_min(1e-12).view(-1, 1, 1)
    alpha = 235 * (1 - (small / top).clamp(0, 1) ** 0.75)
    colour = torch.tensor(VEIL, dtype=torch.float32).expand(*alpha.shape, 3)
    return torch.cat([colour, alpha.unsqueeze(-1)], dim=-1).round().byte().numpy()


def main() -> None:
    """Compute what is missing; write photographs, maps and sentences."""
    drawn = [method for method in METHODS if method != "examples"]
    sheet = np.zeros((len(PHOTOGRAPHS), len(ENCODERS), len(drawn), COARSE, COARSE, 4), np.uint8)
    parts = [part for _, part, _ in PHOTOGRAPHS.values()]
    states = []
    for column, key in enumerate(ENCODERS):
        for method in METHODS:
            if method == "nemu" and not decoders(key):
                numbers = [None] * len(parts)
            elif method == "examples":
                numbers = near(finished(key, method)["cosines"])
            else:
                maps = finished(key, method)["maps"]
                numbers, sheet[:, column, drawn.index(method)] = aimed(maps), veil(maps)
                if key == "imagenet" and method != "nemu":  # the untrained network is of its architecture
                    control = aimed(finished("untrained", method)["maps"])
                    numbers = [one | {"untrained": two["share"]} for one, two in zip(numbers, control)]
            for photograph_name, part, values in zip(PHOTOGRAPHS, parts, numbers):
                state = {"photograph": photograph_name, "encoder": key, "method": method, "numbers": values}
                states.append(state | {"sentence": said(method, values, part)})
    OUT.mkdir(parents=True, exist_ok=True)
    rows = sheet.transpose(0, 3, 1, 2, 4, 5).reshape(len(parts) * COARSE, -1, 4)
    Image.fromarray(rows).save(OUT / "maps.webp", quality=70, alpha_quality=75, method=6)
    shown = pictures(SHOWN).clamp(0, 1).permute(2, 0, 3, 1).flatten(1, 2)  # side by side
    Image.fromarray((shown * 255).byte().numpy()).save(OUT / "photographs.webp", quality=76, method=6)
    still(STILL, sheet[STILL, :, drawn.index("relax")]).save(OUT / "still.webp", quality=76, method=6)
    about = {
        "command": "python book/welcome.py",
        "settings": SETTINGS,
        "encoders": {key: {"name": v[0], "label": v[1], "long": v[2], "side": v[3]} for key, v in ENCODERS.items()},
        "weights": {name: encoders.card(name)["sha256"] for name, *_ in ENCODERS.values()},
        "photographs": {name: {"part": part, "box": box} for name, (_, part, box) in PHOTOGRAPHS.items()},
        "source": f"scikit-image {skimage.__version__}, in the public domain (CC0)",
        "methods": METHODS,
        "side": SIDE,
        "piece": PIECE,
        "corners": corners(),
        "coarse": COARSE,
        "shown": SHOWN,
        "states": states,
    }
    text = json.dumps(about, ensure_ascii=False, separators=(",", ":"))
    (OUT / "states.js").write_text(f"window.lfxWelcome = {text};\n", encoding="utf-8")
    print(f"{sum(path.stat().st_size for path in OUT.iterdir()) / 1000:.0f} kB in {OUT.relative_to(ROOT)}")


def still(number: int, veils: np.ndarray) -> Image.Image:
    """Return a photograph, and beside it what one method leaves of it for each encoder."""
    first = Image.fromarray((pictures()[number].permute(1, 2, 0) * 255).byte().numpy()).convert("RGBA")
    strip = Image.new("RGB", (SIDE * (len(veils) + 1), SIDE))
    strip.paste(first, (0, 0))
    for place, each in enumerate(veils, 1):
        over = Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        strip.paste(Image.alpha_composite(first, over), (SIDE * place, 0))
    return strip


if __name__ == "__main__":
    main()
