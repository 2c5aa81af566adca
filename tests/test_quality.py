"""The measures against cases that can be counted by hand, and against chance."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lfx_utils.measures import (
    complexity,
    monotonicity,
    pointing_game,
    relevance_mass,
    relevance_rank,
    rescale,
    sparseness,
    top_k,
)

# Importance 15 in the first corner, 1 in the last, none between 7 and 8 of the object's right.
MAP = torch.tensor([[15.0, 14, 1, 2], [13, 3, 12, 4], [5, 6, 7, 8], [9, 10, 11, 0]])[None, None]


def mask(*pixels):
    found = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    for row, column in pixels:
        found[0, 0, row, column] = True
    return found


OBJECT = mask((0, 0), (1, 0), (2, 0), (3, 0))  # Importances 15, 13, 5, 9.
AWAY = mask((0, 1), (0, 2), (1, 1))  # 14, 1, 3.


def test_localisation_by_hand():
    maps, masks = MAP.repeat(2, 1, 1, 1), torch.cat([OBJECT, AWAY])
    assert pointing_game(maps, masks).tolist() == [1, 0]
    # The five most important are 15, 14, 13, 12, 11; the object's number of pixels is four, the other's three.
    assert top_k(maps, masks, k=5).tolist() == pytest.approx([2 / 5, 1 / 5])
    assert relevance_rank(maps, masks).tolist() == pytest.approx([2 / 4, 1 / 3])
    assert relevance_mass(maps, masks).tolist() == pytest.approx([42 / 120, 18 / 120])


def test_only_positive_importance_has_mass():
    assert relevance_mass(MAP - 10, OBJECT).item() == pytest.approx((5 + 3) / (5 + 4 + 3 + 2 + 1))


def test_shares_by_hand():
    even = torch.ones(1, 1, 4, 4)
    single = mask((2, 1)).float()
    quarters = OBJECT * 3e-6
    assert complexity(torch.cat([even, single, quarters])).tolist() == pytest.approx(
        [math.log(16), 0, math.log(4)], abs=1e-5
    )
    # Gini: 1 − 2 × the area under the curve of shares, a polygon; all on m of n pixels gives 1 − m / n.
    assert sparseness(torch.cat([even, single, quarters])).tolist() == pytest.approx([0, 15 / 16, 12 / 16], abs=1e-5)
    values = MAP.flatten().double()
    gini = (values[:, None] - values).abs().mean() / (2 * values.mean())
    assert sparseness(MAP).item() == pytest.approx(gini.item(), abs=1e-5)
    entropy = -sum(v / 120 * math.log(v / 120) for v in values.tolist() if v)
    assert complexity(-MAP).item() == pytest.approx(entropy, abs=1e-5)


def test_order_is_all_that_ranks_see():
    torch.manual_seed(0)
    maps, masks = torch.randn(5, 1, 8, 8), torch.rand(5, 1, 8, 8) < 0.3
    for measure in (pointing_game, top_k, relevance_rank):
        assert torch.equal(measure(maps, masks), measure(1e-12 * maps.exp(), masks))
        assert torch.equal(measure(maps, masks), measure(maps / 1e4 - 1, masks))


def test_a_constant_map_scores_by_chance():
    """Quantus alone takes equal values as memory holds them: the first rows would win."""
    masks = torch.zeros(600, 1, 8, 8, dtype=torch.bool)
    masks[:, :, :2] = True
    maps = torch.zeros(600, 1, 8, 8)
    assert pointing_game(maps, masks).mean() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 600))
    assert relevance_rank(maps, masks).mean() == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(pointing_game(maps, masks), pointing_game(maps, masks, seed=1))
    assert torch.equal(pointing_game(maps, masks), pointing_game(maps, masks))
    assert relevance_mass(maps + 3, masks).tolist() == pytest.approx([0.25] * 600)
    for scores in (relevance_mass(maps, masks), complexity(maps), sparseness(maps)):
        assert scores.isnan().all()


def test_a_map_without_shares_spares_its_neighbours():
    maps = torch.cat([MAP, 0 * MAP, MAP])
    scores = relevance_mass(maps, OBJECT.repeat(3, 1, 1, 1))
    assert scores.isnan().tolist() == [False, True, False] and scores[0] == scores[2]


def test_default_k_is_the_papers_share():
    maps, masks = torch.rand(1, 1, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    masks.view(-1)[maps.flatten().argsort(descending=True)[:82]] = True  # 64² × 1,000 / 224² = 81.6
    assert top_k(maps, masks) == 1
    masks.view(-1)[maps.flatten().argsort(descending=True)[81]] = False
    assert top_k(maps, masks) == pytest.approx(81 / 82)


@pytest.fixture(scope="module")
def quantus():
    return pytest.importorskip("quantus", reason="the reference is not installed")


@pytest.mark.parametrize(
    ("ours", "theirs", "options", "slack"),
    [
        (pointing_game, "PointingGame", {}, 0),
        (partial(top_k, k=40), "TopKIntersection", {"k": 40}, 1e-6),
        (relevance_rank, "RelevanceRankAccuracy", {}, 1e-6),
        (relevance_mass, "RelevanceMassAccuracy", {}, 1e-6),
        (complexity, "Complexity", {}, 1e-5),
        (sparseness, "Sparseness", {}, 1e-5),
    ],
)
def test_measures_are_those_of_quantus(quantus, ours, theirs, options, slack):
    torch.manual_seed(0)
    maps, masks = torch.rand(7, 1, 16, 16), torch.rand(7, 1, 16, 16) < torch.rand(7, 1, 1, 1)
    metric = getattr(quantus, theirs)(disable_warnings=True, display_progressbar=False, **options)
    flat = {"a_batch": maps.flatten(1).double().numpy().copy(), "s_batch": masks.flatten(1).numpy()}
    wanted = metric.evaluate_batch(x_batch=None, **flat)
    found = ours(maps) if ours in (complexity, sparseness) else ours(maps, masks)
    assert found.tolist() == pytest.approx(np.asarray(wanted, dtype=float).tolist(), abs=slack)
    assert found.std() > 0 and found.dtype == torch.float32


def test_monotonicity_is_that_of_quantus_in_colour(quantus):
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    maps, images = torch.rand(6, 1, 8, 8), torch.rand(6, 3, 8, 8)
    found = monotonicity(maps, images, classifier, steps=12, samples=3, seed=5)
    metric = quantus.MonotonicityCorrelation(
        features_in_step=16, nr_samples=3, abs=False, normalise=False, disable_warnings=True, display_progressbar=False
    )
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    wanted = metric(
        model=classifier, x_batch=images.numpy(), y_batch=classifier(images).argmax(1).numpy(), a_batch=maps.numpy(),
        channel_first=True, softmax=True, device="cpu", batch_size=6,
    )  # fmt: skip
    np.random.set_state(state)  # noqa: NPY002
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_in_half_precision(dtype):
    maps, masks = (3_000 * torch.rand(3, 1, 12, 12)).to(dtype), torch.rand(3, 1, 12, 12) < 0.3
    for measure in (pointing_game, top_k, relevance_rank, relevance_mass):
        assert torch.equal(measure(maps, masks), measure(maps.float(), masks))
    for measure in (complexity, sparseness, rescale):
        assert torch.equal(measure(maps), measure(maps.float()))


def test_monotonicity_keeps_images_and_wants_a_function():
    class InPlace(Weighted):
        def forward(self, images):
            return super().forward(images.sub_(0.5))

    images, maps = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    kept, classifier = images.clone(), InPlace(torch.randn(1, 4, 4)).eval()
    found = monotonicity(maps, images, classifier, steps=4)
    assert torch.equal(images, kept) and found.isfinite().all()
    with pytest.raises(ValueError, match="two representations of the same inputs"):
        monotonicity(maps, images, nn.Sequential(Drawing(), classifier).eval(), steps=4)


class Drawing(nn.Module):
    def forward(self, images):
        return images + torch.rand_like(images)


def test_inputs_are_left_alone():
    maps, masks = MAP.clone(), OBJECT.clone()
    for measure in (pointing_game, top_k, relevance_rank, relevance_mass):
        measure(maps, masks)
    complexity(maps), sparseness(maps), rescale(maps)
    assert torch.equal(maps, MAP) and torch.equal(masks, OBJECT)


def test_rescale():
    scaled = rescale(torch.cat([MAP / 100 + 0.9, torch.full((1, 1, 4, 4), 0.7)]))
    assert torch.allclose(scaled[0], MAP[0] / 15, atol=1e-5) and not scaled[1].any()


class Weighted(nn.Module):
    """Logits that are linear in the image, so that each pixel's part in them is known."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, images):
        scores = (images * self.weights).flatten(1).sum(1)
        return torch.stack([scores, -scores], dim=1)


def test_monotonicity_knows_a_faithful_map():
    torch.manual_seed(0)
    weights = torch.linspace(0.0, 0.2, 64)[torch.randperm(64)].view(1, 8, 8)
    classifier, images = Weighted(weights).eval(), 0.5 + 0 * torch.rand(3, 1, 8, 8)
    faithful = weights.expand(3, 1, 8, 8)
    options = {"steps": 16, "samples": 30}
    assert (monotonicity(faithful, images, classifier, **options) > 0.9).all()
    assert (monotonicity(weights.max() - faithful, images, classifier, **options) < -0.9).all()
    noise = monotonicity(torch.rand(40, 1, 8, 8), images[:1].repeat(40, 1, 1, 1), classifier, steps=16, samples=3)
    assert noise.mean().abs() < 4 * noise.std() / math.sqrt(40)


def test_monotonicity_of_a_constant_map_is_not_defined():
    scores = monotonicity(torch.cat([MAP, 0 * MAP]), torch.cat([MAP, MAP]) / 15, LINEAR, steps=4, samples=2)
    assert scores.isnan().tolist() == [False, True]


def test_monotonicity_by_brute_force():
    """Group by group, grey by grey, as Nguyen and Martínez define it."""
    from scipy.stats import spearmanr

    torch.manual_seed(0)
    classifier, images = Weighted(torch.randn(1, 4, 4) / 4).eval(), torch.rand(2, 1, 4, 4)
    maps = torch.rand(2, 1, 4, 4)
    np.random.seed(7)  # noqa: NPY002
    groups = maps.flatten(1).argsort(dim=1).view(2, 8, 2)
    sizes, changes = torch.zeros(2, 8), torch.zeros(2, 8)
    with torch.no_grad():
        before = classifier(images).softmax(1).max(1)
        for step in range(8):
            for _ in range(3):
                moved = images.flatten(1).clone()
                greys = torch.tensor(np.random.uniform(size=2)).float()  # noqa: NPY002
                moved.scatter_(1, groups[:, step], greys[:, None].expand(2, 2))
                after = classifier(moved.view_as(images)).softmax(1)[torch.arange(2), before.indices]
                changes[:, step] += (after - before.values).square()
            sizes[:, step] = maps.flatten(1).gather(1, groups[:, step]).sum(1)
    wanted = [spearmanr(size, change).statistic for size, change in zip(sizes, changes, strict=True)]
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    found = monotonicity(maps, images, classifier, steps=8, samples=3, seed=7)
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


LINEAR = Weighted(torch.ones(1, 4, 4)).eval()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: pointing_game(MAP[0], OBJECT[0]), ValueError, r"maps must have shape \(B, 1, H, W\)"),
        (lambda: pointing_game(MAP.repeat(1, 3, 1, 1), OBJECT), ValueError, "sum over channels"),
        (lambda: pointing_game(MAP, OBJECT[..., :2]), ValueError, "masks must have the maps' shape"),
        (lambda: pointing_game(MAP, OBJECT.float()), TypeError, "masks must be a bool tensor"),
        (lambda: relevance_mass(MAP, OBJECT & False), ValueError, "masks holds 1 without a pixel"),
        (lambda: relevance_rank(MAP * torch.nan, OBJECT), ValueError, "maps holds 16 NaN"),
        (lambda: complexity(MAP.long()), TypeError, "maps must hold floating-point"),
        (lambda: top_k(MAP, OBJECT, k=17), ValueError, "k must be a whole number of the map's 16 pixels"),
        (lambda: monotonicity(MAP, MAP[..., :2], LINEAR), ValueError, "images must fit maps"),
        (lambda: monotonicity(MAP, MAP, LINEAR.forward), TypeError, "classifier must be an nn.Module"),
        (lambda: monotonicity(MAP, MAP, Weighted(MAP[0])), ValueError, "training mode"),
        (lambda: monotonicity(MAP, MAP, LINEAR, steps=17), ValueError, "steps must lie between 2 and 16"),
        (lambda: rescale(MAP[:, 0]), ValueError, "maps must have shape"),
    ],
)
def test_wrong_use_is_told(call, kind, message):
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
