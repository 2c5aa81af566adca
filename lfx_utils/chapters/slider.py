"""U-RELAX under the reader's hand: the threshold γ as a slider that needs no kernel and no network."""

import base64
import hashlib
import io
from string import Template

import numpy as np
from IPython.display import HTML
from matplotlib import colormaps
from matplotlib.image import imsave
from torch import Tensor

from lfx_utils.relax.estimators import u_relax

RANGE = (0.9, 1.1)  # of γ
STEPS = 65_535  # An uncertainty map is sent in as many steps, since γ within a few hundredths makes all the difference.
PAGE = Template("""
<figure id="$id" class="lfx-slider" style="margin:0;max-width:22em">
<img alt="$alt" src="data:image/png;base64,$picture" style="width:100%;image-rendering:pixelated">
<canvas role="img" width="$width" height="$height" hidden style="width:100%;image-rendering:pixelated"></canvas>
<div hidden><label>γ <input type="range" min="$low" max="$high" step="0.005" value="1" style="width:60%"></label>
<select aria-label="what γ multiplies"><option value="0">mean uncertainty</option>
<option value="1">median uncertainty</option></select><br><output aria-live="polite"></output></div>
<figcaption>$caption</figcaption></figure>
<script>(() => {
const root = document.getElementById("$id"), [canvas, image] = ["canvas", "img"].map(n => root.querySelector(n));
const [range, choice, told] = ["input", "select", "output"].map(n => root.querySelector(n));
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const colours = bytes("$colours"), grey = bytes("$grey"), spread = new Uint16Array(bytes("$spread").buffer);
const typical = [$mean, $median], pen = canvas.getContext("2d"), pixels = pen.createImageData($width, $height);
function draw() {
  const limit = range.value * typical[choice.value];
  let kept = 0;
  spread.forEach((u, i) => {
    const on = u < limit;
    kept += on;
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = on ? colours[3 * i + c] : grey[i];
    pixels.data[4 * i + 3] = 255;
  });
  pen.putImageData(pixels, 0, 0);
  const share = Math.round(100 * kept / spread.length);
  told.textContent = `γ = $${Number(range.value).toFixed(3)}: $${share} % of the pixels keep their importance`;
  canvas.setAttribute("aria-label", "The importance map, in colour where it is kept. " + told.textContent);
}
range.oninput = choice.onchange = draw;
image.hidden = true; canvas.hidden = false; root.querySelector("div").hidden = false; draw();
})();</script>
""")


def slider(image: Tensor, importance: Tensor, uncertainty: Tensor, caption: str) -> HTML:
    """Return a picture of a map whose uncertain pixels are cut off, with a slider for γ, and mean or median for ε.

    Where scripts do not run, the picture for γ = 1 and the mean is left.

    Args:
        image: `(3, H, W)` in [0, 1], seen in grey where importance is cut off.
        importance, uncertainty: `(1, H, W)`.
        caption: what is seen, in one sentence.

    Raises:
        ValueError: shapes that differ, or an uncertainty that is nowhere positive.

    Source:
        Wickstrøm et al. 2023, Eqs. 10 and 11.
    """
    shape = tuple(image.shape[1:])
    if image.dim() != 3 or any(map_.shape != (1, *shape) for map_ in (importance, uncertainty)):
        came = [tuple(each.shape) for each in (image, importance, uncertainty)]
        raise ValueError(f"image must be (3, H, W), importance and uncertainty (1, H, W), got {came}.")
    unsure = uncertainty[0].double().nan_to_num().cpu().numpy()
    if not unsure.max() > 0:
        raise ValueError("uncertainty must be positive somewhere, since ε is a multiple of its mean or median.")
    low, high = importance.min(), importance.max()
    scaled = ((importance[0] - low) / (high - low or 1)).cpu().numpy()
    colours = (255 * colormaps["viridis"](scaled)[..., :3]).round().astype(np.uint8)
    grey = (255 * image.mean(dim=0).clamp(0, 1)).round().byte().cpu().numpy()
    kept = u_relax(importance - low + 1, uncertainty)[0].bool().cpu().numpy()
    scale = STEPS / unsure.max()
    page = {
        "picture": _png(np.where(kept[..., None], colours, grey[..., None])),
        "colours": _text(colours),
        "grey": _text(grey),
        "spread": _text((scale * unsure).round().astype("<u2")),
        "mean": scale * unsure.mean(),
        "median": (scale * np.sort(unsure, axis=None)[(unsure.size - 1) // 2]).round(),
        "width": shape[1],
        "height": shape[0],
        "low": RANGE[0],
        "high": RANGE[1],
        "caption": caption,
        "alt": "The importance map, in colour where its uncertainty is below its mean, else the photograph in grey.",
    }
    mark = hashlib.sha256(repr(page).encode()).hexdigest()[:8]
    return HTML(PAGE.substitute(page, id=f"lfx-slider-{mark}"))


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    imsave(file, pixels.astype(np.uint8), format="png")
    return base64.b64encode(file.getvalue()).decode()
