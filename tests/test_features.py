"""LabelFree against closed forms, brute force and one input at a time."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import (
    Deconvolution,
    DeepLift,
    DeepLiftShap,
    FeatureAblation,
    FeaturePermutation,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerIntegratedGradients,
    Lime,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValues,
    ShapleyValueSampling,
)
from captum.attr._core.gradient_shap import InputBaselineXGradient
from torch import nn

from lfx_utils.features import LabelFree, as_published
from lfx_utils.features.label_free import _cudnn_aside


def smooth_grad(forward):
    return NoiseTunnel(Saliency(forward))


def shap_with_own_baselines(forward):
    """Gradient SHAP in which each input keeps its own baseline, where Captum's class draws from those of the batch."""
    return NoiseTunnel(InputBaselineXGradient(forward))


def smooth_integrated(forward):
    return NoiseTunnel(IntegratedGradients(forward))


class Sequence(nn.Module):
    """An LSTM encoder: sequences (B, T, 2) to its last hidden state (B, 4)."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[1][0][-1]


class Pair(nn.Module):
    """An encoder of two inputs, (B, 3) and (B, 1, 4, 4), to (B, 5)."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.bend = nn.Linear(3, 5), nn.Linear(16, 5), nn.Tanh()

    def forward(self, left, right):
        return self.bend(self.left(left) + self.right(right.flatten(1)))


def seeded(module, seed=0):
    torch.manual_seed(seed)
    return module().double().eval()


VECTOR = seeded(lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.Softplus(), nn.Linear(6, 4)))
IMAGE = seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)))
SEQUENCE, PAIR = seeded(Sequence), seeded(Pair)
ENCODERS = {"vector": VECTOR, "image": IMAGE, "sequence": SEQUENCE, "pair": PAIR}


def inputs_for(kind, size=5, seed=1):
    shapes = {"vector": [(3,)], "image": [(1, 6, 6)], "sequence": [(8, 2)], "pair": [(3,), (1, 4, 4)]}[kind]
    generator = torch.Generator().manual_seed(seed)
    tensors = tuple(torch.randn(size, *shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return tensors if len(tensors) > 1 else tensors[0]


def reseed():
    """Captum draws from the global generators of both libraries."""
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def each(value, function):
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def tensors(value):
    return value if isinstance(value, tuple) else (value,)


def assert_close(ours, truth, **tolerance):
    assert isinstance(ours, tuple) == isinstance(truth, tuple) and len(tensors(ours)) == len(tensors(truth))
    for a, b in zip(tensors(ours), tensors(truth), strict=True):
        # Captum keeps step sizes, and the maps of some perturbation methods, in single precision.
        torch.testing.assert_close(a, b, **({"rtol": 1e-5, "atol": 1e-6, "check_dtype": False} | tolerance))


def windows(inputs):
    shapes = each(inputs, lambda x: tuple(2 if n > 1 else 1 for n in x.shape[1:]))
    return shapes if isinstance(inputs, tuple) else tuple(shapes)


# Name: what builds the method, whether it takes baselines (a row each or one for all), its options.
METHODS = {
    "integrated gradients": (IntegratedGradients, "each", {"n_steps": 8}),
    "gradient shap": (GradientShap, "one", {"n_samples": 3}),
    "gradient shap, own baselines": (shap_with_own_baselines, "each", {"nt_samples": 3, "stdevs": 0.0}),
    "deep lift": (DeepLift, "each", {}),
    "deep lift shap": (DeepLiftShap, "many", {}),
    "input x gradient": (InputXGradient, None, {}),
    "saliency": (Saliency, None, {}),
    "guided backprop": (GuidedBackprop, None, {}),
    "deconvolution": (Deconvolution, None, {}),
    "feature ablation": (FeatureAblation, "each", {"perturbations_per_eval": 3}),
    "occlusion": (Occlusion, "each", {}),
    "shapley sampling": (ShapleyValueSampling, "each", {"n_samples": 2, "perturbations_per_eval": 2}),
    "kernel shap": (KernelShap, "each", {"n_samples": 12}),
    "lime": (partial(Lime, interpretable_model=SkLearnLinearRegression()), "each", {"n_samples": 12}),
    "smooth grad": (smooth_grad, None, {"nt_samples": 4, "stdevs": 0.0}),
    "smooth integrated gradients": (smooth_integrated, "each", {"nt_samples": 2, "n_steps": 3, "stdevs": 0.0}),
}


def arguments(name, inputs):
    """The builder of a method, its options, and how to choose the baselines of some of the inputs."""
    build, wanted, options = METHODS[name]
    options = dict(options)
    if build is Occlusion:
        options["sliding_window_shapes"] = windows(inputs)
    reference = each(inputs, lambda x: x.flip(0) / 2)
    choose = {
        None: lambda part: {},
        "each": lambda part: {"baselines": each(reference, lambda b: b[part])},
        "one": lambda part: {"baselines": each(reference, lambda b: b[:1])},
        "many": lambda part: {"baselines": each(reference, lambda b: b[:3])},
    }[wanted]
    return build, options, choose


def supported(name, kind):
    # Captum's DeepLift does not see inside nn.LSTM, and says so in its documentation.
    return not (kind == "sequence" and name.startswith("deep lift"))


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("name", METHODS)
def test_batch_equals_one_at_a_time(name, kind):
    if not supported(name, kind):
        pytest.skip("not supported by Captum")
    inputs = inputs_for(kind)
    build, options, choose = arguments(name, inputs)
    explainer = LabelFree(build, ENCODERS[kind])
    reseed()
    batch = explainer.attribute(inputs, **choose(slice(None)), **options)
    reseed()
    single = []
    for i in range(5):
        if name == "shapley sampling":  # one permutation serves the whole batch; the others draw for each input in turn
            reseed()
        part = slice(i, i + 1)
        alone = tuple(x[part] for x in inputs) if isinstance(inputs, tuple) else inputs[part]
        single.append(tensors(explainer.attribute(alone, **choose(part), **options)))
    for ours, x, *alone in zip(tensors(batch), tensors(inputs), *single, strict=True):
        assert_close(ours, torch.cat(alone))
        assert ours.shape == x.shape and not ours.requires_grad and ours.abs().sum() > 0


# Closed forms, on a linear encoder f(x) = Wx + c with any inner product M, where w = M f(x).


def linear(size=3, latent=4):
    encoder = seeded(lambda: nn.Linear(size, latent))
    root = torch.randn(latent, latent, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return encoder, root @ root.T + torch.eye(latent, dtype=torch.float64)


LINEAR_OPTIONS = {
    "gradient shap": {"n_samples": 7, "stdevs": 0.0},
    "occlusion": {"sliding_window_shapes": (1,)},
    "shapley sampling": {"n_samples": 2},
    "kernel shap": {"n_samples": 200},
}
COMPLETE = (
    "integrated gradients",
    "gradient shap",
    "deep lift",
    "deep lift shap",
    "feature ablation",
    "occlusion",
    "shapley sampling",
    "kernel shap",
)


@pytest.mark.parametrize("euclidean", [True, False])
@pytest.mark.parametrize("name", COMPLETE)
def test_linear_encoder_has_a_closed_form(name, euclidean):
    encoder, inner = linear()
    x = inputs_for("vector")
    reference = inputs_for("vector", size=1, seed=4)
    weights = encoder(x) if euclidean else encoder(x) @ inner
    baselines = torch.cat([reference - 1, reference + 1]) if name == "deep lift shap" else reference
    explainer = LabelFree(METHODS[name][0], encoder, inner=None if euclidean else inner)
    maps = explainer.attribute(x, baselines, **LINEAR_OPTIONS.get(name, {}))
    # Kernel SHAP weighs the full and empty coalitions by a large finite number instead of infinitely.
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if name == "kernel shap" else {}
    assert_close(maps, (x - reference) * (weights @ encoder.weight), **tolerance)


@pytest.mark.parametrize("inner_product", [True, False])
def test_gradients_of_a_linear_encoder_whatever_the_noise(inner_product):
    encoder, inner = linear()
    x = inputs_for("vector")
    weights = encoder(x) @ inner if inner_product else encoder(x)
    truth = weights @ encoder.weight
    given = {"inner": inner if inner_product else None}
    assert_close(LabelFree(Saliency, encoder, **given).attribute(x, abs=False), truth)
    assert_close(LabelFree(Saliency, encoder, **given).attribute(x), truth.abs())
    assert_close(LabelFree(InputXGradient, encoder, **given).attribute(x), x * truth)
    noisy = LabelFree(smooth_grad, encoder, **given).attribute(x, nt_samples=6, stdevs=2.0, abs=False)
    assert_close(noisy, truth)


def test_methods_with_constructor_arguments():
    encoder, _ = linear()
    x = inputs_for("vector")
    local = LabelFree(partial(IntegratedGradients, multiply_by_inputs=False), encoder).attribute(x, 0.0)
    assert_close(local, encoder(x) @ encoder.weight)
    layer = LabelFree(partial(LayerIntegratedGradients, layer=VECTOR[0]), VECTOR)
    both, one = layer.attribute(x, 0.0, internal_batch_size=9), layer.attribute(x[:1], 0.0)
    assert both.shape == (5, 8)
    assert_close(both[:1], one)


# Nonlinear encoders, by hand.


def latent_gain(encoder, x, present, reference):
    """g_x of x with absent features taken from the reference, one input (d,) at a time."""
    mixed = torch.where(present, x, reference)
    return (encoder(x[None]) * encoder(mixed[None])).sum().item()


def test_shapley_values_by_enumeration():
    x, reference = inputs_for("vector"), inputs_for("vector", size=1, seed=4)
    truth = torch.zeros_like(x)
    for row in range(5):
        for i in range(3):
            others = [j for j in range(3) if j != i]
            for size in range(3):
                for chosen in itertools.combinations(others, size):
                    present = torch.tensor([j in chosen for j in range(3)])
                    weight = math.factorial(size) * math.factorial(2 - size) / math.factorial(3)
                    without = latent_gain(VECTOR, x[row], present, reference[0])
                    present[i] = True
                    truth[row, i] += weight * (latent_gain(VECTOR, x[row], present, reference[0]) - without)
    assert_close(LabelFree(ShapleyValues, VECTOR).attribute(x, reference), truth)
    torch.manual_seed(0)
    sampled = LabelFree(ShapleyValueSampling, VECTOR).attribute(x, reference, n_samples=600)
    assert_close(sampled, truth, rtol=0, atol=0.05 * truth.abs().max().item())
    assert_close(LabelFree(KernelShap, VECTOR).attribute(x, reference, n_samples=400), truth, rtol=1e-2, atol=1e-3)


def test_ablation_and_occlusion_by_hand():
    x, reference = inputs_for("vector"), inputs_for("vector", seed=4)
    truth = torch.zeros_like(x)
    for row, i in itertools.product(range(5), range(3)):
        all_present = torch.ones(3, dtype=torch.bool)
        full = latent_gain(VECTOR, x[row], all_present, reference[row])
        all_present[i] = False
        truth[row, i] = full - latent_gain(VECTOR, x[row], all_present, reference[row])
    assert_close(LabelFree(FeatureAblation, VECTOR).attribute(x, reference), truth)

    images = inputs_for("image", size=2)
    windows = LabelFree(Occlusion, IMAGE).attribute(
        images, 0.0, sliding_window_shapes=(1, 3, 3), strides=(1, 3, 3), internal_batch_size=1
    )
    for row, top, left in itertools.product(range(2), (0, 3), (0, 3)):
        hidden = images[row : row + 1].clone()
        hidden[..., top : top + 3, left : left + 3] = 0
        latent = IMAGE(images[row : row + 1])
        drop = (latent * (latent - IMAGE(hidden))).sum().item()
        assert_close(windows[row, 0, top : top + 3, left : left + 3], torch.full((3, 3), drop), rtol=1e-4)


def test_deep_lift_and_guided_backprop_by_hand():
    encoder = seeded(lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)), seed=5)
    x, reference = inputs_for("vector"), inputs_for("vector", seed=4)
    (first, bend, last), latents = encoder, encoder(x)
    z, z0 = first(x), first(reference)
    multiplier = (bend(z) - bend(z0)) / (z - z0) * (latents @ last.weight)
    assert_close(LabelFree(DeepLift, encoder).attribute(x, reference), (x - reference) * (multiplier @ first.weight))
    guided = ((latents @ last.weight) * (z > 0)).clamp(min=0) @ first.weight
    assert_close(LabelFree(GuidedBackprop, encoder).attribute(x), guided)


def path_integral(encoder, x, reference, nodes=40):
    """Integrated gradients of g_x by Gauss-Legendre quadrature for one input, without Captum."""
    places, sizes = np.polynomial.legendre.leggauss(nodes)
    latent, total = encoder(x).detach(), torch.zeros_like(x)
    for place, size in zip((places + 1) / 2, sizes / 2, strict=True):
        point = (reference + place * (x - reference)).requires_grad_()
        total += size * torch.autograd.grad((latent * encoder(point)).sum(), point)[0]
    return (x - reference) * total


def test_integrated_gradients_by_quadrature():
    encoder = seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(48, 4)))
    x, reference = inputs_for("image"), inputs_for("image", seed=4)
    maps, delta = LabelFree(IntegratedGradients, encoder).attribute(x, reference, return_convergence_delta=True)
    for row in range(5):
        part = slice(row, row + 1)
        assert_close(maps[part], path_integral(encoder, x[part], reference[part]))
    gain = (encoder(x) * (encoder(x) - encoder(reference))).sum(1)
    assert_close(maps.flatten(1).sum(1), gain)
    assert delta.shape == (5,)


def test_convergence_delta_is_that_of_the_auxiliary_function():
    x, reference = inputs_for("image"), inputs_for("image", seed=4)
    gain = (IMAGE(x) * (IMAGE(x) - IMAGE(reference))).sum(1)
    for options in ({}, {"internal_batch_size": 4}):
        maps, delta = LabelFree(IntegratedGradients, IMAGE).attribute(
            x, reference, n_steps=2, return_convergence_delta=True, **options
        )
        assert_close(delta, maps.flatten(1).sum(1) - gain)
        assert delta.abs().max() > 1e-3  # two steps leave a residual to compare
    maps, delta = LabelFree(GradientShap, IMAGE).attribute(
        x, reference[:1], n_samples=6, return_convergence_delta=True, internal_batch_size=4
    )
    gain = (IMAGE(x) * (IMAGE(x) - IMAGE(reference[:1]))).sum(1)
    assert delta.shape == (30,)
    assert_close(delta.reshape(5, 6).mean(1), maps.flatten(1).sum(1) - gain)


def test_gradient_shap_tends_to_the_mean_of_integrated_gradients():
    x, references = inputs_for("vector"), inputs_for("vector", size=2, seed=4)
    truth = sum(torch.cat([path_integral(VECTOR, row[None], r[None], 200) for row in x]) for r in references) / 2
    reseed()
    explainer = LabelFree(GradientShap, VECTOR)
    for options in ({}, {"internal_batch_size": 1_500}):
        maps = explainer.attribute(x, references, n_samples=2_000, **options)
        assert_close(maps, truth, rtol=0, atol=0.06 * truth.abs().max().item())


@pytest.mark.parametrize("name", ["integrated gradients", "gradient shap", "feature ablation"])
def test_weights_replace_the_representation(name):
    x, reference = inputs_for("vector"), inputs_for("vector", size=1, seed=4)
    build = METHODS[name][0]
    explainer = LabelFree(build, VECTOR)
    for unit, one_hot in enumerate(torch.eye(4)):
        reseed()
        ours = explainer.attribute(x, reference, weights=one_hot)
        reseed()
        assert_close(ours, build(VECTOR).attribute(x, reference, target=unit).detach())
    units = torch.eye(4)[[0, 3, 1, 2, 0]]
    reseed()
    ours = explainer.attribute(x, reference, weights=units, internal_batch_size=5)
    reseed()
    assert_close(ours, build(VECTOR).attribute(x, reference, target=units.argmax(1)).detach())


def test_one_weight_for_all_is_not_one_weight_an_input():
    x = inputs_for("vector", size=4)  # as many inputs as latent units
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    bounded = LabelFree(InputXGradient, VECTOR).attribute(x, weights=weights, internal_batch_size=2)
    units = [Saliency(VECTOR).attribute(x.requires_grad_(), target=unit, abs=False) for unit in range(4)]
    assert_close(bounded, x.detach() * sum(w * unit for w, unit in zip(weights, units, strict=True)))


class Counting(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.most, self.total = encoder, 0, 0

    def forward(self, *inputs):
        self.most, self.total = max(self.most, len(inputs[0])), self.total + len(inputs[0])
        return self.encoder(*inputs)


@pytest.mark.parametrize("kind", ["image", "pair"])
@pytest.mark.parametrize("name", METHODS)
def test_rows_in_flight_are_bounded(name, kind):
    inputs, bound = inputs_for(kind), 7
    build, options, choose = arguments(name, inputs)
    options |= {"gradient shap": {"n_samples": 10}, "smooth grad": {"nt_samples": 10, "stdevs": 0.0}}.get(name, {})
    whole, parts = Counting(ENCODERS[kind]).eval(), Counting(ENCODERS[kind]).eval()
    reseed()
    free = LabelFree(build, whole).attribute(inputs, **choose(slice(None)), **options)
    reseed()
    split = {"internal_batch_size": bound}
    bounded = LabelFree(build, parts).attribute(inputs, **choose(slice(None)), **options, **split)
    assert 0 < parts.most <= bound
    assert parts.total == whole.total
    if name in ("integrated gradients", "gradient shap", "smooth grad", "deep lift", "deep lift shap"):
        assert whole.most > bound
    if name != "shapley sampling":  # which draws other permutations for other chunks
        assert_close(bounded, free)


def test_a_distribution_of_baselines_is_shared_however_long_it_is():
    x, references = inputs_for("vector"), inputs_for("vector", seed=4)  # as many as inputs
    explainer = LabelFree(DeepLiftShap, VECTOR)
    bounded = explainer.attribute(x, references, internal_batch_size=20)  # two inputs against five references
    each_reference = [LabelFree(DeepLift, VECTOR).attribute(x, reference[None]) for reference in references]
    assert_close(bounded, torch.stack(each_reference).mean(0))


def test_bounded_gradient_shap_keeps_what_captums_constructor_was_told():
    encoder, _ = linear()
    x = inputs_for("vector")
    local = LabelFree(partial(GradientShap, multiply_by_inputs=False), encoder)
    maps = local.attribute(x, torch.zeros(1, 3), internal_batch_size=7)
    assert_close(maps, encoder(x) @ encoder.weight)


def test_additional_arguments_of_the_encoder_follow_their_inputs():
    def masked(x, keep):
        return VECTOR(x * keep)

    x = inputs_for("vector")
    keep = torch.tensor([[1.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 1]])
    explainer = LabelFree(GradientShap, masked)
    for options in ({}, {"internal_batch_size": 3}):
        reseed()
        maps = explainer.attribute(x, torch.zeros(1, 3), additional_forward_args=keep, **options)
        reseed()
        assert_close(maps, LabelFree(GradientShap, VECTOR).attribute(x * keep, torch.zeros(1, 3)))
        assert ((maps == 0) == (keep == 0)).all()


def test_baselines_may_be_a_function_of_the_inputs():
    x = inputs_for("image")
    explainer = LabelFree(IntegratedGradients, IMAGE)
    given = explainer.attribute(x, x.flip(0))
    assert_close(explainer.attribute(x, lambda inputs: inputs.flip(0), internal_batch_size=2), given)


# The pairing of erratum 1.


def test_published_pairing_meets_other_inputs():
    encoder, _ = linear()
    x, samples = inputs_for("vector"), 3
    reference = torch.zeros(1, 3, dtype=torch.float64)
    latents = encoder(x)
    # Row i·n + s of Captum's rows belongs to input i, and the tiled f(x) holds f(x_k) there with k = (i·n + s) mod B.
    met = torch.stack([latents[[(i * samples + s) % 5 for s in range(samples)]].mean(0) for i in range(5)])
    published = as_published(GradientShap, encoder, x, baselines=reference, n_samples=samples)
    assert_close(published, x * (met @ encoder.weight))
    right = LabelFree(GradientShap, encoder).attribute(x, reference, n_samples=samples)
    assert_close(right, x * (latents @ encoder.weight))
    assert not torch.allclose(published, right, rtol=0.1)


def test_published_pairing_is_right_for_integrated_gradients_and_single_inputs():
    x, reference = inputs_for("image"), inputs_for("image", size=1, seed=4)
    right = LabelFree(IntegratedGradients, IMAGE).attribute(x, reference)
    assert_close(as_published(IntegratedGradients, IMAGE, x, baselines=reference), right)
    for row in x.split(1):
        reseed()
        published = as_published(GradientShap, IMAGE, row, baselines=reference)
        reseed()
        assert_close(published, LabelFree(GradientShap, IMAGE).attribute(row, reference))


# Manners.


def portrait(encoder):
    """Everything about an encoder that an explanation must not change."""
    return {
        name: (
            module.training,
            sorted(key for key in vars(module)),
            [len(vars(module)[hooks]) for hooks in sorted(vars(module)) if "hooks" in hooks],
            [(p.requires_grad, p.grad, p.dtype, p.device, p._version) for p in module.parameters(recurse=False)],
            [b._version for b in module.buffers(recurse=False)],
        )
        for name, module in encoder.named_modules()
    }


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("name", METHODS)
def test_encoder_and_inputs_are_left_as_found(name, kind):
    if not supported(name, kind):
        pytest.skip("not supported by Captum")
    encoder, inputs = ENCODERS[kind], inputs_for(kind)
    build, options, choose = arguments(name, inputs)
    before, copies = portrait(encoder), each(inputs, torch.clone)
    with torch.no_grad():
        LabelFree(build, encoder).attribute(inputs, **choose(slice(None)), **options)
    LabelFree(build, encoder).attribute(inputs, **choose(slice(None)), **options, internal_batch_size=6)
    assert portrait(encoder) == before
    assert_close(inputs, copies, rtol=0, atol=0)
    assert all(not x.requires_grad and x.grad is None and x.is_leaf for x in tensors(inputs))
    demanding = each(copies, lambda x: x.requires_grad_())
    LabelFree(build, encoder).attribute(demanding, **choose(slice(None)), **options)
    assert all(x.requires_grad and x.grad is None for x in tensors(demanding))


def test_hooks_are_removed_when_a_method_fails_midway():
    class Late(nn.Module):
        """An encoder that fails only where Captum asks for more rows than it was tried on."""

        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4))

        def forward(self, x):
            if len(x) > 4:
                raise RuntimeError("too many rows")
            return self.layers(x)

    encoder = Late().eval()
    before = portrait(encoder)
    with pytest.raises(RuntimeError, match="too many rows"):
        LabelFree(DeepLift, encoder).attribute(torch.randn(4, 3))
    after = portrait(encoder)
    assert [entry[2] for entry in after.values()] == [entry[2] for entry in before.values()]


# Encoders that change what they are given, that draw, that have no gradient, that DeepLift cannot follow.


class InPlace(nn.Module):
    """Normalises the caller's tensor, as torchvision's Normalize(inplace=True) does, and writes into its arguments."""

    def __init__(self, clean):
        super().__init__()
        self.layer, self.clean = seeded(lambda: nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4))), clean

    def forward(self, x, scale):
        if self.clean:
            return self.layer((x - 0.5) / 0.25 * (scale + 1))
        scale += 1
        return self.layer(x.sub_(0.5).div_(0.25).mul_(scale))


@pytest.mark.parametrize("name", METHODS)
def test_an_encoder_that_works_in_place_is_explained_rightly(name):
    x, scale = inputs_for("vector"), torch.rand(5, 1, dtype=torch.float64)
    build, options, choose = arguments(name, x)
    maps = []
    for clean in (False, True):
        given, extra = x.clone(), scale.clone()
        reseed()
        explainer = LabelFree(build, InPlace(clean).eval())
        maps.append(explainer.attribute(given, additional_forward_args=extra, **choose(slice(None)), **options))
        assert torch.equal(given, x) and torch.equal(extra, scale)
    assert_close(*maps)


def test_an_encoder_that_draws_is_refused():
    def drawing(x):
        return nn.functional.dropout(VECTOR(x), 0.5)

    counted = itertools.count(1)
    for encoder in (drawing, lambda x: VECTOR(x) * (1 + next(counted) / 100)):
        for build in (IntegratedGradients, FeatureAblation):
            with pytest.raises(ValueError, match="two representations of the same inputs that differ by"):
                LabelFree(build, encoder).attribute(inputs_for("vector"))


def detached(x):
    return VECTOR(x.detach())


@pytest.mark.parametrize("encoder", [torch.no_grad()(VECTOR), torch.inference_mode()(VECTOR), detached])
def test_an_encoder_without_gradient_is_refused_where_one_is_needed(encoder):
    x = inputs_for("vector")
    for build in (IntegratedGradients, Saliency, GradientShap, smooth_grad):
        with pytest.raises(ValueError, match="passes no gradient back"):
            LabelFree(build, encoder).attribute(x)
    assert_close(LabelFree(FeatureAblation, encoder).attribute(x), LabelFree(FeatureAblation, VECTOR).attribute(x))


def test_the_callers_inference_mode_does_not_matter():
    x = inputs_for("vector")
    truth = LabelFree(IntegratedGradients, VECTOR).attribute(x)
    with torch.inference_mode():
        assert_close(LabelFree(IntegratedGradients, VECTOR).attribute(x.clone()), truth)


class Functional(nn.Module):
    """A network whose activation is a function, which Captum does not see."""

    def __init__(self):
        super().__init__()
        self.first, self.seen, self.last = nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(torch.relu(self.seen(self.first(x)) - 0.3))


def test_deep_lift_adds_up_or_is_refused():
    x, references = inputs_for("vector"), inputs_for("vector", size=3, seed=4)
    shared = nn.ReLU()
    twice = seeded(lambda: nn.Sequential(nn.Linear(3, 4), shared, nn.Linear(4, 4), shared))
    for build, baselines in ((DeepLift, x.flip(0)), (DeepLift, 0.0), (DeepLiftShap, references)):
        maps, delta = LabelFree(build, VECTOR).attribute(x, baselines, return_convergence_delta=True)
        assert delta.abs().max() < 1e-6 < maps.abs().max()
        with pytest.raises(ValueError, match="does not add up"):
            LabelFree(build, seeded(Functional)).attribute(x, baselines)
        with pytest.raises(ValueError, match="more than once, and '1' runs 2 times"):
            LabelFree(build, twice).attribute(x, baselines)
    multipliers = partial(DeepLift, multiply_by_inputs=False)
    assert_close(LabelFree(multipliers, VECTOR).attribute(x, 0.0) * x, LabelFree(DeepLift, VECTOR).attribute(x, 0.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_encoders_in_half_precision(name, dtype):
    """Their inner products would overflow: these representations have a squared norm beyond float16's 65,504."""
    encoder = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 8))
    torch.manual_seed(0)
    for parameter in encoder.parameters():
        parameter.data = torch.randn(parameter.shape)
    encoder, x = encoder.to(dtype).float().eval(), (30 * inputs_for("vector")).to(dtype).float()
    assert (encoder(x).square().sum(1) > 2**16).any()
    build, options, choose = arguments(name, x)
    reseed()
    truth = LabelFree(build, encoder).attribute(x, **choose(slice(None)), **options)
    reseed()
    build, options, choose = arguments(name, x.to(dtype))
    if name.startswith("deep lift") and dtype == torch.float16:  # Captum divides by what vanishes in that.
        with pytest.raises(ValueError, match="The maps hold 3 NaN"):
            LabelFree(build, encoder.to(dtype)).attribute(x.to(dtype), **choose(slice(None)), **options)
        return
    maps = LabelFree(build, encoder.to(dtype)).attribute(x.to(dtype), **choose(slice(None)), **options)
    assert maps.dtype == torch.float32
    assert (maps - truth).norm() < (0.02 if dtype == torch.float16 else 0.15) * truth.norm()


def test_integrated_gradients_bounds_its_rows_unless_told_otherwise():
    encoder = Counting(seeded(nn.Flatten)).eval()
    LabelFree(IntegratedGradients, encoder).attribute(torch.rand(1, 3, 448, 448), n_steps=8)
    assert encoder.most == 1 and encoder.total >= 8
    LabelFree(IntegratedGradients, encoder).attribute(torch.rand(30, 3), n_steps=100)
    assert encoder.most == 240  # Whole steps of 30 inputs within 256.
    encoder.most = 0
    LabelFree(IntegratedGradients, encoder).attribute(torch.rand(30, 3), n_steps=100, internal_batch_size=3_000)
    assert encoder.most == 3_000


def test_maps_that_overflow_are_refused():
    steep = nn.Sequential(nn.Linear(3, 2)).eval()
    steep[0].weight.data.fill_(1e25)
    with pytest.raises(ValueError, match="maps hold 3 NaN or infinite values out of 3"):
        LabelFree(Saliency, steep).attribute(torch.full((1, 3), 1.0))


def test_no_warning_of_captum_about_hooks_or_gradients(recwarn):
    for build in (DeepLift, GuidedBackprop, Saliency, InputXGradient):
        LabelFree(build, VECTOR).attribute(inputs_for("vector"))
    assert not [w for w in recwarn if "captum" in w.filename]


def test_cudnn_steps_aside_for_recurrent_encoders_on_a_gpu_only():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    for encoder, device, aside in (
        (SEQUENCE, gpu, True),
        (nn.Sequential(nn.Flatten(0, 0), nn.GRU(2, 2)), gpu, True),
        (SEQUENCE, cpu, False),
        (IMAGE, gpu, False),
    ):
        enabled = torch.backends.cudnn.enabled
        with _cudnn_aside(encoder, device):
            assert torch.backends.cudnn.enabled == (enabled and not aside)
        assert torch.backends.cudnn.enabled == enabled


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["integrated gradients", "gradient shap", "saliency"])
def test_recurrent_encoder_on_a_gpu(name):
    encoder, x = seeded(Sequence), inputs_for("sequence")
    build, options, choose = arguments(name, x)
    reseed()
    truth = LabelFree(build, encoder).attribute(x, **choose(slice(None)), **options)
    reseed()
    chosen = {key: value.cuda() for key, value in choose(slice(None)).items()}
    assert_close(LabelFree(build, encoder.cuda()).attribute(x.cuda(), **chosen, **options).cpu(), truth)
    assert not any(module.training for module in encoder.modules()) and torch.backends.cudnn.enabled


def test_transformer_encoder_and_single_precision():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.Sequential(nn.Linear(2, 8), nn.TransformerEncoder(layer, 1), nn.Flatten()).eval()
    x = inputs_for("sequence").float()
    maps, delta = LabelFree(IntegratedGradients, encoder).attribute(
        x, torch.zeros_like(x), n_steps=100, return_convergence_delta=True
    )
    gain = (encoder(x) * (encoder(x) - encoder(0 * x))).sum(1)
    assert maps.dtype == torch.float32
    assert_close(maps.sum((1, 2)), gain, rtol=1e-2, atol=0.05)


def test_feature_permutation_keeps_each_weight_with_its_row():
    encoder, _ = linear()
    x = inputs_for("vector")
    swap = LabelFree(partial(FeaturePermutation, perm_func=lambda x, mask: torch.where(mask, x.flip(0), x)), encoder)
    assert_close(swap.attribute(x), (x - x.flip(0)) * (encoder(x) @ encoder.weight))


X, NAN = torch.randn(4, 3), torch.full((4, 3), float("nan"))
FLOAT = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).eval()


@pytest.mark.parametrize(
    "error, message, call",
    [
        (ValueError, "training mode", lambda: LabelFree(Saliency, nn.Linear(3, 2)).attribute(X)),
        (ValueError, "inputs holds 12 NaN", lambda: LabelFree(Saliency, FLOAT).attribute(NAN)),
        (ValueError, "inputs holds 12 NaN", lambda: LabelFree(Saliency, FLOAT).attribute(X / 0)),
        (ValueError, "empty batch", lambda: LabelFree(Saliency, FLOAT).attribute(X[:0])),
        (ValueError, r"batches of \[\]", lambda: LabelFree(Saliency, FLOAT).attribute(())),
        (TypeError, "inputs must be a torch.Tensor", lambda: LabelFree(Saliency, FLOAT).attribute(X.numpy())),
        (TypeError, "floating-point", lambda: LabelFree(Saliency, FLOAT).attribute(X.long())),
        (ValueError, r"\(B, D\).*\(4,\)", lambda: LabelFree(Saliency, lambda x: x.sum(1)).attribute(X)),
        (ValueError, r"\(B, D\).*\(4, 1, 3\)", lambda: LabelFree(Saliency, lambda x: x[:, None]).attribute(X)),
        (TypeError, "one tensor.*tuple", lambda: LabelFree(Saliency, lambda x: (x, x)).attribute(X)),
        (ValueError, "NaN or infinite repr", lambda: LabelFree(Saliency, lambda x: x / 0).attribute(X)),
        (ValueError, "baselines holds", lambda: LabelFree(IntegratedGradients, FLOAT).attribute(X, NAN)),
        (ValueError, r"shape \(4, 3\).*got \(4, 2\)", lambda: LabelFree(DeepLift, FLOAT).attribute(X, X[:, :2])),
        (ValueError, r"shape \(4, 3\).*got \(2, 3\)", lambda: LabelFree(DeepLift, FLOAT).attribute(X, X[:2])),
        (ValueError, r"got \(2, 2\)", lambda: LabelFree(GradientShap, FLOAT).attribute(X, X[:2, :2])),
        (TypeError, "baselines must be", lambda: LabelFree(DeepLift, FLOAT).attribute(X, "zero")),
        (ValueError, "tuple of 2.*got a tuple of 1", lambda: LabelFree(DeepLift, PAIR).attribute((X, X), (X,))),
        (ValueError, "tuple of 2.*got no tuple", lambda: LabelFree(DeepLift, PAIR).attribute((X, X), X)),
        (ValueError, "no tuple.*got a tuple of 1", lambda: LabelFree(DeepLift, FLOAT).attribute(X, (X,))),
        (ValueError, r"batches of \[3, 4\]", lambda: LabelFree(Saliency, PAIR).attribute((X, X[:3]))),
        (ValueError, "inputs.1. holds", lambda: LabelFree(Saliency, PAIR).attribute((X, NAN))),
        (TypeError, "baselines", lambda: LabelFree(Saliency, FLOAT).attribute(X, X)),
        (ValueError, r"\(4, 2\), got \(4, 3\)", lambda: LabelFree(Saliency, FLOAT).attribute(X, weights=torch.ones(3))),
        (ValueError, r"\(4, 2\), got \(3, 2\)", lambda: LabelFree(Saliency, FLOAT).attribute(X, weights=X[:3, :2])),
        (TypeError, "weights must be", lambda: LabelFree(Saliency, FLOAT).attribute(X, weights=1)),
        (ValueError, "positive integer, got 0", lambda: LabelFree(Saliency, FLOAT).attribute(X, internal_batch_size=0)),
        (ValueError, "at least 2.*got 1", lambda: LabelFree(DeepLift, FLOAT).attribute(X, internal_batch_size=1)),
        (TypeError, "nn.Module, got function", lambda: LabelFree(DeepLift, lambda x: x)),
        (TypeError, "method must build", lambda: LabelFree(Saliency(FLOAT), FLOAT)),
        (TypeError, "method must build", lambda: LabelFree(lambda forward: forward, FLOAT)),
        (ValueError, "square", lambda: LabelFree(Saliency, FLOAT, inner=torch.ones(2, 3))),
        (ValueError, "positive definite", lambda: LabelFree(Saliency, FLOAT, inner=-torch.eye(2))),
        (ValueError, "positive definite", lambda: LabelFree(Saliency, FLOAT, inner=torch.tensor([[1.0, 0.5], [0, 1]]))),
        (ValueError, r"\(3, 3\).*D = 2", lambda: LabelFree(Saliency, FLOAT, inner=torch.eye(3)).attribute(X)),
    ],
)
def test_bad_input_ends_in_one_sentence(error, message, call):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
