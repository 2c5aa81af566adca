"""Explainers as files: weights as safetensors, the rest as JSON in their header; nothing is pickled."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from lfx_utils.nemu.explainer import NEMU
from lfx_utils.nemu.objective import Objective, halved, printed, unhalved
from lfx_utils.training.resume import checksum

DISTANCES = {each.__name__: each for each in (halved, unhalved, printed)}


def save(explainers: Mapping[str, NEMU], path: Path | str, *, half: bool = False) -> None:
    """Write the decoders of explainers of one encoder, by name, and what belongs to them; but not the encoder.

    Args:
        explainers: fitted.
        path: of the file.
        half: keep the weights in half precision, which moves masks by about a thousandth.

    Raises:
        ValueError: explainers of different encoders, one that is not fitted, or a distance of the user's own.
    """
    weights, about = {}, {}
    for name, each in explainers.items():
        each.ready()
        if each.objective.distance not in DISTANCES.values():
            raise ValueError(f"distance must be {' or '.join(DISTANCES)} to be saved, got {each.objective.distance}.")
        objective = vars(each.objective) | {"distance": each.objective.distance.__name__}
        about[name] = {"shape": each.shape, "layers": each.layers, "decoder": each.kind, "objective": objective}
        for key, value in each.decoder.state_dict().items():
            value = value.half() if half and value.is_floating_point() else value
            weights[f"{name}/{key}"] = value.contiguous().cpu()
    prints = {checksum(each.encoder.state_dict()) for each in explainers.values()}
    if len(prints) != 1:
        raise ValueError(f"explainers must be of one encoder, got {len(prints)}.")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, {"nem-u": json.dumps({"encoder": prints.pop(), "explainers": about})})


def load(path: Path | str, encoder: nn.Module) -> dict[str, NEMU]:
    """Read the explainers that `save` wrote, for the same encoder.

    Raises:
        ValueError: a file of another kind, or another encoder than the explainers were fitted to.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("nem-u", "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"path must name a whole file of NEM-U's explainers, got {path} ({error}).") from error
    if header is None:
        raise ValueError(f"path must name a file that NEM-U's explainers were saved to, got {path}.")
    if header["encoder"] != checksum(encoder.state_dict()):
        raise ValueError(f"encoder must be the one that the explainers in {path} were fitted to; its weights differ.")
    like = next(encoder.parameters(), torch.empty(0))  # of the encoder's device and precision
    found = {}
    for name, about in header["explainers"].items():
        kind = about["objective"] | {"distance": DISTANCES[about["objective"]["distance"]]}
        found[name] = NEMU(encoder, Objective(**kind), about["decoder"])
        image = like.new_zeros(1, *about["shape"], requires_grad=False)
        first = next(iter(found.values()))
        if first.decoder is None or first.shape != tuple(about["shape"]):
            found[name].build(image)
        else:  # the same encoder's maps, which take long to find
            found[name].skips = first.skips
            found[name].begin(image)
        if list(found[name].layers) != about["layers"]:
            raise ValueError(
                f"The explainer {name!r} in {path} reads the encoder's layers {about['layers']}, and those found in it "
                f"now are {list(found[name].layers)}; fit it anew."
            )
        own = {key.removeprefix(f"{name}/"): value for key, value in weights.items() if key.startswith(f"{name}/")}
        found[name].decoder.load_state_dict(own)
    return found
