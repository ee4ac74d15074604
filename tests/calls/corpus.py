"Rows of mixlab.corpus."
import functools
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import calls
from calls import Call

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a wrong name of a dataset is answered at once


@functools.cache
def here() -> Path:
    "A folder of this process's, with the same documents in every form."
    folder = Path(tempfile.mkdtemp(prefix="mixlab-calls-"))
    texts = calls.documents(calls.NAMES, n=40)
    for name, some in texts.items():
        (folder / "text" / name).mkdir(parents=True)
        for i, text in enumerate(some):
            (folder / "text" / name / f"{i}.txt").write_text(text)
    records = [dict(domain=name, text=text) for name, some in texts.items() for text in some]
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    pd.DataFrame(records).to_parquet(folder / "records.parquet")
    return folder


@functools.cache
def bpe():
    from mixlab.corpus import train_bpe

    return train_bpe(calls.documents(("alpha",), n=20)["alpha"], vocab=280)


def options(**more):
    "Every option of a loader."
    return dict(
        heldout=(), tokenizer="bytes", splits=(0.3, 0.2), heldout_splits=(0.4, 0.2), context=16, longest=4096,
        cache=str(here() / "cache"), progress=False,
    ) | more


def shape(corpus):
    "What must not change of a corpus."
    return [corpus.hash, list(corpus.names), corpus.sizes]


def entropies():
    return pd.DataFrame([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]], index=["alpha", "bravo"], columns=["alpha", "bravo", "delta"])


def documents():
    return calls.documents(calls.NAMES, n=40)


def method(name):
    "Calls a method of a corpus, as method(corpus, ...)."

    def call(**arguments):
        answer = getattr(calls.corpus(), name)(**arguments)
        return list(answer) if name == "documents" else answer

    return call


ROWS = [
    Call("position", lambda: dict(text=b"a document")),
    Call("CorpusError", why="an exception"),
    Call("Bytes", lambda: {}, result=lambda t: t.token_bytes),
    Call("Bytes.encode", lambda: dict(documents=[b"one", b"two"]), call=lambda **k: _tokenizer("bytes").encode(**k)),
    Call("Bytes.decode", lambda: dict(tokens=np.array([65, 66, 255])), call=lambda **k: _tokenizer("bytes").decode(**k)),
    Call("Bytes.save", lambda: dict(folder=str(here())), call=lambda **k: _tokenizer("bytes").save(**k)),
    Call(
        "BPE",
        lambda: dict(text=bpe().text, where="tokenizer.json"),
        result=lambda t: t.token_bytes,
        fixed=("where",),  # anything that is to be named in errors
    ),
    Call("BPE.encode", lambda: dict(documents=[b"one", b"two"]), call=lambda **k: bpe().encode(**k)),
    Call("BPE.decode", lambda: dict(tokens=np.array([65, 66, 270])), call=lambda **k: bpe().decode(**k)),
    Call(  # a wrong folder may be somebody's, and is written to
        "BPE.save", lambda: dict(folder=str(here())), call=lambda **k: bpe().save(**k), fixed=("folder",)
    ),
    Call(
        "train_bpe",
        lambda: dict(texts=calls.documents(("alpha",), n=20)["alpha"], vocab=280),
        result=lambda t: t.token_bytes,
    ),
    Call("load_bpe", lambda: dict(path=bpe().save(here()) or str(here())), result=lambda t: t.token_bytes),
    Call("pieces", lambda: dict(text=b"one; two; three" * 9, longest=20)),
    Call("Corpus", lambda: dict(path=str(calls.corpus().path)), result=shape),
    Call("Corpus.open", lambda: dict(path=str(calls.corpus().path)), result=shape),
    Call("Corpus.tokens", lambda: dict(domain="alpha", split="valid"), call=method("tokens")),
    Call("Corpus.documents", lambda: dict(domain="alpha", split="valid"), call=method("documents")),
    Call("Corpus.verify", lambda: {}, call=method("verify")),
    Call("Corpus.ensure_sound", lambda: {}, call=method("ensure_sound")),
    Call("Corpus.table", lambda: {}, call=method("table")),
    Call("Corpus.manifest", lambda: {}, call=method("manifest")),
    Call(
        "from_documents",
        lambda: options(documents=documents(), key=["calls", 1], declared={"alpha": "a file"}, sources={"alpha": "made up"}),
        result=shape,
        fixed=("cache",),  # any path is a good one, and is made
    ),
    Call("from_folder", fixed=("cache",), arguments=lambda: options(path=str(here() / "text")), result=shape),
    Call("from_jsonl", fixed=("cache",), arguments=lambda: options(paths=str(here() / "records.jsonl"), text="text", domain="domain"), result=shape),
    Call("from_parquet", fixed=("cache",), arguments=lambda: options(paths=str(here() / "records.parquet"), text="text", domain="domain"), result=shape),
    Call(
        "from_hf",
        lambda: options(
            dataset="json", text="text", domain="domain", split="train", take=100,
            load=dict(data_files=str(here() / "records.jsonl")),
        ),
        result=shape,
        fixed=("cache",),
    ),
    Call("arithmetic", lambda: dict(i=3, lines=4)),
    Call(
        "local_corpus",
        lambda: dict(
            scale=0.02, context=8, splits=(0.3, 0.2), heldout_splits=(0.4, 0.2), tokenizer="bytes", longest=2048,
            heldout=("sci",), cache=str(here() / "cache"), progress=False,
        ),
        result=shape,
        # each good value is built anew, which takes seconds; the options are checked as those of from_documents are
        fixed=("scale", "cache", "context", "tokenizer", "longest", "heldout"),
    ),
    Call("cross_entropies", lambda: dict(corpus=calls.corpus(), order=1, read=3000, test=1000, strength=4.0)),
    Call(
        "show_domains",
        lambda: dict(entropies=entropies(), ax=None),
        result=lambda ax: [t.get_text() for t in ax.get_xticklabels()],
    ),
]


def _tokenizer(name):
    from mixlab.corpus import Bytes

    return Bytes()
