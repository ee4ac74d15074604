"""How long do the statistics take? CPU seconds of one core; no test asserts them.

    python benchmarks/statistics_speed.py
"""
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from mixlab import stats
from mixlab.sweetspot import alignment, correspondence, front, published, robustness, weight_prior, weight_sensitivity


def seconds(call):
    begin = time.process_time()
    call()
    return time.process_time() - begin


def everything():
    correspondence()
    alignment()
    front(np.linspace(0, 1, 101))
    robustness(weight_prior(1000))
    weight_sensitivity()
    published()


def main():
    x, y = np.random.default_rng(0).normal(size=(2, 512))
    seconds(lambda: stats.correlation(x[:9], y[:9], resamples=99))  # imports
    cases = {
        "interval of 512 pairs, 9,999 resamples and shuffles": lambda: stats.correlation(x, y, resamples=9999),
        "strong correlation of 64 pairs, as many shuffles as it takes": lambda: stats.correlation(x[:64], x[:64] + 0.3 * y[:64]),
        "100,000 perturbations of the score": lambda: robustness(weight_prior(100_000)),
        "the five analyses and the table of verdicts": everything,
        "front of 3,000 candidates": lambda: stats.pareto(np.random.default_rng(0).normal(size=(3000, 3))),
    }
    for what, call in cases.items():
        print(f"{seconds(call):7.2f} s  {what}")


if __name__ == "__main__":
    main()
