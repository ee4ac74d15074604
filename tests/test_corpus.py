"What a page cannot show of corpora: bad input of every kind, kill -9, two builders at once, memory, an environment that lacks packages."
import bz2, collections, gzip, hashlib, io, json, lzma, math, os, pickle, random, shutil, signal, subprocess, sys, time, unicodedata, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

import mixlab.corpus as module
from mixlab.corpus import (BPE, Bytes, Corpus, CorpusError, arithmetic, cross_entropies, from_documents, from_folder, from_hf, from_jsonl,
                           from_parquet, load_bpe, local_corpus, pieces, position, train_bpe)

few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(max_examples=200, deadline=None)
LOOSE = dict(context=1, splits=(.3, .2), heldout_splits=(.4, .2), progress=False)


def texts(who, n=60): return [f"{who} {i}\n" + "word " * (20 + i % 7) for i in range(n)]
STORIES = {"prose": texts("prose"), "verse": texts("verse", 90)}
RECORDS = [dict(domain=n, text=t) for n, ts in STORIES.items() for t in ts]

def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path

def lines(*records): return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records).encode()
def parquet(path, columns):
    import pyarrow as pa, pyarrow.parquet as pq
    pq.write_table(pa.table(columns), path)
    return path

@pytest.fixture
def here(tmp_path, monkeypatch):
    "An empty working folder, with its own cache in it."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path

def left(folder=Path("cache/corpora")): return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


# ---- bad input: each a clear error that names the place, and nothing left in the cache ---------------------------------
def jsonl(*records): return lambda d: from_jsonl(write(d / "a.jsonl", lines(*RECORDS, *records)), **LOOSE)
def folder(**files):
    def call(d):
        for name, content in files.items(): write(d / "text" / name.replace("__", "/"), content)
        for n, ts in STORIES.items():
            for i, t in enumerate(ts): write(d / f"text/{n}/{i}.txt", t)
        return from_folder("text", **LOOSE)
    return call

def dangling(d):
    folder()(d)
    (d / "text/prose/gone.txt").symlink_to("nowhere")
    return from_folder("text", **LOOSE)

def pipe(d):
    os.mkfifo(write(d / "text/prose/1.txt", "x").parent / "pipe.txt")
    return from_folder("text", **LOOSE)

def locked(d):
    "As root every file can be read, so the refusal is feigned."
    file, stat_only = write(d / "a.jsonl", lines(*RECORDS)), open
    def refuse(path, *args, **kwargs):
        if str(path).endswith("a.jsonl"): raise PermissionError(13, "Permission denied", str(path))
        return stat_only(path, *args, **kwargs)
    with pytest.MonkeyPatch.context() as m:
        m.setattr("builtins.open", refuse)
        return from_jsonl(file, **LOOSE)

def cut_gz(d): return from_jsonl(write(d / "a.jsonl.gz", gzip.compress(lines(*RECORDS))[:-40]), **LOOSE)
def cut_parquet(d):
    parquet(d / "a.parquet", dict(text=["x"], domain=["a"]))
    return from_parquet(write(d / "b.parquet", (d / "a.parquet").read_bytes()[:-20]))

BAD = {
    "text missing": (jsonl({"domain": "prose"}), r"a\.jsonl, line 151: no field 'text'; there are \['domain'\]"),
    "domain missing": (jsonl({"text": "whose?"}), r"a\.jsonl, line 151: no field 'domain'; there are \['text'\]"),
    "text is a number": (jsonl({"domain": "prose", "text": 7}), r"line 151: field 'text' must be text, got int"),
    "text is null": (jsonl({"domain": "prose", "text": None}), r"line 151: field 'text' must be text, got NoneType"),
    "domain is a number": (jsonl({"domain": 3, "text": "x"}), r"line 151: a domain must be a non-empty printable string, got 3"),
    "domain is empty": (jsonl({"domain": " ", "text": "x"}), r"line 151: a domain must be"),
    "line is a list": (jsonl("[1, 2]"), r"line 151: expected an object with the field 'text', got list"),
    "malformed JSON": (jsonl('{"text": "no end'), r"a\.jsonl, line 151: malformed JSON \(Unterminated string"),
    "deep JSON": (jsonl("[" * 100_000), r"a\.jsonl, line 151: malformed JSON"),
    "half a surrogate pair": (jsonl('{"domain": "prose", "text": "\\ud800"}'), r"a\.jsonl, line 151: half a surrogate pair"),
    "invalid UTF-8 in a line": (lambda d: from_jsonl(write(d / "a.jsonl", lines(*RECORDS) + b"\n{\"text\": \"caf\xe9\"}"), **LOOSE),
                                r"a\.jsonl, line 151: invalid UTF-8 \(byte 0xe9\)"),
    "invalid UTF-8 in a document": (folder(prose__bad=b"one\ntwo\ncaf\xe9\n"), r"text/prose/bad, line 3: invalid UTF-8 \(byte 0xe9\)"),
    "invalid UTF-8 far into a large file": (folder(prose__bad=b"0123456\n" * 200_000 + b"\xff\n"), r"text/prose/bad, line 200001: invalid UTF-8 \(byte 0xff\)"),
    "invalid UTF-8 in a paragraph": (folder(**{"letters.txt": b"one\n\ntwo\n\nfour\n\xc3("}), r"text/letters\.txt, line 6: invalid UTF-8"),
    "empty sub-folder": (lambda d: (d / "text/void").mkdir(parents=True) or folder()(d), r"domain 'void' is empty: no text in text/void"),
    "file of white space": (folder(**{"blank.txt": " \n\n\t\n"}), r"domain 'blank' is empty: no text in text/blank\.txt"),
    "empty file by the name's convention": (lambda d: write(d / "wiki-0.jsonl", "") and jsonl()(d) and from_jsonl(d, domain=None, **LOOSE),
                                            r"domain 'wiki' is empty: no text in .*wiki-0\.jsonl"),
    "domain shorter than a context": (folder(**{"haiku.txt": "pond"}), r"domain 'haiku': its (training|validation) split has \d tokens, shorter than a context"),
    "duplicate names, folder and file": (folder(**{"prose.txt": "x"}), r"duplicate domain names: text/prose and text/prose\.txt are both 'prose'"),
    "duplicate names, two endings": (folder(**{"a.txt": "x", "a.md": "y"}), r"duplicate domain names: text/a\.md and text/a\.txt"),
    "duplicate names, white space": (lambda d: from_documents({"a": texts("a"), " a": texts("b")}, **LOOSE), r"duplicate domain names: 'a' and ' a' are both 'a'"),
    "duplicate names, case": (jsonl({"domain": "Prose", "text": "x"}), r"duplicate domain names: 'prose' and 'Prose' differ only in case"),
    "unreadable, refused": (locked, r"a\.jsonl: cannot be read \(Permission denied\)"),
    "unreadable, a broken link": (dangling, r"text/prose/gone\.txt: cannot be read \(No such file"),
    "unreadable, a pipe": (pipe, r"text/prose/pipe\.txt: not a regular file"),
    "unreadable, gzip cut short": (cut_gz, r"a\.jsonl\.gz: cannot be read \(Compressed file ended"),
    "unreadable, not gzip": (lambda d: from_jsonl(write(d / "a.jsonl.gz", b"\x00\x01plain")), r"a\.jsonl\.gz: cannot be read \(it is named \.gz, but does not begin like one"),
    "no such file": (lambda d: from_jsonl("nowhere.jsonl"), r"nowhere\.jsonl: cannot be read \(No such file"),
    "no such folder": (lambda d: from_folder("nowhere"), r"nowhere: not a folder"),
    "empty folder": (lambda d: (d / "text").mkdir() or from_folder("text"), r"text: holds neither sub-folders nor files"),
    "no file of this kind": (lambda d: (d / "text").mkdir() or from_jsonl("text"), r"text: no \.jsonl or \.ndjson or \.json file there"),
    "JSON lines in a folder of text": (folder(**{"a.jsonl": "{}"}), r"a\.jsonl: use from_jsonl"),
    "nothing at all": (lambda d: from_documents([]), r"no documents"),
    "empty iterable": (lambda d: from_documents(STORIES | {"void": []}, **LOOSE), r"domain 'void' is empty"),
    "not pairs": (lambda d: from_documents(["just text"]), r"document 0: expected \(domain, text\), got str"),
    "not text": (lambda d: from_documents([("a", 7)]), r"document 0 of 'a': text must be str or bytes, got int"),
    "held out but unknown": (lambda d: from_documents(STORIES, heldout="news"), r"heldout = \['news'\], but the domains are \['prose', 'verse'\]"),
    "all held out": (lambda d: from_documents(STORIES, heldout=("prose", "verse")), r"every domain is held out"),
    "held out, but all of it in training": (lambda d: from_documents(STORIES | {"copy": texts("prose")}, heldout="copy", **LOOSE),
                                            r"domain 'copy': its training split has 0 tokens.*60 withheld"),
    "not Parquet": (lambda d: from_parquet(write(d / "a.parquet", "plain text")), r"a\.parquet, after row 0: cannot be read as Parquet"),
    "Parquet cut short": (cut_parquet, r"b\.parquet, after row 0: cannot be read as Parquet"),
    "Parquet, no column": (lambda d: from_parquet(parquet(d / "a.parquet", dict(content=["x"]))), r"a\.parquet: no column 'text'; there are \['content'\]"),
    "Parquet, null": (lambda d: from_parquet(parquet(d / "a.parquet", dict(text=["x", None], domain=["a", "a"]))), r"a\.parquet, row 2: field 'text' must be text"),
    "rows without a field": (lambda d: from_hf([dict(text="x")]), r"dataset, row 1: no field 'domain'"),
    "tokenizer, no file": (lambda d: from_documents(STORIES, tokenizer="none.json"), r"none\.json: cannot be read as a tokenizer"),
    "tokenizer, not JSON": (lambda d: from_documents(STORIES, tokenizer=str(write(d / "t.json", "{"))), r"t\.json: not JSON"),
    "tokenizer, not byte-level": (lambda d: from_documents(STORIES, tokenizer=str(write(d / "t.json", '{"model": {"type": "BPE"}}'))), r"t\.json: not a byte-level BPE"),
    "splits": (lambda d: from_documents(STORIES, splits=(.6, .5)), r"splits = \(0\.6, 0\.5\): expected fractions"),
    "no validation": (lambda d: from_documents(STORIES, splits=(0, .5)), r"validation above 0"),
    "context": (lambda d: from_documents(STORIES, context=0), r"context is 0, expected a whole number of at least 1"),
}

@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named_and_leaves_nothing(what, here):
    call, message = BAD[what]
    with pytest.raises(ValueError, match=message): call(here)
    was = left()
    assert not [p for p in was if p.startswith(".")], was
    for p in was:  # what a preparing step of the case built is whole
        if not p.endswith(".request"): Corpus.open(here / "cache/corpora" / p).verify()

def test_a_split_dataset_is_refused():
    from datasets import Dataset, DatasetDict
    with pytest.raises(CorpusError, match=r"holds the splits \['train'\]; choose one"): from_hf(DatasetDict(train=Dataset.from_list(RECORDS)))


# ---- all loaders, one corpus -------------------------------------------------------------------------------------------
def test_every_loader_gives_the_same_corpus(here):
    from datasets import Dataset
    want = from_documents(STORIES, **LOOSE)
    folder()(here)
    shuffled = random.Random(0).sample(RECORDS, len(RECORDS))
    nested = [dict(body=r["text"], meta=dict(set=r["domain"])) for r in shuffled]
    write(here / "parts/verse-1.jsonl", lines(*[r for r in RECORDS if r["domain"] == "verse"][40:]))
    write(here / "parts/verse-0.jsonl", lines(*[r for r in shuffled if r["domain"] == "verse"]))
    write(here / "parts/prose-0.jsonl.gz", gzip.compress(lines(*[dict(text=t) for t in STORIES["prose"]])))
    for n, ts in STORIES.items(): parquet(here / f"{n}-00_1.parquet", dict(text=ts))
    write(here / "hub/data.jsonl", lines(*shuffled))
    hub = dict(load=dict(data_files=str(here / "hub/data.jsonl")), split="train")
    got = dict(
        folder=from_folder("text", **LOOSE),
        jsonl=from_jsonl([write(here / "a.jsonl", lines(*shuffled[:70])), write(here / "b.jsonl", b"\xef\xbb\xbf" + lines(*shuffled[70:]) + b"\n\n")], **LOOSE),
        nested=from_jsonl(write(here / "n.jsonl", lines(*nested)), text="body", domain="meta.set", **LOOSE),
        names=from_jsonl("parts", domain=None, **LOOSE),
        parquet=from_parquet(parquet(here / "c.parquet", dict(text=[r["text"] for r in shuffled], domain=[r["domain"] for r in shuffled])), **LOOSE),
        parquet_nested=from_parquet(parquet(here / "d.parquet", dict(body=[r["body"] for r in nested], meta=[r["meta"] for r in nested])), text="body", domain="meta.set", **LOOSE),
        parquet_names=from_parquet([here / "prose-00_1.parquet", here / "verse-00_1.parquet"], domain=None, **LOOSE),
        hf=from_hf(Dataset.from_list(shuffled), **LOOSE),
        hf_streamed=from_hf(Dataset.from_list(shuffled).to_iterable_dataset(num_shards=3), **LOOSE),
        hf_named=from_hf("json", **hub, **LOOSE),
        hf_by_domain=from_hf({n: Dataset.from_list([dict(text=t) for t in ts]) for n, ts in STORIES.items()}, **LOOSE),
        hf_taken=from_hf({n: Dataset.from_list([dict(text=t) for t in ts[:60] + ["no more"] * 9]).to_iterable_dataset() for n, ts in STORIES.items()}, take=60, **LOOSE),
        twice=from_documents([(r["domain"], r["text"].encode()) for r in RECORDS + RECORDS], **LOOSE))
    assert got.pop("hf_taken") == from_documents({n: ts[:60] for n, ts in STORIES.items()}, **LOOSE) != want
    assert {name: c.hash for name, c in got.items()} == dict.fromkeys(got, want.hash)
    assert len({c.path for c in got.values()}) == 1 and len([p for p in left() if not p.endswith(".request")]) == 2

def test_one_file_per_domain_is_cut_into_paragraphs(here):
    for n, ts in STORIES.items(): write(here / f"text/{n}.md", "\n \n\n".join(t.strip() for t in ts))
    assert set(from_folder("text", **LOOSE).documents("prose")) < {(t.strip() + end).encode() for t in STORIES["prose"] for end in ("", "\n")}

SHARDS = {  # one file alone: its domain
    "wiki-0.jsonl": "wiki", "pile_cc-12.jsonl.gz": "pile_cc", "c4.en-00_12.parquet": "c4.en", "wiki.jsonl": "wiki",
    "wiki_2020-3.jsonl": "wiki_2020", "wiki-00000-of-00002.parquet": "wiki", "wiki-0000.json.gz": "wiki", "wiki_0001.jsonl": "wiki",
    "wiki.part3.jsonl": "wiki", "wiki-part-00003.ndjson.bz2": "wiki", "wiki_shard_12.json.zst": "wiki", "wiki.chunk.001.jsonl": "wiki",
    "wiki-train-00000-of-00010.parquet": "wiki-train", "train-00001-of-00009.parquet": "train", "wiki.00000-of-01024.jsonl.zst": "wiki",
    "wiki_0_of_2.jsonl": "wiki", "wiki-00000-of-00002-0123456789abcdef.parquet": "wiki", "wiki-00000-of-00002.snappy.parquet": "wiki",
    "wiki-part-00000-0a1b2c3d-0000-1111-2222-0123456789ab-c000.snappy.parquet": "wiki", "wiki.000.jsonl": "wiki", "Wiki.JSONL.GZ": "Wiki",
    "gpt2.jsonl": "gpt2", "c4.jsonl": "c4", "code_2023.jsonl": "code_2023", "gpt_2.parquet": "gpt_2", "part3.jsonl": "x", "part-00000.jsonl": "x",
    "0000.parquet": "x", "000_00000.parquet": "x", "00.jsonl.zst": "x", "00000-of-00002.parquet": "x", "2023.jsonl": "2023",
    "apart3.jsonl": "apart3", "a.b.c.jsonl": "a.b.c", "v1.5.jsonl": "v1.5", "no_ending": "no_ending", " wiki -1.jsonl": "wiki",
}

def test_domain_by_name_of_file():
    files = {n: Path("x") / n for n in SHARDS}
    assert {n: module._domains_of([f])[f] for n, f in files.items()} == SHARDS

def test_numbers_without_zeros_are_shards_beside_one_that_begins_with_zero():
    def domains(*names): return [*module._domains_of([Path("x") / n for n in names]).values()]
    assert domains("a_0.jsonl", "a_7.jsonl", "a_12.jsonl.zst", "b_3.jsonl", "a.3.jsonl") == ["a", "a", "a", "b_3", "a.3"]
    assert domains("a_0999.jsonl", "a_1000.jsonl") == ["a", "a"]
    assert domains("code_2022.jsonl", "code_2023.jsonl") == ["code_2022", "code_2023"]
    assert domains("2022.jsonl", "2023.jsonl", "00.jsonl") == ["x", "x", "x"]
    parts = [Path("wiki/0000.parquet"), Path("code/0000.parquet"), Path("code/0001.parquet")]
    assert [*module._domains_of(parts).values()] == ["wiki", "code", "code"]

def test_shards_of_every_kind_are_read_as_one_domain(here):
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    names = ["{}-00000-of-00004.jsonl", "{}-00001-of-00004.json", "{}-00002-of-00004.ndjson", "{}-00003-of-00004.json"]
    for n, ts in STORIES.items():
        for i, (name, (ending, packed)) in enumerate(zip(names, pack.items())):
            write(here / "in" / (name.format(n) + ending), packed(lines(*[dict(text=t) for t in ts[i::4]])))
    write(here / "in/dataset_info.json", json.dumps(dict(description="no records"), indent=1))
    assert from_jsonl("in", domain=None, **LOOSE) == from_documents(STORIES, **LOOSE)

def test_hidden_files_are_no_domains(here):
    folder(**{".git__config": "x", "prose__.DS_Store": b"\xff"})(here)
    assert from_folder("text", **LOOSE) == from_documents(STORIES, **LOOSE)


# ---- the cache ---------------------------------------------------------------------------------------------------------
def test_asking_again_reads_nothing_and_a_changed_file_is_seen(here, monkeypatch):
    file = write(here / "a.jsonl", lines(*RECORDS))
    first = from_jsonl(file, **LOOSE)
    with monkeypatch.context() as m:
        m.setattr(module, "_build", lambda *a: pytest.fail("built again"))
        assert from_jsonl(file, **LOOSE) == from_jsonl("a.jsonl", **LOOSE) == first
    write(file, lines(*RECORDS, dict(domain="prose", text="one more")))
    assert from_jsonl(file, **LOOSE) != first
    assert from_jsonl(file, **LOOSE | dict(splits=(.2, .2))) != from_jsonl(file, **LOOSE)

@pytest.mark.parametrize("damage", ["cut", "gone", "meta"])
def test_a_damaged_cache_is_found_and_made_again(here, damage):
    good = from_documents(STORIES, key="stories", **LOOSE)
    file = good.path / ("corpus.json" if damage == "meta" else "0001-train.bin")
    if damage == "gone": file.unlink()
    else: write(file, file.read_bytes()[:-7])
    with pytest.raises(CorpusError, match=file.name): Corpus.open(good.path)
    again = from_documents(STORIES, key="stories", **LOOSE)
    again.verify()
    assert again == good and not [p for p in left() if p.startswith(".")]

def test_a_flipped_bit_is_found(here):
    c = from_documents(STORIES, **LOOSE)
    file = c.path / "0001-valid.bin"
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorpusError, match=r"0001-valid\.bin: checksum mismatch"): Corpus.open(c.path).verify()

def test_a_full_disk_leaves_nothing(here, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"): from_documents(STORIES, **LOOSE)
    assert left() == []

@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, RuntimeError, MemoryError])
def test_an_interrupted_build_leaves_nothing(here, stop):
    def documents():
        yield from ((r["domain"], r["text"]) for r in RECORDS)
        raise stop
    with pytest.raises(stop): from_documents(documents(), key="k", **LOOSE)
    assert left() == []

SLOW_BUILD = """
import sys, time
from pathlib import Path
from mixlab.corpus import from_documents
def documents():
    for i in range(3000):
        if i == 2000:
            Path("reached").touch()
            while not Path("go on").exists(): time.sleep(.01)
        yield "abc"[i % 3], f"document {i} " * 20
print(from_documents(documents(), key="slow", progress=False).hash)
"""
def slow_build(): return subprocess.Popen([sys.executable, "-c", SLOW_BUILD], stdout=subprocess.PIPE, text=True)
def until(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(.01)

def test_kill_9_in_the_middle_then_built_anew(here):
    child = slow_build()
    until(Path("reached").exists)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert [p[:10] for p in left()] == [".building-"], "the half-built corpus lies there, under no name that anyone would open"
    Path("go on").touch()
    with slow_build() as again: digest = again.communicate()[0].strip()
    assert again.returncode == 0 and [p for p in left() if not p.endswith(".request")] == [digest[:16]]
    Corpus.open(here / "cache/corpora" / digest[:16]).verify()

def test_a_living_build_is_left_alone_and_two_may_build_the_same(here):
    with slow_build() as one, slow_build() as two:
        until(lambda: len([p for p in left() if p.startswith(".building-")]) == 2)
        until(Path("reached").exists)
        from_documents(STORIES, **LOOSE)  # sweeps, and finds both alive
        assert len([p for p in left() if p.startswith(".building-")]) == 2
        Path("go on").touch()
        digests = {p.communicate()[0].strip() for p in (one, two)}
    assert one.returncode == two.returncode == 0 and len(digests) == 1 and not [p for p in left() if p.startswith(".")]


# ---- memory ------------------------------------------------------------------------------------------------------------
PEAK = """
import json, sys
from mixlab import corpus
def peak():
    try: return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1000
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
if sys.argv[1] == "from_parquet": import pyarrow.parquet
before = peak()
c = getattr(corpus, sys.argv[1])(sys.argv[2], progress=False)
print(peak() - before, sum(c.table()["bytes"]))
"""
def growth(loader, path):
    out = subprocess.run([sys.executable, "-c", PEAK, loader, str(path)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
    return tuple(map(float, out.stdout.split()))

def generated(file, megabytes):
    "A file of JSON lines: 2 kB documents, all different."
    page = "".join(arithmetic(i) for i in range(3))[:2000]
    with open(file, "w") as f:
        for i in range(megabytes * 1_000_000 // 2000): f.write(json.dumps(dict(domain="abcd"[i % 4], text=f"{i} {page}")) + "\n")
    return file

def test_memory_does_not_grow_with_the_corpus(here):
    "1 GB is on the page (a slow cell: 20 MB); here 10 and 80 MB, where holding the text would take 80 at least."
    (small, _), (large, size) = (growth("from_jsonl", generated(here / f"{m}.jsonl", m)) for m in (10, 80))
    assert size > 75e6 and large < 60 and large - small < 15, (small, large)

def test_memory_does_not_grow_with_one_huge_line(here):
    with open(here / "a.txt", "w") as f:
        for i in range(60_000): f.write(f"{i} " + "lorem ipsum " * 80)
    (here / "text").mkdir()
    (here / "a.txt").rename(here / "text/a.txt")
    grown, size = growth("from_folder", here / "text")
    assert size > 55e6 and grown < 40, grown

def test_memory_is_bounded_by_a_row_group_of_parquet(here):
    import pyarrow as pa, pyarrow.parquet as pq
    rng = np.random.default_rng(0)
    schema = pa.schema(dict(text=pa.string(), domain=pa.string()))
    with pq.ParquetWriter(here / "a.parquet", schema) as w:
        for i in range(60): w.write_table(pa.table(dict(text=[f"{i} " + rng.bytes(800).hex() for _ in range(600)], domain=["ab"[i % 2]] * 600), schema))
    grown, size = growth("from_parquet", here / "a.parquet")
    assert size > 55e6 and grown < 45, grown


# ---- splits: properties ------------------------------------------------------------------------------------------------
documents = st.lists(st.tuples(st.sampled_from("abcx"), st.integers(0, 400)), min_size=80, max_size=200)
def built(pairs, **options):
    try: return from_documents([(n, f"document {i}") for n, i in pairs], heldout="x", **LOOSE | options)
    except CorpusError as e: assume("context" not in str(e) and "heldout" not in str(e)); raise
def where(c): return {(n, d): s for n in c.targets for s in ("train", "valid", "test") for d in c.documents(n, s)}

@few
@given(documents, documents, st.randoms())
def test_splits_are_disjoint_stable_and_by_hash(here, first, second, rng):
    one = built(first)
    place = where(one)
    assert len({(d, s) for (n, d), s in place.items() if n != "x"}) == len({d for n, d in place if n != "x"}), "one split per document, over all training domains"
    training = {d for n, d in place if n != "x"}
    assert not training & {d for n, d in place if n == "x"}, "a held-out domain shares nothing with training"
    assert training == {f"document {i}".encode() for n, i in first if n != "x"}
    for n in one.targets:
        for s in ("train", "valid", "test"):
            ps = [position(d) for d in one.documents(n, s)]
            assert ps == sorted(set(ps)) and all(s == ("train" if p >= (.5, .6)[n == "x"] else "test" if p >= (.3, .4)[n == "x"] else "valid") for p in ps)
    again = rng.sample(first, len(first)) + first[:20]
    assert built(again) == one, "neither order nor copies matter"
    more = where(built(first + second))
    assert all(more[k] == s for k, s in place.items() if k[0] != "x"), "what was there stays where it was"
    assert all(more.get(k, s) == s for k, s in place.items() if k[0] == "x")

@few
@given(st.tuples(st.floats(.05, .4), st.floats(.05, .4)).map(sorted))
def test_a_larger_validation_part_only_lets_documents_in(here, fractions):
    small, large = ({d for d in from_documents(STORIES, **LOOSE | dict(splits=(v, .1))).documents("verse", "valid")} for v in fractions)
    assert small <= large

@many
@given(st.text(max_size=400).map(str.encode), st.integers(4, 60))
def test_pieces(text, longest):
    cut = pieces(text, longest)
    assert b"".join(cut) == text and all(len(c) <= longest for c in cut)
    for c in cut: c.decode()

@few
@given(st.binary(min_size=0, max_size=3000).map(lambda b: b.decode("latin-1")), st.integers(64, 500), st.booleans())
def test_a_file_read_in_blocks_is_the_file(here, text, longest, paragraphs):
    file = write(here / "f.txt", text)
    parts = list(module._from_file(file, paragraphs, longest))
    joined = b"".join(p for p, _ in parts)
    assert b"".join(joined.split()) == b"".join(text.encode().split()) and (paragraphs or joined == text.encode())
    for p, line in parts: assert text.encode().split(b"\n")[line - 1].endswith(p.split(b"\n")[0]) or p.split(b"\n")[0] in text.encode().split(b"\n")[line - 1]

def test_withheld_and_shared_are_counted(here):
    c = from_documents(dict(a=texts("one") + texts("two"), b=texts("two") + texts("three"), x=texts("three") + texts("four") * 2), heldout="x", **LOOSE)
    m = c.manifest()
    assert m.shared.to_dict() == dict(a=60, b=60, x=0) and m.withheld.to_dict() == dict(a=0, b=0, x=60)
    assert m.duplicates.to_dict() == dict(a=0, b=0, x=60) and m.documents.to_dict() == dict(a=120, b=120, x=60)


# ---- the corpus in hand ------------------------------------------------------------------------------------------------
def test_corpus_is_light_and_read_only(here):
    c = from_documents(STORIES | {"news": texts("news")}, heldout=["news"], **LOOSE)
    assert c.names == ("prose", "verse") and c.heldout == ("news",) and c.targets == c.names + c.heldout
    assert c.tokens("prose").dtype == np.uint8 and isinstance(c.tokens("prose"), np.memmap)
    with pytest.raises(ValueError): c.tokens("prose")[0] = 0
    assert len(pickle.dumps(c)) < 500 and pickle.loads(pickle.dumps(c)) == c and len({c, Corpus.open(c.path)}) == 1
    t = c.table()
    assert (t.tokens == t.bytes + t.documents).all() and np.isclose(c.natural.sum(), 1) and list(c.sizes) == [len(c.tokens(n)) for n in c.names]
    assert all(c.token_bytes[c.tokens(n, s)].sum() == t.bytes[n, s] for n, s in t.index)
    assert "prose" in repr(c) and "<table>" in c._repr_html_() and str(here) not in repr(c) + c._repr_html_()
    with pytest.raises(KeyError, match="no domain 'prosa'; this corpus has prose, verse, news"): c.tokens("prosa")
    with pytest.raises(KeyError, match="no split 'validation'"): c.tokens("prose", "validation")

def test_names_cannot_break_the_table(here):
    c = from_documents({"<b>": texts("a"), "../up": texts("b")}, **LOOSE)
    assert "<b></th>" not in c._repr_html_() and {p.parent for p in c.path.rglob("*.bin")} == {c.path}

def test_many_threads_may_read(here):
    c = from_documents(STORIES, **LOOSE)
    with ThreadPoolExecutor(8) as pool: sums = list(pool.map(lambda i: int(c.tokens(c.names[i % 2]).sum()), range(64)))
    assert len(set(sums)) == 2

def test_a_path_that_moves_does_not_matter(here, monkeypatch):
    c = from_documents(STORIES, cache="elsewhere", **LOOSE)
    monkeypatch.chdir("/")
    assert len(c.tokens("prose")) and pickle.loads(pickle.dumps(c)) == c


# ---- tokenizers --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bpe(): return train_bpe([t for ts in STORIES.values() for t in ts] + ["def f(x):\n    return x\n", "naïve déjà vu"] * 9, vocab=320)

@pytest.fixture(scope="module")
def neox(bpe, tmp_path_factory):
    "What GPT-NeoX's file holds: NFC, a special end of text, runs of spaces as added tokens, an added leading space."
    from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
    t = Tokenizer.from_str(bpe.text)
    t.normalizer, t.pre_tokenizer = normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.add_special_tokens(["<|endoftext|>", "<|padding|>"])
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 2)])
    path = tmp_path_factory.mktemp("neox") / "tokenizer.json"
    t.save(str(path))
    return load_bpe(path.parent)

NASTY = ["e\u0301 \u00e9 \ufb01 <|endoftext|> <|padding|> a    b  c", "\u0000\u200b\ufeff\r\n\t", "👩‍🚀🇫🇷", " lead", "", "<|endoftext|>"]

@pytest.mark.parametrize("which", ["bpe", "neox"])
def test_bpe_is_exact(which, request):
    t = request.getfixturevalue(which)
    exact = many(given(st.lists(st.one_of(st.text(max_size=60), st.sampled_from(NASTY)), min_size=1, max_size=4))(lambda docs: check(t, docs)))
    def check(t, docs):
        raw = [d.encode() for d in docs]
        tokens = t.encode(raw)
        assert t.decode(tokens) == b"".join(raw) and t.token_bytes[tokens].sum() == len(b"".join(raw))
        assert (tokens == t.eod).sum() == len(raw) and tokens.max() < t.vocab and t.token_bytes[t.eod] == 0
    exact()

def test_bpe_corpus(here, bpe, neox):
    plain, small, large = (from_documents(STORIES, tokenizer=t, **LOOSE) for t in ("bytes", bpe, neox))
    assert len({c.hash for c in (plain, small, large)}) == 3 and small.vocab == bpe.vocab
    for c in (small, large):
        assert c.tokens("prose").dtype == np.uint16 and Corpus.open(c.path).tokenizer.name == c.tokenizer.name
        assert [*c.documents("prose", "valid")] == [*plain.documents("prose", "valid")]
        assert (c.table()["bytes"] == plain.table()["bytes"]).all() and c.table().tokens.sum() < plain.table().tokens.sum()
        assert pickle.loads(pickle.dumps(c.tokenizer)).name == c.tokenizer.name
    assert neox.eod == load_bpe(large.path).eod < neox.vocab and from_documents(STORIES, tokenizer=large.path / "tokenizer.json", **LOOSE) == large

def test_bpe_training_repeats(bpe):
    again = train_bpe([t for ts in STORIES.values() for t in ts] + ["def f(x):\n    return x\n", "naïve déjà vu"] * 9, vocab=320)
    assert again.name == bpe.name
    with pytest.raises(ValueError, match="vocab is 100, expected a whole number from 256"): train_bpe([], vocab=100)

def test_a_large_vocabulary_takes_four_bytes(here, bpe):
    config = json.loads(bpe.text)
    config["added_tokens"] = [dict(id=70_000, content="<|endoftext|>", special=True, single_word=False, lstrip=False, rstrip=False, normalized=False)]
    c = from_documents(STORIES, tokenizer=BPE(json.dumps(config)), **LOOSE)
    assert c.tokens("prose").dtype == np.uint32 and c.vocab == 70_001 and c.eod == 70_000 and c.tokens("prose")[-1] == 70_000

def test_a_tokenizer_that_loses_bytes_is_refused(here, bpe):
    class Lossy(Bytes):
        def encode(self, documents): return super().encode([d.replace(b"word", b"w") for d in documents])
    with pytest.raises(CorpusError, match="bytes of text became tokens for"): from_documents(STORIES, tokenizer=Lossy(), **LOOSE)
    assert left() == []
    config = json.loads(bpe.text)
    config["model"]["vocab"] = {t: i for t, i in config["model"]["vocab"].items() if t != "ÿ"}
    config["model"]["merges"] = []
    with pytest.raises(CorpusError, match="1 of the 256 single bytes"): BPE(json.dumps(config))


# ---- text that is already here -------------------------------------------------------------------------------------------
def test_arithmetic_is_the_same_everywhere():
    pages = "".join(arithmetic(i) for i in range(200))
    assert hashlib.sha256(pages.encode()).hexdigest() == "b7815bbdd66689f34f9f64dec7877653d803302479eb00852666341e29d28e45"
    sums = [l.removeprefix("What is ").split("? ") for l in pages.splitlines() if " + " in l and l.startswith("What")]
    assert len(sums) > 300 and all(eval(question) == int(answer) for question, answer in sums)

@pytest.fixture(scope="module")
def local(tmp_path_factory): return local_corpus(progress=False)

def test_local_corpus(local):
    assert set("cpp docs js legal math python".split()) < set(local.names) and len(local.names) >= 7
    t = local.table()
    assert t["bytes"].xs("valid", level="split")[list(local.names)].min() > 10_000 and t["bytes"].xs("train", level="split")[list(local.names)].min() > 200_000
    assert local.natural.max() / local.natural.min() > 3, "uneven, as in life"
    assert t.mean_bytes.max() < 2048 and t.mean_bytes.min() > 200
    e = cross_entropies(local, test=10_000)
    assert (e[list(local.names)].idxmin() == list(local.names)).all(), "truly different statistics"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(module, "_build", lambda *a: pytest.fail("built again"))
        assert local_corpus() == local

def test_local_text_is_what_it_says(local):
    assert not [d for d in local.documents("python") if b"#!" in d[:2] or d.lstrip().startswith(b"#")]
    train = {n: set(local.documents(n)) | set(local.documents(n, "valid")) | set(local.documents(n, "test")) for n in local.targets}
    assert not set.union(*(train[n] for n in local.names)) & set.union(*(train[n] for n in local.heldout))
    assert "BSD" in local.manifest().source["docs"] and sys.prefix not in " ".join(local.manifest().source)

def test_local_corpus_in_a_leaner_environment(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "babel", None)
    monkeypatch.setitem(sys.modules, "mistune", None)
    with pytest.warns(UserWarning) as said: c = local_corpus(scale=.1, progress=False)
    assert len(c.names) == 7 and "unicode" in c.names and "i18n" not in c.names and "python" in c.names
    assert any("'i18n'" in str(w.message) and "left out" in str(w.message) for w in said)

def test_local_corpus_needs_seven_domains(here, monkeypatch):
    for n in ("js", "i18n"): monkeypatch.setattr(module, f"_local_{n}", lambda found: iter(()))
    with warnings.catch_warnings(), pytest.raises(CorpusError, match="6 training domains here, 7 needed"):
        warnings.simplefilter("ignore")
        local_corpus(scale=.1, progress=False)
    assert left() == []

def test_local_corpus_sees_what_is_installed(here, monkeypatch):
    one = module._environment()
    (here / "extra/thing-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(here / "extra"))
    assert set(module._environment()) - set(one) == {"thing-1.0.dist-info"}
