"""A mask of its own for each image: a few more steps of the objective, from where the decoder's prediction is."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lfx_utils import checks
from lfx_utils.nemu.explainer import NEMU
from lfx_utils.nemu.training import differentiable, frozen


def refine(
    explainer: NEMU, inputs: Tensor, *, steps: int = 10, rate: float = 0.5, cells: int = 16, start: Tensor | None = None
) -> Tensor:
    """Return NEM-U's masks after some steps of gradient descent on each image's own objective.

    A smooth correction is added to the mask before its sigmoid. It has fewer degrees of freedom than the image has
    pixels, since a mask with one for every pixel can find patterns that fool the encoder.

    Args:
        explainer: trained.
        inputs: `(B, C, H, W)`.
        steps: of Adam; each costs a forward and a backward pass of two masked images.
        rate: Adam's step size, in units of the mask's logit.
        cells: sides of the correction's grid.
        start: masks `(B, 1, H, W)` to start from, in place of the explainer's.

    Returns:
        `(B, 1, H, W)`.

    Raises:
        ValueError: fewer than one step or cell; an encoder in float16; a start that is no masks of the inputs;
            inputs as in `NEMU.attribute`.

    Source:
        NU, Section 5, "Future work": optimising the mask of a given input.
    """
    checks.counts(steps=steps, cells=cells)
    checks.batch("inputs", inputs)
    if start is not None:
        wanted = (len(inputs), 1, *inputs.shape[-2:])
        if checks.batch("start", start).shape != wanted or start.min() < 0 or start.max() > 1:
            raise ValueError(f"start must hold masks in [0, 1] of shape {wanted}, got {tuple(start.shape)}.")
    differentiable(explainer.encoder)
    with torch.no_grad():
        whole, predicted = explainer(inputs)
    logits = torch.logit((predicted if start is None else start).float(), eps=1e-3)
    change = torch.zeros(len(inputs), 1, cells, cells, device=inputs.device, requires_grad=True)
    adam = torch.optim.Adam([change], lr=rate)

    def mask() -> Tensor:
        return torch.sigmoid(logits + F.interpolate(change, inputs.shape[-2:], mode="bilinear", align_corners=False))

    with frozen(explainer.encoder), torch.enable_grad():
        for _ in range(steps):
            masks = mask()
            kept, left = explainer.encoder(torch.cat(explainer.objective.halves(inputs, masks))).chunk(2)
            loss = explainer.objective.terms(whole, kept, left, masks).loss.sum()
            (change.grad,) = torch.autograd.grad(loss, change)
            adam.step()
    return mask().detach()
