"""The wheel, installed beside no clone: README's code runs, and every trained encoder and decoder is at hand."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lfx_utils import encoders
from lfx_utils.encoders import shipped

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "lfx_utils", "data/checkpoints")
FOUND = """
import importlib, json, pathlib, pkgutil
import lfx_utils
from lfx_utils import encoders
from lfx_utils.chapters import ledger
from lfx_utils.nemu import shipped

for module in pkgutil.walk_packages(lfx_utils.__path__, "lfx_utils."):
    importlib.import_module(module.name)
for name in encoders.names():
    encoders.load(name)
package = pathlib.Path(lfx_utils.__file__).parent
decoders = sorted(path.stem for path in shipped.FOLDER.glob("*.safetensors"))
first = shipped.shipped(*decoders[0].split("-on-"))[shipped.PUBLISHED]
try:
    ledger.published()
except FileNotFoundError as error:
    complaint = str(error)
print(json.dumps([str(package), (package / "py.typed").is_file(), encoders.names(), decoders, list(first.shape),
                  len(encoders.weights("rec", "0-0")), len(encoders.snapshots("0")), complaint]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Build the wheel, install it into a fresh environment, and return that one's interpreter.

    The environment sees what is installed beside this interpreter, but not the editable package.
    """
    here = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, here / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (here / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, here / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    run([*pip, "wheel", str(here / "source"), "--no-build-isolation", *offline, "--wheel-dir", str(here)], here)
    shutil.rmtree(here / "source")
    run([sys.executable, "-m", "venv", "--without-pip", str(here / "venv")], here)
    made = here / "venv" / "bin" / "python"
    (wheel,) = here.glob("*.whl")
    run([*pip, "--python", str(made), "install", *offline, str(wheel)], here)
    (packages,) = (here / "venv").glob("lib/python*/site-packages")
    beside = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "beside.pth").write_text("\n".join(beside), encoding="utf-8")  # whose own .pth files are not read
    return made


def run(command, folder):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LFX_DATA")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_what_ships_is_found(python, tmp_path):
    package, typed, names, decoders, shape, layers, snapshots, complaint = json.loads(
        run([python, "-c", FOUND], tmp_path)
    )
    assert Path(package).is_relative_to(python.parents[1]) and typed
    assert tuple(names) == encoders.names()
    assert decoders == sorted(path.stem for path in (shipped.CHECKPOINTS / "nem-u").glob("*.safetensors"))
    assert shape == [3, 224, 224] and layers == len(encoders.weights("rec", "0-0"))
    assert snapshots == len(encoders.snapshots("0"))
    assert "work from a clone" in complaint  # what only the chapters need


@pytest.mark.long
def test_readme_runs(python, tmp_path):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    where = "import lfx_utils\nprint(lfx_utils.__file__)\n"
    printed = run([python, "-c", where + "\n".join(examples)], tmp_path).splitlines()
    assert Path(printed[0]).is_relative_to(python.parents[1]) and printed[-1].startswith("torch.Size")


def test_a_package_without_its_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "CHECKPOINTS", tmp_path)
    assert encoders.names() == ()
    for load in (lambda: encoders.load("scenes-dino"), lambda: encoders.weights("rec", "0-0")):
        with pytest.raises(FileNotFoundError, match="holds no weights; install the package's wheel, or use a clone"):
            load()
