"""Keep a long run: its records and values in `data/results`, and the encoders that it trained in `data/checkpoints`.

    python book/keep.py 04_pretext_tasks --out OUT --encoders pretext --command "papermill … -p profile paper"

Of the checkpoints `CHAPTER-TASK-SEED-RUN.pt` the encoder's weights at the best epoch are kept, one file a task, with a
card of what training was like. With `--snapshots` the whole model is kept in half precision, as it was at each snapshot
and, last, at the best epoch.
"""

import argparse
import hashlib
import json
import re
import shutil
from itertools import groupby
from pathlib import Path

import torch
from chapter import ROOT
from safetensors.torch import save_file

PART = "encoder."


def records(source: Path, target: Path, command: str, claims: str = "") -> int:
    """Write the records of a run, each with its command, over those of the same claims; return how many there are.

    Args:
        source, target: the run's file and the kept one.
        command: that gave the run.
        claims: a regular expression; of the run's claims with a number only those that it matches are kept.
    """
    kept = {row["id"]: row for row in json.loads(target.read_text(encoding="utf-8"))} if target.exists() else {}
    found = [row for row in json.loads(source.read_text(encoding="utf-8")) if row["value"] is not None]
    rows = [row for row in found if re.search(claims, row["id"])]
    kept |= {row["id"]: row | {"command": command} for row in rows}
    for row in kept.values():
        row.pop("cell", None)  # where the claim's card stands on this machine's page
    target.write_text(json.dumps(list(kept.values()), indent=1), encoding="utf-8")
    return len(kept)


def encoders(checkpoints: list[Path], chapter: str, folder: Path, about: dict, snapshots: bool = False) -> None:
    """Write one safetensors file a task, with a card that begins with `about`; parameters are named `SEED-RUN.NAME`.

    With `snapshots` they are those of whole models, named `SEED-RUN.NUMBER.NAME`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {path: path.stem.removeprefix(f"{chapter}-") for path in checkpoints}
    for task, paths in groupby(sorted(checkpoints), lambda path: names[path].split("-", 1)[0]):
        tensors, runs = {}, {}
        for path in paths:
            state = torch.load(path, weights_only=True, map_location="cpu")
            loss, best = state["best"]
            run = names[path].split("-", 1)[1]
            history = state["history"]
            if snapshots:
                for number, weights in enumerate([*history["snapshots"], best]):
                    tensors |= {f"{run}.{number}.{name}": halved(tensor) for name, tensor in weights.items()}
            else:
                encoder = {name.removeprefix(PART): tensor for name, tensor in best.items() if name.startswith(PART)}
                tensors |= {f"{run}.{name}": tensor.contiguous() for name, tensor in encoder.items()}
            runs[run] = {
                "epochs": state["epoch"],
                "best_epoch": history["best_epoch"] + 1,
                "test_loss": round(loss, 6),
                "seconds": round(history["seconds"]),
            }
        file = folder / f"{task}.safetensors"
        save_file(tensors, file)
        file.chmod(0o644)  # safetensors leaves it to its owner alone
        card = about | {"runs": runs, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        file.with_suffix(".json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in half precision if it holds fractions, else as it is."""
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous()


def main() -> None:
    """Keep what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapter")
    parser.add_argument("--out", type=Path, required=True, help="what LFX_OUT was during the run")
    parser.add_argument("--command", required=True, help="the command that a reader would repeat it with")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--claims", default="", help="keep only records whose claim's id matches this")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--encoders", help="also keep the encoders, in this folder of data/checkpoints")
    weights.add_argument("--snapshots", help="also keep models with their snapshots, in this folder")
    options = parser.parse_args()
    source, name = options.out / options.profile, f"{options.chapter}.json"
    results = ROOT / "data" / "results"
    print(records(source / name, results / name, options.command, options.claims), "records")
    for path in (source / "values").glob(f"{options.chapter}-*.csv"):
        (results / "values").mkdir(exist_ok=True)
        shutil.copyfile(path, results / "values" / path.name)
    if options.encoders or options.snapshots:
        found = list((source / "checkpoints").glob(f"{options.chapter}-*.pt"))
        folder = ROOT / "data" / "checkpoints" / (options.encoders or options.snapshots)
        row = next(row for row in json.loads((source / name).read_text(encoding="utf-8")) if row["dataset"])
        about = {"command": options.command, "licence": "As the project."}
        about |= {key: row[key] for key in ("dataset", "seed", "device", "versions")}
        encoders(found, options.chapter, folder, about, bool(options.snapshots))
        print(len(found), "encoders")


if __name__ == "__main__":
    main()
