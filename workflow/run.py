"""Run one notebook of a sweep, and put its records in place once it has come to its end.

    python workflow/run.py CHAPTER RECORDS --profile paper --seed 0 --parameters '{"dataset": "mnist"}' --folder DIR

Checkpoints, figures and the executed notebook stay in the folder; a second call after a kill resumes from there.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))
from chapter import complaint, completed, write  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapter")
    parser.add_argument("records", type=Path)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--parameters", type=json.loads, default={}, help="as JSON")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()

    folder, notebook = asked.folder.resolve(), ROOT / "notebooks" / f"{asked.chapter}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    executed, kept = folder / notebook.name, folder / asked.profile / f"{asked.chapter}.json"
    chosen = asked.parameters | {"profile": asked.profile, "seed": asked.seed}
    options = [word for name, value in chosen.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", str(notebook), str(executed), *options, "--no-progress-bar"]
    command += ["--kernel", "python3", "--language", "python", "--cwd", str(notebook.parent)]
    environment = os.environ | {
        "LFX_OUT": str(folder),
        "LFX_THREADS": str(asked.threads),
        "TQDM_DISABLE": "1",
        "PYTHONUTF8": "1",
    }
    environment["OMP_WAIT_POLICY"] = "passive"  # threads that spin while they wait suffer from busy neighbours
    environment |= {"OMP_NUM_THREADS": str(asked.threads), "PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}
    kept.unlink(missing_ok=True)
    status = subprocess.run(command, env=environment).returncode
    if status or not completed(executed):  # papermill, politely terminated, leaves half a notebook and exits with 0
        print(complaint(executed) or f"{asked.chapter} was cut short.", file=sys.stderr)
        return status or 1
    shown = " ".join(["papermill", f"notebooks/{notebook.name}", "out.ipynb", *options])
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    write(asked.records, json.dumps([row | {"command": shown} for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
