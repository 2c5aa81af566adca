"""What a supervised VAE's classifier ignores: the invariance test, the divergence of two codes, counterfactuals.

`invariance_test` and `invariant_samples` take either model of `models.svae`: what they need is `classify`, `nuisance`
and `transform`. The others need an `SVAE`, whose code has two halves.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.models.svae import SVAE
from lfx_utils.models.svae_parts import Normal, kl


class Invariance(NamedTuple):
    """What became of images whose nuisance code was redrawn, for S deviations and B images, `(S, B)` each.

    Args:
        kept: share of the draws whose generated image the model itself gives the original's label.
        judged: the same with another classifier as judge, of the generated image and of the original (None: no judge).
        moved: mean distance ‖x − x̃‖ of generated and original image, the text's measure of diversity; it counts the
            error of the reconstruction, too.
        spread: mean distance of two images generated from the same original, which does not.
    """

    kept: Tensor
    judged: Tensor | None
    moved: Tensor
    spread: Tensor


@torch.no_grad()
def invariance_test(
    model: nn.Module,
    images: Tensor,
    sigmas: list[float],
    *,
    draws: int = 2,
    seed: int = 0,
    judge: Callable[[Tensor], Tensor] | None = None,
) -> Invariance:
    """Redraw the nuisance code of every image from N(0, σ²), decode, and classify what comes out.

    Args:
        model: SVAE or SemiVAE, in evaluation mode.
        images: `(B, C, H, W)`.
        sigmas: positive deviations.
        draws: images generated from each original, at least 2, since `spread` compares them.
        seed: of the draws; all deviations use the same ones, scaled.
        judge: another classifier, from images to class scores `(B, C)`.

    Raises:
        TypeError, ValueError: a model in training mode, images that are no finite batch, fewer than 2 draws, or a
            deviation that is not positive.

    Source:
        Learning invariances with a supervised VAE, Section 3.0.1.
    """
    checks.evaluating(model)
    checks.batch("images", images)
    if judge is not None:
        checks.evaluating(judge)
    checks.counts(draws=draws)
    if draws < 2:
        raise ValueError(f"draws must be at least 2, since the spread compares them, got {draws}.")
    if not sigmas or not all(0 < sigma < math.inf for sigma in sigmas):
        raise ValueError(f"sigmas must hold positive deviations, got {sigmas}.")
    size, width = len(images), model.nuisance(images[:1]).mean.shape[1]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, size, width, generator=generator).to(images)
    label, other = model.classify(images).argmax(1), judge(images.clone()).argmax(1) if judge else None
    rows = []
    for sigma in sigmas:
        made = torch.stack([model.transform(images, sigma * eps) for eps in noise])
        flat = made.flatten(0, 1)
        kept = model.classify(flat).argmax(1).view(draws, size) == label
        # A copy, as above: a judge may work in place.
        judged = judge(flat.clone()).argmax(1).view(draws, size) == other if judge else kept
        moved = (made - images).flatten(2).norm(dim=2)
        # Every draw meets the next one, the last the first: as many pairs as draws.
        spread = (made - made.roll(1, 0)).flatten(2).norm(dim=2)
        rows.append([value.float().mean(0) for value in (kept, judged, moved, spread)])
    kept, judged, moved, spread = (torch.stack(column) for column in zip(*rows, strict=True))
    return Invariance(kept, judged if judge else None, moved, spread)


@torch.no_grad()
def invariant_samples(model: nn.Module, image: Tensor, count: int, sigma: float = 1.0, seed: int = 0) -> Tensor:
    """Generate images from one image's z1 and fresh z2 ~ N(0, σ²) until `count` of them keep its label.

    Args:
        image: `(1, C, H, W)`.

    Returns:
        `(count, C, H, W)`.

    Raises:
        TypeError, ValueError: a model in training mode, not one finite image; or in 20 · count draws too few kept the
            label, since σ is too large.

    Source:
        Section 3.1: "We further ensure that the generated invariances do maintain the same class".
    """
    checks.evaluating(model)
    checks.counts(count=count)
    if len(checks.batch("image", image)) != 1:
        raise ValueError(f"image must be one image (1, C, H, W), got {tuple(image.shape)}.")
    width = model.nuisance(image).mean.shape[1]
    noise = torch.randn(20 * count, width, generator=torch.Generator().manual_seed(seed)).to(image)
    made = model.transform(image.expand(len(noise), -1, -1, -1), sigma * noise)
    made = made[model.classify(made).argmax(1) == model.classify(image).argmax(1)][:count]
    if len(made) < count:
        raise ValueError(
            f"sigma={sigma} left only {len(made)} of {20 * count} images with their label; take a smaller."
        )
    return made


class Half(nn.Module):
    """The encoder of one half of an SVAE's code, `(B, C, H, W)` to `(B, D)`: the means of q(z_k|x).

    Args:
        model: its weights are shared.
        k: 1 for what the classifier sees, 2 for the nuisance dimensions.
        posterior: return µ and log σ side by side, `(B, 2 D)`.
    """

    def __init__(self, model: SVAE, k: int, posterior: bool = False):
        super().__init__()
        if k not in (1, 2):
            raise ValueError(f"k must be 1 or 2, the half of the code, got {k!r}.")
        self.model, self.dims, self.posterior = model, model.halves[k - 1], posterior
        self.training = model.training  # `train` would reach into the model

    def forward(self, images: Tensor) -> Tensor:
        """Map images to the half's means, or means and log deviations."""
        code = self.model.encode(images).part(self.dims)
        return torch.cat(code, 1) if self.posterior else code.mean


class Divergence(nn.Module):
    """d(x, x̃) = KL(q(z_k|x) ‖ q(z_k|x̃)) as a function of x̃, for any attribution method.

    Call it as `divergence(others, *divergence.of(images))`; with `LabelFree`, hand the codes over as further arguments:
    `LabelFree(method, divergence).attribute(others, weights=torch.ones(1), additional_forward_args=divergence.of(x))`.

    Source:
        Learning invariances with a supervised VAE, Eq. 9.
    """

    def __init__(self, model: SVAE, k: int):
        super().__init__()
        self.encoder = Half(model, k, posterior=True)
        self.training = model.training

    @torch.no_grad()
    def of(self, images: Tensor) -> Normal:
        """Return q(z_k|x), the fixed side of the divergence."""
        return Normal(*self.encoder(images).chunk(2, 1))

    def forward(self, others: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """Return d `(B, 1)`; the fixed codes have one row for each of the others, or one row for all."""
        return kl(Normal(mean, log_std), Normal(*self.encoder(others).chunk(2, 1)))[:, None]


def closeness(first: Tensor, second: Tensor) -> Tensor:
    """Return exp(−KL) in (0, 1] of posteriors `(R, 2 D)`, as a similarity for RELAX: 1 where nothing changed."""
    return torch.exp(-kl(Normal(*first.chunk(2, 1)), Normal(*second.chunk(2, 1))))


class Counterfactuals(NamedTuple):
    """For B images and C classes: the step along each dimension and what it generates.

    Args:
        steps: how far dimension c of z1 moved, `(B, C)`; NaN where no step makes class c lead.
        images: `(B, C, channels, H, W)`; the original's reconstruction where there is no step.
        codes: the moved z1, `(B, C, classifier_dims)`.
    """

    steps: Tensor
    images: Tensor
    codes: Tensor


@torch.no_grad()
def counterfactuals(model: SVAE, images: Tensor) -> Counterfactuals:
    """Raise one dimension of z1 until the classifier is as sure of its class as it was of the original's.

    The classifier is linear, so that the step has a closed form and nothing is searched: with logits l and weights W, a
    step t along dimension c makes class c lead class j by l_c − l_j + t (W_cc − W_jc).

    Args:
        model: with at least as many classifier dimensions as classes.
        images: `(B, C, H, W)`.

    Raises:
        TypeError, ValueError: a model in training mode, images that are no finite batch, fewer classifier dimensions
            than classes.

    Source:
        Learning invariances with a supervised VAE, Section 3.1.2 and Fig. 7.
    """
    checks.evaluating(model)
    checks.batch("images", images)
    code, classes, dims = model.encode(images), model.classes, model.halves[0].stop
    if dims < classes:
        raise ValueError(
            f"A counterfactual for each of {classes} classes needs as many classifier dimensions, got {dims}."
        )
    logits = model.classifier(code.mean[:, model.halves[0]])
    best = logits.topk(2, 1).values
    lead = best[:, 0] - best[:, 1]
    weight = model.classifier.weight[:, :classes]
    gap = lead[:, None, None] + logits[:, None, :] - logits[:, :, None]  # what class c still lacks against class j
    slope = (weight.diagonal() - weight).T  # (c, j)
    own = torch.eye(classes, dtype=torch.bool, device=images.device)
    needed = torch.where(gap <= 0, 0.0, torch.where(slope > 0, gap / slope, torch.inf)).masked_fill(own, 0.0)
    steps = needed.amax(2)
    # Where class j gains more from the step than class c, the step must not go too far.
    most = torch.where(slope < 0, gap / slope, torch.inf).masked_fill(own, torch.inf).amin(2)
    steps = steps.masked_fill(steps > most + 1e-6, torch.inf)
    moved = code.mean[:, None].repeat(1, classes, 1)
    moved[:, range(classes), range(classes)] += steps.nan_to_num(posinf=0.0)
    made = model.decoder(moved.flatten(0, 1)).unflatten(0, (len(images), classes))
    return Counterfactuals(steps.masked_fill(steps.isinf(), torch.nan), made, moved[..., model.halves[0]])
