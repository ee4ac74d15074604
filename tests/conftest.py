"""One cache for the whole session, away from the reader's own; no progress bars, nothing fetched.

    MIXLAB_TEST_THREADS=2   threads of a process (1 unless said); `.ci/run` tries both
    CI=1                    Hypothesis draws the same examples every time
    MIXLAB_DATA=folder      RegMix's published runs; tests that need them are skipped without
"""
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
THREADS = os.environ.get("MIXLAB_TEST_THREADS", "1")

_cache = tempfile.TemporaryDirectory(prefix="mixlab-tests-")  # removed when the session's process ends
os.environ.update(OMP_NUM_THREADS=THREADS, OPENBLAS_NUM_THREADS=THREADS, MKL_NUM_THREADS=THREADS, MPLBACKEND="agg",
                  TQDM_DISABLE="1", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", MIXLAB_CACHE=_cache.name)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # for subprocesses

try:
    import torchvision  # curvlinops brings it; its usual build does not import beside a CPU build of torch,
except Exception:  # and transformers imports whatever torchvision is installed: without one it does not try
    sys.modules["torchvision"] = None

settings.register_profile("ci", derandomize=True, deadline=None, database=None)
settings.register_profile("free", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "free")

# Files whose answers come out of torch's arithmetic on this CPU: `.ci/run` runs them again under other instruction sets.
NUMERICAL = {"test_train", "test_proxy", "test_average", "test_merge_files", "test_sharpness", "test_twin", "test_online"}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in NUMERICAL:
            item.add_marker(pytest.mark.numerical)
