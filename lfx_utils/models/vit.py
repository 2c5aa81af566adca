"""A small vision transformer from torchvision's parts, for images of any size, with its tokens and attention maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .resnet import Normalise


class ViT(nn.Module):
    """A transformer over patches of images in [0, 1], to its class token `(B, D)`; 0.37 million parameters by default.

    Args:
        size: side of the images that the positions are for; for others they are interpolated.
        patch: side of the square that becomes a token.
        width: D, of a token.
        depth: number of blocks.
        heads: of each block's attention.
        hidden: width of each block's second part.
        convolutions: make the tokens by three strided convolutions (8 × 8 patches), since with few images the usual
            single projection hardly learns.
        normalise: what brings images in [0, 1] to the transformer's scale.

    Source: Dosovitskiy et al. (2021), An image is worth 16×16 words; Xiao et al. (2021) for the convolutions.
    """

    def __init__(
        self,
        size=64,
        patch=8,
        width=96,
        depth=4,
        heads=3,
        hidden=192,
        convolutions=True,
        normalise: nn.Module | None = None,
    ):
        super().__init__()
        from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer  # slow to import

        stem = [ConvStemConfig(width // share, 3, 2) for share in (4, 2, 1)] if convolutions else None
        whole = VisionTransformer(size, patch, depth, heads, width, hidden, conv_stem_configs=stem)
        self.patch, self.normalise = patch, normalise or Normalise()
        self.patches, self.blocks, self.norm = whole.conv_proj, whole.encoder.layers, whole.encoder.ln
        self.class_token, self.positions = whole.class_token, whole.encoder.pos_embedding

    def forward(self, images: Tensor) -> Tensor:
        """Map images `(B, 3, H, W)` to representations `(B, D)`."""
        return self.sequence(images)[:, 0]

    def tokens(self, images: Tensor) -> Tensor:
        """Return the patches' tokens behind the last block, as a map `(B, D, H/patch, W/patch)`."""
        height, width = (side // self.patch for side in images.shape[-2:])
        return self.sequence(images)[:, 1:].transpose(1, 2).unflatten(2, (height, width))

    def sequence(self, images: Tensor) -> Tensor:
        """Return the normalised tokens behind the last block, the class token first, `(B, 1 + HW/patch², D)`.

        Raises:
            ValueError: images whose sides are not multiples of the patch's.
        """
        # The plain kernel: on CPUs the fused one takes three times as long backwards, and has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            return self.norm(self.blocks(self._embed(images)))

    @torch.no_grad()
    def attention(self, images: Tensor, block: int = -1) -> Tensor:
        """Return how one block's class token attends to the patches, `(B, heads, H/patch, W/patch)`.

        Rows of the softmax without the class token's share in itself, so that each sums to a little less than 1.
        """
        height, width = (side // self.patch for side in images.shape[-2:])
        blocks = list(self.blocks)
        tokens = self._embed(images)
        for before in blocks[: blocks.index(blocks[block])]:
            tokens = before(tokens)
        tokens = blocks[block].ln_1(tokens)
        weights = blocks[block].self_attention(tokens, tokens, tokens, average_attn_weights=False)[1]
        return weights[:, :, 0, 1:].unflatten(2, (height, width))

    def _embed(self, images: Tensor) -> Tensor:
        if images.shape[-1] % self.patch or images.shape[-2] % self.patch:
            raise ValueError(f"images must have sides that are multiples of {self.patch}, got {tuple(images.shape)}.")
        patches = self.patches(self.normalise(images))
        positions = self.positions[:, 1:].transpose(1, 2)
        positions = positions.unflatten(2, (int(positions.shape[2] ** 0.5), -1))
        if patches.shape[-2:] != positions.shape[-2:]:
            positions = F.interpolate(positions, patches.shape[-2:], mode="bicubic", align_corners=False)
        tokens = (patches + positions).flatten(2).transpose(1, 2)
        first = (self.class_token + self.positions[:, :1]).expand(len(images), -1, -1)
        return torch.cat([first.to(tokens), tokens], 1)
