"""The data sets: their contract, their stand-ins, damaged files, downloads, and the sanity of what is generated."""

import gzip
import hashlib
import http.server
import io
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.integrate import solve_ivp
from scipy.ndimage import gaussian_filter1d
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, MNIST

from lfx_utils.datasets import MODULES, Unavailable, base, cifar10, ecg5000, files, heartbeats, load, mnist, photographs

EMBEDDED = ("digits", "heartbeats", "photographs")
STAND_INS = {"mnist": "digits", "ecg5000": "heartbeats", "cifar10": "photographs", "svhn": "photographs"}
REAL = Path(os.environ.get("LFX_DATA", "nowhere"))


def needs(file):
    return pytest.mark.skipif(not (REAL / file).exists(), reason=f"LFX_DATA has no {file}")


# What every data set promises


@pytest.mark.parametrize("name", EMBEDDED)
def test_contract(name):
    data = load(name, train=40, test=30)
    assert data.name == name
    for inputs, labels, size in ((data.train, data.train_labels, 40), (data.test, data.test_labels, 30)):
        assert inputs.dtype == torch.float32 and labels.dtype == torch.int64
        assert len(inputs) == size and labels.shape == (size,)
        assert torch.isfinite(inputs).all()
        assert 0 <= labels.min() and labels.max() < len(data.class_names)
        assert data.baseline(inputs).shape == inputs.shape
    shape = {"digits": (1, 28, 28), "heartbeats": (140, 1), "photographs": (3, 32, 32)}[name]
    assert data.train.shape[1:] == data.test.shape[1:] == shape
    if name != "heartbeats":
        assert data.train.min() >= 0 and 0.5 < data.train.max() <= 1


@pytest.mark.parametrize("name", EMBEDDED)
def test_draw_depends_on_its_own_seed_alone(name):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = load(name, train=20, test=20, seed=5)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    again, other = load(name, train=20, test=20, seed=5), load(name, train=20, test=20, seed=6)
    assert torch.equal(first.train, again.train) and torch.equal(first.test_labels, again.test_labels)
    assert not torch.equal(first.train, other.train) and not torch.equal(first.test, other.test)


@pytest.mark.parametrize("name", EMBEDDED)
def test_larger_draws_begin_with_smaller_ones_and_none_repeats(name):
    whole, some, more = load(name), load(name, train=50, test=10), load(name, train=90, test=20)
    assert torch.equal(more.train[:50], some.train) and torch.equal(more.test_labels[:10], some.test_labels)
    assert (len(whole.train), len(whole.test)) == MODULES[name].sizes()
    rows = base.draw(name, "train", 90, len(whole.train), seed=0)
    assert len(rows.unique()) == 90
    assert torch.equal(whole.train[rows], more.train) and torch.equal(whole.train_labels[rows], more.train_labels)


@pytest.mark.parametrize("size", [0, -1, 1_438, 2.5, True])
def test_impossible_sizes(size):
    with pytest.raises(ValueError, match=rf"train must be .* 1 to 1437.*'digits'.*got {size}"):
        load("digits", train=size)
    with pytest.raises(ValueError, match="test must be .* 1 to 360"):
        load("digits", test=361)


def test_unknown_name():
    known = "cifar10, digits, dsprites, ecg5000, heartbeats, mnist, photographs, sprites, svhn"
    with pytest.raises(ValueError, match=f"{known}; got 'minst'"):
        load("minst")


# Stand-ins


@pytest.mark.parametrize("name, stand_in", STAND_INS.items())
def test_missing_files(name, stand_in, tmp_path):
    root = tmp_path / "not there"
    with pytest.warns(UserWarning, match=f"{name} is replaced by {stand_in}, .*{root}.*LFX_DATA.*download=True"):
        data = load(name, train=30, test=60_000, root=root)
    assert data.name == stand_in
    assert f"stand-in for {name}" in data.provenance and str(tmp_path) not in data.provenance
    most = MODULES[stand_in].sizes()
    assert (len(data.train), len(data.test)) == (30, most[1])
    assert torch.equal(data.train, load(stand_in, train=30, test=1).train)
    assert not root.exists()
    with pytest.raises(Unavailable):
        MODULES[name].load(root=root)


def test_split_reaches_the_stand_in(tmp_path):
    with pytest.warns(UserWarning):
        data = load("ecg5000", root=tmp_path, split="random")
    assert (len(data.train), len(data.test)) == (4_000, 1_000)
    with pytest.raises(ValueError, match="split must be 'normal' or 'random', got 'odd'"), pytest.warns(UserWarning):
        load("ecg5000", root=tmp_path, split="odd")
    with pytest.raises(ValueError, match="split must be 'normal' or 'random', got 'odd'"):
        load("heartbeats", split="odd")
    with pytest.raises(TypeError, match="split"):
        load("digits", split="random")


def test_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("LFX_DATA", str(tmp_path / "named"))
    with pytest.warns(UserWarning, match="named"):
        load("mnist", train=1, test=1)
    assert files.data_root(tmp_path) == tmp_path
    monkeypatch.delenv("LFX_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.data_root() == tmp_path / "lfx"


# Damaged files


def packed_mnist(root, content):
    folder = root / "mnist/MNIST/raw"
    folder.mkdir(parents=True)
    for name in mnist.FILES:
        (folder / f"{name}.gz").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "content, complaint",
    [
        (gzip.compress(bytes(1_000), mtime=0)[:-9], "damaged"),
        (b"<html>not found</html>", "damaged"),
        (gzip.compress(bytes(1_000), mtime=0), "not the official file"),
        (b"", "not the official file"),
    ],
)
def test_damaged_mnist(content, complaint, tmp_path):
    packed_mnist(tmp_path, content)
    with pytest.warns(UserWarning, match=f"train-images-idx3-ubyte.gz is {complaint}"):
        assert load("mnist", train=5, test=5, root=tmp_path).name == "digits"


def test_one_file_of_mnist_missing(tmp_path):
    (tmp_path / "mnist/MNIST/raw").mkdir(parents=True)
    with pytest.warns(UserWarning, match="train-images-idx3-ubyte.gz is missing"):
        load("mnist", train=5, test=5, root=tmp_path)


@pytest.mark.parametrize("name, file", [("ecg5000", "ecg5000.npz"), ("cifar10", "subset_10k.npz")])
def test_damaged_archives(name, file, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    arrays = {"X": np.zeros((4, 140)), "y": np.ones(4), "x_train": np.zeros((4, 32, 32, 3), np.uint8)}
    arrays |= {"y_train": np.zeros(4, np.uint8), "x_test": arrays["x_train"], "y_test": np.zeros(4, np.uint8)}
    whole = io.BytesIO()
    np.savez_compressed(whole, **arrays)
    for content, complaint in (
        (whole.getvalue(), "SHA-256 differs"),
        (whole.getvalue()[:-30], "damaged"),
        (b"no archive", "damaged"),
    ):
        (folder / file).write_bytes(content)
        with pytest.warns(UserWarning, match=f"{name} is replaced by {STAND_INS[name]}.*{complaint}"):
            load(name, train=3, test=3, root=tmp_path)


def test_half_a_set_of_texts(tmp_path):
    (tmp_path / "ecg5000").mkdir()
    (tmp_path / "ecg5000/ECG5000_TRAIN.txt").write_text("1 2 3\n", encoding="utf-8")
    with pytest.raises(Unavailable, match="ECG5000_TEST.txt is missing"):
        ecg5000.load(root=tmp_path)
    (tmp_path / "ecg5000/ECG5000_TEST.txt").write_text("4 5 six\n", encoding="utf-8")
    with pytest.raises(Unavailable, match="damaged.*six"):
        ecg5000.load(root=tmp_path)


def test_a_damaged_copy_hides_no_sound_one(tmp_path, monkeypatch, small_ecg):
    raw = bytes(8) + bytes(range(7))
    facts = hashlib.md5(raw).hexdigest(), 8, (7,)
    monkeypatch.setattr(mnist, "FILES", {"few": facts})
    for folder, content in (("mnist/MNIST/raw", gzip.compress(raw)[:-4]), ("MNIST/raw", gzip.compress(raw))):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "few.gz").write_bytes(content)
    assert mnist._read(tmp_path)[0].tolist() == list(range(7))  # of the second folder
    (tmp_path / "MNIST/raw/few.gz").write_bytes(b"")
    (tmp_path / "mnist/MNIST/raw/few").write_bytes(raw)
    assert mnist._read(tmp_path)[0].tolist() == list(range(7))  # of the unpacked file
    (tmp_path / "mnist/MNIST/raw/few").write_bytes(raw[:-1])
    with pytest.raises(
        Unavailable, match="few.gz is damaged.*; .*few is not the official.*; .*few.gz is not the offic"
    ):
        mnist._read(tmp_path)

    (tmp_path / "ecg5000").mkdir()
    (tmp_path / "ecg5000/ecg5000.npz").write_bytes(b"PK half written")
    for file, text in zip(ecg5000.FILES, small_ecg[2], strict=True):
        (tmp_path / "ecg5000" / file).write_bytes(text)
    assert len(load("ecg5000", root=tmp_path).train) == 8

    images, labels = np.arange(2 * 3_072, dtype=np.uint8).reshape(2, 32, 32, 3), np.array([3, 5], np.uint8)
    known = hashlib.sha256(images.tobytes() + labels.tobytes() + images.tobytes() + labels.tobytes()).hexdigest()
    monkeypatch.setattr(cifar10, "SHA256_SUBSET", known)
    (tmp_path / "cifar10/cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "cifar10/cifar-10-batches-py/data_batch_1").write_bytes(b"cut short")
    np.savez(tmp_path / "cifar10/subset_10k.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert "subset" in load("cifar10", root=tmp_path).provenance


def test_download_mends_a_damaged_unpacked_file(server, tmp_path, monkeypatch):
    address, pages, _ = server
    raw = bytes(8) + bytes(range(7))
    packed = gzip.compress(raw)
    pages["/few.gz"] = packed
    monkeypatch.setattr(mnist, "FILES", {"few": (hashlib.md5(raw).hexdigest(), 8, (7,))})
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", f"{address}/"])
    monkeypatch.setattr(MNIST, "resources", [("few.gz", hashlib.md5(packed).hexdigest())])
    folder = tmp_path / "mnist/MNIST/raw"
    folder.mkdir(parents=True)
    (folder / "few").write_bytes(raw[:-1])
    mnist._download(folder)
    assert (folder / "few").read_bytes() == raw and mnist._read(tmp_path)[0].tolist() == list(range(7))


# Surroundings: no home folder, folders that may not be entered, the true reason


def test_nothing_needs_a_home_folder(tmp_path, monkeypatch):
    def expand(path):
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    for name in ("LFX_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", expand)
    assert files.data_root(tmp_path) == tmp_path
    assert load("digits", train=1, test=1).name == "digits"
    with pytest.warns(UserWarning, match="mnist is replaced by digits, since .* no home folder; name another in LFX_D"):
        assert "no home folder" in load("mnist", train=1, test=1).provenance
    monkeypatch.setenv("LFX_DATA", "~/data")
    with pytest.raises(Unavailable, match="~/data cannot be found"):
        files.data_root()


@pytest.mark.parametrize("name", [*STAND_INS, "dsprites"])
def test_a_folder_that_may_not_be_entered_is_no_absence(name, tmp_path, monkeypatch):
    def refusing(asked):
        def refused(path, *arguments, **options):
            if tmp_path in path.parents:
                raise PermissionError(13, "Permission denied", str(path))
            return asked(path, *arguments, **options)

        return refused

    for way in ("stat", "open"):
        monkeypatch.setattr(Path, way, refusing(getattr(Path, way)))
    with pytest.warns(
        UserWarning, match=f"{name} is replaced by .*, since .*may not be read or written .Permission den"
    ):
        load(name, train=2, test=2, root=tmp_path)


# Reading, from files made here


def test_idx_packed_and_unpacked(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    raw = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in pixels.shape) + pixels.tobytes()
    facts = hashlib.md5(raw).hexdigest(), 16, (5, 4, 3)
    path = tmp_path / "few"
    path.write_bytes(raw)
    assert (mnist.read_idx(path, *facts) == pixels).all()
    path.write_bytes(raw[:-1])
    with pytest.raises(Unavailable, match="few is not the official file"):
        mnist.read_idx(path, *facts)
    path.with_name("few.gz").write_bytes(gzip.compress(raw, mtime=0))
    assert (mnist.read_idx(path, *facts) == pixels).all()


def test_mosaics():
    images = np.random.default_rng(0).integers(0, 256, (800, 32, 32, 3), dtype=np.uint8)
    raw, offsets = b"", [0]
    for mosaic in (images[:400], images[400:]):
        canvas = Image.new("RGB", (640, 640))
        for number, image in enumerate(mosaic):
            canvas.paste(Image.fromarray(image), (32 * (number % 20), 32 * (number // 20)))
        stream = io.BytesIO()
        canvas.save(stream, "WEBP", lossless=True, method=0)
        raw += stream.getvalue()
        offsets.append(len(raw))
    assert (cifar10.unpack(raw, np.array(offsets)) == images).all()


def test_enlarged_digits():
    small = load_digits().images[0] / 16
    at = ((np.arange(28) + 0.5) * 8 / 28 - 0.5).clip(0, 7)
    rows = np.array([np.interp(at, np.arange(8), row) for row in small])
    expected = np.array([np.interp(at, np.arange(8), column) for column in rows.T]).T
    assert np.allclose(load("digits").train[0, 0], expected, atol=1e-6)


def test_blurred_baseline():
    data = load("photographs", train=2, test=1)
    columns = gaussian_filter1d(data.train, 5, axis=2, radius=10, mode="mirror")
    expected = gaussian_filter1d(columns, 5, axis=3, radius=10, mode="mirror")
    assert np.allclose(data.baseline(data.train), expected, atol=1e-5)


# Downloads, from a server on this machine


@pytest.fixture
def server(monkeypatch):
    """Serve a dictionary of paths; a list answers with its items in turn, an integer is a status."""
    pages, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            page = pages.get(self.path, 404)
            page = page.pop(0) if isinstance(page, list) else page
            self.send_response(page if isinstance(page, int) else 200)
            self.end_headers()
            self.wfile.write(b"" if isinstance(page, int) else page)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setattr(files, "PAUSE", 0)
        address = f"http://127.0.0.1:{running.server_port}"
        yield address, pages, asked
        running.shutdown()


@pytest.fixture
def small_ecg(monkeypatch):
    """Forty beats in the archive's text form, the second file with commas, and their checksum in place of ECG5000's."""
    rng = np.random.default_rng(0)
    beats, labels = rng.standard_normal((40, 140)).astype(np.float32), 1 + np.arange(40) % 5
    rows = [[f"{label:.7e}", *(f"{value:.9e}" for value in beat)] for beat, label in zip(beats, labels, strict=True)]
    texts = "\r\n".join("   ".join(row) for row in rows[:10]), "\n".join(",".join(row) for row in rows[10:])
    digest = hashlib.sha256(beats.tobytes() + labels.astype(np.int64).tobytes()).hexdigest()
    monkeypatch.setattr(ecg5000, "SHA256", digest)
    return beats, labels, [text.encode() for text in texts]


def zipped(texts):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for file, text in zip(ecg5000.FILES, texts, strict=True):
            archive.writestr(file, text)
    return stream.getvalue()


def test_download_retries_takes_the_second_source_and_is_kept(server, small_ecg, tmp_path, monkeypatch):
    address, pages, asked = server
    beats, labels, texts = small_ecg
    pages |= {"/a.zip": zipped([texts[0], texts[1][:-8]]), "/train": [503, 500, texts[0]], "/test": texts[1]}
    monkeypatch.setattr(ecg5000, "SOURCES", ((f"{address}/a.zip",), (f"{address}/train", f"{address}/test")))
    data = load("ecg5000", root=tmp_path / "new", download=True)
    assert asked == ["/a.zip", "/train", "/train", "/train", "/test"]
    assert data.name == "ecg5000"
    assert np.array_equal(data.train[..., 0], beats[labels == 1])
    assert np.array_equal(data.test_labels, labels[labels != 1] - 1)
    assert os.listdir(tmp_path / "new/ecg5000") == ["ecg5000.npz"]
    again = load("ecg5000", root=tmp_path / "new", download=True)
    assert len(asked) == 5 and torch.equal(again.test, data.test)


def test_damaged_file_is_downloaded_anew(server, small_ecg, tmp_path, monkeypatch):
    address, pages, _ = server
    pages["/a.zip"] = zipped(small_ecg[2])
    monkeypatch.setattr(ecg5000, "SOURCES", ((f"{address}/a.zip",),))
    (tmp_path / "ecg5000").mkdir()
    (tmp_path / "ecg5000/ecg5000.npz").write_bytes(b"PK half written")
    assert load("ecg5000", root=tmp_path, download=True).name == "ecg5000"
    assert ecg5000.load(root=tmp_path).name == "ecg5000"


def test_no_source_answers(server, small_ecg, tmp_path, monkeypatch):
    address, pages, asked = server
    pages["/b.zip"] = b"<html>moved</html>"
    monkeypatch.setattr(ecg5000, "SOURCES", ((f"{address}/a.zip",), (f"{address}/b.zip",)))
    with pytest.warns(UserWarning, match="no source gave ECG5000.*3 attempts.*404.*not a zip file"):
        assert load("ecg5000", root=tmp_path, download=True).name == "heartbeats"
    assert asked == ["/a.zip"] * 3 + ["/b.zip"]
    assert not any(tmp_path.rglob("*"))


def test_texts_are_read_where_nothing_may_be_written(small_ecg, tmp_path):
    folder = tmp_path / "ecg5000"
    folder.mkdir()
    for file, text in zip(ecg5000.FILES, small_ecg[2], strict=True):
        (folder / file).write_bytes(text)
    folder.chmod(0o555)
    assert len(load("ecg5000", root=tmp_path).train) == 8
    assert sorted(os.listdir(folder)) == sorted(ecg5000.FILES)


def test_download_that_cannot_be_kept(server, small_ecg, tmp_path, monkeypatch):
    address, pages, _ = server
    pages["/a.zip"] = zipped(small_ecg[2])
    monkeypatch.setattr(ecg5000, "SOURCES", ((f"{address}/a.zip",),))
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot be kept"):
        load("ecg5000", root=tmp_path / "file", download=True)


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(path, **_):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.store(tmp_path / "deep/some.npz", values=np.zeros(3))
    assert os.listdir(tmp_path / "deep") == []


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_torchvision_cannot_download(name, server, tmp_path, monkeypatch):
    address, _, asked = server
    monkeypatch.setattr(MNIST, "mirrors", [f"{address}/"])
    monkeypatch.setattr(CIFAR10, "url", f"{address}/cifar.tar.gz")
    (tmp_path / "cifar10/cifar-10-batches-py").mkdir(parents=True)  # of an unpacking that was cut short
    with pytest.warns(UserWarning, match=f"{name} is replaced.*download.*404"):
        assert load(name, train=3, test=3, root=tmp_path, download=True).name == STAND_INS[name]
    assert asked


# Heartbeats


@pytest.fixture(scope="module")
def beats():
    return heartbeats.generate()


def test_heartbeats_have_ecg5000s_numbers_and_scale(beats):
    values, labels = beats
    assert values.shape == (5_000, 140)
    assert np.bincount(labels).tolist() == [2_919, 1_767, 96, 194, 24]
    assert np.abs(values.mean(1)).max() < 1e-5
    assert np.abs(values.std(1, ddof=1) - 1).max() < 1e-5
    assert len(np.unique(values, axis=0)) == 5_000


def test_splits(beats):
    values, labels = beats
    normal = load("heartbeats")
    assert (normal.train_labels == 0).all() and len(normal.train) == 2_919
    assert (normal.test_labels > 0).all() and len(normal.test) == 2_081
    mean = values[labels == 0].astype(np.float64).mean(0)
    assert np.allclose(load("heartbeats", train=3).baseline(normal.test)[7, :, 0], mean, atol=1e-5)

    for seed in (0, 1):
        mixed = load("heartbeats", split="random", seed=seed)
        both = torch.cat((mixed.train, mixed.test))[..., 0].numpy()
        assert len(mixed.train) == 4_000
        assert np.array_equal(np.unique(both, axis=0), np.unique(values, axis=0))
        assert (mixed.test_labels == 0).float().mean().item() == pytest.approx(0.5838, abs=0.05)
        expected = mixed.train[mixed.train_labels == 0].mean(0)
        assert torch.allclose(mixed.baseline(mixed.test)[0], expected, atol=1e-5)
    assert not torch.equal(mixed.test, load("heartbeats", split="random").test)


def test_model_against_an_adaptive_solver():
    phases, widths, heights = np.array([[-1.3, 0.0, 0.5]]), np.array([[0.2, 0.15, 0.1]]), np.array([[1.0, 2.0, -3.0]])
    period, start, amplitude, offset = 0.8, 0.3, 0.4, 1.1
    omega = 2 * np.pi / period

    def paper(time, state):
        x, y, z = state
        alpha = 1 - np.sqrt(x * x + y * y)
        rate = -(z - amplitude * np.sin(2 * np.pi * 0.25 * time + offset))
        for theta, b, height in zip(phases[0], widths[0], heights[0], strict=True):
            difference = np.angle(np.exp(1j * (np.arctan2(y, x) - theta)))
            rate -= height * omega / b**2 * difference * np.exp(-(difference**2) / (2 * b**2))
        return alpha * x - omega * y, alpha * y + omega * x, rate

    times = np.arange(140) * period / 140
    begin = np.cos(start - np.pi), np.sin(start - np.pi), 0.0
    exact = solve_ivp(paper, (-period / 2, times[-1]), begin, t_eval=times, rtol=1e-8, atol=1e-10, max_step=0.01).y[2]
    ours = heartbeats.simulate(
        phases, widths, heights, np.array([period]), np.array([start]), (np.array([amplitude]), np.array([offset]))
    )
    assert np.abs(ours[0] - exact).max() < 2e-3 * np.ptp(exact)


def test_waves_are_where_physiology_wants_them(beats):
    values, labels = beats
    normal, r_on_t, pvc, early, _ = (values[labels == kind].mean(0) for kind in range(5))
    # Cut just after the R peak: S first, then T's hump, P, and the next R.
    assert normal.argmin() in range(2, 7) and normal.min() < -3
    assert normal[95:115].max() > 1.2 and normal[95:115].max() > normal[60:90].max() > 0.3
    assert normal[126:137].max() > 0.7 > normal[115:124].max()
    # No P in ventricular beats, and a QRS (time spent deep below the baseline, round the cut) that is far wider.
    for ectopic in (r_on_t, pvc):
        assert np.abs(np.diff(ectopic[90:120])).max() < 0.1 < np.abs(np.diff(normal[90:120])).max()
    deep = (values < -1).sum(1)
    median = [np.median(deep[labels == kind]) for kind in range(4)]
    assert median[1] > 1.5 * median[0] and median[2] > 1.5 * median[0]
    assert median[3] < median[1]


def test_kinds_are_told_apart_but_not_trivially(beats):
    values, labels = beats
    distances = torch.cdist(torch.as_tensor(values[500:]), torch.as_tensor(values[:500]))
    wrong = labels[:500][distances.argmin(1)] != labels[500:]
    assert 0.04 < wrong.mean() < 0.11  # ECG5000's own is 0.075


# Photographs


def patches(images):
    """The textured 8 × 8 patches on the grid of 4 pixels, as hashable bytes."""
    tiles = (images * 255).round().byte().unfold(2, 8, 4).unfold(3, 8, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 192)
    tiles = tiles[tiles.float().std(1) > 10].unique(dim=0)
    return {tile.numpy().tobytes() for tile in tiles}


def test_no_pixels_leak_from_train_to_test():
    data = load("photographs", train=3_000, test=1_500)
    train, test = patches(data.train), patches(data.test)
    assert len(test) > 5_000 and not train & test
    assert patches(data.train[:1_500]) & patches(data.train[1_500:])  # what a leak would look like


def test_every_photograph_is_drawn_alike():
    data = load("photographs")
    assert data.train_labels.bincount().tolist() == [972] * 8 and data.test_labels.bincount().tolist() == [324] * 8
    colours = [data.train[data.train_labels == kind].mean((0, 2, 3)) for kind in range(8)]
    retina, rocket = (colours[photographs.CLASS_NAMES.index(name)] for name in ("retina", "rocket"))
    assert retina.argmax() == 0 and rocket.argmax() == 2


# Real data, where it is


@needs("mnist/MNIST/raw")
def test_real_mnist():
    data = load("mnist", root=REAL)
    assert data.name == "mnist" and data.train.shape == (60_000, 1, 28, 28) and len(data.test) == 10_000
    assert data.train.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9] and data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]


@needs("cifar10/index.npz")
def test_real_cifar10_pack_and_subset_agree():
    pack, subset = (
        cifar10._read_pack(REAL / "cifar10/index.npz")[0],
        cifar10._read_subset(REAL / "cifar10/subset_10k.npz")[0],
    )
    with np.load(REAL / "cifar10/subset_10k.npz") as arrays:
        indices = arrays["train_index"], arrays["test_index"]
        for (images, labels), (few, their), index in zip(pack, subset, indices, strict=True):
            assert (images[index] == few).all() and (labels[index] == their).all()
    assert "subset" in load("cifar10", root=REAL, train=100, test=100).provenance


@needs("ecg5000/ecg5000.npz")
def test_real_ecg5000(beats):
    with np.load(REAL / "ecg5000/ecg5000.npz") as arrays:
        values, labels, official = arrays["X"], arrays["y"] - 1, arrays["split"] == 0
    data = load("ecg5000", root=REAL)
    assert len(data.train) == 2_919 and data.test_labels.bincount().tolist() == [0, 1_767, 96, 194, 24]
    assert np.allclose(data.baseline(data.test)[0, :, 0], values[labels == 0].mean(0), atol=1e-4)
    nearest = torch.cdist(torch.as_tensor(values[~official]), torch.as_tensor(values[official])).argmin(1)
    assert (labels[official][nearest] != labels[~official]).mean() == pytest.approx(0.0751, abs=1e-4)
    generated, kinds = beats
    for kind, least in enumerate((0.98, 0.97, 0.9, 0.97, 0.85)):
        means = values[labels == kind].mean(0), generated[kinds == kind].mean(0)
        assert np.corrcoef(*means)[0, 1] > least
