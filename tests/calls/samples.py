"Rows of mixlab.samples."
import functools
import tempfile

from calls import Call


@functools.cache
def cache():
    "One folder for all calls: only the first one reads the packages."
    return tempfile.mkdtemp(prefix="mixlab-calls-")


ROWS = [
    Call("sample_files", lambda: {}),
    Call("sample_packages", lambda: {}),
    Call("split_python", lambda: dict(source='"""Text."""\nx = 1\n')),
    Call("domain_texts", lambda: dict(domain="legal", file="LICENSE", data=b"word " * 30)),
    Call(
        "fixed_corpus",
        lambda: dict(cache=cache(), progress=False),
        fixed=("cache",),  # another folder is a build of several seconds; what is no folder is in tests/test_samples.py
        result=lambda corpus: corpus.hash,
    ),
]
