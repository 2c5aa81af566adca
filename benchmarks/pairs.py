"""Time the attribution of pairs against a plain double loop over units and steps, and against the forward pass.

    python -m benchmarks.pairs            # a few minutes on an idle core; needs the package transformers

The double loop is what the formula says: for every unit of the representation and every step one gradient. It is
timed on a part of its units and its time multiplied up, which is fair to it, since its units are all alike. The
contenders take turns, and are charged the processor's seconds. The forward pass of the same texts, once a step, is
what no integral along a path can go below.
"""

import statistics
import time

import torch

from benchmarks.record import keep
from lfx_utils.encoders import sentences
from lfx_utils.features import Embedded, decompose_tokens, interactions

TEXTS = ["Which words make two sentences alike to an encoder?", "What does a representation take from each word?"]
STEPS, UNITS, REPEATS = 2, 48, 3


def double_loop(encoder, tokens, units: int) -> torch.Tensor:
    """Return what each token adds to the first units, `(B, T, units)`, one gradient at a time."""
    embedded = Embedded(encoder, encoder.embedding)
    x, a = encoder.embedding(tokens.ids).detach(), encoder.embedding(tokens.reference).detach()
    total = torch.zeros(*tokens.ids.shape, units)
    nodes = torch.linspace(0, 1, STEPS)
    for row in range(len(x)):
        extra = tokens.ids[row, None], tokens.mask[row, None]
        for unit in range(units):
            for node in nodes:
                point = torch.lerp(a[row, None], x[row, None], node).requires_grad_()
                (gradient,) = torch.autograd.grad(embedded(point, *extra)[0, unit], point)
                total[row, :, unit] += (gradient * (x - a)[row]).sum(dim=-1)[0] / STEPS
    return total


def seconds(function, *given, **options) -> float:
    """Return the processor's seconds of one call."""
    start = time.process_time()
    function(*given, **options)
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    encoder = sentences.load()
    tokens = encoder.tokenise(TEXTS)
    layer, width = encoder.embedding, encoder(tokens.ids, tokens.mask).shape[1]

    def matrices(**options):
        found = decompose_tokens(
            encoder, layer, tokens.ids, tokens.mask, reference=tokens.reference, n_steps=STEPS, **options
        )
        return interactions(found[:1], found[1:])

    @torch.no_grad()
    def bare():
        for _ in range(STEPS):
            encoder(tokens.ids, tokens.mask)

    contenders = {
        "forward mode": matrices,
        "reverse mode": lambda: matrices(forward_mode=False),
        "double loop": lambda: double_loop(encoder, tokens, UNITS),
        "forward passes": bare,
    }
    times = {name: [] for name in contenders}
    for repeat in range(REPEATS + 1):
        for name, function in contenders.items():
            if repeat or name == "forward mode":
                times[name].append(seconds(function))
    times["forward mode"] = times["forward mode"][1:]  # the first one warms up
    times["double loop"] = [each * width / UNITS for each in times["double loop"]]
    print(f"{len(TEXTS)} texts of {tokens.ids.shape[1]} tokens, {width} units, {STEPS} steps, {REPEATS} repeats")
    for name, each in times.items():
        ratio = statistics.median(a / b for a, b in zip(each, times["forward mode"], strict=True))
        print(f"{name:16} {statistics.median(each):8.2f} s, {ratio:6.2f} times forward mode")
    median = {name: statistics.median(each) for name, each in times.items()}
    keep(
        f"pairs of tokens of two sentences, {tokens.ids.shape[1]} tokens, {width} units, {STEPS} steps",
        {
            "ours": median["forward mode"],
            "ours, reverse mode": median["reverse mode"],
            "a plain double loop": median["double loop"],
        },
        packages=("transformers",),
        **{"seconds of the bare forward passes": median["forward passes"]},
    )


if __name__ == "__main__":
    main()
