"""The MNIST autoencoder of LF Table 5, which all the pretext tasks share."""

from torch import Tensor, nn


def image_encoder(latent: int = 4) -> nn.Sequential:
    """The convolutional encoder f of LF Table 5, images `(B, 1, 28, 28)` to representations `(B, latent)`.

    Every non-linearity is a module of its own, as Captum's DeepLift asks. The printed table and the released code
    differ in one place: the table lists a ReLU before the batch norm as well. We follow the table.

    Source: LF, Table 5.
    """
    encoder = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 128), nn.ReLU(),
        nn.Linear(128, latent),
    )  # fmt: skip
    encoder.origin = f"the encoder of LF Table 5 with {latent} units"
    return encoder


def image_decoder(latent: int = 4) -> nn.Sequential:
    """The decoder f_d of LF Table 5, `(B, latent)` to images `(B, 1, 28, 28)` in (0, 1).

    The table omits the padding of the last two transposed convolutions; 28 × 28 needs a padding of 1.

    Source: LF, Table 5.
    """
    return nn.Sequential(
        nn.Linear(latent, 128), nn.ReLU(),
        nn.Linear(128, 288), nn.ReLU(),
        nn.Unflatten(1, (32, 3, 3)),
        nn.ConvTranspose2d(32, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
    )  # fmt: skip


class Autoencoder(nn.Module):
    """An encoder f and a decoder f_d; `forward` reconstructs, `encoder` is what the book explains."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, inputs: Tensor) -> Tensor:
        """Reconstruct `inputs` `(B, …)` in the same shape."""
        return self.decoder(self.encoder(inputs))


def mnist_autoencoder(latent: int = 4) -> Autoencoder:
    """The whole autoencoder of LF Table 5, d_H = `latent`."""
    return Autoencoder(image_encoder(latent), image_decoder(latent))
