"""What a run of masks has shown, from which every estimate can be read, and which joins with that of other runs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lfx_utils.relax.bounds import half_width
from lfx_utils.relax.control import Basis, Regression, corrections
from lfx_utils.relax.estimators import Moments, Weighted

Tensors = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Evidence:
    """What a run has seen, for every estimate; `+` joins runs with different seeds, on whatever device, in any order.

    Args:
        moments: of each input, since each has its own masks.
        regression: of the scores on all masks; None where it was not asked for, or the masks' law is not known.
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
        regression = self.regression + other.regression if self.regression and other.regression else None
        return Evidence(joined, regression, self.bases, self.several)

    def importance(self, estimator: str = "ratio") -> Tensors:
        """Return R̄ `(B, 1, H, W)`, one for each input: "ratio" (Eq. 12), "mean" (Eq. 2) or "control".

        The last estimates what "ratio" does, with fewer masks for the same error (see `control`).
        """
        if estimator != "control":
            return self._as_given([moments.importance(estimator) for moments in self.moments])
        if self.regression is None:
            raise ValueError("estimator 'control' needs masks of known distribution, Cells(…), and keep=('control',).")
        maps = [moments.importance() for moments in self.moments]
        totals = [moments.first.total for moments in self.moments]
        added = corrections(self.regression, self.bases, totals)
        return self._as_given([ratio + each.to(ratio).view_as(ratio) for ratio, each in zip(maps, added, strict=True)])

    def uncertainty(self, estimator: str = "ratio") -> Tensors:
        """Return Ū `(B, 1, H, W)`, one for each input; `estimator` as in `Moments.uncertainty`."""
        return self._as_given([moments.uncertainty(estimator) for moments in self.moments])

    def half_width(self, delta: float = 0.05, width: float = 2.0, estimator: str = "ratio") -> Tensors:
        """Return t `(B, 1, H, W)`, such that no pixel of an input errs by more with probability 1 − delta.

        See `bounds.half_width`, of which this is the union over an input's pixels.
        """
        delta = delta / sum(moments.first.total.numel() for moments in self.moments)
        return self._as_given([half_width(moments, delta, width, estimator) for moments in self.moments])

    def error(self, delta: float = 0.05, width: float = 2.0, estimator: str = "ratio") -> float:
        """Return the largest `half_width` of all pixels and inputs."""
        widths = self.half_width(delta, width, estimator)
        return max(each.max().item() for each in (widths if self.several else (widths,)))

    def _as_given(self, maps: list[Tensor]) -> Tensors:
        return tuple(maps) if self.several else maps[0]


# Tensors and numbers only, so `torch.load` may read what `torch.save` wrote of a run without trusting any code.
torch.serialization.add_safe_globals([Evidence, Moments, Weighted, Regression, Basis])
