"""The encoders that the papers explain, from their publishers' files."""

import hashlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lfx_utils.datasets.files import Unavailable, data_root, fetch
from lfx_utils.models.resnet import Normalise, cifar_resnet
from lfx_utils.models.vit import ViT

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation, in [0, 1]


def frozen(encoder: nn.Module, origin: str = "") -> nn.Module:
    """Put an encoder into evaluation mode and freeze its parameters; `origin` says what it is, for what records it."""
    if origin:
        encoder.origin = origin
    return encoder.eval().requires_grad_(False)


@dataclass(frozen=True)
class Source:
    """Where weights can be had, and where they lie in the file.

    Args:
        address: fixed and public; its last part is the file's name in `<root>/weights`.
        path: keys that lead to the state dict.
        prefix: of the encoder's own keys; those that begin otherwise belong to heads and are left out.
        sha256: the first digits of the file's checksum, where its publisher gives them (in the name); else empty.
    """

    address: str
    path: tuple[str, ...] = ()
    prefix: str = ""
    sha256: str = ""


def imagenet_resnet50() -> nn.Sequential:
    """ResNet-50 without its last layer, `(B, 3, H, W)` in [0, 1] to `(B, 2048)`; parts `normalise` and `resnet`."""
    from torchvision.models import resnet50  # slow to import, and needed here alone

    network = resnet50()
    network.fc = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # explainers hook it, and need its input
    return nn.Sequential(OrderedDict(normalise=Normalise(*IMAGENET), resnet=network))


def cifar10_resnet(depth: int) -> nn.Sequential:
    """The ResNet of He et al. for CIFAR-10, `(B, 3, 32, 32)` in [0, 1] to `(B, 64)`; parts `normalise` and `resnet`."""
    return nn.Sequential(OrderedDict(normalise=Normalise(*IMAGENET), resnet=cifar_resnet(depth)))


def imagenet_vit() -> ViT:
    """ViT-S/16, `(B, 3, 224, 224)` in [0, 1] to `(B, 384)`."""
    return ViT(224, 16, 384, 12, 6, 1536, convolutions=False, normalise=Normalise(*IMAGENET))


def timm_vit(name: str, mean, std, features: int = 0) -> nn.Sequential:
    """A vision transformer of timm, images in [0, 1] of any multiple of its patch; parts `normalise` and `vit`.

    Args:
        name: timm's.
        mean: of each channel.
        std: of each channel.
        features: length of the embedding that it projects to, 0 for its own class token.
    """
    import timm

    return nn.Sequential(
        OrderedDict(
            normalise=Normalise(mean, std),
            vit=timm.create_model(name, num_classes=features, dynamic_img_size=True),
        )
    )


FACEBOOK = "https://dl.fbaipublicfiles.com"
BOLTS = "https://pl-bolts-weights.s3.us-east-2.amazonaws.com"
CIFAR = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"
HUB = "https://huggingface.co/timm"
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HEADS = r"fc\.|linear\.|projection_head\.|prototypes\.|mask_token"
# Publishers that give no checksum: there the keys and shapes must fit to the last.
PRETRAINED: dict[str, tuple[Callable[[], nn.Module], tuple[Source, ...]]] = {
    "supervised": (
        imagenet_resnet50,
        (Source("https://download.pytorch.org/models/resnet50-0676ba61.pth", sha256="0676ba61"),),
    ),
    "simclr": (
        imagenet_resnet50,
        (
            Source(f"{BOLTS}/simclr/bolts_simclr_imagenet/simclr_imagenet.ckpt", ("state_dict",), "encoder."),
            Source(
                f"{FACEBOOK}/vissl/model_zoo/simclr_rn50_800ep_simclr_8node_resnet_16_07_20.7e8feed1/"
                "model_final_checkpoint_phase799.torch",
                ("classy_state_dict", "base_model", "model", "trunk"),
                "_feature_blocks.",
            ),
        ),
    ),
    "swav": (
        imagenet_resnet50,
        (
            Source(f"{FACEBOOK}/deepcluster/swav_800ep_pretrain.pth.tar", prefix="module."),
            Source(f"{BOLTS}/swav/swav_imagenet/swav_imagenet.pth.tar", ("state_dict",), "model."),
        ),
    ),
    "dino": (imagenet_resnet50, (Source(f"{FACEBOOK}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"),)),
    "dino-vit": (imagenet_vit, (Source(f"{FACEBOOK}/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth"),)),
    "dinov2-vit": (
        partial(timm_vit, "vit_small_patch14_dinov2", *IMAGENET),
        (Source(f"{FACEBOOK}/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"),),
    ),
    # OpenAI trained with another GELU, which is not in the file: the plain architecture would load it, and be wrong.
    "clip-vit": (
        partial(timm_vit, "vit_base_patch32_clip_quickgelu_224", *CLIP, features=512),
        (Source(f"{HUB}/vit_base_patch32_clip_224.openai/resolve/main/model.safetensors"),),
    ),
    "cifar10-resnet20": (
        partial(cifar10_resnet, 20),
        (Source(f"{CIFAR}/resnet20-12fca82f.th", ("state_dict",), "module.", "12fca82f"),),
    ),
    "cifar10-resnet56": (
        partial(cifar10_resnet, 56),
        (Source(f"{CIFAR}/resnet56-4bfd9763.th", ("state_dict",), "module.", "4bfd9763"),),
    ),
}


def pretrained(name: str, root=None, download: bool = False) -> nn.Module:
    """Load one of the encoders that the papers explain, images in [0, 1] to `(B, D)`, frozen.

    ImageNet's ResNet-50 `supervised`, `simclr`, `swav`, `dino`, its ViT-S/16 `dino-vit`, DINOv2's ViT-S/14
    `dinov2-vit`, the image encoder of OpenAI's CLIP `clip-vit` (ViT-B/32, its 512-dimensional embedding), and
    CIFAR-10's `cifar10-resnet20` and `cifar10-resnet56`. Files are looked for in `<root>/weights`: the publisher's
    own, or a converted `<name>.safetensors` with torchvision's keys (timm's for `dinov2-vit` and `clip-vit`). Nothing
    is unpickled: a publisher's file that holds more than tensors and plain values is refused.

    Args:
        name: one of the above.
        root: the data root, see `lfx_utils.datasets.data_root`.
        download: fetch what is missing (about 100 MB; SimCLR's file is larger).

    Raises:
        ValueError: an unknown name.
        Unavailable: the file is missing or not sound, or the download failed.

    Source: RX, Section 5.1 (Lightning Bolts' SimCLR and SwAV); NU, Section 4 (DINO).
    """
    if name not in PRETRAINED:
        raise ValueError(f"name must be one of {', '.join(PRETRAINED)}; got {name!r}.")
    build, sources = PRETRAINED[name]
    origin = f"{name}, of its publishers"
    folder = data_root(root) / "weights"
    converted = folder / f"{name}.safetensors"
    if converted.is_file():
        return frozen(_filled(build(), _state(converted, Source("")), converted), origin)
    reasons = []
    for source in sources:
        path = converted if source.address.endswith(".safetensors") else folder / Path(source.address).name
        try:
            if not path.is_file():
                if not download:
                    raise Unavailable(f"there is no {path}")
                _keep(path, fetch(source.address, timeout=120), source.sha256)
            return frozen(_filled(build(), _state(path, source), path), origin)
        except Unavailable as error:
            reasons.append(str(error))
    raise Unavailable(f"{name} cannot be had: {'; '.join(reasons)}{'' if download else '; pass download=True'}.")


def _keep(path: Path, raw: bytes, sha256: str) -> None:
    """Write a download, whole or not at all, once its checksum is the known one."""
    if not hashlib.sha256(raw).hexdigest().startswith(sha256):
        raise Unavailable(f"what was downloaded as {path.name} is not the known file (its SHA-256 differs)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.part")
        draft.write_bytes(raw)
        draft.replace(path)
    except OSError as error:
        raise Unavailable(f"the download cannot be kept in {path.parent} ({error})") from error


def _state(path: Path, source: Source) -> dict[str, Tensor]:
    """Read a publisher's file, as tensors and plain values only, down to the encoder's own state dict."""
    if source.sha256:
        with path.open("rb") as file:
            if not hashlib.file_digest(file, "sha256").hexdigest().startswith(source.sha256):
                raise Unavailable(f"{path} is not the known file (its SHA-256 differs)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        for key in source.path:
            state = state[key]
        return own(state, source.prefix)
    except pickle.UnpicklingError as error:
        raise Unavailable(f"{path} is damaged, or holds more than tensors and plain values") from error
    except (RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise Unavailable(f"{path} is damaged ({error!r:.100})") from error


def own(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Keep the keys that begin with the prefix, without it, and leave the heads' out."""
    kept = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in kept.items() if not re.match(HEADS, key)}


def _filled(encoder: nn.Module, state: dict[str, Tensor], path: Path) -> nn.Module:
    """Load the weights, every key and every shape of them."""
    target = next((getattr(encoder, part) for part in ("resnet", "vit") if hasattr(encoder, part)), encoder)
    if isinstance(encoder, ViT) and "cls_token" in state:
        state = {_renamed(key): value for key, value in state.items()}
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        raise Unavailable(f"{path} does not fit the architecture ({' '.join(str(error).split()):.200})") from error
    return encoder


# From the keys of DINO and timm to torchvision's, in this order.
KEYS = (
    ("cls_token", "class_token"), ("pos_embed", "positions"), (r"patch_embed\.proj", "patches"),
    (r"blocks\.(\d+)", r"blocks.encoder_layer_\1"), (r"\.norm(\d)", r".ln_\1"),
    (r"attn\.qkv\.", "self_attention.in_proj_"), (r"attn\.proj", "self_attention.out_proj"),
    (r"mlp\.fc1", "mlp.0"), (r"mlp\.fc2", "mlp.3"),
)  # fmt: skip


def _renamed(key: str) -> str:
    for old, new in KEYS:
        key = re.sub(old, new, key)
    return key
