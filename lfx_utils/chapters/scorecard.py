"""The scorecard: every published claim beside what the chapters recorded, as a table for readers and for machines."""

import html
from pathlib import Path

import numpy as np
import pandas as pd

from lfx_utils.chapters import judgement
from lfx_utils.chapters.claims import DATA, published, stands_in
from lfx_utils.chapters.ledger import read, show, wording
from lfx_utils.chapters.verdicts import ABSENT, PENDING, VERDICTS

PAPERS = {
    "LF": "Label-Free Explainability for Unsupervised Models",
    "RE": "[Re] Label-Free Explainability (the reproduction of the former)",
    "RX": "RELAX: Representation Learning Explainability",
    "NU": "Finding NEM-U",
    "SV": "Learning invariances with a supervised VAE",
    "errata": "errata, measured by this edition",
}
GROUPS = {"table": "tables, by the order of their rows", "value": "single numbers", "uncomputable": "single numbers"}
COLUMNS = ("paper", "row", "kind", "statement", "published", "spread", "unit", "page", "table", "same_as")
NUMBERS = ("value", "low", "high")
RECORDED = (
    *NUMBERS, "verdict", "basis", "profile", "dataset", "stand_in", "provenance", "seed", "seconds", "device", "cell",
    "note", "recorded",
)  # fmt: skip


def collect(folder: Path) -> pd.DataFrame:
    """Return all claims, one row each, indexed by claim id, with the record of this run and that of a larger one.

    `verdict` and `basis` judge this run, `larger_verdict` and `larger_basis` the long run kept in `data/results`, and
    `headline` is the verdict of the larger of the two. `counted` says whether a headline counts the claim. The value
    of a table is its rho.

    Args:
        folder: holds one file of records a chapter, as `session.out` does.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of records at {folder}.")
    frame = published()[list(COLUMNS)].copy()
    ours, large = judged(folder), judged(DATA / "results")
    for name in RECORDED:
        frame[name] = [ours.get(claim, {}).get(name) for claim in frame.index]
    unseen = frame["verdict"].isna()
    for name, at in (("verdict", 0), ("basis", 1)):
        frame[name] = frame[name].where(~unseen, [judgement.missing(claim)[at] for claim in frame.index])
    for name in (*NUMBERS, "verdict", "basis", "profile", "dataset", "stand_in", "note"):
        frame[f"larger_{name}"] = [large.get(claim, {}).get(name) for claim in frame.index]
    kept = frame["larger_verdict"].notna() & (frame["larger_verdict"].ne(ABSENT) | frame["verdict"].eq(PENDING))
    frame["larger"] = kept & ~(frame["profile"].eq("paper") & frame["verdict"].ne(ABSENT))
    frame["headline"] = frame["verdict"].where(~frame["larger"], frame["larger_verdict"])
    frame["counted"] = judgement.counted()
    return frame


def judged(folder: Path) -> dict[str, dict]:
    """Return a run's records with their verdicts, and for each table a record that its cells make."""
    rows: dict[str, dict] = {}
    for path in sorted(folder.glob("*.json")):
        rows |= read(path)
    said, table = judgement.judge(rows), published().table
    for claim, each in said.items():
        if claim not in rows:  # a table
            cells = [rows[cell] for cell in table.index[table == claim] if cell in rows]
            row = cells[0] | {"id": claim, "note": "", "low": None, "high": None}
            rows[claim] = row | {"value": None if np.isnan(each.rho) else each.rho}
    return {
        claim: rows[claim] | {"verdict": each.verdict, "basis": each.basis, "stand_in": apart(rows[claim])}
        for claim, each in said.items()
    }


def apart(row: dict) -> str:
    """Say what stands in for the paper's in a record that compares with the paper."""
    return stands_in(row) if published().kind[row["id"]] in judgement.CLAIMS else row["stand_in"]


def counts(frame: pd.DataFrame, by: str = "paper", verdict: str = "headline") -> pd.DataFrame:
    """Count the verdicts of `collect`'s rows: one row a paper (or page), one column a verdict that occurs."""
    table = pd.crosstab(frame[by], frame[verdict])
    return table[[name for name in VERDICTS if name in table]].rename_axis(index=None, columns=None)


def headline(frame: pd.DataFrame, verdict: str = "headline") -> pd.DataFrame:
    """Count what papers claim, each measurement once: tables, statements with a direction, single numbers."""
    claims = frame[frame["counted"]]
    groups = claims["kind"].map(GROUPS).fillna("orders and signs").rename("claims")
    return counts(claims.assign(claims=groups), "claims", verdict)


def against(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the claims of the papers that came out the other way in the largest run at hand."""
    wrong = frame["headline"].str.match("fails|reversed|differs")
    return frame[wrong & frame["counted"]]


def cards(frame: pd.DataFrame) -> str:
    """Return a card for each row: what the paper says, what came out, and on what."""
    return "".join(card(claim, row) for claim, row in frame.iterrows())


def card(claim: str, row: pd.Series) -> str:
    """Return one claim as a card in HTML."""
    prefix = "larger_" if row["larger"] else ""
    text = {name: "" if pd.isna(value) else html.escape(str(value)) for name, value in row.items()}
    basis = text[f"{prefix}basis"] if row["kind"] in ("table", "value") else ""
    ours = basis if row["kind"] == "table" else number(row, prefix) + (f" ({basis})" if basis else "")
    on = "; ".join(filter(None, (text[f"{prefix}dataset"], text[f"{prefix}stand_in"])))
    note = f"<br>{text[f'{prefix}note']}" if text[f"{prefix}note"] else ""
    return (
        f'<div class="lfx-claim" style="border-left:3px solid #888;margin:.6em 0;padding:.1em .8em">'
        f"<b>{text['headline']}</b>: {text['statement']}<br>{html.escape(PAPERS[row['paper']])}: "
        f"<b>{html.escape(wording(published().loc[claim]))}</b> · ours: <b>{ours}</b>"
        f"{f' · on {on}' if on else ''}{note}<br>{link(claim, row)}</div>"
    )


def save(frame: pd.DataFrame, folder: Path) -> tuple[Path, Path]:
    """Write the scorecard as `scorecard.csv` and `scorecard.json` (a list of records) and return both paths.

    The headline lies beside them, for the welcome page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "scorecard.csv", folder / "scorecard.json"
    frame.to_csv(paths[0])
    headline(frame).to_csv(folder / "headline.csv", index_label="claims")
    paths[1].write_text(frame.reset_index().to_json(orient="records", indent=1), encoding="utf-8")
    return paths


def page(frame: pd.DataFrame) -> str:
    """Return the scorecard as a table in HTML that a reader can search and filter, without kernel or network."""
    options = {name: sorted(set(frame[name])) for name in ("paper", "page")}
    options["verdict"] = [name for name in VERDICTS if name in set(frame["headline"])]
    menus = "".join(
        f'<label>{name} <select data-column="{name}"><option value="">all</option>'
        + "".join(
            f'<option value="{html.escape(option)}">{html.escape(PAPERS.get(option, option))}</option>'
            for option in options[name]
        )
        + "</select></label>"
        for name in ("paper", "page", "verdict")
    )
    body = "".join(_row(claim, row) for claim, row in frame.iterrows())
    return f"""<div class="lfx-scorecard">
<form onsubmit="return false"><label>search <input type="search" placeholder="words of a claim"></label>{menus}
<output aria-live="polite">{len(frame)} of {len(frame)} claims</output></form>
<div class="lfx-scroll" tabindex="0" role="region" aria-label="The scorecard, a wide table that scrolls">
<table><thead><tr><th>verdict</th><th>claim</th><th>published</th><th>this run</th><th>larger run</th><th>on</th></tr>
</thead><tbody>{body}</tbody></table></div></div>{SCRIPT}"""


def links(folder: Path) -> str:
    """Return a paragraph that links to the values that chapters kept, for others to recompute; empty if none did."""
    names = [html.escape(path.name) for path in sorted(folder.glob("*.csv"))]
    if not names:
        return ""
    files = ", ".join(f'<a href="../_static/values/{name}">{name}</a>' for name in names)
    return f"<p>The values behind the intervals, a row for each training, image or test example: {files}.</p>"


def link(claim: str, row: pd.Series) -> str:
    """Return a claim's id as a link to the cell that recorded it, or to its chapter."""
    where = f"{row['page']}.html" + ("" if pd.isna(row["cell"]) else f"#cell-{row['cell']:.0f}")
    return f'<a href="{where}"><code>{html.escape(claim)}</code></a>'


def number(row: pd.Series, prefix: str = "") -> str:
    """Return a row's number with its interval."""
    return show(*(None if pd.isna(row[f"{prefix}{name}"]) else row[f"{prefix}{name}"] for name in NUMBERS))


def _row(claim: str, row: pd.Series) -> str:
    text = {name: "" if pd.isna(value) else html.escape(str(value)) for name, value in row.items()}
    unit = f" {text['unit']}" if text["kind"] == "value" else ""
    runs = []
    for prefix in ("", "larger_"):
        own = number(row, prefix) if text[f"{prefix}value"] else ""
        basis = f"<br>{text[f'{prefix}basis']}" if text[f"{prefix}basis"] and text["kind"] in ("table", "value") else ""
        said = f"<br>{text[f'{prefix}verdict']}" if text[f"{prefix}verdict"] else ""
        profile = f" ({text[f'{prefix}profile']})" if text[f"{prefix}profile"] else ""
        runs.append(f"<td>{own}{said}{profile}{basis}</td>")
    prefix = "larger_" if row["larger"] else ""
    on = "; ".join(filter(None, (text[f"{prefix}dataset"], text[f"{prefix}stand_in"])))
    note = text[f"{prefix}note"] or text[f"{prefix}basis"]
    return (
        f'<tr data-paper="{text["paper"]}" data-page="{text["page"]}" data-verdict="{text["headline"]}">'
        f"<td>{text['headline']}</td><td>{link(claim, row)}<br>{text['statement']}</td>"
        f"<td>{html.escape(wording(published().loc[claim]))}{unit}</td>{''.join(runs)}"
        f"<td>{on}<br>{note}</td></tr>"
    )


SCRIPT = """<script>
(() => {
  const card = document.currentScript.previousElementSibling, form = card.querySelector("form");
  const rows = [...card.querySelectorAll("tbody tr")];
  const words = rows.map(row => row.textContent.toLowerCase());
  form.addEventListener("input", () => {
    const asked = form.querySelector("input").value.toLowerCase().split(/\\s+/);
    const menus = [...form.querySelectorAll("select")];
    let count = 0;
    rows.forEach((row, n) => {
      const fits = menus.every(menu => !menu.value || row.dataset[menu.dataset.column] === menu.value)
        && asked.every(word => words[n].includes(word));
      row.hidden = !fits;
      count += fits;
    });
    form.querySelector("output").textContent = `${count} of ${rows.length} claims`;
  });
})();
</script>"""
