"""Does a run of TANDEM cost what its passes are counted to cost? CPU time per pass, in units of plain training.

    python benchmarks/tandem_cost.py [--rounds 5]

A ratio below 1 means that a pass costs less than the count says: two models in one stack are cheaper than two.
"""
import argparse
import statistics
import time

import numpy as np

from mixlab.samples import fixed_corpus
from mixlab.train import train
from mixlab.twin import tandem

SETTINGS = dict(batch=4, steps=40, progress=False, device="cpu")


def cpu_seconds(call):
    "CPU seconds of a call, and its answer."
    begun = time.process_time()
    answer = call()
    return time.process_time() - begun, answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    corpus = fixed_corpus(progress=False)
    uniform = np.full(len(corpus.names), 1 / len(corpus.names))
    ratios = []
    for _ in range(args.rounds):
        plain, _ = cpu_seconds(lambda: train(corpus, uniform, **SETTINGS))
        spent, run = cpu_seconds(lambda: tandem(corpus, corpus.names[0], rest=0.0, **SETTINGS))
        ratios.append(spent / plain / (run.passes / run.step))
    print(f"CPU time per counted pass, plain training = 1: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
