"""Make the picture of the page "In five minutes": its own code, on a photograph and an encoder that ship.

python book/five_minutes.py
"""

import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

matplotlib.use("Agg")

PAGE = Path(__file__).with_name("in-five-minutes.md")
PICTURE = PAGE.parent / "_static" / "five-minutes.webp"
TITLES = ("by gradients", "by masking", "doubt")


def code() -> str:
    """Return the page's code block."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return block


def main() -> None:
    """Run the page's code and save what it drew, with the photograph before it."""
    from lfx_utils import encoders
    from lfx_utils.datasets.own_photographs import from_skimage

    images = from_skimage()[0][:1]  # the astronaut
    names = {"my_encoder": encoders.load("efficientnet-lite0"), "my_images": images}
    plt.figure(figsize=(8, 2.2), layout="constrained")
    exec(code(), names)
    drawn = [axes.get_images()[0].get_array() for axes in plt.gcf().axes]
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.5), layout="constrained")
    axes[0].imshow(images[0].permute(1, 2, 0))
    axes[0].set_title("the photograph")
    for panel, title, values in zip(axes[1:], TITLES, drawn):
        panel.imshow(values)
        panel.set_title(title)
    for panel in axes:
        panel.axis("off")
    figure.savefig(PICTURE, dpi=100, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main()
