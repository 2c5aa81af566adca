"""The slider's page: what it carries, what it asks of the network (nothing), and what it draws."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.image import imread

from lfx_utils.chapters.slider import slider
from lfx_utils.relax import u_relax


@pytest.fixture
def maps():
    torch.manual_seed(0)
    return torch.rand(3, 12, 16), torch.rand(1, 12, 16), 1 + 0.1 * torch.rand(1, 12, 16)


def test_it_is_whole_and_small(maps):
    page = slider(*maps, "A caption.").data
    assert not re.search(r"https?:|src=\"(?!data:)", page) and len(page) < 400_000 and "A caption." in page
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    by_name = dict(tags)
    assert by_name["img"]["alt"] and by_name["input"]["type"] == "range" and by_name["canvas"]["role"] == "img"
    assert page.count("<label>") == 1 and "$" not in page.replace("${", "")
    assert page == slider(*maps, "A caption.").data


def test_the_picture_without_scripts_is_u_relax(maps):
    image, importance, uncertainty = maps
    png = re.search(r"base64,([^\"]+)", slider(*maps, "").data)[1]
    picture = (255 * imread(io.BytesIO(base64.b64decode(png)))[..., :3]).round()
    scaled = ((importance - importance.min()) / (importance.max() - importance.min()))[0].numpy()
    kept = u_relax(importance, uncertainty)[0].bool().numpy()
    assert np.abs(picture[kept] - 255 * colormaps["viridis"](scaled)[kept][:, :3]).max() <= 1
    assert np.abs(picture[~kept] - 255 * image.mean(0).numpy()[~kept][:, None]).max() <= 1


@pytest.mark.parametrize("aggregate", ["mean", "median"])
@pytest.mark.parametrize("gamma", [0.97, 1.0, 1.02])
def test_the_scripts_threshold_is_that_of_u_relax(maps, aggregate, gamma):
    """The comparison that the script makes, on the numbers that it carries."""
    page = slider(*maps, "").data
    spread = np.frombuffer(base64.b64decode(re.search(r"Uint16Array\(bytes\(\"([^\"]+)", page)[1]), "<u2")
    typical = dict(zip(("mean", "median"), map(float, re.search(r"typical = \[(.+?)\]", page)[1].split(","))))
    kept = u_relax(maps[1], maps[2], gamma, aggregate).bool().flatten().numpy()
    assert (spread < gamma * typical[aggregate]).tolist() == kept.tolist()


@pytest.mark.skipif(shutil.which("node") is None, reason="no JavaScript engine at hand")
def test_the_script_is_sound(maps, tmp_path):
    script = re.search(r"<script>(.*)</script>", slider(*maps, "").data, re.S)[1]
    (tmp_path / "page.js").write_text(script, encoding="utf-8")
    assert subprocess.run(["node", "--check", tmp_path / "page.js"]).returncode == 0


def test_wrong_use_is_told(maps):
    image, importance, uncertainty = maps
    with pytest.raises(ValueError, match=r"image must be \(3, H, W\)"):
        slider(image, importance[0], uncertainty, "")
    with pytest.raises(ValueError, match="uncertainty must be positive somewhere"):
        slider(image, importance, 0 * uncertainty, "")
