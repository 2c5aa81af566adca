"""`RELAX(encoder).attribute(inputs)`: draw masks, encode, and stream what comes back into maps."""

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lfx_utils import checks
from lfx_utils.relax.bounds import half_width, spent
from lfx_utils.relax.control import Basis, Regression
from lfx_utils.relax.estimators import Moments, Similarity, cosine
from lfx_utils.relax.masks import Cells, Fill, Masks

Tensors = Tensor | tuple[Tensor, ...]
BLOCK = 128  # Masks drawn at once: always as many, so that no batch size changes what is drawn.


@dataclass(frozen=True)
class Evidence:
    """What a run has seen, for every estimate; `+` joins runs with different seeds, on whatever device, in any order.

    Args:
        moments: of each input, since each has its own masks.
        regression: of the scores on all masks; None where the masks' distribution is not known.
        bases: the coordinates of each input's masks that the regression uses.
        several: whether the inputs came as a tuple.
    """

    moments: tuple[Moments, ...]
    regression: Regression | None
    bases: tuple[Basis, ...]
    several: bool

    @property
    def count(self) -> int:
        """N, the masks seen."""
        return self.moments[0].count

    def __add__(self, other: "Evidence") -> "Evidence":
        joined = tuple(mine + theirs for mine, theirs in zip(self.moments, other.moments, strict=True))
        regression = self.regression and self.regression + other.regression
        return Evidence(joined, regression, self.bases, self.several)

    def importance(self, estimator: str = "ratio") -> Tensors:
        """Return R̄ `(B, 1, H, W)`, one for each input: "ratio" (Eq. 12), "mean" (Eq. 2) or "regression".

        The last estimates what "ratio" does, with the masks' known distribution as a control variate (see `control`).
        """
        if estimator != "regression":
            return self._as_given([moments.importance(estimator) for moments in self.moments])
        if self.regression is None:
            raise ValueError("estimator 'regression' needs masks of known distribution, Cells(…); use 'ratio' for others.")
        level, weights = self.regression.fit(torch.cat([basis.deviations for basis in self.bases]))
        parts = weights.split([len(basis.deviations) for basis in self.bases], dim=1)
        means = [moments.first.mean for moments in self.moments]
        return self._as_given([
            (basis.maps(part) + level.view(-1, *[1] * len(basis.axes))).to(mean).view_as(mean)
            for basis, part, mean in zip(self.bases, parts, means, strict=True)
        ])  # fmt: skip

    def uncertainty(self, estimator: str = "ratio") -> Tensors:
        """Return Ū `(B, 1, H, W)`, one for each input; `estimator` as in `Moments.uncertainty`."""
        return self._as_given([moments.uncertainty(estimator) for moments in self.moments])

    def half_width(self, delta: float = 0.05, width: float = 2.0, estimator: str = "ratio") -> Tensors:
        """Return t `(B, 1, H, W)`: with probability 1 − delta no pixel of an input errs by more (see `bounds.half_width`)."""
        delta = delta / sum(moments.first.total.numel() for moments in self.moments)
        return self._as_given([half_width(moments, delta, width, estimator) for moments in self.moments])

    def _as_given(self, maps: list[Tensor]) -> Tensors:
        return tuple(maps) if self.several else maps[0]


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

    >>> encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.ReLU()).eval()
    >>> maps, uncertainty = RELAX(encoder, Cells(3)).attribute(torch.rand(2, 1, 8, 8), n_masks=50, return_uncertainty=True)
    >>> maps.shape, uncertainty.shape
    (torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    def __init__(
        self,
        encoder: Callable[..., Tensor | np.ndarray],
        masks: Masks = Cells(),
        *,
        similarity: Similarity = cosine,
        fill: float | Tensor | Fill = 0.0,
        dims: tuple[int, ...] = (2, 3),
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
    ):
        self.encoder, self.masks, self.similarity, self.fill = encoder, masks, similarity, fill
        self.dims, self.dtype, self.channels_last = dims, dtype, channels_last

    def attribute(
        self, inputs: Tensors, *, estimator: str = "ratio", return_uncertainty: bool = False, **options
    ) -> Tensors | tuple[Tensors, Tensors]:
        """Return the importance of each place, one map an input, `(B, 1, H, W)` for images, `(B, T, 1)` for sequences.

        Args:
            inputs: `(B, …)`, or a tuple of such tensors when the encoder takes several; each then has its own masks.
            estimator: "ratio" (Eq. 12), "mean" (Eq. 2), or "regression", which needs fewer masks than "ratio".
            return_uncertainty: also return the uncertainty, normalised as Eq. 9 for "mean", else as Algorithm 1.
            options: those of `evidence`: `n_masks`, `internal_batch_size`, `seed`, `tolerance`, …
        """
        if estimator not in ("ratio", "mean", "regression"):
            raise ValueError(f"estimator must be 'ratio', 'mean' or 'regression', got {estimator!r}.")
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
            raise ValueError(f"n_masks must be an integer of at least 2, since a single mask tells no pixels apart, got {n_masks}.")
        if not isinstance(internal_batch_size, int) or internal_batch_size < 1:
            raise ValueError(f"internal_batch_size must be a positive integer, got {internal_batch_size!r}.")

        known = isinstance(self.masks, Cells)
        bases = tuple(Basis.of(self.masks, shape) for shape in shapes) if known else ()
        generator = torch.Generator(views[0].device).manual_seed(seed)
        latents = torch.cat([self._encode(*(view[part] for view in views)) for part in _parts(size, internal_batch_size)])
        total, look, next_look = None, 1, 2 * BLOCK
        with tqdm(total=n_masks, desc="masks", delay=2, leave=False) as bar:
            for part in _parts(n_masks, BLOCK):
                count = part.stop - part.start
                drawn = [self._draw(count, shape, generator) for shape in shapes]
                fills = [self._filling(view, count, generator) for view in views]
                scores = self._scores(views, latents, drawn, fills, internal_batch_size)
                placed = [mask.view(self._placed(mask.shape, view)).to(scores) for mask, view in zip(drawn, views, strict=True)]
                features = [basis.features(mask) for basis, mask in zip(bases, drawn, strict=bool(bases))]
                new = Evidence(
                    tuple(Moments.of(scores, mask) for mask in placed),
                    Regression.of(scores, torch.cat(features, dim=1)) if known else None,
                    bases,
                    isinstance(inputs, tuple),
                )
                total = new if total is None else total + new
                bar.update(count)
                if tolerance is not None and (total.count >= next_look or total.count == n_masks):
                    # Looks are at numbers of masks fixed beforehand, each with its share of delta: stopping at one is fair.
                    widths = total.half_width(spent(delta, look), width)
                    reached = max(float(each.max()) for each in (widths if isinstance(widths, tuple) else (widths,)))
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

    def _scores(self, views, latents: Tensor, masks: list[Tensor], fills: list, rows: int) -> Tensor:
        """Return the similarities `(B, N)` of every input to itself under every mask."""
        count, found = len(masks[0]), []
        for part in _parts(len(latents) * count, rows):
            pairs = torch.arange(part.start, part.stop, device=latents.device)
            which, mask = pairs // count, pairs % count
            covered = [
                self._cover(view[which], each[mask].view(self._placed((len(pairs), *each.shape[1:]), view)).to(view), fill, which, mask)
                for view, each, fill in zip(views, masks, fills, strict=True)
            ]
            score = self.similarity(latents[which], self._encode(*covered))
            if score.shape != which.shape or not torch.isfinite(score).all():
                raise ValueError(
                    f"similarity must return one finite number a row, {len(which)} here, got shape {tuple(score.shape)}"
                    f"{'' if torch.isfinite(score).all() else ' with NaN or infinite values'}."
                )
            found.append(score)
        return torch.cat(found).view(-1, count)

    def _cover(self, view: Tensor, mask: Tensor, fill, which: Tensor, row: Tensor) -> Tensor:
        if isinstance(fill, Tensor):
            # The filling of an input or of a mask may be shared by all; an axis of 1 then answers for any index.
            fill = fill[which if len(fill) > 1 else 0 * which, row if fill.shape[1] > 1 else 0 * row]
            return torch.lerp(fill.to(view), view, mask)
        return view * mask + fill * (1 - mask) if fill else view * mask

    def _draw(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        masks = self.masks(count, shape, generator)
        if not isinstance(masks, Tensor) or masks.shape != (count, *shape):
            raise ValueError(f"masks must return {(count, *shape)}, got {getattr(masks, 'shape', type(masks).__name__)}.")
        return masks

    def _filling(self, view: Tensor, count: int, generator: torch.Generator):
        """Return a number, or `(B or 1, N or 1, …)`."""
        if callable(self.fill):
            return self.fill(view, count, generator)
        return self.fill.expand_as(view)[:, None] if isinstance(self.fill, Tensor) else self.fill

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
            wanted = "be images (B, C, H, W)" if self.dims == (2, 3) else f"have the axes dims={self.dims} and at most one other"
            raise ValueError(f"inputs must {wanted}, got shape {tuple(view.shape)}.")
        return tuple(view.shape[dim] for dim in self.dims)

    def _placed(self, shape: tuple[int, ...], view: Tensor) -> list[int]:
        """Return the shape `(N, 1, H, W)` in which masks `(N, H, W)` broadcast with the inputs."""
        placed = [shape[0]] + [1] * (view.dim() - 1)
        for dim, size in zip(self.dims, shape[1:], strict=True):
            placed[dim] = size
        return placed


def _parts(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
