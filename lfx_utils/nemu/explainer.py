"""`NEMU(encoder).fit(images)`: an encoder that explains itself in the pass that makes its representation."""

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.models.unet import STANDARD, ThinDecoder, UNetDecoder
from lfx_utils.nemu.objective import Objective
from lfx_utils.nemu.skips import find, pyramid, recorded
from lfx_utils.nemu.training import fit_together
from lfx_utils.training import History

DECODERS = {"standard": UNetDecoder, "thin": ThinDecoder}


class NEMU(nn.Module):
    """Predict, from what an encoder computes anyway, which parts of an image its representation rests on.

    The decoder of a U-Net reads the encoder's own feature maps. Only the decoder trains; the encoder's weights, buffers
    and outputs stay bit for bit what they were.

    Args:
        encoder: f, an `nn.Module` in evaluation mode from images `(B, C, H, W)` to representations `(B, D)`; a
            convolutional network, or a transformer with blocks of tokens.
        objective: what a good mask is.
        decoder: "standard" for a U-Net's of the paper's size, "thin" for one that costs less than a small encoder.

    Raises:
        TypeError: an encoder that is a mere function.
        ValueError: an unknown decoder.

    Source:
        Møller et al. 2024, "Finding NEM-U", Sections 3 and 4.1.

    >>> encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.Flatten()).eval()
    >>> explainer = NEMU(encoder, decoder="thin").fit(torch.rand(8, 3, 16, 16), epochs=1)
    >>> representations, masks = explainer(torch.rand(2, 3, 16, 16))
    >>> representations.shape, masks.shape
    (torch.Size([2, 256]), torch.Size([2, 1, 16, 16]))
    """

    def __init__(self, encoder: nn.Module, objective: Objective | None = None, decoder: str = "standard"):
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"encoder must be an nn.Module, whose layers NEM-U reads, got {type(encoder).__name__}.")
        if decoder not in DECODERS:
            raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}.")
        self.encoder, self.objective, self.kind = encoder, objective or Objective(), decoder
        self.training, self.decoder = False, None
        self.history: History | None = None

    def build(self, image: Tensor) -> "NEMU":
        """Find the encoder's feature maps, and make an untrained decoder for them.

        Args:
            image: `(1, C, H, W)`, of the size, precision and device of those to come.

        Raises:
            TypeError, ValueError: an encoder in training mode, one that draws random numbers, or one without feature
                maps; more than one image.
        """
        checks.evaluating(self.encoder)
        if image.dim() != 4 or len(image) != 1:
            raise ValueError(f"image must be one image (1, C, H, W), got {tuple(image.shape)}.")
        checks.function(self.encoder, (image,))
        with torch.no_grad():
            checks.latent(checks.on_copies(self.encoder, image), 1)
            self.skips = find(self.encoder, image, len(STANDARD))
        return self.begin(image)

    @torch.no_grad()
    def begin(self, image: Tensor) -> "NEMU":
        """Make an untrained decoder for the feature maps that are known already; `image` as in `build`."""
        _, maps = self.encode(image)
        self.shape = tuple(image.shape[1:])
        self.decoder = DECODERS[self.kind]([each.shape[1] for each in maps]).to(image.device).eval()
        return self

    def fit(self, images: Tensor, **options) -> "NEMU":
        """Train the decoder on images `(N, C, H, W)` without labels, and return the explainer, its `history` filled.

        Args:
            images: what the encoder gets, normalised if it wants that; a fill of zero must mean "nothing there".
            options: those of `fit_together`: `epochs`, `batch_size`, `optimiser`, `checkpoint`, `seed`, …
        """
        fit_together([self], images, **options)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images `(B, C, H, W)` to representations `(B, D)` and masks `(B, 1, H, W)`, in one pass of the encoder.

        Gradients flow if they are asked for, and the pass can be exported; `attribute` is the checked way in.
        """
        self.ready(images)
        representations, maps = self.encode(images)
        return representations, self.decoder(maps, images.shape[-2:])

    @torch.no_grad()
    def attribute(self, inputs: Tensor, *, internal_batch_size: int = 256) -> Tensor:
        """Return the mask of each image: near 1 where the representation needs it, `(B, 1, H, W)`.

        Args:
            inputs: `(B, C, H, W)`, of the size that the decoder was trained on.
            internal_batch_size: the most images that go through the encoder at once.

        Raises:
            TypeError, ValueError: an encoder in training mode, an untrained decoder, inputs that are not finite or of
                another size.
        """
        self.ready(checks.batch("inputs", inputs))
        checks.counts(internal_batch_size=internal_batch_size)
        # Convolutions on processors like this order of the memory better.
        parts = inputs.contiguous(memory_format=torch.channels_last).split(internal_batch_size)
        return torch.cat([self(part)[1] for part in parts]).contiguous()

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return representations `(B, D)` and the maps met on the way, shallowest first."""
        with recorded(self.encoder, self.layers) as outputs:
            latents = self.encoder(images.clone())  # a copy, since an encoder may work in place
        maps = pyramid([skip.map(outputs[skip.layer]) for skip in self.skips])
        if self.decoder is not None and not torch.is_autocast_enabled(images.device.type):
            # A half-precision encoder's decoder has single precision, unless the user converts it.
            maps = [each.to(next(self.decoder.parameters()).dtype) for each in maps]
        return latents, maps

    @property
    def layers(self) -> tuple[str, ...]:
        """The submodules whose outputs the decoder reads, shallowest first."""
        return tuple(skip.layer for skip in self.skips)

    def train(self, mode: bool = True) -> "NEMU":
        """Set the decoder's mode; the encoder keeps its own."""
        self.training = mode
        if self.decoder is not None:
            self.decoder.train(mode)
        return self

    def ready(self, images: Tensor | None = None) -> None:
        """Raise unless the decoder is fitted, the encoder in evaluation mode, and images have the right shape."""
        checks.evaluating(self.encoder)
        if self.decoder is None:
            raise ValueError("The decoder is not trained yet; call fit(images) first, or load one from a file.")
        if images is not None and tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"inputs must have the shape (B, {', '.join(map(str, self.shape))}) that the decoder was trained on, "
                f"got {tuple(images.shape)}; resize them, or fit another decoder."
            )
