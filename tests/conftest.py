"One thread, no progress bars, nothing fetched, and one cache for the whole session, away from the reader's own."
import os, tempfile
from pathlib import Path

_cache = tempfile.TemporaryDirectory(prefix="mixlab-tests-")  # removed when the session's process ends
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", MPLBACKEND="agg",
                  TQDM_DISABLE="1", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", MIXLAB_CACHE=_cache.name)

ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # for subprocesses
if (released := ROOT.parent / "shared/data/regmix").is_dir(): os.environ.setdefault("MIXLAB_DATA", str(released))  # pages are copied
