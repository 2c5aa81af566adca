"""The objectives against loops, matrix scaling and closed forms; and that the documented command does what it says."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from lfx_utils import encoders
from lfx_utils.datasets import Annotated, scenes
from lfx_utils.encoders import pretraining, shipped
from lfx_utils.encoders.pretraining import Recipe
from lfx_utils.measures.probes import probe
from lfx_utils.models import pretext
from lfx_utils.models.pretext import DINO, SimCLR, SwAV, average, distillation, sinkhorn, swapped
from lfx_utils.models.resnet import small_resnet
from lfx_utils.models.simclr import nt_xent
from lfx_utils.models.views import versions, views


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Views


def test_views_without_recolouring_hold_pixels_of_the_image():
    columns = torch.arange(32.0).expand(60, 3, 32, 32) / 32
    seen = views(columns, seeded(), (0.2, 0.5), colour=0)
    assert (seen - seen[:, :, :1]).abs().max() < 1e-5  # rows stay rows
    slopes = seen.diff(dim=3)[:, 0, 0, 1:-1]
    middle = slopes[:, 10:20]
    assert (middle - middle[:, :1]).abs().max() < 1e-4  # evenly stretched, but where a crop meets the border
    turned = (middle[:, 0] < 0).float().mean()
    assert 0.25 < turned < 0.75
    width = middle[:, 0].abs() * 32
    assert math.sqrt(0.2 * 3 / 4) - 1e-3 < width.min() and width.max() < math.sqrt(0.5 * 4 / 3) + 1e-3


def test_views_have_draws_of_their_own():
    images = torch.rand(1, 3, 16, 16).expand(8, -1, -1, -1)
    first, again, other = (views(images, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({view.numpy().tobytes() for view in first}) == 8
    assert views(images, size=6).shape == (8, 3, 6, 6)
    assert 0 <= first.min() and first.max() <= 1


def test_recolouring_leaves_grey_grey_and_keeps_the_mean_of_a_hue():
    grey = views(torch.full((50, 3, 8, 8), 0.4), seeded())
    assert (grey.amax(1) - grey.amin(1)).max() < 1e-5 and grey.mean((1, 2, 3)).std() > 0.01
    colour = torch.tensor([0.5, 0.4, 0.3])[:, None, None].expand(200, 3, 8, 8)
    seen = views(colour, seeded(), (1.0, 1.0))[:, :, 4, 4]
    spread = seen.amax(1) - seen.amin(1)
    assert 0.1 < (spread < 1e-5).float().mean() < 0.35  # drained, one in five
    assert (seen.argmax(1) != 0).any()  # the hue turned


# Losses


def test_nt_xent_against_a_loop():
    first, second = torch.randn(5, 4, generator=seeded()), torch.randn(5, 4, generator=seeded(1))
    rows = [row / row.norm() for row in (*first, *second)]
    losses = []
    for place, anchor in enumerate(rows):
        scores = {other: math.exp(float(anchor @ rows[other]) / 0.2) for other in range(10) if other != place}
        losses.append(-math.log(scores[(place + 5) % 10] / sum(scores.values())))
    assert nt_xent(first, second, 0.2).item() == pytest.approx(sum(losses) / 10, rel=1e-5)


def test_sinkhorn_against_matrix_scaling():
    scores = torch.randn(12, 4, generator=seeded()).mul(0.1)
    plan = np.exp(scores.double().numpy() / 0.05)
    for _ in range(3):
        plan /= plan.sum(0)
        plan /= plan.sum(1, keepdims=True)
    assert np.allclose(sinkhorn(scores), plan, atol=1e-5)


def test_sinkhorn_marginals():
    # Every image would rather have the first prototype; the plan shares them out all the same.
    scores = torch.randn(12, 4, generator=seeded()).mul(0.1) + torch.tensor([0.5, 0, 0, 0])
    plan = sinkhorn(scores, iterations=200)
    assert torch.allclose(plan.sum(1), torch.ones(12)) and torch.allclose(plan.sum(0), torch.full((4,), 3.0), atol=1e-3)
    # An optimal plan has the scores' mixed differences: log π_ij + log π_kl − log π_il − log π_kj.
    logs = plan.log() * 0.05
    mixed = [table[0, 1] + table[5, 3] - table[0, 3] - table[5, 1] for table in (logs, scores)]
    assert mixed[0].item() == pytest.approx(mixed[1].item(), abs=1e-4)


def test_swapped_and_distillation_against_loops():
    student = tuple(torch.randn(3, 5, generator=seeded(seed)).mul(0.1) for seed in range(4))

    def cross(target, output):
        exponentials = [[math.exp(value / 0.1) for value in row] for row in output.tolist()]
        return -sum(
            share * math.log(row[place] / sum(row))
            for goal, row in zip(target.tolist(), exponentials)
            for place, share in enumerate(goal)
        ) / len(target)

    plans = [sinkhorn(scores, 0.03) for scores in student[:2]]
    losses = [cross(plans[view], student[other]) for view in (0, 1) for other in range(4) if other != view]
    assert swapped(student, 0.1).item() == pytest.approx(np.mean(losses), rel=1e-4)
    teacher = tuple(torch.rand(3, 5, generator=seeded(9)).softmax(1) for _ in range(2))
    losses = [cross(teacher[view], student[other]) for view in (0, 1) for other in range(4) if other != view]
    assert distillation(student, teacher).item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_teacher_is_a_moving_average():
    old, new = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    new[1].running_mean.fill_(3.0)
    expected = [0.9 * kept + 0.1 * fresh for kept, fresh in zip(old.parameters(), new.parameters())]
    average(old, new, 0.9)
    assert all(torch.allclose(kept, goal) for kept, goal in zip(old.parameters(), expected))
    assert torch.equal(old[1].running_mean, torch.full((2,), 3.0))


def tiny(objective):
    torch.manual_seed(0)
    return objective(small_resnet((4, 4, 8, 8)), 8, 0.6)


@pytest.fixture(scope="module")
def some():
    part = scenes.generate(256, seed=5, size=32)
    return (part.images * 255).round().byte()[:, None], part.labels


def test_dino_trains_the_student_alone(some, monkeypatch):
    # With views that are all the same, the teacher's answers are the student's, and the loss can be written down.
    monkeypatch.setattr(pretext, "multicrop", lambda images, *_: (torch.cat([images[:, 0]] * 2),) * 2)
    model, images = tiny(DINO), some[0][:32] / 255
    kept = [value.clone() for value in model.teacher.parameters()]
    loss = model(images, None, seeded())
    latents = nn.functional.normalize(model.head(pretext.encode(model.encoder, images[:, 0])), dim=1)
    scores = latents @ nn.functional.normalize(model.prototypes.weight, dim=1).T
    expected = -(sinkhorn(scores, 0.02) * (scores / 0.1).log_softmax(1)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=2e-2)  # batches of 64 and of 32, in half precision
    loss.backward()
    assert all(value.grad is None for value in model.teacher.parameters())
    assert all(value.grad is not None for value in model.encoder.parameters())
    assert all(torch.equal(value, old) for value, old in zip(model.teacher.parameters(), kept))
    with torch.no_grad():
        model.head[0].weight += 1
    model.after_step()
    moved = model.teacher[1][0].weight - kept[len(list(model.encoder.parameters()))]
    assert torch.allclose(moved, torch.full_like(moved, 0.01), atol=1e-4)


def test_swav_s_prototypes_have_length_one():
    model = tiny(SwAV)
    model.after_step()
    assert torch.allclose(model.prototypes.weight.norm(dim=1), torch.ones(128))


# Training


@pytest.mark.parametrize("objective", ["supervised", "simclr", "swav", "dino"])
def test_every_objective_learns(objective, some, monkeypatch):
    monkeypatch.setitem(shipped.ARCHITECTURES, "resnet", lambda: small_resnet((8, 8, 16, 16)))
    recipe = Recipe("scenes", objective, epochs=8, rate=5e-3)
    model = pretraining.learner(recipe, 8, 0)
    twin = pretraining.learner(recipe, 8, 0)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), twin.parameters()))

    def loss():
        return np.mean([model.train()(some[0][:128] / 255, some[1][:128], seeded(seed)).item() for seed in range(3)])

    before = loss()
    pretraining.train(model, *some, recipe, seed=0)
    assert not model.training
    assert loss() < before - (0.1 if objective != "supervised" else 0.02)


def test_a_resumed_run_ends_the_same(some, tmp_path, monkeypatch):
    monkeypatch.setitem(shipped.ARCHITECTURES, "resnet", lambda: small_resnet((4, 4, 8, 8)))
    recipe = Recipe("scenes", "dino", epochs=3)
    whole, broken = (pretraining.learner(recipe, 8, 0) for _ in range(2))
    pretraining.train(whole, *some, recipe, seed=0)
    calls, step = [], DINO.after_step

    def stop(model):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        step(model)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DINO, "after_step", stop)
        pretraining.train(broken, *some, recipe, seed=0, work=tmp_path / "run.pt")
    resumed = pretraining.learner(recipe, 8, 0)
    pretraining.train(resumed, *some, recipe, seed=0, work=tmp_path / "run.pt")
    assert all(torch.equal(one, two) for one, two in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_the_second_version_is_on_another_ground():
    part, empty = scenes.generate(6, seed=1, size=32), scenes.generate(6, seed=1, size=32, objects=0)
    first, second = versions(torch.stack([part.images, empty.images], 1))
    assert torch.equal(first, part.images)
    on = part.foreground()[:, None].expand_as(first)
    assert torch.equal(second[on], first[on])
    near = nn.functional.max_pool2d(on.float(), 9, 1, 4) > 0
    assert torch.equal(second[~near], empty.images.roll(1, 0)[~near])
    assert all(torch.equal(version, part.images) for version in versions(part.images[:, None]))


class Recorder(nn.Linear):
    """A learner that keeps what it was given."""

    def __init__(self):
        super().__init__(1, 1)
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        self.seen = []

    def forward(self, images, labels, generator):
        self.seen.append((images.shape[1], labels[:, 0].tolist()))
        return self.weight.sum()

    def after_step(self):
        pass


def test_grounds_are_swapped_in_the_later_epochs(tmp_path):
    model, rows, pixels = Recorder(), torch.arange(300)[:, None], torch.zeros(300, 2, 3, 2, 2)
    pretraining.train(model, pixels, rows, Recipe("scenes", "dino", epochs=4, swapped=0.5), seed=0)
    assert [count for count, _ in model.seen] == [1] * 4 + [2] * 4
    epochs = [sum((part for _, part in model.seen[start : start + 2]), []) for start in range(0, 8, 2)]
    assert all(len(set(epoch)) == 256 for epoch in epochs) and epochs[0] != epochs[1]


def test_a_run_of_another_recipe_seed_or_data_is_refused(tmp_path):
    rows, pixels = torch.arange(128)[:, None], torch.zeros(128, 1, 3, 2, 2)
    asked = {"model": Recorder(), "pixels": pixels, "labels": rows, "seed": 0}
    asked |= {"recipe": Recipe("scenes", "simclr", epochs=2), "work": tmp_path / "run.pt"}
    pretraining.train(**asked)
    for changed, message in (
        ({"recipe": Recipe("scenes", "simclr", epochs=3)}, r"epochs \(2 there, 3 here\)"),
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"pixels": pixels + 1}, "data"),
    ):
        model = Recorder()
        with pytest.raises(ValueError, match=f"another run's, which differs in: .*{message}"):
            pretraining.train(**asked | {"model": model} | changed)
        assert not model.seen
    model = Recorder()
    pretraining.train(**asked | {"model": model})
    assert not model.seen  # this run is done


def test_a_diverging_run_says_so(some):
    model = tiny(SimCLR)
    model.head[-1].weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1; lower the learning rate"):
        pretraining.train(model, *some, Recipe("scenes", "simclr", epochs=1), seed=0)


def test_the_learning_rate_rises_and_falls():
    rates = [pretraining._rate(step, 200) for step in range(200)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == rates[10] == 1 and rates[-1] < 1e-3
    assert rates[105] == pytest.approx(0.5, abs=0.01) and all(a >= b for a, b in zip(rates[10:], rates[11:]))


# Scores


def labelled(count, seed):
    labels = torch.rand(count, 3, generator=seeded(seed)) < torch.tensor([0.5, 0.2, 0.001])
    blank = torch.zeros(count, 1, 1)
    noise = torch.randn(count, 3, 1, 1, generator=seeded(seed + 50))
    return Annotated("toy", noise, blank.long(), (), (), labels, ("a", "b", "c"), "")


def test_probe_between_chance_and_perfection():
    parts = labelled(400, 1), labelled(400, 2)
    noise = probe(lambda batch: batch.flatten(1), *parts)
    frequency = parts[1].labels[:, :2].float().mean().item()
    assert noise["classes"] == 2 and noise["chance"] == pytest.approx(frequency)
    assert noise["mean_ap"] == pytest.approx(frequency, abs=0.08)
    for part in parts:
        part.images[:, :, 0, 0] = part.labels.float() + 0.1 * part.images[:, :, 0, 0]
    assert probe(lambda batch: batch.flatten(1), *parts)["mean_ap"] > 0.999


# The command


def test_the_command_writes_what_load_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(shipped.ARCHITECTURES, "resnet", lambda: small_resnet((4, 4, 8, 8)))
    monkeypatch.setitem(pretraining.RECIPES, "scenes-swav", Recipe("scenes", "swav", examples=128, epochs=1, size=32))
    monkeypatch.setattr(pretraining, "probe_scores", lambda *_: {"mean_ap": 0.5, "chance": 0.2, "classes": 8})
    monkeypatch.setattr(pretraining, "WORK", tmp_path / "work")
    monkeypatch.setattr(shipped, "CHECKPOINTS", tmp_path)
    pretraining.main(["scenes-swav", "--seed", "3", "--folder", str(tmp_path)])
    card = encoders.card("scenes-swav")
    assert card == json.loads(capsys.readouterr().out)
    assert card["command"] == "python -m lfx_utils.encoders.pretraining scenes-swav --seed 3"
    assert card["examples"] == 128
    images = torch.rand(2, 3, 32, 32)
    trained = pretraining.learner(pretraining.RECIPES["scenes-swav"], 8, 3)
    trained.load_state_dict(torch.load(tmp_path / "work" / "scenes-swav-3.pt", weights_only=True)["model"])
    assert torch.allclose(encoders.load("scenes-swav")(images), trained.encoder.eval()(images), atol=1e-2)
    assert sorted(path.suffix for path in tmp_path.glob("scenes-swav*")) == [".json", ".safetensors"]


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="name must be one of scenes-supervised, .*; got 'scenes'"):
        pretraining.pretrain("scenes")
    with pytest.raises(SystemExit):
        pretraining.main(["scenes"])


def test_without_its_data_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("LFX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="voc-simclr is trained on voc, which is not at hand"), pytest.warns():
        pretraining.pretrain("voc-simclr", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
