"""Train masking networks: of one explainer, or of several of one encoder side by side."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.training import History, fit, resume

COLLAPSED = 0.01  # A mask that keeps less than this share of an image on average, or all but this, says nothing.


def prodigy(parameters) -> torch.optim.Optimizer:
    """Return Prodigy, which finds its own learning rate, as NU trains with."""
    from prodigyopt import Prodigy  # here, since it is needed for nothing but training

    return Prodigy(parameters)


def fit_together(
    explainers: Sequence,
    images: Tensor,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    optimiser: Callable[..., torch.optim.Optimizer] = prodigy,
    keep_epochs: bool = False,
    dtype: torch.dtype | None = None,
    checkpoint: Path | str | None = None,
    seed: int = 0,
) -> None:
    """Train the decoders of several explainers of one encoder side by side, as a sweep over objectives wants.

    They share each batch and the encoder's pass over it; each has the weights that it would get alone.

    Args:
        explainers: `NEMU`s of the same encoder; their `history` is filled.
        images: `(N, C, H, W)`.
        epochs, batch_size: as in `training.fit`; the paper has 10 epochs and no augmentation.
        optimiser: makes a decoder's optimiser from its parameters.
        keep_epochs: keep each decoder's weights after every epoch, in `history.snapshots`.
        dtype: run encoder and decoders in this precision, by autocast, such as `torch.bfloat16`.
        checkpoint: file to save to after every epoch and to resume from, of this run only: encoder, objectives, images
            and settings, of which `epochs` may grow.
        seed: of the decoders' first weights, the order of the batches and the noise.

    Raises:
        TypeError, ValueError: images that are no batch, or that are nothing but the fill; encoders that differ, are in
            training mode, draw random numbers, have no spatial features, are in float16 or give an image a
            representation of norm zero; a checkpoint that is another run's, damaged or not writable.
        FloatingPointError: training diverged; each decoder keeps the weights of its last finite epoch.

    Warns:
        RuntimeWarning: masks that keep next to nothing, or next to everything, of the images they trained on.
    """
    if not explainers:
        raise ValueError("explainers is empty; at least one is needed.")
    encoder = explainers[0].encoder
    if any(each.encoder is not encoder for each in explainers):
        raise ValueError("explainers must share one encoder to train together; fit them one by one.")
    checks.batch("images", images)
    if images.dim() != 4:
        raise ValueError(f"images must have the shape (N, C, H, W), got {tuple(images.shape)}.")
    for each in explainers:
        if each.objective.noise is None and (images == each.objective.fill).all():
            raise ValueError(f"images are all {each.objective.fill:g}, the fill: no mask changes anything about them.")
    differentiable(encoder)
    device = next((each.device for each in encoder.parameters()), images.device)
    for each in explainers:
        # All start from the same weights, whatever has drawn random numbers before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            each.build(images[:1].to(device))

    def loss(decoders: nn.ModuleList, batch: Tensor) -> Tensor:
        batch = batch.to(device, memory_format=torch.channels_last)
        with torch.no_grad():
            whole, maps = explainers[0].encode(batch)
        if not checks.latent(whole, len(batch)).any(dim=1).all():
            raise ValueError("encoder gives an image a representation of norm zero, which has no cosine; leave it out.")
        masks = [decoder(maps, batch.shape[-2:]).float() for decoder in decoders]
        halves = [half for each, mask in zip(explainers, masks) for half in each.objective.halves(batch, mask)]
        latents = encoder(torch.cat(halves)).chunk(len(halves))
        parts = zip(explainers, latents[::2], latents[1::2], masks, strict=True)
        return sum(each.objective.terms(whole, kept, left, mask).loss.mean() for each, kept, left, mask in parts)

    def loss_in_dtype(decoders: nn.ModuleList, batch: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype) if dtype else nullcontext():
            return loss(decoders, batch)

    decoders = nn.ModuleList(each.decoder for each in explainers)
    with frozen(encoder):
        history = fit(
            decoders,
            loss_in_dtype,
            (images,),
            epochs=epochs,
            batch_size=batch_size,
            optimiser=Several([optimiser(decoder.parameters()) for decoder in decoders]),
            snapshot_every=1 if keep_epochs else None,
            checkpoint=checkpoint,
            run=_identity(explainers, dtype) if checkpoint else None,
            seed=seed,
            name="NEM-U",
        )
    for place, each in enumerate(explainers):
        kept = [_own(snapshot, f"{place}.") for snapshot in history.snapshots]
        each.history = History(history.train, seconds=history.seconds, snapshots=kept)
        share = each.eval().attribute(images[:64].to(device)).mean().item()
        if not COLLAPSED < share < 1 - COLLAPSED:
            warnings.warn(
                f"NEM-U's masks collapsed: they keep {share:.1%} of the images on average, at preserve="
                f"{each.objective.preserve:g} and sparsity={each.objective.sparsity:g}; change these or the distance.",
                RuntimeWarning,
                stacklevel=3,
            )


def _identity(explainers: Sequence, dtype: torch.dtype | None) -> dict:
    """Return what tells a run from others, beside what `fit` knows of it."""
    encoder = explainers[0].encoder
    wishes = [vars(each.objective) | {"distance": each.objective.distance.__qualname__} for each in explainers]
    return {
        # Buffers that are not saved, such as a normalisation's, count as well.
        "encoder": resume.checksum([dict(encoder.named_parameters()), dict(encoder.named_buffers())]),
        "objectives": str(wishes),
        "decoders": [each.kind for each in explainers],
        "dtype": str(dtype),
    }


def differentiable(encoder: nn.Module) -> None:
    """Raise ValueError for an encoder in float16: a mask's gradient, spread over its pixels, is zero there."""
    if any(each.dtype == torch.float16 for each in encoder.parameters()):
        raise ValueError(
            "encoder is in float16, in which the gradients of masks vanish; train with encoder.float(), or in "
            "bfloat16. A trained explainer works in float16, too."
        )


@contextmanager
def frozen(encoder: nn.Module) -> Iterator[None]:
    """Ask for no gradient of the encoder's parameters meanwhile; gradients still pass through it to the masks."""
    flags = [(parameter, parameter.requires_grad) for parameter in encoder.parameters()]
    try:
        encoder.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class Several:
    """Optimisers that step together and are otherwise strangers; Prodigy would share one step size among them."""

    def __init__(self, optimisers: Sequence[torch.optim.Optimizer]):
        self.optimisers = optimisers

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.optimisers))

    def zero_grad(self) -> None:
        for each in self.optimisers:
            each.zero_grad()

    def step(self) -> None:
        for each in self.optimisers:
            each.step()

    def state_dict(self) -> list[dict]:
        return [each.state_dict() for each in self.optimisers]

    def load_state_dict(self, states: list[dict]) -> None:
        for each, state in zip(self.optimisers, states, strict=True):
            each.load_state_dict(state)


def _own(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
