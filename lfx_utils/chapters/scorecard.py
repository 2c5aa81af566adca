"""The scorecard: every published claim beside what the chapters recorded, as a table for readers and for machines."""

import html
import json
from pathlib import Path

import pandas as pd

from lfx_utils.chapters.ledger import DATA, VERDICTS, published, show

MISSING = "not run"
MARKS = {"reproduced": "✓", "reproduced in kind": "≈", "contradicted": "✗", "drawn": "▣", MISSING: "·"}
COLUMNS = ("paper", "row", "kind", "statement", "published", "spread", "unit", "page")
RECORDED = (
    "value", "low", "high", "verdict", "profile", "dataset", "stand_in", "provenance", "seed", "seconds", "device",
    "cell", "note", "recorded",
)  # fmt: skip


def collect(folder: Path) -> pd.DataFrame:
    """Return all claims, one row each, indexed by claim id, with the record of this run and that of a larger one.

    A claim that no chapter recorded has the verdict "not run". `larger_value`, `larger_low`, `larger_high`,
    `larger_verdict` and `larger_profile` come from the long runs kept in `data/results`, and are missing where there
    was none.

    Args:
        folder: holds one file of records a chapter, as `session.out` does.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of records at {folder}.")
    frame = published()[list(COLUMNS)].copy()
    ours, large = _records(folder), _records(DATA / "results")
    for name in RECORDED:
        frame[name] = [ours.get(claim, {}).get(name) for claim in frame.index]
    frame["verdict"] = frame["verdict"].fillna(MISSING)
    for name in ("value", "low", "high", "verdict", "profile"):
        frame[f"larger_{name}"] = [large.get(claim, {}).get(name) for claim in frame.index]
    return frame


def counts(frame: pd.DataFrame, by: str = "paper") -> pd.DataFrame:
    """Count the verdicts of `collect`'s rows: one row a paper (or page), one column a verdict that occurs."""
    table = pd.crosstab(frame[by], frame["verdict"])
    return table[[name for name in (*VERDICTS, MISSING) if name in table]].rename_axis(index=None, columns=None)


def save(frame: pd.DataFrame, folder: Path) -> tuple[Path, Path]:
    """Write the scorecard as `scorecard.csv` and `scorecard.json` (a list of records) and return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "scorecard.csv", folder / "scorecard.json"
    frame.to_csv(paths[0])
    paths[1].write_text(frame.reset_index().to_json(orient="records", indent=1), encoding="utf-8")
    return paths


def page(frame: pd.DataFrame) -> str:
    """Return the scorecard as a table in HTML that a reader can search and filter, without kernel or network."""
    options = {name: sorted(set(frame[name])) for name in ("paper", "page")}
    options["verdict"] = [name for name in (*VERDICTS, MISSING) if name in set(frame["verdict"])]
    menus = "".join(
        f'<label>{name} <select data-column="{name}"><option value="">all</option>'
        + "".join(f"<option>{html.escape(option)}</option>" for option in options[name])
        + "</select></label>"
        for name in ("paper", "page", "verdict")
    )
    body = "".join(_row(claim, row) for claim, row in frame.iterrows())
    return f"""<div class="lfx-scorecard">
<form onsubmit="return false"><label>search <input type="search" placeholder="words of a claim"></label>{menus}
<output aria-live="polite">{len(frame)} of {len(frame)} claims</output></form>
<div class="lfx-scroll" tabindex="0" role="region" aria-label="The scorecard, a wide table that scrolls">
<table><thead><tr><th>verdict</th><th>claim</th><th>published</th><th>ours</th><th>larger run</th><th>run</th></tr>
</thead><tbody>{body}</tbody></table></div></div>{SCRIPT}"""


def _records(folder: Path) -> dict[str, dict]:
    return {
        row["id"]: row for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text(encoding="utf-8"))
    }


def _row(claim: str, row: pd.Series) -> str:
    text = {name: "" if pd.isna(value) else html.escape(str(value)) for name, value in row.items()}
    where = f"{text['page']}.html" + (f"#cell-{row['cell']:.0f}" if text["cell"] else "")
    number = " ± ".join(filter(None, (text["published"], text["spread"])))
    expected = number if text["kind"] == "value" else text["kind"]
    run = ", ".join(filter(None, (text["profile"], text["dataset"], text["stand_in"])))
    run += f", seed {row['seed']:.0f}, {row['seconds']:.0f} s" if text["profile"] else ""
    large = "{}, {} ({})".format(_number(row, "larger_"), text["larger_verdict"], text["larger_profile"])
    large = large if text["larger_verdict"] else ""
    unit = f" {text['unit']}" if text["kind"] == "value" else ""
    return (
        f'<tr data-paper="{text["paper"]}" data-page="{text["page"]}" data-verdict="{text["verdict"]}">'
        f"<td>{MARKS.get(text['verdict'], '?')} {text['verdict']}</td>"
        f'<td><a href="{where}"><code>{html.escape(claim)}</code></a><br>{text["statement"]}</td>'
        f"<td>{expected}{unit}</td><td>{_number(row) if text['value'] else ''}</td><td>{large}</td>"
        f"<td>{run}<br>{text['note']}</td></tr>"
    )


def _number(row: pd.Series, prefix: str = "") -> str:
    value, low, high = (row[f"{prefix}{name}"] for name in ("value", "low", "high"))
    return show(None if pd.isna(value) else value, None if pd.isna(low) else low, None if pd.isna(high) else high)


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
