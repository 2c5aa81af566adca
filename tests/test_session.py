"""Starting a chapter: profiles, seeds, the output folder."""

import numpy as np
import pytest
import torch

from lfx_utils.chapters import start


@pytest.fixture(autouse=True)
def _out(tmp_path, monkeypatch):
    monkeypatch.setenv("LFX_OUT", str(tmp_path))


def test_same_seed_same_draws_from_every_generator():
    draws = []
    for _ in range(2):
        start("x", "smoke", seed=3)
        draws.append((torch.rand(3).tolist(), np.random.rand(3).tolist()))  # noqa: NPY002
    assert draws[0] == draws[1]
    start("x", "smoke", seed=4)
    assert torch.rand(3).tolist() != draws[0][0]


def test_choose_follows_the_profile(tmp_path):
    session = start("x", "paper")
    assert session.choose(smoke=1, quick=2, paper=3) == 3
    assert session.out == tmp_path / "paper" and session.out.is_dir()
    assert session.checkpoint("a").parent.parent == session.out and start("x", "quick").checkpoint("a") is None


def test_a_new_run_starts_with_an_empty_record(tmp_path):
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "x.json").write_text("[]", encoding="utf-8")
    (tmp_path / "smoke" / "y.json").write_text("[]", encoding="utf-8")
    start("x", "smoke")
    assert not (tmp_path / "smoke" / "x.json").exists() and (tmp_path / "smoke" / "y.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "fast"), "profile must be one of smoke, quick, paper, got 'fast'"),
        (("x", "smoke", -1), "seed must be a non-negative integer, got -1"),
        (("x", "smoke", 0.5), "seed must be a non-negative integer, got 0.5"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        start(*arguments)
    assert not list(tmp_path.iterdir())


def test_a_tilde_is_the_home_folder_where_no_shell_expands_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LFX_OUT", "~/out")
    assert start("x", "smoke").out == tmp_path / "home" / "out" / "smoke"
    monkeypatch.setenv("LFX_OUT", "")
    assert start("x", "smoke").out == tmp_path / "_build" / "results" / "smoke"
    assert not (tmp_path / "~").exists()
