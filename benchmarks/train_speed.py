"""How many times as fast is a stack as a loop over its members?

    python benchmarks/train_speed.py [--members 16] [--steps 25] [--rounds 5]

Both are trained in turn on one thread, as load on a machine changes; the ratio of each round and their median are printed.
No test asserts it: it is a property of the machine and of what else it does.
"""
import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import torch

import calls
from mixlab.train import train


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = calls.corpus()
    mixtures = np.random.default_rng(0).dirichlet(np.ones(len(corpus.names)), args.members)
    how = dict(stop=args.steps, progress=False)
    train(corpus, mixtures, **how)
    ratios = []
    for _ in range(args.rounds):
        stack = seconds(lambda: train(corpus, mixtures, stack=args.members, **how))
        loop = seconds(lambda: train(corpus, mixtures, stack=1, **how))
        ratios.append(loop / stack)
        tokens = args.members * args.steps * 2 * 64
        print(f"stack {tokens / stack:8,.0f} tokens/s   loop {tokens / loop:8,.0f} tokens/s   ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
