"""`RELAX(encoder).attribute(inputs)`: draw masks, encode, and stream what comes back into maps."""

import itertools
import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from lfx_utils import checks
from lfx_utils.progress import tqdm
from lfx_utils.relax.bounds import spent
from lfx_utils.relax.control import Basis, Regression
from lfx_utils.relax.estimators import Moments, Similarity, cosine
from lfx_utils.relax.evidence import Evidence, Tensors
from lfx_utils.relax.masks import Cells, Fill, Masks

RISE = Cells(7, 0.5)
BLOCK = 128  # Masks drawn at once: always as many, so that no batch size changes what is drawn.


class RELAX:
    """Explain which parts of an input its representation rests on, by similarity under masking.

    Args:
        encoder: f, any callable from inputs `(B, …)` to representations `(B, D)`, a tensor or a NumPy array; no
            gradient is asked for. With several inputs, as in multi-view models, it is called with all of them.
        masks: `Cells`, `Pixels`, `Blocks` or a function like them.
        similarity: of rows `(R, D)` and `(R, D)`: `cosine`, `dot`, `rbf(width)` or a function of yours.
        fill: what stands where a mask is 0: a number, a tensor that broadcasts with the inputs, `noise(mean, std)`,
            `blur(sigma)` or a function of inputs `(B, …)`, how many and a generator, to `(B or 1, N or 1, …)`.
        dims: the axes that masks run along; all others share them. `(2, 3)` for images `(B, C, H, W)`, `(1,)` for
            sequences `(B, T, C)`.
        dtype: run the encoder in this precision, by autocast, such as `torch.bfloat16`.
        channels_last: hand images to the encoder in that memory format, which convolutions like better.

    Source:
        Wickstrøm et al. 2023, "RELAX: Representation Learning Explainability", Section 3.

    >>> encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.Sigmoid()).eval()
    >>> maps, uncertainty = RELAX(encoder, Cells(3)).attribute(1 + torch.rand(2, 1, 8, 8), return_uncertainty=True)
    >>> maps.shape, uncertainty.shape
    (torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    def __init__(
        self,
        encoder: Callable[..., Tensor | np.ndarray],
        masks: Masks = RISE,
        *,
        similarity: Similarity = cosine,
        fill: float | Tensor | Fill = 0.0,
        dims: tuple[int, ...] = (2, 3),
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
    ):
        if isinstance(fill, int | float) and not math.isfinite(fill):
            raise ValueError(f"fill must be finite, got {fill}.")
        if not dims or dims[0] < 1 or any(second <= first for first, second in itertools.pairwise(dims)):
            raise ValueError(f"dims must be axes in rising order, none of them the first, got {dims}.")
        self.encoder, self.masks, self.similarity, self.fill = encoder, masks, similarity, fill
        self.dims, self.dtype, self.channels_last = dims, dtype, channels_last

    def attribute(
        self, inputs: Tensors, *, estimator: str = "ratio", return_uncertainty: bool = False, **options
    ) -> Tensors | tuple[Tensors, Tensors]:
        """Return the importance of each place, one map an input, `(B, 1, H, W)` for images, `(B, T, 1)` for sequences.

        Args:
            inputs: `(B, …)`, or a tuple of such tensors when the encoder takes several; each then has its own masks.
            estimator: "ratio" (Eq. 12), "mean" (Eq. 2), or "control", which needs fewer masks than "ratio".
            return_uncertainty: also return the uncertainty, normalised as Eq. 9 for "mean", else as Algorithm 1.
            options: those of `evidence`: `n_masks`, `internal_batch_size`, `seed`, `tolerance`, …
        """
        if estimator not in ("ratio", "mean", "control"):
            raise ValueError(f"estimator must be 'ratio', 'mean' or 'control', got {estimator!r}.")
        if estimator != "ratio" and options.get("tolerance") is not None:
            raise ValueError(f"tolerance is kept for estimator 'ratio' only, got {estimator!r}.")
        evidence = self.evidence(inputs, **options)
        maps = evidence.importance(estimator)
        return (maps, evidence.uncertainty("mean" if estimator == "mean" else "ratio")) if return_uncertainty else maps

    @torch.no_grad()
    def evidence(
        self,
        inputs: Tensors,
        *,
        n_masks: int = 3_000,
        internal_batch_size: int = 64,
        seed: int = 0,
        tolerance: float | None = None,
        delta: float = 0.05,
        width: float = 2.0,
    ) -> Evidence:
        """Return all that the estimators keep of `n_masks` masks, which all inputs of the batch share.

        Args:
            inputs: as in `attribute`.
            n_masks: N; with a tolerance, the most masks.
            internal_batch_size: the most rows that go through the encoder at once; bounds the memory, changes no map.
            seed: of the masks. Runs that are to be joined need different ones.
            tolerance: stop once, with probability 1 − delta for each input, no pixel of "ratio" errs by more.
            delta: see tolerance.
            width: of the interval that the similarities lie in, 0 included: 2 for a cosine, 1 if no representation
                has negative entries.

        Raises:
            TypeError, ValueError: inputs that are no images (or what `dims` says), a grid finer than they are, an
                encoder in training mode, representations that are not finite `(B, D)`, or zero under the cosine.
        """
        checks.evaluating(self.encoder)
        views = inputs if isinstance(inputs, tuple) else (inputs,)
        size = checks.rows(views)
        shapes = [self._masked(view) for view in views]
        if not isinstance(n_masks, int) or n_masks < 2:
            raise ValueError(f"n_masks must be at least 2, as one mask tells no pixels apart, got {n_masks!r}.")
        if not isinstance(internal_batch_size, int) or internal_batch_size < 1:
            raise ValueError(f"internal_batch_size must be a positive integer, got {internal_batch_size!r}.")

        bases = tuple(Basis.of(self.masks, shape) for shape in shapes) if isinstance(self.masks, Cells) else ()
        parts = _parts(size, internal_batch_size)
        latents = torch.cat([self._encode(*(view[part] for view in views)) for part in parts])
        generator = torch.Generator(views[0].device).manual_seed(seed)
        total, look, next_look = None, 1, 2 * BLOCK
        with tqdm(total=n_masks, desc="masks") as bar:
            for count in (part.stop - part.start for part in _parts(n_masks, BLOCK)):
                masks = [self._draw(count, shape, generator) for shape in shapes]
                fills = [self._filling(view, count, generator) for view in views]
                features = [basis.features(mask) for basis, mask in zip(bases, masks, strict=bool(bases))]
                masks = [self._placed(mask, view) for mask, view in zip(masks, views, strict=True)]
                scores = self._scores(views, latents, masks, fills, internal_batch_size)
                moments = tuple(Moments.of(scores, mask.to(scores)) for mask in masks)
                weights = sum(mask.square().flatten(1).mean(dim=1) for mask in masks)
                regression = Regression.of(scores, torch.cat(features, dim=1), weights) if bases else None
                new = Evidence(moments, regression, bases, isinstance(inputs, tuple))
                total = total + new if total else new
                bar.update(count)
                if tolerance is not None and (total.count >= next_look or total.count == n_masks):
                    # The looks are at numbers of masks fixed beforehand, each with its share of delta.
                    reached = total.error(spent(delta, look), width)
                    if reached <= tolerance:
                        return total
                    look, next_look = look + 1, math.ceil(1.5 * next_look)
        if tolerance is not None:
            warnings.warn(
                f"{n_masks} masks did not reach the tolerance of {tolerance}: the bound on the error is {reached:.3g}.",
                RuntimeWarning,
                stacklevel=2,
            )
        return total

    def _scores(self, views: tuple, latents: Tensor, masks: list[Tensor], fills: list, rows: int) -> Tensor:
        """Return the similarities `(B, N)` of every input to itself under every mask."""
        count, found = len(masks[0]), []
        for part in _parts(len(latents) * count, rows):
            pair = torch.arange(part.start, part.stop, device=latents.device)
            which, mask = pair // count, pair % count
            covered = [_cover(*each, which, mask) for each in zip(views, masks, fills, strict=True)]
            score = self.similarity(latents[which], self._encode(*covered))
            if score.shape != which.shape or not torch.isfinite(score).all():
                came = tuple(score.shape) if score.shape != which.shape else "NaN or infinite values"
                raise ValueError(f"similarity must return one finite number a row, {len(which)} here, got {came}.")
            found.append(score)
        return torch.cat(found).view(-1, count)

    def _draw(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        masks = self.masks(count, shape, generator)
        if not isinstance(masks, Tensor) or masks.shape != (count, *shape):
            came = tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__
            raise ValueError(f"masks must return a tensor of shape {(count, *shape)}, got {came}.")
        return masks

    def _filling(self, view: Tensor, count: int, generator: torch.Generator):
        """Return a number, or `(B or 1, N or 1, …)`."""
        if callable(self.fill):
            return self.fill(view, count, generator)
        if not isinstance(self.fill, Tensor):
            return self.fill
        if not torch.isfinite(self.fill).all() or _broadcast(self.fill, view) != view.shape:
            raise ValueError(
                f"fill must be finite and broadcast with inputs {tuple(view.shape)}, got {tuple(self.fill.shape)}."
            )
        return self.fill.expand_as(view)[:, None]

    def _encode(self, *views: Tensor) -> Tensor:
        if self.channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) if view.dim() == 4 else view for view in views]
        device = views[0].device.type
        with torch.autocast(device, self.dtype) if self.dtype else nullcontext():
            output = self.encoder(*views)
        if isinstance(output, np.ndarray):
            output = torch.as_tensor(output, device=views[0].device)
        latents = checks.latent(output, len(views[0]))
        return latents if latents.dtype == torch.float64 else latents.float()

    def _masked(self, view: Tensor) -> tuple[int, ...]:
        """Return the sizes of the axes that masks run along."""
        if not len(self.dims) < view.dim() <= len(self.dims) + 2 or max(self.dims) >= view.dim():
            images = self.dims == (2, 3)
            wanted = "be images (B, C, H, W)" if images else f"have the axes dims={self.dims} and at most one other"
            raise ValueError(f"inputs must {wanted}, got shape {tuple(view.shape)}.")
        return tuple(view.shape[dim] for dim in self.dims)

    def _placed(self, masks: Tensor, view: Tensor) -> Tensor:
        """Return masks `(N, H, W)` as `(N, 1, H, W)`, as they broadcast with inputs."""
        shape = [len(masks)] + [1] * (view.dim() - 1)
        for dim, size in zip(self.dims, masks.shape[1:], strict=True):
            shape[dim] = size
        return masks.view(shape)


def _cover(view: Tensor, masks: Tensor, fill, which: Tensor, mask: Tensor) -> Tensor:
    """Return the inputs number `which` under the masks number `mask`, filled where these are 0."""
    inputs, kept = view[which], masks[mask].to(view)
    if isinstance(fill, Tensor):
        # What all inputs or all masks share has an axis of 1, which answers to any number.
        fill = fill[which if len(fill) > 1 else 0 * which, mask if fill.shape[1] > 1 else 0 * mask]
        return torch.lerp(fill.to(inputs), inputs, kept)
    return inputs * kept + fill * (1 - kept) if fill else inputs * kept


def _broadcast(one: Tensor, other: Tensor) -> torch.Size | None:
    try:
        return torch.broadcast_shapes(one.shape, other.shape)
    except RuntimeError:
        return None


def _parts(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
