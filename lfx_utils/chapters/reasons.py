"""Why two texts are alike, as a static page: queries to choose by mouse or keyboard, coloured words, a matrix."""

import html

from IPython.display import HTML
from torch import Tensor

PLUS, MINUS = "213,94,0", "0,114,178"  # Okabe and Ito's orange and blue; minus is dotted below, too, for a grey print
STYLE = """#{name}{{background:#fff;color:#111;padding:.8em;border-radius:4px}}
#{name} fieldset{{border:0;margin:0;padding:0}} #{name} .panel{{display:none}}
#{name} .choice{{display:inline-block;margin:.15em;padding:.2em .6em;border:1px solid #666;border-radius:1em}}
#{name} .choice{{cursor:pointer}} #{name} input{{position:absolute;opacity:0}}
#{name} input:checked+.choice{{background:#111;color:#fff}}
#{name} input:focus-visible+.choice{{outline:3px solid #0072B2}} #{name} .words{{line-height:2;margin:.3em 0}}
#{name} .words span{{padding:.1em .15em;border-radius:3px}} #{name} .minus{{border-bottom:2px dotted rgb({minus})}}
#{name} .scroll{{overflow-x:auto}} #{name} table{{border-collapse:collapse;font-size:.8em;color:#111;background:#fff}}
#{name} :is(td,th){{padding:.15em .35em;text-align:center;color:#111;font-weight:normal;background-color:#fff}}
#{name} .small{{font-size:.85em;color:#333}}"""


def words(spelled: list[str], scores: Tensor, bound: float | None = None) -> str:
    """Return words as HTML, each on a ground as deep as its score is large, against the largest or `bound`."""
    bound = bound or float(scores.abs().max()) or 1.0
    return " ".join(
        f'<span dir="auto" class="{"minus" if score < 0 else "plus"}" title="{score:+.3f}" '
        f'style="background:{_shade(score, bound)}">{html.escape(word)}</span>'
        for word, score in zip(spelled, scores.tolist(), strict=True)
    )


def matrix(rows: list[str], columns: list[str], values: Tensor) -> str:
    """Return a table as HTML: a row for each word of the one text, a column for each of the other, in hundredths."""
    bound = float(values.abs().max()) or 1.0
    head = "".join(f'<th scope="col" dir="auto">{html.escape(word)}</th>' for word in columns)
    body = "".join(
        f'<tr><th scope="row" dir="auto">{html.escape(word)}</th>'
        + "".join(f'<td style="background-color:{_shade(value, bound)}">{round(100 * value)}</td>' for value in line)
        + "</tr>"
        for word, line in zip(rows, values.tolist(), strict=True)
    )
    return f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def choices(panels: dict[str, str], *, legend: str, caption: str, name: str) -> HTML:
    """Show one panel at a time; the choice is a group of radio buttons, and needs neither kernel nor script.

    Args:
        panels: what each choice shows, HTML.
        legend: what is chosen.
        caption: below the panels.
        name: of the HTML element; no two on a page may share one.
    """
    shown = " ".join(f"#{name}:has(#{name}-{i}:checked) .panel-{i}{{display:block}}" for i in range(len(panels)))
    buttons = "".join(
        f'<input type="radio" name="{name}" id="{name}-{i}"{" checked" * (i == 0)}>'
        f'<label class="choice" for="{name}-{i}">{html.escape(title)}</label>'
        for i, title in enumerate(panels)
    )
    bodies = "".join(f'<div class="panel panel-{i}">{body}</div>' for i, body in enumerate(panels.values()))
    return HTML(
        f'<figure id="{name}"><style>{STYLE.format(name=name, minus=MINUS)} {shown}</style>'
        f"<fieldset><legend>{html.escape(legend)}</legend>{buttons}</fieldset>{bodies}"
        f'<figcaption class="small">{caption}</figcaption></figure>'
    )


def _shade(score: float, bound: float) -> str:
    depth = min(0.75 * abs(score) / bound, 0.75)
    return f"rgba({PLUS if score >= 0 else MINUS},{depth:.2f})"
