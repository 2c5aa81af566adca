"""Encoders of a reader's own: from timm, torchvision and Hugging Face, without their heads, on images in [0, 1]."""

from torch import Tensor, nn

from lfx_utils.encoders.published import frozen
from lfx_utils.models.resnet import Normalise


class Pooled(nn.Module):
    """Images in [0, 1] to representations, normalised on the way.

    Args:
        network: takes normalised images; gives `(B, D)`, or what `_pooled` makes it of.
        mean: of each channel.
        std: of each channel.
        size: side of the images that the network was trained on.
        fixed: it takes no other size.
    """

    def __init__(self, network: nn.Module, mean, std, size: int, fixed: bool = False):
        super().__init__()
        self.normalise, self.network, self.size, self.fixed = Normalise(mean, std), network, size, fixed

    def forward(self, images: Tensor) -> Tensor:
        """Map images `(B, 3, H, W)` in [0, 1] to `(B, D)`."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}.")
        if self.fixed and images.shape[2:] != (self.size, self.size):
            raise ValueError(
                f"this encoder takes images of {self.size} × {self.size} pixels, got {images.shape[2]} × "
                f"{images.shape[3]}; resize them first."
            )
        return _pooled(self.network(self.normalise(images)))


def _pooled(output) -> Tensor:
    """Take the pooled features out of whatever a network returns: maps are averaged, of tokens the first is taken."""
    if not isinstance(output, Tensor):
        pooled = getattr(output, "pooler_output", None)
        output = output.last_hidden_state if pooled is None else pooled
    if output.dim() == 4:
        return output.mean((2, 3))
    return output[:, 0] if output.dim() == 3 else output


def from_timm(name: str, pretrained: bool = True) -> nn.Module:
    """Load any model of timm, frozen: images `(B, 3, H, W)` in [0, 1] to its pooled features `(B, D)`.

    Args:
        name: such as `"resnet18"`.
        pretrained: fetch the weights; else they are random.
    """
    import timm

    network = timm.create_model(name, pretrained=pretrained, num_classes=0)
    recipe = network.pretrained_cfg
    fixed = recipe.get("fixed_input_size", False)
    parts = _without_inplace(network), recipe["mean"], recipe["std"], recipe["input_size"][-1], fixed
    return frozen(Pooled(*parts), _said(name, "timm", pretrained))


def from_torchvision(name: str, pretrained: bool = True) -> nn.Module:
    """Load any classifier of torchvision, frozen: images `(B, 3, H, W)` in [0, 1] to the features under its last layer.

    Args:
        name: such as `"resnet18"`.
        pretrained: fetch the default weights; else they are random.

    Raises:
        ValueError: a network whose last layer is not linear, such as SqueezeNet.
    """
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    network = models.get_model(name, weights=weights if pretrained else None)
    last, head = [(key, module) for key, module in network.named_modules() if not list(module.children())][-1]
    if not isinstance(head, nn.Linear):
        raise ValueError(f"name must be that of a network that ends in a linear layer; {name} ends in {head}.")
    network.set_submodule(last, nn.Identity())
    recipe = weights.transforms()
    fixed = hasattr(network, "image_size")  # vision transformers have it
    parts = _without_inplace(network), recipe.mean, recipe.std, recipe.crop_size[0], fixed
    return frozen(Pooled(*parts), _said(name, "torchvision", pretrained))


def from_hugging_face(name: str) -> nn.Module:
    """Load an image model of Hugging Face, by the hub's name or a folder, frozen: images in [0, 1] to `(B, D)`.

    The representation is what the model pools itself. A pooler that the file does not hold would be random: then it is
    the class token, or the mean of the maps.

    Args:
        name: such as `"facebook/dinov2-small"`.
    """
    from transformers import AutoImageProcessor, AutoModel

    recipe = AutoImageProcessor.from_pretrained(name)
    network, told = AutoModel.from_pretrained(name, output_loading_info=True)
    if any("pooler" in key for key in told["missing_keys"]):
        network.pooler = None
    network = getattr(network, "vision_model", network)
    size = getattr(recipe, "crop_size", None) or recipe.size
    side = size.get("height") or size.get("shortest_edge")
    parts = _without_inplace(network), recipe.image_mean, recipe.image_std, side
    return frozen(Pooled(*parts), _said(name, "Hugging Face", True))


def _said(name: str, library: str, pretrained: bool) -> str:
    return f"{name} of {library}" + ("" if pretrained else ", untrained")


def _without_inplace(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # explainers hook it, and need its input
    return network
