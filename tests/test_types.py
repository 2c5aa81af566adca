"""What `py.typed` promises: public functions are annotated, and a type checker knows a right call from a wrong one."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lfx_utils

ROOT = Path(__file__).resolve().parents[1]
WRONG = """import torch
from lfx_utils import LabelFree, RELAX, dknn, encoders, represent, top
encoder, images = torch.nn.Flatten(), torch.rand(2, 3, 8, 8)
LabelFree("IntegratedGradients", encoder)
RELAX(encoder).attribute([images])
RELAX(encoder).attribute(images, return_uncertainty=True).shape
RELAX(encoder).attribute((images, images)).shape
represent(encoder, "images")
dknn(images)
top(images, "three")
encoders.load(3)
encoders.weights("rec")
"""
FIRST_WRONG = 4  # the line


def test_the_public_face_is_annotated():
    bare = []
    for name in lfx_utils.__all__:
        given = getattr(lfx_utils, name)
        functions = [given] if inspect.isfunction(given) else [given.__init__, given.attribute]
        for function in functions:
            parameters = inspect.signature(function).parameters.values()
            bare += [f"{name}: {each.name}" for each in parameters if each.annotation is each.empty and
                     each.name != "self" and each.kind is not each.VAR_KEYWORD]  # fmt: skip
            bare += (
                [f"{name} -> ?"]
                if function.__annotations__.get("return", "") == "" and inspect.isfunction(given)
                else []
            )
    assert bare == []


@pytest.mark.long
def test_right_calls_pass_and_wrong_ones_do_not(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "right.py").write_text("\n".join(examples), encoding="utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary",
               "--cache-dir", str(ROOT / ".mypy_cache"), "right.py", "wrong.py"]  # fmt: skip
    found = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True
    )
    errors = re.findall(r"^(\w+\.py):(\d+): error", found.stdout, re.MULTILINE)
    lines = {int(line) for file, line in errors if file == "wrong.py"}
    assert {file for file, _ in errors} == {"wrong.py"}, found.stdout + found.stderr
    assert lines == set(range(FIRST_WRONG, len(WRONG.splitlines()) + 1)), found.stdout
