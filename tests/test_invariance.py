"""The invariance test, divergences and counterfactuals: against loops, torch's distributions and a fine search."""

import math

import pytest
import torch
from captum.attr import IntegratedGradients
from torch.distributions import Independent, Normal, kl_divergence

from lfx_utils import LabelFree
from lfx_utils.measures import invariance
from lfx_utils.measures.invariance import Divergence, Half, counterfactuals, invariance_test
from lfx_utils.models.svae import SVAE, SemiVAE
from lfx_utils.models.svae_parts import dense
from lfx_utils.relax import RELAX, Cells

MODELS = pytest.mark.parametrize("kind", [SVAE, SemiVAE])
SHAPE, CLASSES, NUISANCE = (1, 8, 8), 4, 3


def small(kind, classifier_dims=CLASSES, seed=0):
    """A model with random weights, in double precision; large ones, so that labels change under resampling."""
    torch.manual_seed(seed)
    dims = {"classifier_dims": classifier_dims} if kind is SVAE else {}
    model = kind(*dense(SHAPE, classifier_dims + NUISANCE, width=12), CLASSES, nuisance_dims=NUISANCE, **dims)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.double().eval()


def batch(size=5, seed=2):
    return torch.rand(size, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distribution(code):
    return Independent(Normal(code.mean, code.log_std.exp()), 1)


@MODELS
def test_invariance_by_a_loop(kind):
    model, images = small(kind), batch(size=6)
    found = invariance_test(model, images, [0.5, 3.0], draws=3, seed=7)
    noise = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(7)).double()
    for place, sigma in enumerate((0.5, 3.0)):
        for row in range(6):
            one = images[row : row + 1]
            label = model.classify(one).argmax()
            made = [model.transform(one, sigma * eps[row : row + 1]) for eps in noise]
            kept = [(model.classify(m).argmax() == label).item() for m in made]
            assert found.kept[place, row] == pytest.approx(sum(kept) / 3)
            moved = [(m - one).square().sum().sqrt().item() for m in made]
            assert found.moved[place, row].item() == pytest.approx(sum(moved) / 3, rel=1e-5)
            pairs = [(made[a] - made[b]).square().sum().sqrt().item() for a, b in ((0, 1), (0, 2), (1, 2))]
            assert found.spread[place, row].item() == pytest.approx(sum(pairs) / 3, rel=1e-5)
    assert found.judged is None
    assert 0 < found.kept.mean() < 1  # random weights: some labels must change, or the test could not fail


@MODELS
def test_judge_and_a_decoder_that_ignores_the_nuisance(kind):
    model, images = small(kind), batch(size=6)
    with torch.no_grad():
        model.decoder[0].weight[:, -3:] = 0
    judge = small(kind, seed=5).classify
    found = invariance_test(model, images, [4.0], draws=2, judge=judge)
    own = model.transform(images, torch.zeros(6, 3).double())
    assert torch.equal(found.kept[0].bool(), model.classify(own).argmax(1) == model.classify(images).argmax(1))
    assert torch.equal(found.judged[0].bool(), judge(own).argmax(1) == judge(images).argmax(1))
    assert found.spread.abs().max() < 1e-12  # trivially invariant, and the spread says so
    assert torch.allclose(found.moved[0], (own - images).flatten(1).norm(dim=1).float())


def test_invariant_samples_keep_the_label():
    model, images = small(SVAE), batch()
    for row in range(5):
        one = images[row : row + 1]
        made = invariance.invariant_samples(model, one, 4, sigma=0.5)
        assert made.shape == (4, *SHAPE) and len(made.unique(dim=0)) == 4
        assert (model.classify(made).argmax(1) == model.classify(one).argmax(1)).all()


def test_too_few_samples_keep_the_label():
    model, images = small(SVAE), batch()
    classify, calls = model.classify, []

    def contrary(rows):
        calls.append(len(rows))
        return -classify(rows) if len(rows) == 1 else classify(rows)

    model.classify = contrary  # the original's label is then the least likely one
    with pytest.raises(ValueError, match="sigma=0.001 left only 0 of 80 images"):
        invariance.invariant_samples(model, images[:1], 4, sigma=0.001)
    assert calls == [80, 1]


@pytest.mark.parametrize("k, dims", [(1, slice(0, 4)), (2, slice(4, 7))])
def test_divergence_of_torch(k, dims):
    model, images, others = small(SVAE), batch(), batch(seed=9)
    divergence = Divergence(model, k)
    found = divergence(others, *divergence.of(images))
    expected = kl_divergence(
        distribution(model.encode(images).part(dims)), distribution(model.encode(others).part(dims))
    )
    assert found.shape == (5, 1) and torch.allclose(found[:, 0], expected)
    assert torch.allclose(divergence(images, *divergence.of(images)), torch.zeros(5, 1).double(), atol=1e-12)
    one = divergence(others, *divergence.of(images[:1]))
    assert torch.allclose(one[0], found[0])  # one fixed image for all
    assert torch.equal(Half(model, k)(images), model.encode(images).mean[:, dims])


def test_halves_add_up():
    # Independent dimensions: the divergence of the whole code is the sum of its halves'.
    model, images, others = small(SVAE), batch(), batch(seed=9)
    whole = kl_divergence(distribution(model.encode(images)), distribution(model.encode(others)))
    parts = [Divergence(model, k)(others, *Divergence(model, k).of(images))[:, 0] for k in (1, 2)]
    assert torch.allclose(parts[0] + parts[1], whole)


def test_closeness():
    model, images, others = small(SVAE), batch(), batch(seed=9)
    half, divergence = Half(model, 1, posterior=True), Divergence(model, 1)
    found = invariance.closeness(half(images), half(others))
    assert torch.allclose(found, torch.exp(-divergence(others, *divergence.of(images))[:, 0]))
    assert torch.allclose(invariance.closeness(half(images), half(images)), torch.ones(5).double())


def test_label_free_explains_the_divergence():
    # Completeness: the map sums to what d gains from the baseline; every row must meet the code of its own image.
    model, images, others = small(SVAE), batch(), batch(seed=9)
    divergence = Divergence(model, 2)
    codes, black = divergence.of(images), torch.zeros_like(others)
    explainer = LabelFree(IntegratedGradients, divergence)
    maps = explainer.attribute(
        others, black, weights=torch.ones(1), additional_forward_args=tuple(codes), n_steps=400, internal_batch_size=7
    )
    due = (divergence(others, *codes) - divergence(black, *codes))[:, 0].detach()
    rolled = tuple(code.roll(1, 0) for code in codes)
    swapped = (divergence(others, *rolled) - divergence(black, *rolled))[:, 0].detach()
    sums = maps.flatten(1).sum(1)
    assert torch.allclose(sums, due, atol=0.1)  # the path crosses the networks' kinks
    assert ((sums - swapped).abs() > 0.2).all()


def test_relax_explains_the_divergence():
    model, images = small(SVAE), batch(size=2)
    masks = Cells(4, 0.5)
    found = RELAX(Half(model, 1, posterior=True).float(), masks, similarity=invariance.closeness)
    maps = found.attribute(images.float(), n_masks=64, seed=3)
    drawn = masks(64, SHAPE[1:], torch.Generator().manual_seed(3))
    model = model.double()
    divergence = Divergence(model, 1)
    hidden = (images[:1].float() * drawn[:, None]).double()
    score = torch.exp(-divergence(hidden, *divergence.of(images[:1])))[:, 0].detach()
    expected = torch.einsum("n,nhw->hw", score, drawn.double()) / drawn.double().sum(0)
    assert torch.allclose(maps[0, 0].double(), expected, atol=1e-5)


def test_counterfactuals_by_a_search():
    model, images = small(SVAE), batch()
    found = counterfactuals(model, images)
    code = model.encode(images).mean.detach()
    weight, bias = model.classifier.weight.detach(), model.classifier.bias.detach()
    reached = 0
    for row in range(5):
        logits = code[row, :4] @ weight.T + bias
        best = logits.topk(2).values
        lead = best[0] - best[1]
        for label in range(4):
            step, moved = found.steps[row, label], code[row].clone()

            def leads(t, row=row, label=label, lead=lead):
                z = code[row, :4].clone()
                z[label] += t
                scores = z @ weight.T + bias
                others = torch.cat([scores[:label], scores[label + 1 :]]).max()
                return scores[label] - others >= lead - 1e-9

            if step.isnan():
                assert not any(leads(t) for t in torch.linspace(0, 500, 2_001))
                step = torch.tensor(0.0)
            else:
                reached += 1
                assert leads(step) and (step == 0 or not leads(step - 1e-6))
            moved[label] += step
            assert torch.allclose(found.images[row, label], model.decoder(moved[None])[0])
            assert torch.allclose(found.codes[row, label], moved[:4])
        assert found.steps[row, logits.argmax()] == 0
    assert reached > 5  # more than the originals' own classes


def test_bad_input():
    model, images = small(SVAE), batch()
    for k in (0, 3, None):
        with pytest.raises(ValueError, match="k must be 1 or 2"):
            Divergence(model, k)
    with pytest.raises(ValueError, match="draws must be at least 2"):
        invariance_test(model, images, [1.0], draws=1)
    for sigmas in ([], [0.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="sigmas must hold positive deviations"):
            invariance_test(model, images, sigmas)
    with pytest.raises(ValueError, match="training mode"):
        invariance_test(model.train(), images, [1.0])
    with pytest.raises(ValueError, match="NaN"):
        invariance_test(model.eval(), images * math.nan, [1.0])
    with pytest.raises(ValueError, match="for each of 4 classes needs as many classifier dimensions, got 2"):
        counterfactuals(small(SVAE, classifier_dims=2), images)


def test_a_counterfactual_is_one_or_there_is_no_step():
    model = small(SVAE, classifier_dims=4)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.eye(4))
        model.classifier.weight[2, 1] = 3.0  # class 2 gains more from dimension 1 than class 1 does
    images = batch(20)
    found = counterfactuals(model, images)
    labels = model.classifier(found.codes).argmax(2)
    reached = ~found.steps.isnan()
    assert reached.any() and not reached.all()
    assert (labels == torch.arange(4))[reached].all()


def test_explaining_wants_frozen_models():
    model, images = small(SVAE), batch()
    with pytest.raises(ValueError, match="training mode"):
        counterfactuals(model.train(), images)
    with pytest.raises(ValueError, match="training mode"):
        invariance_test(model.eval(), images, [1.0], judge=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout()))
    with pytest.raises(ValueError, match="one image"):
        invariance.invariant_samples(model, images, 2)


def test_a_judge_that_works_in_place_changes_nothing():
    model, images = small(SVAE), batch(size=6)
    plain, inplace = (
        invariance_test(model, images, [1.0, 3.0], judge=lambda x, move=move: model.classify(getattr(x, move)(0.1)))
        for move in ("sub", "sub_")
    )
    assert all(map(torch.equal, plain, inplace)) and torch.equal(images, batch(size=6))
