"""What the repository promises of itself: links, contents, addresses, the example in the README, the commands."""

import ast
import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]


def test_profiles_are_those_of_the_package():
    from lfx_utils.chapters.session import PROFILES

    text = (ROOT / "book" / "build.py").read_text(encoding="utf-8")
    assert f"PROFILES = {PROFILES}".replace("'", '"') in text


def test_the_package_asks_for_what_the_requirements_ask_for():
    asked = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["dependencies"]) <= set(asked)


def test_the_constraints_name_every_requirement_and_every_version_of_the_kept_results():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))
    asked = re.findall(r"^([\w-]+)[><=]", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(asked) > 20 and set(asked) <= set(pins)
    paths = (ROOT / "data" / "results").glob("*.json")
    rows = [row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))]
    kept = {(name.capitalize() if name == "python" else name, number) for row in rows
            for name, number in row["versions"].items()}  # fmt: skip
    pinned = {each for each in kept if pins.get(each[0]) == each[1].split("+")[0]}  # for any device
    assert kept and [each for each in kept - pinned if " ".join(each) not in text] == []


def test_pages_in_the_contents_exist():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]
    assert [file for file in files if not ((ROOT / f"{file}.md").is_file() or (ROOT / f"{file}.ipynb").is_file())] == []
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} <= {Path(file).name for file in files}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    inside = [link.split("#")[0] for link in links if not re.match(r"https?:|mailto:|#", link)]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_the_public_address_is_written_the_same_everywhere():
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    texts = [
        path.read_text(encoding="utf-8")
        for path in [*PAGES, ROOT / "CITATION.cff", *(ROOT / "notebooks").glob("*.ipynb")]
    ]
    written = {link for text in texts for link in re.findall(r"https://github\.com/[\w-]+/executable-edition", text)}
    assert written == {address}


def tracked() -> list[Path]:
    """Return the text files of the repository: what git tracks and what it would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    suffixes = {".py", ".md", ".ipynb", ".yml", ".toml", ".txt", ".csv", ".json", ".bib", ".css", ".svg", ""}
    files = [ROOT / name for name in listed.stdout.splitlines()]
    return [path for path in files if path.suffix in suffixes and path.is_file()]


def test_no_path_of_one_machine_is_written_down():
    own = r"(?<![\w.:/~-])/(?:home|root|Users|work|workspace|mnt|tmp|opt|scratch)/\w"
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()[:120]}"
        for path in tracked()
        for line in path.read_text(errors="ignore", encoding="utf-8").splitlines()
        if re.search(own, line)
    ]
    assert found == []


def sources():
    """Yield the name and the syntax tree of every Python file, and of every chapter's code."""
    for path in tracked():
        if path.suffix == ".py":
            yield path.name, ast.parse(path.read_text(encoding="utf-8"))
        elif path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            yield path.name, ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", code, flags=re.MULTILINE))


def depends_on_the_locale(call: ast.Call) -> bool:
    """Say whether a call reads or writes text without naming the encoding."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name != "open":
        return name in ("read_text", "write_text")
    modes = call.args[:1] if isinstance(call.func, ast.Attribute) else call.args[1:2]
    modes += [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    return not modes or (isinstance(modes[0], ast.Constant) and bool(re.fullmatch("[rwaxt+]+", str(modes[0].value))))


@pytest.mark.parametrize(
    ("code", "depends"),
    [
        ("path.read_text()", True), ("path.read_text(encoding='utf-8')", False), ("open(name)", True),
        ("open(name, 'rb')", False), ("path.open('w', newline='')", True), ("Image.open(path)", False),
        ("path.open(mode='r')", True), ("path.write_text(text)", True),
    ],
)  # fmt: skip
def test_what_depends_on_the_locale_is_found(code, depends):
    assert depends_on_the_locale(ast.parse(code, mode="eval").body) == depends


def test_text_is_read_and_written_as_utf_8():
    calls = [(name, node) for name, tree in sources() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [f"{name}: {ast.unparse(call)}" for name, call in calls if depends_on_the_locale(call)] == []


def test_one_formatter_setting_everywhere():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_in_the_readme_run_as_printed():
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2 and len(examples[0].strip().splitlines()) <= 22
    program = "\n".join(examples)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    *both, shapes = done.stdout.splitlines()
    sums, gains = (json.loads(line[line.index("[") :]) for line in both)
    assert sums == pytest.approx(gains, rel=0.05)
    assert shapes.startswith("torch.Size([2, 1, 64, 64]) torch.Size([2, 1, 64, 64]) [[")


def test_the_public_face_is_the_page_s_and_runs_in_ten_lines():
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    table = page[page.index("| name |") : page.index("## Room by room")]
    named = {name for line in table.strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    program = (
        f"{example}\nimport lfx_utils\nprint(sorted(lfx_utils.__all__))\nprint(maps.shape, masks.shape, nearest.shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    face, shapes = done.stdout.splitlines()
    assert set(ast.literal_eval(face)) == named - {"encoders", "datasets"}
    assert shapes.startswith("torch.Size([2, 3, 64, 64]) torch.Size([2, 1, 64, 64])")


def test_the_package_imports_nothing_slow_that_torch_and_captum_do_not():
    code = """
        import sys, torch, captum
        before = set(sys.modules)
        import lfx_utils
        print(*set(sys.modules) - before)
        import lfx_utils.datasets, lfx_utils.encoders, lfx_utils.measures, lfx_utils.nemu, lfx_utils.relax
        print(*set(sys.modules) - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    face, rooms = ({name.partition(".")[0] for name in line.split()} for line in done.stdout.splitlines())
    slow = {"torchvision", "scipy", "sklearn", "pandas", "matplotlib", "IPython", "timm", "sympy"}
    assert "lfx_utils" in face and face & (slow | {"skimage", "PIL"}) == set()
    assert rooms & slow == set()


def test_make_without_a_fitting_python_says_so(tmp_path):
    missing = subprocess.run(
        ["make", "book", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert missing.returncode != 0 and not (tmp_path / "venv").exists()
    assert "Python 3.11 or newer is needed, and there is no no-such-python" in missing.stdout


def test_every_module_or_its_folder_is_in_the_reference():
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "book" / "api").glob("*.md")]
    listed = {name for page in pages for name in re.findall(r"automodule:: (\S+)", page)}
    files = [init.parent.glob("[!_]*.py") for init in (ROOT / "lfx_utils").rglob("__init__.py")]
    public = {".".join(path.relative_to(ROOT).with_suffix("").parts) for folder in files for path in folder}
    assert "lfx_utils.features.label_free" in public
    assert [name for name in public if not {name, name.rpartition(".")[0]} & listed] == []
