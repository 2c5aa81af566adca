"""Encoders of heartbeats: the LSTM autoencoder of LF Table 6, and a small transformer."""

import torch
from torch import Tensor, nn

from lfx_utils.models.autoencoders import Autoencoder


class LSTMEncoder(nn.Module):
    """Two stacked LSTMs; the representation is the second one's output at the last time step.

    Source: LF, Table 6.
    """

    def __init__(self, latent: int = 64, channels: int = 1):
        super().__init__()
        self.origin = f"the recurrent encoder of LF Table 6 with {latent} units"
        self.first = nn.LSTM(channels, 2 * latent, batch_first=True)
        self.second = nn.LSTM(2 * latent, latent, batch_first=True)

    def forward(self, sequences: Tensor) -> Tensor:
        """Map sequences `(B, T, channels)` to representations `(B, latent)`."""
        hidden, _ = self.first(sequences)
        hidden, _ = self.second(hidden)
        return hidden[:, -1]


class LSTMDecoder(nn.Module):
    """Copies the representation to every time step and unrolls two LSTMs and a linear layer.

    Source: LF, Table 6.
    """

    def __init__(self, latent: int = 64, steps: int = 140, channels: int = 1):
        super().__init__()
        self.steps = steps
        self.first = nn.LSTM(latent, latent, batch_first=True)
        self.second = nn.LSTM(latent, 2 * latent, batch_first=True)
        self.output = nn.Linear(2 * latent, channels)

    def forward(self, latents: Tensor) -> Tensor:
        """Map representations `(B, latent)` to sequences `(B, T, channels)`."""
        hidden, _ = self.first(latents.unsqueeze(1).expand(-1, self.steps, -1))
        hidden, _ = self.second(hidden)
        return self.output(hidden)


def ecg_autoencoder(latent: int = 64, steps: int = 140) -> Autoencoder:
    """The LSTM autoencoder of LF Table 6: d_H = 64 for feature importance, 32 for example importance."""
    return Autoencoder(LSTMEncoder(latent), LSTMDecoder(latent, steps))


class WindowTransformer(nn.Module):
    """A small pre-norm transformer over windows of a sequence, mean-pooled to a representation.

    Not in the papers: it shows that completeness and invariance do not care about the architecture.
    """

    def __init__(self, latent: int = 32, steps: int = 140, window: int = 10, width: int = 32, depth: int = 2):
        super().__init__()
        if steps % window:
            raise ValueError(f"steps must be a multiple of window, got steps={steps} and window={window}.")
        self.origin = "a small transformer over windows"
        self.window = window
        self.embed = nn.Linear(window, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, steps // window, width))
        self.blocks = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            ),
            depth,
            enable_nested_tensor=False,
        )
        self.output = nn.Linear(width, latent)

    def forward(self, sequences: Tensor) -> Tensor:
        """Map sequences `(B, T, 1)` to representations `(B, latent)`."""
        windows = sequences.flatten(1).unflatten(1, (-1, self.window))
        return self.output(self.blocks(self.embed(windows) + self.position).mean(1))
