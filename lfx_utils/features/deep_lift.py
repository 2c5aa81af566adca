"""Where Captum's rules for activations hold: it hooks modules, and sees no function and only the last use of a module.

DeepLift and guided backpropagation put a rule of their own in the place of an activation's gradient. An activation
that is a function (`torch.relu`) keeps its gradient, without a word, and a module that runs twice breaks DeepLift.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import torch
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from torch import Tensor, nn

from lfx_utils import checks

ADVICE = "Give each activation a module of its own, such as self.relu1 = nn.ReLU(), or use IntegratedGradients."


def once(encoder: nn.Module, inputs: tuple[Tensor, ...], further: tuple = ()) -> None:
    """Raise ValueError if a module that DeepLift has a rule for runs more than once on `inputs`, a few rows."""
    runs = _runs(encoder, tuple(SUPPORTED_NON_LINEAR), inputs, further)
    twice = [name for name, module in encoder.named_modules() if runs[module] > 1]
    if twice:
        raise ValueError(
            f"DeepLift cannot follow an encoder that uses a module more than once, and {twice[0]!r} runs "
            f"{runs[encoder.get_submodule(twice[0])]} times ({len(twice)} such modules in all). {ADVICE}"
        )


def guided(encoder: nn.Module, inputs: Tensor) -> None:
    """Raise ValueError if some ReLU on the way of `inputs` is no module, where the plain gradient would pass."""
    with torch.enable_grad():
        output = checks.on_copies(encoder, inputs.detach().requires_grad_())
    modules = sum(_runs(encoder, (nn.ReLU,), (inputs,)).values())
    ways, seen, relus = [output.grad_fn], set(), 0
    while ways:
        node = ways.pop()
        if node is not None and node not in seen:
            seen.add(node)
            relus += node.name() == "ReluBackward0"
            ways.extend(following for following, _ in node.next_functions)
    if relus > modules:
        raise ValueError(
            f"encoder has {relus} ReLUs on its way but only {modules} of them are modules; at the others, which are "
            "functions, guided backpropagation would be the plain gradient. Make them nn.ReLU()."
        )


def complete(explain: Callable, auxiliary: nn.Module) -> Callable:
    """Return `explain`, one of DeepLift's `attribute`, such that maps that do not add up raise ValueError.

    By the method's one axiom a map sums to g(x) − g(x̄). Both are read off the pass that DeepLift makes anyway.
    """

    def checked(inputs, **options):
        seen = []
        handle = auxiliary.register_forward_hook(lambda module, rows, output: seen.append(output.detach()))
        try:
            result = explain(inputs, **options)
        finally:
            handle.remove()
        maps = result if isinstance(result, tuple) else (result,)
        sums = sum(each.detach().flatten(1).double().sum(dim=1) for each in maps)
        given, reference = (each.double().view(len(sums), -1) for each in seen[0].chunk(2))
        gain = (given - reference).mean(dim=1)
        # Rounding goes with the encoder's precision and the size of what is subtracted, not with the difference.
        dtypes = options["additional_forward_args"][-1]
        slack = max(torch.finfo(dtype).eps for dtype in dtypes) ** 0.5 * (given.abs() + reference.abs()).mean(dim=1)
        off = (sums - gain).abs()
        if (off > 0.01 * gain.abs() + slack).any():
            worst = (off / (gain.abs() + slack)).max().item()
            raise ValueError(
                f"DeepLift's map does not add up to g(x) − g(x̄), which it is off by up to {worst:.0%}: the encoder has "
                f"activations that are functions or modules without a rule of Captum's. {ADVICE}"
            )
        return result

    return checked


@torch.no_grad()
def _runs(encoder: nn.Module, kinds: tuple[type, ...], inputs: tuple[Tensor, ...], further: tuple = ()) -> Counter:
    """Return how often each module of these kinds runs on `inputs`."""
    runs: Counter = Counter()
    with ExitStack() as hooks:
        for module in encoder.modules():
            if type(module) in kinds:
                handle = module.register_forward_pre_hook(lambda module, rows: runs.update([module]))
                hooks.callback(handle.remove)
        checks.on_copies(encoder, *inputs, *further)
    return runs
