"""Pictures that a reader chooses with two sliders, in a page that has no kernel and no network."""

import base64
import html
import io
import json

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from torch import Tensor

PAGE = """<figure id="{name}" class="lfx-viewer" style="background:#fff;color:#111;padding:.8em;border-radius:4px">
<style>#{name} .strip{{width:100%;aspect-ratio:{columns};image-rendering:pixelated;
background-image:url(data:image/png;base64,{sheet});background-size:100% {height}%;background-position:0 0}}
#{name} label{{display:inline-block;margin:.2em 1.2em .4em 0}} #{name} input{{vertical-align:middle}}
#{name} .heads{{display:flex;font-size:.8em}} #{name} .heads span{{flex:1;text-align:center}}</style>
{sliders}
<div style="max-width:46em;overflow-x:auto"><div style="min-width:calc(3em * {columns})">
<div class="heads" aria-hidden="true">{heads}</div>
<div class="strip" role="img" aria-label="{first}"></div></div></div>
<p aria-live="polite" style="margin:.3em 0 0">{first}</p>
<figcaption style="color:#333">{caption}</figcaption>
<noscript>Without JavaScript only the first row can be seen.</noscript>
<script>(() => {{
const root = document.getElementById("{name}"), strip = root.querySelector(".strip");
const words = {words}, inner = {inner}, last = {last};
const [outer, second] = root.querySelectorAll("input");
const show = () => {{
const row = outer.value * inner + +second.value;
strip.style.backgroundPosition = "0 " + 100 * row / Math.max(last, 1) + "%";
strip.setAttribute("aria-label", words[row]); root.querySelector("p").textContent = words[row];
}};
outer.oninput = second.oninput = show; show();
}})();</script></figure>"""
SLIDER = '<label>{title} <input type="range" min="0" max="{most}" value="0" step="1" aria-label="{title}"></label>'


def strips(rows: Tensor, words: list[list[str]], *, titles: tuple[str, str], heads: list[str], caption: str, name: str):
    """Show one strip of pictures at a time, chosen by two sliders.

    Args:
        rows: colours in [0, 1], `(n, m, columns, S, S, 3)`: the strip for each position of the two sliders.
        words: what each strip shows, n lists of m; read aloud, and printed below it.
        titles: of the two sliders.
        heads: one a column.
        caption: below the pictures.
        name: of the HTML element; no two on a page may share one.

    Raises:
        ValueError: words or heads that do not fit the rows.
    """
    outer, inner, columns, side, _, _ = rows.shape
    if [len(part) for part in words] != [inner] * outer or len(heads) != columns:
        raise ValueError(
            f"words must be {outer} lists of {inner} and heads {columns} strings, as rows are {tuple(rows.shape)}."
        )
    sheet = rows.clamp(0, 1).permute(0, 1, 3, 2, 4, 5).reshape(outer * inner * side, columns * side, 3)
    said = [html.escape(word, quote=True) for part in words for word in part]
    page = PAGE.format(
        name=name,
        columns=columns,
        height=100 * outer * inner,
        sheet=_png((sheet.cpu().numpy() * 255).round().astype(np.uint8)),
        sliders="\n".join(SLIDER.format(title=t, most=n - 1) for t, n in zip(titles, (outer, inner), strict=True)),
        heads="".join(f"<span>{html.escape(head)}</span>" for head in heads),
        first=said[0],
        caption=caption,
        words=json.dumps([word for part in words for word in part]).replace("<", "\\u003c"),
        inner=inner,
        last=outer * inner - 1,
    )
    return HTML(page)


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    plt.imsave(file, pixels, format="png", pil_kwargs={"optimize": True})
    return base64.b64encode(file.getvalue()).decode()
