"""Masking 10,000 MNIST maps at 20 %: ours against the papers' package `lfxai` (Python loops over pixels and images).

python -m benchmarks.masking
"""

import statistics
import time

import torch

from lfx_utils.measures import mask_most_important


def seconds(function, repeats: int) -> float:
    """Median wall time of `function` over `repeats` calls, after one for warming up."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:] or times)


def main() -> None:
    images, maps = torch.rand(10_000, 1, 28, 28), torch.randn(10_000, 1, 28, 28)
    black = torch.zeros(1)
    ours = seconds(lambda: mask_most_important(images, maps, 0.2, black), 9)
    print(f"lfx_utils: {ours:.3f} s for 10,000 maps on {torch.get_num_threads()} threads")
    try:
        from lfxai.utils.feature_attribution import generate_masks
    except ImportError as error:
        print(f"lfxai is not at hand ({error}); pip install lfxai to compare.")
        return
    part = 1_000
    theirs = seconds(lambda: generate_masks(maps[:part].numpy(), 156), 1) * len(maps) / part
    agree = torch.equal(
        generate_masks(maps[:20].numpy(), 156),
        (mask_most_important(images[:20] + 1, maps[:20], 0.2, black) > 0).float(),
    )
    print(
        f"lfxai: {theirs:.1f} s, extrapolated from {part:,} maps; the same pixels: {agree}; ratio {theirs / ours:.0f}"
    )


if __name__ == "__main__":
    main()
