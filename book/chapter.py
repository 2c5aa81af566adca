"""One chapter of the book: what it was made from, its execution by papermill, its page."""

import json
import os
import re
import subprocess
import sys
import time
from datetime import date
from functools import cached_property
from pathlib import Path

import changes
import folds

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
# Kernels that start at the same moment can be given the same port; the loser says one of these before any cell has run.
UNSTARTED = ("Kernel died before replying to kernel_info", "Kernel didn't respond in", "Address already in use")
SHOWN = ("python", "torch", "captum", "numpy")  # of the versions, at the foot of a page


def write(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def plain(text: str) -> str:
    """Return text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class Chapter:
    """One notebook at one profile and seed: its files, whether it is fresh, and how to execute it.

    A notebook whose metadata say `"lfx": {"gathers": true}` reads the others' records and is executed after them.
    """

    def __init__(self, name: str, profile: str, seed: int):
        self.name, self.profile, self.seed = name, profile, seed
        self.source = ROOT / "notebooks" / f"{name}.ipynb"
        if not self.source.is_file():
            sys.exit(f"_toc.yml names the chapter notebooks/{name}, but there is no notebooks/{name}.ipynb.")
        kept = BUILD / "notebooks" / profile
        self.executed, self.failed = kept / f"{name}.ipynb", kept / f"{name}.failed.ipynb"
        self.running, self.stamp = kept / f".{name}.running.ipynb", kept / f"{name}.json"
        self.records = BUILD / "results" / profile / f"{name}.json"
        self.gathers = (
            json.loads(self.source.read_text(encoding="utf-8"))["metadata"].get("lfx", {}).get("gathers", False)
        )

    @cached_property
    def key(self) -> str:
        """The hash of what the outputs depend on; for a chapter that gathers, of the others' records too."""
        others = [path for path in self.records.parent.glob("*.json") if path != self.records] if self.gathers else []
        return changes.key(json.loads(self.source.read_text(encoding="utf-8")), ROOT, self.profile, self.seed, others)

    def past(self) -> dict:
        """Return the stamp of the last finished execution, fresh or not; empty if there is none."""
        try:
            return json.loads(self.stamp.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def fresh(self) -> bool:
        """Say whether the kept execution is what an execution now would be."""
        past = self.past()
        whole = self.executed.is_file() and (self.records.is_file() or not past.get("records"))
        return whole and past.get("key") == self.key

    def execute(self, environment: dict[str, str], running: set) -> str:
        """Execute the notebook in a process of its own; return what went wrong, or nothing."""
        self.running.parent.mkdir(parents=True, exist_ok=True)
        self.stamp.unlink(missing_ok=True)  # from here on the records are those of this run
        self.failed.unlink(missing_ok=True)
        parameters = ["-p", "profile", self.profile, "-p", "seed", str(self.seed)]
        command = [sys.executable, "-m", "papermill", str(self.source), str(self.running), *parameters]
        command += ["--kernel", "python3", "--language", "python", "--no-progress-bar"]
        command += ["--cwd", str(self.source.parent)]
        started = time.perf_counter()
        for last in (False, False, True):
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                start_new_session=True,
            )  # fmt: skip
            running.add(process)
            log, _ = process.communicate()
            running.discard(process)
            killed = process.returncode < 0  # by whoever interrupts the build
            if last or killed or not any(words in log for words in UNSTARTED):
                break
        if process.returncode:
            if self.running.is_file():
                self.running.replace(self.failed)
            return complaint(self.failed) or "\n".join(log.strip().splitlines()[-15:])
        if not completed(self.running):
            self.running.replace(self.failed)
            return "because its execution was cut short."
        self.running.replace(self.executed)
        made = {
            "key": self.key,
            "seconds": round(time.perf_counter() - started, 1),
            "date": date.today().isoformat(),
            "threads": int(environment["LFX_THREADS"]),
            "versions": changes.versions(),
            "records": self.records.is_file(),
        }
        write(self.stamp, json.dumps(made, indent=1))
        return ""

    def page(self) -> str:
        """Return today's text with the kept outputs, and a last line that says how they were made."""
        page, made = json.loads(self.source.read_text(encoding="utf-8")), self.past()
        done = json.loads(self.executed.read_text(encoding="utf-8"))
        page["metadata"]["language_info"] = done["metadata"]["language_info"]
        done = [cell for cell in done["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
        outputs = iter([cell for cell in done if cell["cell_type"] == "code"])
        sources = {row["cell"] for row in self.recorded() if row.get("cell")}
        cells, page["cells"] = page["cells"], []
        for cell, label in zip(cells, folds.labels(cells)):
            if cell["cell_type"] == "code":
                twin = next(outputs)
                number = twin["execution_count"]
                cell |= {"outputs": twin["outputs"], "execution_count": number}
                if label:
                    tags = cell["metadata"].get("tags", [])
                    cell["metadata"]["tags"] = tags if folds.HIDDEN & set(tags) else [*tags, "hide-input"]
                    cell["metadata"].setdefault("mystnb", {}).update(code_prompt_show=label, code_prompt_hide=label)
                if number in sources:  # the scorecard links to the cell that recorded a claim
                    tags = [tag for tag in cell["metadata"].get("tags", []) if tag == "audit"]
                    mark = {"cell_type": "markdown", "id": f"mark-{number}", "metadata": {"tags": tags}}
                    page["cells"].append(mark | {"source": f'<div id="cell-{number}"></div>'})
            page["cells"].append(cell)
        data = sorted({row["dataset"] for row in self.recorded() if row.get("dataset")})
        software = ", ".join(f"{name} {number}" for name, number in made["versions"].items() if name in SHOWN)
        foot = (
            f"Executed on {made['date']} in {made['seconds']:.0f} s on {made['threads']} CPU "
            f"thread{'s' * (made['threads'] > 1)}, profile `{self.profile}`, seed {self.seed}; {software}"
            + (f"; data: {', '.join(data)}." if data else ".")
        )
        foot = f":::{{div}} lfx-foot\n{foot}\n:::"
        page["cells"].append({"cell_type": "markdown", "id": "lfx-foot", "metadata": {}, "source": foot})
        return json.dumps(page, indent=1)

    def figures(self) -> list[str]:
        """Return a line a captioned figure: a link that shows its caption."""
        cells = json.loads(self.source.read_text(encoding="utf-8"))["cells"]
        labelled = [cell["metadata"].get("mystnb", {}).get("figure", {}) for cell in cells]
        return [f"- {{ref}}`{figure['name']}`" for figure in labelled if "name" in figure]

    def recorded(self) -> list[dict]:
        """Return what the chapter recorded in the ledger."""
        return json.loads(self.records.read_text(encoding="utf-8")) if self.records.is_file() else []


def completed(notebook: Path) -> bool:
    """Say whether every cell ran to its end: papermill, when terminated, leaves half a notebook and exits with 0."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return all(cell["metadata"].get("papermill", {}).get("status") == "completed" for cell in cells)


def complaint(notebook: Path) -> str:
    """Return the last lines of the traceback in a failed notebook; nothing if there is none."""
    if not notebook.is_file():
        return ""
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                lines = plain("\n".join(output["traceback"])).splitlines()
                return "\n".join([f"in cell {number}:", *lines[-12:]])
    return ""
