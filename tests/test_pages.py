"""The pages of the built book: what is mended after typesetting, the front pages' promises, and a look in a browser."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
BOOK, WELCOME = ROOT / "book", ROOT / "book" / "_static" / "welcome"
sys.path.insert(0, str(BOOK))
import pages  # noqa: E402
import source_links  # noqa: E402

HEAD = """<html><head><meta name="viewport" content="width"><meta name="viewport" content="width">
<meta property="og:title" content="The book"><title>Masks — The book</title>
<script>document.documentElement.dataset.mode = localStorage.getItem("mode") || "";</script>
<script>const THEBE_JS_URL = "1"</script><script src="_static/sphinx-thebe.js"></script><script src="a.js"></script>
<script src="a.js"></script><script src="searchindex.js"></script><script>window.MathJax = {}</script>
<script defer src="_static/mathjax/tex-chtml.js"></script></head>"""
BODY = """<body><article><h1>Masks<a class="headerlink" href="#">#</a></h1><p>Short.</p>
<p>A mask hides a part of \\(x\\). It is a tensor. A third sentence that is rather long, so that all of them together
do not fit into what a search engine shows of a page.</p>
<table><thead><tr><th>a</th></tr></thead><tbody><tr><th>b</th><td>1</td></tr></tbody></table>
<img src="one.png"><img src="two.png"></article></body></html>"""


def finished(tmp_path: Path, name: str = "masks.html", body: str = BODY) -> BeautifulSoup:
    (tmp_path / name).write_text(HEAD + body, encoding="utf-8")
    pages.finish(tmp_path)
    return BeautifulSoup((tmp_path / name).read_text(encoding="utf-8"), "html.parser")


def test_a_finished_page_holds_no_script_twice_none_for_kernels_and_the_search_index_only_where_one_searches(tmp_path):
    page, search = finished(tmp_path), finished(tmp_path, "search.html")
    scripts = [script.get("src") or script.string for script in page.find_all("script")]
    assert not any("thebe" in script.lower() for script in scripts)
    assert scripts.count("a.js") == 1 and len(page.find_all("meta", attrs={"name": "viewport"})) == 1
    assert "searchindex.js" not in scripts and search.find("script", src="searchindex.js")
    assert any('getItem("mode") || "auto"' in script for script in scripts)


def test_mathjax_stays_where_a_formula_is_and_goes_where_none_is(tmp_path):
    assert finished(tmp_path).find("script", src=re.compile("mathjax"))
    plain = finished(tmp_path, "plain.html", BODY.replace("\\(x\\)", "x"))
    assert not plain.find("script", src=re.compile("mathjax")) and "MathJax" not in str(plain.head)


def test_a_page_is_described_by_its_first_whole_sentences(tmp_path):
    page = finished(tmp_path)
    said = {tag.get("name") or tag.get("property"): tag["content"] for tag in page.find_all("meta")}
    assert said["description"] == said["og:description"] == "A mask hides a part of x. It is a tensor."
    assert said["og:title"] == "Masks" and page.title.string == "Masks — The book"
    assert pages.beginning("word " * 60, 20) == "word word word …"


def test_head_cells_have_a_scope_and_all_pictures_but_the_first_wait(tmp_path):
    from PIL import Image

    Image.new("RGB", (30, 20)).save(tmp_path / "two.png")
    page = finished(tmp_path, body=BODY + f'<article><img src="data:image/png;base64,{"A" * 5_000}"></article>')
    assert [cell["scope"] for cell in page.find_all("th")] == ["col", "row"]
    one, two, held = page.find_all("img")
    assert not one.has_attr("loading") and two["loading"] == "lazy"
    assert (two["width"], two["height"]) == ("30", "20") and not one.has_attr("width")
    assert two.parent["href"] == "two.png" and "a" not in (one.parent.name, held.parent.name)


def test_an_arrow_of_the_contents_has_a_name(tmp_path):
    nav = "<nav><details><summary><i></i></summary></details><details><summary>More</summary></details></nav>"
    bare, named = finished(tmp_path, body=BODY + nav).select("nav summary")
    assert bare["aria-label"] == "Pages below this one" and not named.has_attr("aria-label")


def test_source_links_lead_to_the_lines_of_the_object():
    def lines(module, name):
        return source_links.address("py", {"module": module, "fullname": name})

    home = f"{source_links.REPOSITORY['url']}/blob/main/lfx_utils/"
    found = lines("lfx_utils.models.vae", "VAE.decode")
    place, first, last = re.fullmatch(rf"{home}(.+)#L(\d+)-L(\d+)", found).groups()
    code = (ROOT / "lfx_utils" / place).read_text(encoding="utf-8").splitlines()[int(first) - 1 : int(last)]
    assert code[0].strip().startswith("def decode(") and code[-1].strip() == "return self.decoder(latents).sigmoid()"
    assert lines("lfx_utils.models.vae", "Pass.logits") is None and lines("lfx_utils.models.vae", "nothing") is None
    assert source_links.address("c", {"module": "lfx_utils", "fullname": "x"}) is None


STRANGER = """
import torch
from torch import nn

class Stranger(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = nn.Sequential(nn.Conv2d(2, 6, 5, padding=2), nn.GELU(), nn.Dropout(0.5), nn.MaxPool2d(3))
        self.query, self.out = nn.Parameter(torch.randn(6)), nn.Linear(6, 17)

    def forward(self, images):
        places = self.steps(images).flatten(2)
        weights = torch.einsum("c,bcp->bp", self.query, places).softmax(dim=1)
        return self.out(torch.einsum("bp,bcp->bc", weights, places)).tanh()

torch.manual_seed(0)
my_encoder, my_images = Stranger(), torch.rand(2, 2, 36, 45)
"""
CHECKED = """
with torch.no_grad():
    h, h_nothing = encoder(images), encoder(nothing)
print(gradients.flatten(1).sum(1).tolist(), (h * (h - h_nothing)).sum(1).tolist())
print(masking.shape, doubt.shape, len(plt.gcf().axes), len({round(x, 6) for x in masking.flatten().tolist()}) > 100)
"""


def test_the_code_of_the_five_minutes_explains_an_encoder_that_nobody_has_seen(tmp_path):
    import five_minutes

    block = five_minutes.code()
    assert len(block.strip().splitlines()) <= 15
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER + block + CHECKED],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sums, shapes = done.stdout.strip().splitlines()
    found, due = json.loads(sums.replace("] [", "], [").join("[]"))
    assert found == pytest.approx(due, rel=0.02, abs=1e-4)
    assert shapes == "torch.Size([2, 1, 36, 45]) torch.Size([2, 1, 36, 45]) 3 True"


def test_the_passes_on_the_page_of_methods_are_those_that_an_encoder_counts():
    import torch
    from captum.attr import IntegratedGradients
    from torch import nn

    from lfx_utils import NEMU, RELAX, LabelFree, dknn, lafam, represent

    class Counting(nn.Sequential):
        rows = 0

        def forward(self, images):
            self.rows += len(images)
            return super().forward(images)

    torch.manual_seed(0)
    trunk = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    encoder = Counting(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    image, train = torch.rand(1, 3, 32, 32), torch.rand(20, 3, 32, 32)
    nemu = NEMU(encoder, decoder="thin").fit(train, epochs=1)
    ways = {
        "Integrated Gradients": lambda: LabelFree(IntegratedGradients, encoder).attribute(image, image * 0, n_steps=32),
        "RELAX": lambda: RELAX(encoder).attribute(image, n_masks=1_000),
        "NEM-U": lambda: nemu.attribute(image),
        "LaFAM": lambda: lafam(encoder, encoder[3], image),
        "DKNN": lambda: dknn(represent(encoder, image), represent(encoder, train)),
    }
    counted = {}
    for name, explain in ways.items():
        encoder.rows = 0
        explain()
        counted[name] = encoder.rows
    lines = (BOOK / "which-method.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1:] for line in lines if "|" in line]
    for name, passes in counted.items():
        (cell,) = [row[2].strip() for row in rows if row[0].strip().removeprefix("{term}`").startswith(name)]
        printed = int(re.search(r"[\d,]+", cell)[0].replace(",", ""))
        assert printed + (len(train) if "$N" in cell else 0) == passes, name


def welcome() -> dict:
    states = (WELCOME / "states.js").read_text(encoding="utf-8")
    return json.loads(states.removeprefix("window.lfxWelcome = ").rstrip(";\n"))


def test_the_player_is_small_whole_and_made_from_the_encoders_that_ship():
    from lfx_utils import encoders

    data = welcome()
    assert sum(path.stat().st_size for path in WELCOME.iterdir()) <= 500_000
    every = {(one["photograph"], one["encoder"], one["method"]) for one in data["states"]}
    assert len(every) == len(data["states"]) == 6 * 3 * 6
    assert data["weights"] == {name: encoders.card(name)["sha256"] for name in data["weights"]}


def test_each_sentence_of_the_player_says_what_its_numbers_say():
    import welcome as made

    data = welcome()
    assert data["settings"] == made.SETTINGS
    for one in data["states"]:
        part, box = made.PHOTOGRAPHS[one["photograph"]][1:]
        assert one["sentence"] == made.said(one["method"], one["numbers"], part)
        if one["numbers"] and one["method"] != "examples":
            left, top, right, bottom = box
            assert one["numbers"]["area"] == pytest.approx((right - left) * (bottom - top) / made.SIDE**2)
            assert 0 <= one["numbers"]["share"] <= 1


def test_the_measure_behind_the_sentences_tells_a_map_on_the_part_from_one_beside_it():
    import welcome as made

    on, even = made.boxes().float(), made.boxes().float() * 0 + 1
    assert all(one["share"] == pytest.approx(1) for one in made.aimed(on.numpy()))
    assert all(one["share"] == 0 for one in made.aimed((1 - on).numpy()))
    assert all(one["share"] == pytest.approx(one["area"]) for one in made.aimed(even.numpy()))
    assert "about the share of a random map" in made.said("ig", {"share": 0.1, "area": 0.1}, "the head")
    assert "0.5 times" in made.said("ig", {"share": 0.05, "area": 0.1}, "the head")


# What a reader meets, measured in a browser.

MEASURE = (Path(__file__).with_name("browser.js")).read_text(encoding="utf-8")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def built(folder: Path) -> Path:
    """Return the built book if it is newer than its sources; else typeset the pages that need no notebook."""
    html = ROOT / "_build" / "html"
    mark = html / ".made-from"
    sources = [path for path in (*BOOK.rglob("*"), *(ROOT / "notebooks").glob("*.ipynb")) if path.is_file()]
    if mark.is_file() and mark.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return html
    source = folder / "source"
    shutil.copytree(BOOK, source / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name in ("verdicts", "times"):
        (source / "book" / "generated").mkdir(exist_ok=True)
        (source / "book" / "generated" / f"{name}.md").write_text("none\n", encoding="utf-8")
    front = (
        "in-five-minutes",
        "which-method",
        "how-to-use",
        "notation",
        "glossary",
        "api",
        "api/relax",
        "api/features",
    )
    toc = {"format": "jb-book", "root": "book/index", "chapters": [{"file": f"book/{name}"} for name in front]}
    (source / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    import build

    (source / "_config.yml").write_text(yaml.safe_dump(build.configuration()), encoding="utf-8")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run([*command, "--path-output", str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2_000:]
    pages.finish(folder / "_build" / "html")
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a browser measures on every page of the table of contents, by page."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    folder = built(tmp_path_factory.mktemp("book"))

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base, found = f"http://127.0.0.1:{server.server_port}", {}
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        for path in sorted({*folder.glob("book/**/*.html"), *folder.glob("notebooks/*.html"), folder / "search.html"}):
            name, errors = path.relative_to(folder).as_posix(), []
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.on("console", lambda message, errors=errors: message.type == "error" and errors.append(message.text))
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.on(
                "request", lambda r, errors=errors: r.url.startswith((base, "data:", "blob:")) or errors.append(r.url)
            )
            page.goto(f"{base}/{name}", wait_until="load")
            page.wait_for_timeout(500)
            found[name] = page.evaluate(MEASURE) | {"errors": errors}
            page.set_viewport_size({"width": 390, "height": 844})
            page.wait_for_timeout(200)
            found[name]["phone"] = page.evaluate("document.documentElement.scrollWidth")
            page.close()
        acted = {
            "player": played(browser, f"{base}/book/index.html"),
            "search": searched(browser, f"{base}/search.html"),
        }
        browser.close()
    server.shutdown()
    return {"pages": found} | acted


def played(browser, address: str) -> list[str]:
    """Go through the player by keyboard alone, once along each group; return the sentences met."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    said = []
    for group in ("photograph", "encoder", "method"):
        page.focus(f"input[name=lfx-{group}]:checked")
        for _ in range(page.locator(f"input[name=lfx-{group}]").count()):
            page.keyboard.press("ArrowRight")
            said.append(page.inner_text(".lfx-said p"))
    page.close()
    return said


def searched(browser, address: str) -> tuple[str, str]:
    """Search for a word; return the first result's title and excerpt."""
    page = browser.new_page()
    page.goto(f"{address}?q=relax")
    page.wait_for_selector("ul.search li p.context", timeout=20_000)
    first = page.inner_text("ul.search li:first-child a"), page.inner_text("ul.search li:first-child p.context")
    page.close()
    return first


FAULTS = {
    "errors on the console, or asks elsewhere": lambda page: page["errors"],
    "wider than a phone": lambda page: page["phone"] > 390,
    "tables that do not fit": lambda page: page["wide"],
    "pictures without words": lambda page: page["noAlt"],
    "formulas in the order of tabs": lambda page: page["formulaStops"],
    "head cells without a scope": lambda page: page["noScope"],
    "folds of one label": lambda page: page["sameLabels"],
    "visible cells that draw": lambda page: page["plotting"],
    "no description": lambda page: not page["description"] and page["article"],
}


def lost_links(shown: dict) -> list[tuple[str, str, str]]:
    ids = {name: set(page["ids"]) for name, page in shown.items()}
    links = [(name, *link) for name, page in shown.items() for link in page["links"]]
    return [(name, to, anchor) for name, to, anchor in links if to in ids and anchor and anchor not in ids[to]]


def late_pictures(shown: dict) -> dict[str, int | None]:
    """The welcome page and the chapters that do not begin with a picture, and where their first one is."""
    audits = re.compile("tables|evidence|audit|scorecard|companion")
    first = [name for name in shown if name.startswith("notebooks/") and not audits.search(name)]
    tops = {name: shown[name]["firstPicture"] for name in ("book/index.html", "book/which-method.html", *first)}
    return {name: top for name, top in tops.items() if top is None or top > 800}


@pytest.mark.long
def test_the_pages_in_a_browser(seen):  # one test, since one process opens the browser once
    shown = seen["pages"]
    found = {fault: {name: of(page) for name, page in shown.items() if of(page)} for fault, of in FAULTS.items()}
    found |= {"links to nowhere": lost_links(shown), "first picture too low": late_pictures(shown)}
    assert {fault: pages for fault, pages in found.items() if pages} == {}
    assert len(seen["player"]) == 15 and len(set(seen["player"])) >= 12
    title, excerpt = seen["search"]
    assert "RELAX" in title and "RELAX" in excerpt and not re.search(r"Contents|Print|\\\(|[#{}]", excerpt)
