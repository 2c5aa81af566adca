"""Gradients as explanations of representations, as RELAX's paper sets itself against them; all by Captum.

A representation has D outputs and a gradient explains one, so the paper explains their mean. In `LabelFree` that is
the weight 1/D for every unit; the weights f(x) in their place would give the label-free saliency of chapter 1.
"""

import torch
from captum.attr import GuidedBackprop, NoiseTunnel, Saliency
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.features import LabelFree, deep_lift


def saliency(encoder: nn.Module, images: Tensor, **options) -> Tensor:
    """Return the gradient of the representation's mean over its units, `(B, C, H, W)`, with its sign.

    Args:
        encoder: f, in evaluation mode, to representations `(B, D)`.
        images: `(B, C, H, W)`.
        options: those of `LabelFree.attribute`, such as `internal_batch_size`.

    Source:
        Wickstrøm et al. 2023, Eq. 14.

    >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False))
    >>> _ = encoder[1].weight.data.copy_(torch.tensor([[1.0, -2, 3], [1, 2, 0]]))
    >>> saliency(encoder.eval(), torch.rand(1, 3, 1, 1)).flatten()
    tensor([1.0000, 0.0000, 1.5000])
    """
    return _mean_unit(Saliency, encoder, images, abs=False, **options)


def smooth_saliency(
    encoder: nn.Module, images: Tensor, *, samples: int = 16, deviation: float = 0.15, seed: int = 0, **options
) -> Tensor:
    """Return `saliency` averaged over copies of the images with normal noise, `(B, C, H, W)`.

    Args:
        encoder, images, options: as in `saliency`.
        samples: M, noisy copies of each image.
        deviation: of the noise, as a share of the range of the images. The paper does not give it; Smilkov et al.
            recommend 0.1 to 0.2.
        seed: of the noise.

    Source:
        Wickstrøm et al. 2023, Eq. 16; Smilkov et al. 2017.
    """
    if not isinstance(samples, int) or samples < 1 or not deviation >= 0:
        raise ValueError(
            f"samples must be a positive integer and deviation no less than 0, got {samples}, {deviation}."
        )
    spread = deviation * float(checks.batch("images", images).max() - images.min())
    devices = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices):  # Captum draws from the global generators.
        torch.manual_seed(seed)
        noisy = {"nt_samples": samples, "stdevs": spread, "nt_type": "smoothgrad", "abs": False}
        return _mean_unit(lambda forward: NoiseTunnel(Saliency(forward)), encoder, images, **noisy, **options)


def guided_saliency(encoder: nn.Module, images: Tensor, **options) -> Tensor:
    """Return `saliency` with negative gradients set to zero at every ReLU on the way back, `(B, C, H, W)`.

    Args:
        encoder, images, options: as in `saliency`; its ReLUs must be modules.

    Raises:
        ValueError: a ReLU of the encoder is no module `nn.ReLU`, or it has none, and guided backpropagation would be
            the plain gradient.

    Source:
        Wickstrøm et al. 2023, Eq. 15; Springenberg et al. 2015.
    """
    checks.evaluating(encoder)
    if isinstance(encoder, nn.Module) and not any(isinstance(module, nn.ReLU) for module in encoder.modules()):
        raise ValueError("encoder has no nn.ReLU module, where guided backpropagation would differ from the gradient.")
    deep_lift.guided(encoder, checks.batch("images", images)[:1])
    return _mean_unit(GuidedBackprop, encoder, images, **options)


@torch.no_grad()
def _units(encoder: nn.Module, images: Tensor) -> int:
    checks.evaluating(encoder)
    return checks.latent(checks.on_copies(encoder, checks.batch("images", images)[:1]), 1).shape[1]


def _mean_unit(method, encoder: nn.Module, images: Tensor, **options) -> Tensor:
    units = _units(encoder, images)
    weights = torch.full((units,), 1 / units, device=images.device)
    return LabelFree(method, encoder).attribute(images, weights=weights, **options)


def unitwise_saliency(encoder: nn.Module, images: Tensor, *, chunk: int = 16) -> Tensor:
    """Return the mean over the units of ``|∇ f_d|``, `(B, C, H, W)`: no unit's gradient can cancel another's.

    Not in the paper, whose mean comes before any absolute value; D backward passes in place of one.

    Args:
        encoder, images: as in `saliency`.
        chunk: units at once.
    """
    units = _units(encoder, images)
    checks.function(encoder, (images[:1],), gradient=True)
    maps = [_unitwise(encoder, part, units, chunk) for part in images.split(max(1, 64 // chunk))]
    return checks.explained(torch.cat(maps))


def _unitwise(encoder: nn.Module, images: Tensor, units: int, chunk: int) -> Tensor:
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        latents = checks.on_copies(encoder, images)
    total = torch.zeros_like(images, dtype=checks.single(images).dtype)
    for part in torch.eye(units, device=images.device, dtype=latents.dtype).split(chunk):
        rows = part[:, None].expand(-1, len(images), -1)
        gradients = torch.autograd.grad(latents, images, rows, retain_graph=True, is_grads_batched=True)[0]
        total += checks.single(gradients).abs().sum(dim=0)
    return total / units
