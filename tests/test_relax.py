"""RELAX against brute force, exact enumeration, the paper's package and simulation."""

import itertools
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lfx_utils.relax import (
    RELAX,
    Blocks,
    Cells,
    Moments,
    Pixels,
    blur,
    bound_error,
    bound_masks,
    control,
    cosine,
    dot,
    half_width,
    noise,
    rbf,
    two_pass,
    u_relax,
)
from lfx_utils.relax.bounds import spent
from lfx_utils.relax.control import Basis, Regression, corrections


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(channels=2, size=8, seed=0):
    """A small encoder with positive outputs whose similarities differ by about a tenth from mask to mask."""
    torch.manual_seed(seed)
    last = nn.Linear(6 * (size - 2) ** 2, 5)
    last.weight.data *= 20
    return nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.Flatten(), last, nn.Softplus()).eval()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def given(masks):
    """A family of masks that deals out those given, in order; each of several inputs takes its turn."""
    dealt = iter(masks)
    return lambda count, shape, generator: torch.stack([next(dealt) for _ in range(count)])


def all_grids(height, width):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=height * width))).view(-1, height, width)


# ----------------------------------------------------------------------------------------------- masks


def test_cells_follow_the_text():
    """Upsample to one cell more, then crop: each mask equals one of its own grid's crops, taken one by one."""
    masks = Cells((2, 3), p=0.4)(60, (9, 14), generator(3))
    grids = torch.rand(60, 2, 3, generator=generator(3)).lt(0.4).float()
    seen = set()
    for mask, grid in zip(masks, grids, strict=True):
        large = functional.interpolate(grid[None, None], size=(3 * 5, 4 * 5), mode="bilinear")[0, 0]
        crops = [(top, left) for top in range(5) for left in range(5)]
        fits = [(a, b) for a, b in crops if torch.allclose(large[a : a + 9, b : b + 14], mask, atol=1e-6)]
        assert fits
        seen.update(fits if len(fits) == 1 else [])
    assert len(seen) > 15


def test_released_cells_follow_the_released_code():
    """Upsample to the input's size, mirror the borders, and shift by fewer pixels than there are cells."""
    masks = Cells(5, released=True)(30, (20, 20), generator(1))
    grids = torch.rand(30, 5, 5, generator=generator(1)).lt(0.5).float()
    for mask, grid in zip(masks, grids, strict=True):
        large = functional.interpolate(grid[None, None], size=(20, 20), mode="bilinear")
        large = functional.pad(large, (2, 2, 2, 2), mode="reflect")[0, 0]
        assert any(torch.allclose(large[a : a + 20, b : b + 20], mask, atol=1e-6) for a in range(5) for b in range(5))


@pytest.mark.parametrize("family", [Cells(3, 0.3), Cells(3, 0.3, released=True), Pixels(0.3), Blocks(3, 0.3)], ids=str)
@pytest.mark.parametrize("shape", [(10, 12), (11,)])
def test_every_pixel_stays_with_probability_p(family, shape):
    masks = family(4_000, shape, generator())
    assert masks.shape == (4_000, *shape) and masks.min() >= 0 and masks.max() <= 1
    assert (masks.mean(0) - 0.3).abs().max() < 5 * 0.5 / math.sqrt(4_000)
    assert torch.equal(masks[:9], family(4_000, shape, generator())[:9])


def test_blocks_are_dropped_whole():
    dropped = 1 - Blocks(3, 0.9)(200, (12, 12), generator())
    inside = functional.avg_pool2d(dropped[:, None], 3, stride=1)[:, 0].eq(1).float()
    covered = functional.max_pool2d(functional.pad(inside, (2, 2, 2, 2))[:, None], 3, stride=1)[:, 0]
    centre = slice(2, -2)
    assert torch.equal(covered[:, centre, centre], dropped[:, centre, centre])
    assert 0 < dropped.mean() < 0.2


def test_masks_of_several_images_are_the_same_and_need_no_batch_size():
    encoder, x = network(), torch.randn(3, 2, 8, 8)
    relax = RELAX(encoder, Cells(3))
    together = relax.attribute(x, n_masks=300, internal_batch_size=1_000)
    assert torch.equal(together, relax.attribute(x, n_masks=300, internal_batch_size=1_000))
    assert torch.allclose(together, relax.attribute(x, n_masks=300, internal_batch_size=7), atol=1e-5)
    for image, one in zip(x, together, strict=True):
        assert torch.allclose(relax.attribute(image[None], n_masks=300)[0], one, atol=1e-5)


# ------------------------------------------------------------------------------------------ estimators


def brute_force(encoder, x, masks, similarity=functional.cosine_similarity):
    """Algorithm 1, one mask at a time; R, U undivided, Σ m and the scores."""
    importance, uncertainty = torch.zeros(2, *masks.shape[1:])
    weight, scores = torch.full(masks.shape[1:], 1e-10), []
    for mask in masks:
        score = similarity(encoder(x), encoder(x * mask)).squeeze()
        weight += mask
        before = importance
        importance = before + mask * (score - before) / weight
        uncertainty = uncertainty + mask * (score - importance) * (score - before)
        scores.append(score)
    return importance, uncertainty, weight, torch.stack(scores)


@torch.no_grad()
def test_streaming_equals_one_mask_at_a_time():
    encoder, x, masks = network(), torch.randn(1, 2, 8, 8), Cells(3)(300, (8, 8), generator())
    r, u, w, s = brute_force(encoder, x, masks)
    evidence = RELAX(encoder, given(masks)).evidence(x, n_masks=300)
    assert torch.allclose(evidence.importance()[0, 0], r, atol=1e-5)
    assert torch.allclose(evidence.uncertainty("sum")[0, 0], u, atol=1e-5, rtol=1e-4)
    assert torch.allclose(evidence.uncertainty()[0, 0], u / (w - 1), atol=1e-6, rtol=1e-4)
    product = s[:, None, None] * masks
    assert torch.allclose(evidence.importance("mean")[0, 0], product.mean(0), atol=1e-5)
    assert torch.allclose(evidence.uncertainty("variance")[0, 0], product.var(0), atol=1e-6)
    around = (s[:, None, None] - product.mean(0)).square() * masks
    assert torch.allclose(evidence.uncertainty("mean")[0, 0], around.mean(0), atol=1e-5)
    maps, spread = RELAX(encoder, given(masks)).attribute(x, n_masks=300, estimator="mean", return_uncertainty=True)
    both = two_pass(s[None], masks)
    assert torch.allclose(maps[:, 0], both[0], atol=1e-5) and torch.allclose(spread[:, 0], both[1], atol=1e-5)


def test_two_passes_read_as_the_equations():
    scores, masks = 0.9 + 0.01 * torch.rand(3, 70).double(), torch.rand(70, 4, 5).double()
    importance, uncertainty = two_pass(scores, masks)
    for i in range(3):
        products = scores[i, :, None, None] * masks
        assert torch.allclose(importance[i], products.mean(0))
        assert torch.allclose(uncertainty[i], ((scores[i, :, None, None] - importance[i]) ** 2 * masks).mean(0))


@pytest.mark.parametrize("size", [1, 9])
def test_what_was_not_kept_is_refused_and_the_rest_stays(size):
    relax, x = RELAX(network(), Cells(3)), torch.rand(size, 2, 8, 8)
    whole, few = (relax.evidence(x, n_masks=150, keep=keep) for keep in (("bounds", "control"), ()))
    assert torch.equal(whole.importance(), few.importance()) and torch.equal(whole.uncertainty(), few.uncertainty())
    for call in (few.half_width, (few + whole).half_width, lambda: few.uncertainty("variance")):
        with pytest.raises(ValueError, match="need evidence"):
            call()
    for evidence in (few, whole + few):
        with pytest.raises(ValueError, match="estimator 'control' needs"):
            evidence.importance("control")
    with pytest.raises(ValueError, match="keep must name"):
        relax.evidence(x, keep=("everything",))


def test_partial_results_merge_in_any_order():
    scores, masks = 0.9 + 0.01 * torch.rand(2, 500), Cells(3)(500, (9, 9), generator())
    scores, masks = scores.double(), masks.double()
    pieces = [Moments.of(scores[:, a:b], masks[a:b]) for a, b in itertools.pairwise([0, 3, 100, 101, 350, 500])]
    for order in itertools.islice(itertools.permutations(pieces), 0, 120, 17):
        left = sum(order[1:], order[0])
        halves = (order[0] + order[1]) + ((order[2] + order[3]) + order[4])
        for merged in (left, halves):
            assert merged.count == 500
            mean = (scores @ masks.flatten(1) / masks.flatten(1).sum(0)).view(2, 9, 9)
            assert torch.allclose(merged.importance(), mean, atol=1e-12)
            spread = torch.einsum("bnij,nij->bij", (scores[:, :, None, None] - mean[:, None]).square(), masks)
            assert torch.allclose(merged.uncertainty("sum"), spread, atol=1e-12)


def test_runs_on_different_seeds_merge():
    encoder, x = network(), torch.randn(2, 2, 8, 8)
    relax = RELAX(encoder, Cells(3))
    a, b = (relax.evidence(x, n_masks=200, seed=seed) for seed in (1, 2))
    masks = torch.cat([Cells(3)(n, (8, 8), g) for g in (generator(1), generator(2)) for n in (128, 72)])
    whole = RELAX(encoder, given(masks)).evidence(x, n_masks=400)
    for merged in (a + b, b + a):
        assert torch.allclose(merged.importance(), whole.importance(), atol=1e-5)
        assert torch.allclose(merged.uncertainty(), whole.uncertainty(), atol=1e-6)
        assert torch.allclose(merged.half_width(), whole.half_width(), atol=1e-5)
    assert torch.allclose((a + b).importance("control"), (b + a).importance("control"), atol=1e-6)


def test_equals_the_published_package(monkeypatch):
    package = pytest.importorskip("relax_xai.relax", reason="the papers' package is not installed")
    encoder, x, masks = network(3, 16), torch.randn(1, 3, 16, 16), Cells(4)(90, (16, 16), generator())
    batches = iter(masks[:, None].split(30))
    monkeypatch.setattr(package, "mask_generator", lambda *args, **kwargs: [next(batches)])
    with torch.no_grad():
        theirs = package.RELAX(x, encoder, batch_size=30, num_batches=3)
        theirs.forward()
    ours = RELAX(encoder, given(masks)).evidence(x, n_masks=90)
    assert theirs.uncertainty.mean() > 0.05
    assert torch.allclose(ours.importance()[0, 0], theirs.importance, atol=1e-5, rtol=0)
    assert torch.allclose(ours.uncertainty("sum")[0, 0], theirs.uncertainty, atol=1e-5, rtol=0)
    # The package keeps the median pixel itself too.
    kept = u_relax(theirs.importance[None], theirs.uncertainty[None], aggregate="median")[0]
    assert (kept != theirs.u_relax).sum() == (theirs.uncertainty == theirs.uncertainty.median()).sum() == 1


@torch.no_grad()
def enumerated(encoder, x, cells, similarity=functional.cosine_similarity):
    """E[s m], E[m] and E[s m] / E[m] over all grids, and all shifts, of masks on one image."""
    vertical, horizontal = cells.axes(x.shape[2:])
    grids = all_grids(vertical.shape[2], horizontal.shape[2])
    kept = grids.flatten(1).sum(1)
    weight = cells.p**kept * (1 - cells.p) ** (grids[0].numel() - kept)
    masks = torch.einsum("ahr,nrc,bwc->abnhw", vertical, grids, horizontal)
    weight = weight.expand(masks.shape[:3]).flatten() / (len(vertical) * len(horizontal))
    masks = masks.flatten(0, 2)
    scores = similarity(encoder(x).expand(len(masks), -1), encoder(x * masks[:, None]))
    product, mask = torch.einsum("n,n,nhw->hw", weight, scores, masks), torch.einsum("n,nhw->hw", weight, masks)
    return product, mask, product / mask, scores


@pytest.mark.parametrize("cells", [Cells(2, 0.4), Cells((2, 3), 0.5), Cells(2, 0.7, released=True)], ids=str)
def test_estimates_meet_the_exact_expectation(cells):
    encoder, x = network(2, 6), torch.rand(1, 2, 6, 6)
    mean, _, ratio, scores = enumerated(encoder, x, cells)
    evidence = RELAX(encoder, cells).evidence(x, n_masks=20_000, internal_batch_size=4_000)
    allowed = 5 * scores.std() / cells.p / math.sqrt(20_000)
    for estimator in ("ratio", "control"):
        estimate = evidence.importance(estimator)[0, 0]
        assert (estimate - ratio).abs().max() < allowed
        assert torch.corrcoef(torch.stack([estimate.flatten(), ratio.flatten()]))[0, 1] > 0.97
    assert (evidence.importance("mean")[0, 0] - mean).abs().max() < 5 * 0.5 / math.sqrt(20_000)


# ------------------------------------------------------------------------------------- control variate


@pytest.mark.parametrize("cells", [Cells(3, 0.3), Cells(4, 0.5, released=True)], ids=str)
@pytest.mark.parametrize("shape", [(10, 13), (17,)])
def test_coordinates_of_masks_are_uncorrelated(cells, shape):
    basis = Basis.of(cells, shape)
    features = basis.features(cells(6_000, shape, generator()))
    covariance = features.T @ features / 6_000
    few = min(12, covariance.shape[1])
    assert features.mean(0)[:few].abs().max() < 0.1
    assert (covariance[:few, :few] - torch.eye(few)).abs().max() < 0.15


@pytest.mark.parametrize("shape", [(12, 12), (12, 30)])
def test_control_is_exact_where_scores_are_linear(shape, monkeypatch):
    """The map of a score linear in the mask has a closed form, and 150 masks give it nearly to rounding.

    Also where masks are looked at in some places of an axis only.
    """
    monkeypatch.setattr(control, "PLACES", 15 if shape[1] == 30 else control.PLACES)
    cells = Cells(3)
    slope = torch.rand(shape, generator=generator(5)).double() / math.prod(shape)
    vertical, horizontal = (axis.double() for axis in cells.axes(shape))
    rows, columns = ((axis @ axis.mT).mean(0) for axis in (vertical, horizontal))
    exact = 0.2 + 0.5 * slope.sum() + 0.5 * rows @ slope @ columns
    masks, basis = cells(150, shape, generator()).double(), Basis.of(cells, shape)
    scores = 0.2 + (masks * slope).sum((1, 2))[None]
    moments = Moments.of(scores, masks)
    regression = Regression.of(scores, basis.features(masks), masks.square().mean((1, 2)))
    (added,) = corrections(regression, (basis,), [moments.first.total])
    plain = moments.importance()
    assert (plain + added - exact).abs().max() < 0.02 * (plain - exact).abs().max()


@pytest.mark.parametrize("released", [False, True])
def test_control_needs_fewer_masks(released):
    encoder, x, cells = network(2, 9), torch.rand(6, 2, 9, 9), Cells(3, released=released)
    truth = torch.stack([enumerated(encoder, image[None], cells)[2] for image in x])
    runs = [RELAX(encoder, cells).evidence(x, n_masks=128, internal_batch_size=256, seed=seed) for seed in range(30)]
    plain, controlled = (
        torch.stack([run.importance(estimator)[:, 0] - truth for run in runs]).square().mean((0, 2, 3))
        for estimator in ("ratio", "control")
    )
    assert (controlled < plain).all() and (controlled / plain).log().mean().exp() < 0.7


@pytest.mark.parametrize("count", [2, 5, 20])
def test_control_does_no_harm_with_very_few_masks(count):
    encoder, x = network(2, 24), torch.rand(1, 2, 24, 24)
    truth = RELAX(encoder, Cells(6)).attribute(x, n_masks=4_000, internal_batch_size=500, seed=99)
    runs = [RELAX(encoder, Cells(6)).evidence(x, n_masks=count, seed=seed) for seed in range(10)]
    plain, controlled = (
        torch.stack([run.importance(estimator) - truth for run in runs]).square().mean()
        for estimator in ("ratio", "control")
    )
    assert controlled < 1.5 * plain


# -------------------------------------------------------------------------------------------- theorems


def test_theorem_1():
    assert bound_masks(0.01, 0.01) == 26_492 and bound_masks(0.01, 0.01, width=2) == math.ceil(4 * 26_491.587)
    assert bound_error(3_000, 0.01) == pytest.approx(0.029716, abs=1e-6)
    for t, delta in [(0.02, 0.05), (0.1, 0.3)]:
        count = bound_masks(t, delta)
        assert 2 * math.exp(-2 * count * t**2) <= delta < 2 * math.exp(-2 * (count - 1) * t**2)


@torch.no_grad()
def test_theorems_2_and_3():
    """Eq. 2 is an inner product with a weighted mean embedding, Eq. 12 a weighted Parzen estimate."""
    encoder, x, masks = network(), torch.randn(1, 2, 8, 8), Cells(3)(200, (8, 8), generator())
    h, masked = encoder(x), encoder(x * masks[:, None])
    unit = functional.normalize(masked)
    embedding = torch.einsum("nd,nhw->hwd", unit, masks) / 200
    score = RELAX(encoder, given(masks)).attribute(x, n_masks=200, estimator="mean")[0, 0]
    assert torch.allclose(score, embedding @ functional.normalize(h)[0], atol=1e-5)
    window = torch.exp(-(h - masked).square().sum(1) / (2 * 0.7**2))
    parzen = torch.einsum("n,nhw->hw", window, masks) / masks.sum(0)
    score = RELAX(encoder, given(masks), similarity=rbf(0.7)).evidence(x, n_masks=200)
    assert torch.allclose(score.importance()[0, 0], parzen, atol=1e-5)
    assert torch.allclose(score.importance("mean")[0, 0] / parzen, masks.mean(0), atol=1e-5)


@pytest.mark.parametrize(("count", "p"), [(400, 0.5), (30, 0.05)])
@pytest.mark.parametrize("estimator", ["ratio", "mean"])
def test_bound_covers(estimator, count, p):
    """The true map lies within the bound, also where scores are rare and a normal interval fails."""
    grids = all_grids(2, 2)
    kept = grids.flatten(1).sum(1)
    probability = p**kept * (1 - p) ** (4 - kept)
    scores = torch.tensor([0.9 if n > 1 else 0.3 if n else 0.1 for n in kept.tolist()])
    truth = torch.einsum("n,n,nhw->hw", probability, scores, grids)
    truth = truth / p if estimator == "ratio" else truth
    missed, naive, widths = 0, 0, []
    for seed in range(400):
        drawn = torch.multinomial(probability, count, replacement=True, generator=generator(seed))
        moments = Moments.of(scores[drawn][None], grids[drawn])
        t = half_width(moments, 0.1, 1.0, estimator)
        error = (moments.importance(estimator)[0] - truth).abs()
        missed += (error > t[0]).float() / 400
        naive += (error > 1.645 * (moments.uncertainty("variance")[0] / count).sqrt()).float() / 400
        widths.append(t.mean())
    assert missed.max() <= 0.1
    if count == 30:
        assert naive.max() > 0.2
    else:
        assert sum(widths) / 400 < 3 * bound_error(400, 0.1)


def test_stopping_keeps_its_promise():
    encoder, x, cells = network(2, 6), torch.randn(1, 2, 6, 6), Cells(2)
    truth = enumerated(encoder, x, cells)[2]
    missed = 0
    for seed in range(10):
        evidence = RELAX(encoder, cells).evidence(
            x, n_masks=20_000, internal_batch_size=256, tolerance=0.08, delta=0.1, width=1.0, seed=seed
        )
        missed += ((evidence.importance()[0, 0] - truth).abs() > 0.08).any().item()
    assert missed <= 1 and 256 <= evidence.count < bound_masks(0.08 / 2, 0.1 / 36) * 3
    assert sum(spent(0.1, look) for look in range(1, 2_000)) < 0.1
    with pytest.warns(RuntimeWarning, match="did not reach the tolerance"):
        RELAX(encoder, cells).attribute(x, n_masks=300, tolerance=1e-4)


# ----------------------------------------------------------------------------- encoders, fills, inputs


def test_fills():
    x, masks = torch.rand(2, 2, 8, 8), Cells(3)(4, (8, 8), generator())
    seen = []

    def encoder(rows):
        seen.append(rows)
        return rows.flatten(1)

    def covered(fill):
        seen.clear()
        RELAX(encoder, given(masks), fill=fill).attribute(x, n_masks=4)
        return torch.cat(seen[3:]).view(2, 4, 2, 8, 8)  # After the images alone, twice to see that they stay.

    m = masks[None, :, None]
    assert torch.allclose(covered(0.0), x[:, None] * m)
    assert torch.allclose(covered(0.5), x[:, None] * m + 0.5 * (1 - m))
    mean = torch.rand(2, 1, 1)
    assert torch.allclose(covered(mean), x[:, None] * m + mean * (1 - m), atol=1e-6)
    assert torch.allclose(covered(1 - x), x[:, None] * m + (1 - x)[:, None] * (1 - m), atol=1e-6)
    soft = covered(blur(1.0))
    far = ((soft - x[:, None] * m) / (1 - m).clamp_min(1e-3))[(1 - m).expand_as(soft) > 0.5]
    assert far.min() > x.min() and far.max() < x.max()
    drawn = (covered(noise(3.0, 0.1)) - x[:, None] * m) / (1 - m)
    drawn = drawn[(1 - m).expand_as(drawn) > 0.5]
    assert drawn.mean() == pytest.approx(3.0, abs=0.05) and drawn.std() == pytest.approx(0.1, rel=0.3)


def test_similarities():
    a, b = torch.rand(5, 3), torch.rand(5, 3)
    for row, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        inner = sum(p * q for p, q in zip(x, y, strict=True))
        assert dot(a, b)[row].item() == pytest.approx(inner, rel=1e-5)
        assert cosine(a, b)[row].item() == pytest.approx(inner / math.hypot(*x) / math.hypot(*y), rel=1e-5)
        assert rbf(0.5)(a, b)[row].item() == pytest.approx(math.exp(-(math.dist(x, y) ** 2) / 0.5), rel=1e-5)
    masks, x = Cells(2)(50, (8, 8), generator()), torch.rand(1, 1, 8, 8)
    mine = RELAX(lambda rows: rows.flatten(1), given(masks), similarity=lambda h, k: -(h - k).abs().sum(1))
    scores = -(x * (1 - masks[:, None])).flatten(1).sum(1)
    expected = torch.einsum("n,nhw->hw", scores, masks) / masks.sum(0)
    assert torch.allclose(mine.attribute(x, n_masks=50)[0, 0], expected, atol=1e-3)


def test_an_encoder_may_be_numpy():
    matrix = np.random.default_rng(0).random((128, 4))

    def features(rows):
        return np.abs(rows.flatten(1).numpy() @ matrix)

    def same(rows):
        return (rows.flatten(1).double() @ torch.tensor(matrix)).abs()

    x = torch.rand(2, 2, 8, 8)
    found, expected = (RELAX(encoder, Cells(3)).attribute(x, n_masks=60) for encoder in (features, same))
    assert found.shape == (2, 1, 8, 8) and torch.allclose(found, expected, atol=1e-6)


@torch.no_grad()
def test_several_inputs_have_masks_of_their_own():
    first, second = network(1, 8, seed=1), nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU()).eval()
    x, y = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 3, 4)

    def fused(a, b):
        return first(a) + second(b) + 0.1

    cells = Cells((2, 2))
    maps = RELAX(fused, cells).attribute((x, y), n_masks=100)
    assert [each.shape for each in maps] == [(2, 1, 8, 8), (2, 1, 3, 4)]
    g = generator()
    masks_x, masks_y = cells(100, (8, 8), g), cells(100, (3, 4), g)
    for i in range(2):
        a, b = x[i : i + 1], y[i : i + 1]
        pairs = [fused(a * m, b * n) for m, n in zip(masks_x, masks_y, strict=True)]
        scores = functional.cosine_similarity(fused(a, b), torch.cat(pairs))
        for found, masks in zip(maps, (masks_x, masks_y), strict=True):
            assert torch.allclose(found[i, 0], torch.einsum("n,nhw->hw", scores, masks) / masks.sum(0), atol=1e-5)
    both = RELAX(fused, cells).evidence((x, y), n_masks=2_000, internal_batch_size=512)
    for plain, controlled in zip(both.importance(), both.importance("control"), strict=True):
        assert (plain - controlled).abs().max() < 0.05


@torch.no_grad()
def test_sequences():
    lstm = nn.LSTM(2, 6, batch_first=True).eval()

    def encoder(rows):
        return lstm(rows)[1][0][-1]

    x, masks = torch.rand(3, 15, 2), Cells(4)(80, (15,), generator())
    maps = RELAX(encoder, Cells(4), dims=(1,)).attribute(x, n_masks=80)
    assert maps.shape == (3, 15, 1)
    scores = functional.cosine_similarity(encoder(x)[1:2], encoder(x[1] * masks[:, :, None]))
    assert torch.allclose(maps[1, :, 0], scores @ masks / masks.sum(0), atol=1e-5)


def test_half_precision_and_channels_last_keep_the_map():
    encoder, x = network(3, 16), torch.randn(1, 3, 16, 16)
    maps = RELAX(encoder, Cells(4)).attribute(x, n_masks=300)
    fast = RELAX(encoder, Cells(4), dtype=torch.bfloat16, channels_last=True).attribute(x, n_masks=300)
    assert torch.corrcoef(torch.stack([maps.flatten(), fast.flatten()]))[0, 1] > 0.999
    assert fast.dtype == torch.float32


def test_the_encoder_is_left_as_found():
    encoder, x = network(), torch.randn(2, 2, 8, 8).requires_grad_()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    state = torch.get_rng_state()
    maps = RELAX(encoder, Cells(3), dtype=torch.bfloat16, channels_last=True).attribute(x, n_masks=20)
    assert not maps.requires_grad and x.grad is None and torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]) and tensor.stride() == before[name].stride()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in encoder.parameters())
    assert not any(module.training or module._forward_hooks for module in encoder.modules())


def test_memory_is_bounded_by_the_batch():
    largest = 0

    def encoder(rows):
        nonlocal largest
        largest = max(largest, len(rows))
        return rows.flatten(1)

    RELAX(encoder, Cells(2), fill=0.1).attribute(1 + torch.rand(9, 1, 4, 4), n_masks=40, internal_batch_size=7)
    assert largest == 7


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of a process")
def test_memory_is_bounded_for_large_inputs():
    """In a process of its own: under a gigabyte together with torch itself."""
    code = """
import torch
from lfx_utils.relax import RELAX, Cells
encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Unflatten(1, (1, -1)), torch.nn.AdaptiveAvgPool1d(60),
                              torch.nn.Flatten()).eval()
for shape, dims in (((5_000, 12), (1,)), ((3, 1_024, 1_024), (2, 3))):
    for estimator in ("ratio", "control"):
        maps = RELAX(encoder, Cells(14), dims=dims).attribute(torch.rand(1, *shape), n_masks=20, estimator=estimator)
        assert maps.isfinite().all() and maps.std() > 0
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0


def test_masks_of_large_inputs_are_drawn_a_few_at_a_time():
    counts = []

    def masks(count, shape, generator):
        counts.append(count)
        return Pixels()(count, shape, generator)

    RELAX(lambda rows: rows.mean((2, 3)), masks).attribute(torch.rand(1, 2, 1_000, 1_000), n_masks=20)
    assert counts == [8, 8, 4]


def test_blocks_on_a_volume():
    masks = Blocks(3, 0.6)(3_000, (5, 6, 7), generator())
    assert (masks.mean(0) - 0.6).abs().max() < 5 * 0.5 / math.sqrt(3_000)
    encoder = nn.Sequential(nn.AdaptiveAvgPool3d(2), nn.Flatten()).eval()
    assert RELAX(encoder, Blocks(3), dims=(2, 3, 4)).attribute(torch.rand(1, 1, 5, 6, 7), n_masks=9).shape[2:] == (
        5,
        6,
        7,
    )
    with pytest.raises(ValueError, match="up to 3 axes, got 4"):
        Blocks(1)(1, (2, 2, 2, 2), generator())


@pytest.mark.parametrize("estimator", ["ratio", "mean", "control"])
def test_encoders_that_work_in_place_draw_or_are_half(estimator):
    encoder, x = network(), torch.rand(2, 2, 8, 8)
    kept, options = x.clone(), {"n_masks": 60, "estimator": estimator}
    found = RELAX(lambda rows: encoder(rows.sub_(0.3)), Cells(3)).attribute(x, **options)
    assert torch.equal(x, kept)
    assert torch.equal(found, RELAX(lambda rows: encoder(rows - 0.3), Cells(3)).attribute(x, **options))
    with pytest.raises(ValueError, match="two representations of the same inputs"):
        RELAX(lambda rows: functional.dropout(encoder(rows)), Cells(3)).attribute(x, **options)
    half = RELAX(network().half(), Cells(3)).attribute(x.half(), **options)
    assert half.dtype == torch.float32
    assert torch.allclose(half, RELAX(encoder, Cells(3)).attribute(x, **options), atol=0.01)


def test_u_relax():
    importance = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    uncertainty = torch.tensor([[[0.1, 0.2], [0.3, 1.0]]])
    assert u_relax(importance, uncertainty).tolist() == [[[1, 2], [3, 0]]]
    assert u_relax(importance, uncertainty, gamma=0.6).tolist() == [[[1, 2], [0, 0]]]
    assert u_relax(importance, uncertainty, aggregate="median").tolist() == [[[1, 0], [0, 0]]]
    uncertainty[0, 0, 0] = torch.nan
    assert u_relax(importance, uncertainty).tolist() == [[[0, 2], [3, 0]]]


# ------------------------------------------------------------------------------------------- wrong use


def flat(rows):
    return rows.flatten(1)


IMAGES = torch.rand(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RELAX(flat).attribute(torch.rand(1, 8, 8)), r"images \(B, C, H, W\), got shape \(1, 8, 8\)"),
        (lambda: RELAX(flat).attribute(torch.rand(2, 1, 1, 8, 8)), r"inputs must be images"),
        (lambda: RELAX(flat, dims=(1,)).attribute(IMAGES), r"dims=\(1,\)"),
        (lambda: RELAX(flat, Cells(9)).attribute(IMAGES), r"grid must be between 1 and the input's size \(8, 8\)"),
        (lambda: RELAX(flat, Cells(0)).attribute(IMAGES), "grid must be between 1"),
        (lambda: RELAX(flat, Cells((2, 2, 2))).attribute(IMAGES), "grid must be between 1"),
        (lambda: RELAX(flat, Blocks(9)).attribute(IMAGES), "size must be between 1 and the input's 8 pixels, got 9"),
        (lambda: Cells(p=0), "p must lie strictly between 0 and 1"),
        (lambda: Pixels(1), "p must lie strictly between 0 and 1"),
        (lambda: Blocks(p=1.5), "p must lie strictly between 0 and 1"),
        (lambda: RELAX(flat).attribute(IMAGES, n_masks=1), "n_masks must be at least 2, as one mask"),
        (lambda: RELAX(flat).attribute(IMAGES, internal_batch_size=0), "internal_batch_size must be a positive"),
        (lambda: RELAX(flat).attribute(IMAGES * torch.nan), "inputs holds 128 NaN"),
        (lambda: RELAX(lambda rows: flat(rows) * torch.nan).attribute(IMAGES), "encoder returned NaN"),
        (lambda: RELAX(lambda rows: rows).attribute(IMAGES), r"representations of shape \(B, D\)"),
        (lambda: RELAX(nn.Flatten().train()).attribute(IMAGES), "training mode"),
        (lambda: RELAX(lambda rows: 0 * flat(rows)).attribute(IMAGES), "norm zero, so its cosine similarity"),
        (lambda: RELAX(flat, similarity=lambda h, k: h).attribute(IMAGES), "similarity must return one finite"),
        (
            lambda: RELAX(flat, lambda n, shape, g: torch.rand(n, 3)).attribute(IMAGES),
            r"must return a tensor of shape \(128, 8, 8\)",
        ),
        (lambda: RELAX(flat).attribute(IMAGES, estimator="eq2"), "estimator must be 'ratio', 'mean' or 'control'"),
        (lambda: RELAX(flat, Pixels()).attribute(IMAGES, n_masks=9, estimator="control"), "needs masks of known"),
        (lambda: RELAX(flat).attribute(IMAGES, estimator="mean", tolerance=0.1), "kept for estimator 'ratio' only"),
        (lambda: RELAX(flat).evidence(IMAGES, n_masks=9).uncertainty("eq9"), "estimator must be 'ratio', 'sum'"),
        (lambda: RELAX(flat).attribute((IMAGES, IMAGES[:1])), "one row for each example"),
        (lambda: u_relax(IMAGES, IMAGES[:1]), "must have one shape"),
        (lambda: u_relax(IMAGES, IMAGES, aggregate="max"), "aggregate must be"),
        (lambda: u_relax(IMAGES, IMAGES, gamma=float("nan")), "gamma must be positive"),
        (
            lambda: RELAX(flat, fill=torch.rand(5)).attribute(IMAGES),
            r"fill must be finite and broadcast .* got \(5,\)",
        ),
        (lambda: RELAX(flat, fill=math.inf), "fill must be finite, got inf"),
        (lambda: bound_masks(0, 0.1), "t must be positive"),
        (lambda: bound_error(10, 1.0), "delta must lie strictly between 0 and 1"),
        (lambda: bound_error(0, 0.1), "n_masks must be at least 1"),
        (lambda: rbf(0.0), "width must be positive"),
        (lambda: half_width(Moments.of(torch.rand(1, 1), torch.rand(1, 4)), 0.1), "at least 2 masks"),
    ],
)
def test_wrong_use_is_told(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_encoder_must_return_one_tensor():
    with pytest.raises(TypeError, match="must return one tensor"):
        RELAX(lambda rows: (flat(rows), rows)).attribute(IMAGES)
    with pytest.raises(TypeError, match="encoder must be callable"):
        RELAX("resnet").attribute(IMAGES)


def test_zero_under_a_mask_is_told_once():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 0, 0] = 1.0
    with pytest.warns(RuntimeWarning, match="norm zero, where cosine similarity is undefined"):
        RELAX(flat, Pixels()).attribute(image, n_masks=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RELAX(flat, Pixels(), similarity=rbf(1.0)).attribute(image, n_masks=50)


@pytest.mark.parametrize("dims", [(3, 2), (0, 1), (2, 2), ()])
def test_axes_must_rise(dims):
    with pytest.raises(ValueError, match="dims must be"):
        RELAX(lambda x: x.flatten(1), Cells(3), dims=dims)


def test_evidence_survives_a_file_that_runs_no_code(tmp_path):
    encoder, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval(), torch.rand(2, 3, 4, 4)
    first, second = (RELAX(encoder, Cells(2)).evidence(images, n_masks=40, seed=seed) for seed in range(2))
    torch.save(first, tmp_path / "run.pt")
    read = torch.load(tmp_path / "run.pt", weights_only=True)
    for estimator in ("ratio", "mean", "control"):
        torch.testing.assert_close((read + second).importance(estimator), (first + second).importance(estimator))
    torch.testing.assert_close(read.uncertainty(), first.uncertainty())
