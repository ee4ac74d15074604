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


# ---- the hash is of the content ----------------------------------------------------------------------------------------
THREE = STORIES | {"news": texts("news")}

def three(**options): return from_documents(THREE, heldout="news", **LOOSE | options)
def meta_of(c): return json.loads((c.path / "corpus.json").read_text())
def rewrite(c, meta): (c.path / "corpus.json").write_text(json.dumps(meta))
def spoil(file):
    "Other bytes of equal length."
    data = bytearray(file.read_bytes())
    data[3], data[4] = data[4] ^ 1, data[3] ^ 1
    file.write_bytes(data)

def test_hash_by_hand_and_as_in_0_1(here):
    c = three()
    content = [[n, n == "news", *(hashlib.sha256((c.path / f"{k:04d}-{s}.bin").read_bytes()).hexdigest() for s in ("train", "valid", "test"))]
               for k, n in enumerate(("prose", "verse", "news"))]
    assert c.hash == hashlib.sha256(json.dumps([1, "bytes", content]).encode()).hexdigest()
    assert c.hash == "f6644c4ecbdbfccae894e2090d29b71baa208246af21906c5773be9811f115d4"  # what 0.1 gave
    assert c.path.name == c.hash[:16]

def swap_names(m): m["domains"][0]["name"], m["domains"][1]["name"] = "verse", "prose"
def rename(m): m["domains"][0]["name"] = "essay"
def move_flag(m): m["domains"][0]["heldout"] = True
def free(m): m["domains"][2]["heldout"] = False
def swap_digests(m): m["domains"][0]["test"]["sha256"], m["domains"][0]["valid"]["sha256"] = (m["domains"][0][s]["sha256"] for s in ("valid", "test"))
def other_tokenizer(m): m["tokenizer"] = "bpe-" + "0" * 64
def reorder(m): m["domains"] = [dict(d, file=f"{k:04d}") for k, d in enumerate(m["domains"][::-1])]
def drop(m): m["domains"].pop()
def other_hash(m): m["hash"] = "0" * 64

@pytest.mark.parametrize("change", [swap_names, rename, move_flag, free, swap_digests, other_tokenizer, reorder, drop, other_hash], ids=lambda f: f.__name__)
def test_a_changed_corpus_json_is_refused(change, here):
    c = three()
    change(meta := meta_of(c))
    rewrite(c, meta)
    with pytest.raises(CorpusError, match=r"corpus\.json: names, held-out flags, tokenizer and checksums have the hash"): Corpus(c.path)
    assert three() == c and Corpus(c.path) == c, "built again"

def at(*keys):
    "A function that sets what lies at these keys to a value, or drops it."
    def change(meta, value):
        for k in keys[:-1]: meta = meta[k]
        if value is KeyError: del meta[keys[-1]]
        else: meta[keys[-1]] = value
    return change

D, T = ("domains", 0), ("domains", 1, "train")
MALFORMED = [((k,), v) for k in ("hash", "tokenizer", "domains") for v in (None, 3, [], {}, "", [1], KeyError)]
MALFORMED += [(D, v) for v in (None, 3, [], "x")] + [((*D, "name"), v) for v in (None, 3, "", " prose", "e\u0301", "a\tb", "verse", KeyError)]
MALFORMED += [((*D, "heldout"), v) for v in (None, 0, "false", KeyError)] + [((*D, "source"), v) for v in (3, KeyError)]
MALFORMED += [((*D, "file"), v) for v in ("../0000", "/etc/passwd", "0001", 0, "0", ".", "0000/../0000", None, KeyError)]
MALFORMED += [((*D, k), v) for k in ("given", "duplicates", "withheld", "shared") for v in (-1, 1.5, True, "1", 2**70, KeyError)]
MALFORMED += [((*D, s), v) for s in ("train", "valid", "test") for v in (None, 7, [], KeyError)]
MALFORMED += [((*T, k), v) for k in ("tokens", "bytes", "documents") for v in (-1, 1.0, True, "1", 10**30, KeyError)]
MALFORMED += [((*T, "sha256"), v) for v in (None, "", "0" * 63, "G" * 64, 0, KeyError)]

def test_malformed_parts_of_corpus_json_are_named(here):
    c = three()
    good = meta_of(c)
    for keys, value in MALFORMED:
        meta = json.loads(json.dumps(good))
        at(*keys)(meta, value)
        rewrite(c, meta)
        with pytest.raises(CorpusError, match=r"corpus\.json") as said: Corpus(c.path)
        inner = keys[-1] if isinstance(keys[-1], str) else "domain 0"
        assert any(word in str(said.value) for word in (inner, "domain 0 is", "hash", "same name")), (keys, value, str(said.value))
    rewrite(c, good)
    Corpus(c.path).verify()

@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"[" * 200_000, b'{"a":' * 100_000, b"NaN", b"{}", b"\0" * 100])
def test_malformed_json_is_named(text, here):
    c = three()
    (c.path / "corpus.json").write_bytes(text)
    with pytest.raises(CorpusError, match=r"corpus\.json"): Corpus(c.path)

def test_a_huge_corpus_json_is_not_read(here, monkeypatch):
    c = three()
    monkeypatch.setattr(module, "_LARGEST", 100)
    with pytest.raises(CorpusError, match=r"corpus\.json: larger than 100 bytes"): Corpus(c.path)

def test_no_text_to_train_on_is_refused(here):
    c, empty = three(), dict(tokens=0, bytes=0, documents=0, sha256=hashlib.sha256().hexdigest())
    meta = meta_of(c)
    for d in meta["domains"]:
        if not d["heldout"]: d["train"] = empty
    meta["hash"] = module._content_hash(meta["tokenizer"], meta["domains"])
    rewrite(c, meta)
    for k in (0, 1): (c.path / f"000{k}-train.bin").write_bytes(b"")
    with pytest.raises(CorpusError, match="no domain has text to train on"): Corpus(c.path)

def test_counts_of_corpus_json_are_verified(here):
    for key in ("bytes", "documents"):
        c = three()
        meta = meta_of(c)
        meta["domains"][2]["valid"][key] += 1
        rewrite(c, meta)
        with pytest.raises(CorpusError, match=rf"0002-valid\.bin: \d+ {key}, but corpus\.json says"): Corpus(c.path).verify()
        shutil.rmtree(c.path)

def test_flags_and_names_are_in_the_hash(here):
    same = LOOSE | dict(heldout_splits=LOOSE["splits"])
    hashes = {from_documents(STORIES, **same).hash, from_documents(STORIES, heldout="verse", **same).hash, from_documents(STORIES, heldout="prose", **same).hash,
              from_documents({"prose": STORIES["verse"], "verse": STORIES["prose"]}, **same).hash,
              from_documents({"essay": STORIES["prose"], "verse": STORIES["verse"]}, **same).hash}
    assert len(hashes) == 5


# ---- damage ------------------------------------------------------------------------------------------------------------
def test_a_damaged_place_is_replaced_by_a_build(here):
    c = three()
    for split in ("train", "valid"): spoil(c.path / f"0000-{split}.bin")
    Corpus(c.path)  # same lengths: this opens
    with pytest.raises(CorpusError, match=r"0000-train\.bin: checksum mismatch"): c.verify()
    again = three()
    again.verify()
    assert again == c and again.path == c.path and not [p for p in left() if p.startswith(".")]

def test_a_damaged_place_is_replaced_when_asked_by_key_or_file(here):
    file = write(here / "a.jsonl", lines(*RECORDS))
    for make in (lambda: from_jsonl(file, **LOOSE), lambda: three(key="k")):
        c = make()
        state = os.stat(c.path / "0001-test.bin")
        spoil(c.path / "0001-test.bin")
        os.utime(c.path / "0001-test.bin", ns=(state.st_atime_ns, state.st_mtime_ns))  # as some copies do
        again = make()
        again.verify()
        assert again == c

def test_another_corpus_in_the_place_is_replaced(here):
    a, b = three(), from_documents(STORIES, **LOOSE)
    shutil.rmtree(a.path)
    shutil.copytree(b.path, a.path)
    again = three(key="new")
    assert again.names == ("prose", "verse") and again.heldout == ("news",) and again.hash == a.hash
    note = next((here / "cache/corpora").glob("*.request"))
    for wrong in (b.path.name, "../../elsewhere", "", "x" * 16, str(a.path)):
        note.write_text(wrong)
        if wrong == b.path.name: continue  # a sound corpus under its own name
        assert three(key="new") == a and note.read_text() == a.path.name
    note.write_bytes(b"\xff\xfe")
    assert three(key="new") == a
    shutil.rmtree(a.path)
    shutil.copytree(b.path, a.path)
    assert three(key="new") == a

def test_ensure_sound_reads_each_state_of_a_file_once(here, monkeypatch):
    c, read, real = three(), [], module._verify_file
    time.sleep(module._SETTLED / 1e9 + .02)
    monkeypatch.setattr(module, "_verify_file", lambda file, *a: read.append(file.name) or real(file, *a))
    c.ensure_sound()
    read.clear()
    c.ensure_sound()
    Corpus(c.path).ensure_sound()
    assert read == []
    module._VERIFIED.clear()  # as another process
    Corpus(c.path).ensure_sound()
    assert read == [], "what was verified stands beside the files"
    (c.path / "verified.json").unlink()
    Corpus(c.path).ensure_sound()
    assert len(read) == 9 and (c.path / "verified.json").exists()
    read.clear()
    os.utime(c.path / "0001-valid.bin", ns=(1, 1))
    c.ensure_sound()
    assert read == ["0001-valid.bin"]
    c.verify()
    assert len(read) == 10, "verify reads all of them"

def test_ensure_sound_names_what_was_damaged_at_once(here):
    c = three()
    c.ensure_sound()
    spoil(c.path / "0002-valid.bin")
    with pytest.raises(CorpusError, match=r"0002-valid\.bin: checksum mismatch"): c.ensure_sound()
    with pytest.raises(CorpusError, match=r"0002-valid\.bin: checksum mismatch"): Corpus(c.path).ensure_sound()
    (c.path / "0002-valid.bin").unlink()
    with pytest.raises(CorpusError, match=r"0002-valid\.bin: missing"): c.ensure_sound()

def test_a_file_that_was_exchanged_is_read_anew(here):
    "An open map still shows the old file."
    c = three()
    c.tokens("prose")
    (copy := here / "copy").write_bytes((c.path / "0000-train.bin").read_bytes())
    spoil(copy)
    os.replace(copy, c.path / "0000-train.bin")
    with pytest.raises(CorpusError, match=r"0000-train\.bin: checksum mismatch"): c.verify()
    with pytest.raises(CorpusError, match=r"0000-train\.bin: checksum mismatch"): c.ensure_sound()

@pytest.mark.parametrize("beside", [b"", b"[]", b"{", b"\xff", b'{"0000-train.bin": 3}', b'{"0000-train.bin": ["x", 1, 2, 3]}', b"[" * 100_000])
def test_a_wrong_note_of_what_was_verified_is_no_excuse(beside, here):
    c = three()
    module._VERIFIED.clear()
    (c.path / "verified.json").write_bytes(beside)
    spoil(c.path / "0000-train.bin")
    with pytest.raises(CorpusError, match=r"0000-train\.bin: checksum mismatch"): c.ensure_sound()

def test_a_note_that_cannot_be_written_does_not_matter(here):
    c = three()
    (c.path / "verified.json").unlink(missing_ok=True)
    (c.path / "verified.json").mkdir()
    module._VERIFIED.clear()
    c.ensure_sound()

def test_a_changed_tokenizer_is_refused(here, bpe):
    c = three(tokenizer=bpe)
    text = (c.path / "tokenizer.json").read_text()
    (c.path / "tokenizer.json").write_text(train_bpe(texts("else"), vocab=300).text)
    with pytest.raises(CorpusError, match=r"tokenizer\.json: not the tokenizer"): Corpus(c.path)
    for wrong in ("", "[]", "{}", '{"model": 3}', '{"model": {"type": "BPE"}, "pre_tokenizer": 7}', "[" * 99_999, text[:-30], text.replace('"merges"', '"mergers"')):
        (c.path / "tokenizer.json").write_text(wrong)
        with pytest.raises(CorpusError, match=r"tokenizer\.json"): Corpus(c.path)
    (c.path / "tokenizer.json").unlink()
    with pytest.raises(CorpusError, match=r"tokenizer\.json: cannot be read as a tokenizer \(No such file"): Corpus(c.path)
    assert three(tokenizer=bpe) == Corpus(c.path)

def test_malformed_tokenizers_are_named(bpe):
    good = json.loads(bpe.text)
    added = dict(id=300, content="<x>", special=True, single_word=False, lstrip=False, rstrip=False, normalized=False)
    for part in (dict(added_tokens=3), dict(added_tokens=[3]), dict(added_tokens=[dict(added, id="1")]), dict(added_tokens=[dict(added, id=-1)]),
                 dict(added_tokens=[dict(added, id=10**12)]), dict(added_tokens=[dict(added, special=None)]), dict(added_tokens=[dict(added, content=1)]),
                 dict(pre_tokenizer=[1]), dict(pre_tokenizer=dict(pretokenizers=3)), dict(pre_tokenizer=None), dict(model=None), dict(model=dict(type="BPE"))):
        with pytest.raises(CorpusError, match=r"tokenizer\.json"): BPE(json.dumps(good | part))
    twice = json.loads(bpe.text)
    twice["model"]["vocab"]["!!!"] = 0
    with pytest.raises(CorpusError, match=r"tokenizer\.json"): BPE(json.dumps(twice))


# ---- a corpus travels as its folder's name -----------------------------------------------------------------------------
def test_an_unpickled_corpus_opens_its_folder_when_it_is_used(here):
    c = three()
    packed = pickle.dumps(c)
    shutil.move(c.path, here / "away")
    there = pickle.loads(packed)  # nothing is opened
    assert there == c and hash(there) == hash(c) and there.path == c.path and there.hash == c.hash
    assert pickle.loads(pickle.dumps(there)) == c and not hasattr(there, "no_such_thing") and hasattr(there, "ensure_sound")
    for use in (lambda: there.names, lambda: there.tokens("prose"), lambda: there.ensure_sound(), lambda: there.sizes, lambda: repr(there)):
        with pytest.raises(CorpusError, match=r"not a corpus \(corpus\.json cannot be read.*does .* see the same folder"): use()
    shutil.move(here / "away", c.path)
    assert there.names == c.names and (there.tokens("verse", "test") == c.tokens("verse", "test")).all() and there.vocab == 256
    with pytest.raises(AttributeError, match="no_such_thing"): there.no_such_thing

def test_an_unpickled_corpus_is_the_same_corpus(here):
    a, b = three(), from_documents(STORIES, **LOOSE)
    there = pickle.loads(pickle.dumps(a))
    shutil.rmtree(a.path)
    shutil.copytree(b.path, a.path)
    with pytest.raises(CorpusError, match=rf"holds corpus {b.hash[:12]}, expected {a.hash[:12]}"): there.names

class Mine(Corpus):
    "A corpus class of one's own."

def test_a_subclass_stays_one(here):
    mine = pickle.loads(pickle.dumps(Mine(three().path)))
    assert type(mine) is Mine and mine.names == ("prose", "verse")

def test_domains_are_found_by_any_form_of_their_name(here):
    c = from_documents({"caf\u00e9": texts("a"), "b": texts("b")}, **LOOSE)
    assert len(c.tokens(" cafe\u0301 ")) == len(c.tokens("caf\u00e9")) and [*c.documents("cafe\u0301")] == [*c.documents("caf\u00e9")]
    for wrong in (None, 3, [], ("b",), b"b", float("nan")):
        with pytest.raises(KeyError, match="no domain"): c.tokens(wrong)
        with pytest.raises(KeyError, match="no split"): c.tokens("b", wrong)
        with pytest.raises(KeyError, match="no domain"): c.documents(wrong)  # at the call, not at the first document


# ---- names of folders, of files, of homes --------------------------------------------------------------------------------
NFD, NFC = "cafe\u0301", "caf\u00e9"

def test_decomposed_and_padded_names_are_domains_like_any_other(here):
    from datasets import Dataset
    docs = {NFD: texts("x"), "web": texts("y")}
    for n, ts in docs.items():
        for i, t in enumerate(ts): write(here / f"text/{n} /{i}.txt", t)
        write(here / f"files/{n} -0.jsonl", lines(*[dict(text=t) for t in ts]))
        (here / "tables").mkdir(exist_ok=True)
        parquet(here / f"tables/{n}.parquet", dict(text=ts))
    want = from_documents({NFC: docs[NFD], "web": docs["web"]}, heldout="web", **LOOSE)
    assert want.names == (NFC,)
    how = LOOSE | dict(heldout=[" web"])
    assert want == from_folder("text", **how) == from_jsonl("files", domain=None, **how) == from_parquet("tables", domain=None, **how)
    assert want == from_hf({f" {n}": Dataset.from_list([dict(text=t) for t in ts]) for n, ts in docs.items()}, **how)
    assert want == from_documents(docs, declared={NFD: "here"}, **how) and from_documents(docs, heldout=NFD, **LOOSE).heldout == (NFC,)
    noted = from_documents(docs, sources={NFD + " ": "a note"}, cache=here / "other", **how)
    assert noted.manifest().source.to_dict() == {NFC: "a note", "web": ""}

def test_two_forms_of_one_name_are_refused(here):
    for n in (NFD, NFC): write(here / f"text/{n}/1.txt", "x")
    clash = r"duplicate domain names"
    with pytest.raises(CorpusError, match=clash): from_folder("text", **LOOSE)
    with pytest.raises(CorpusError, match=clash): from_documents({NFD: texts("x"), NFC: texts("y")}, **LOOSE)
    with pytest.raises(CorpusError, match=clash): from_hf({NFD: [dict(text="x")], NFC: [dict(text="y")]}, **LOOSE)
    with pytest.raises(CorpusError, match=clash): from_documents(STORIES, declared={"prose": "1", "prose ": "2"}, **LOOSE)

def test_home_is_expanded_everywhere(here, monkeypatch, bpe):
    (home := here / "home").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    write(home / "a.jsonl", lines(*RECORDS))
    parquet(home / "a.parquet", dict(text=[r["text"] for r in RECORDS], domain=[r["domain"] for r in RECORDS]))
    for n, ts in STORIES.items():
        for i, t in enumerate(ts): write(home / f"text/{n}/{i}.txt", t)
    bpe.save("~")
    c = from_jsonl("~/a.jsonl", cache="~/kept", **LOOSE)
    assert c.path.parent == home / "kept/corpora" and Corpus("~/" + str(c.path.relative_to(home))) == c == Corpus.open("~/" + str(c.path.relative_to(home)))
    assert c == from_jsonl(["~/a.jsonl"], **LOOSE) == from_parquet("~/a.parquet", **LOOSE) == from_folder("~/text", **LOOSE)
    assert c == from_hf("json", load=dict(data_files="~/a.jsonl"), **LOOSE) == from_hf("json", load=dict(data_files={"train": ["~/a.jsonl"]}), **LOOSE)
    assert load_bpe("~").name == load_bpe("~/tokenizer.json").name == bpe.name == from_documents(STORIES, tokenizer="~/tokenizer.json", **LOOSE).tokenizer.name
    monkeypatch.setenv("MIXLAB_CACHE", "~/mine")
    assert from_documents(STORIES, **LOOSE).path.parent == home / "mine/corpora"
    monkeypatch.delenv("MIXLAB_CACHE")
    assert from_documents(STORIES, **LOOSE).path.parent == home / ".cache/mixlab/corpora"
    assert not [p for p in here.iterdir() if p.name.startswith("~")]

def test_a_cache_that_cannot_be_made_is_named(here):
    write(here / "file", "x")
    with pytest.raises(CorpusError, match=r"file/corpora: cannot be made .*cache="): from_documents(STORIES, cache=here / "file", **LOOSE)
    for wrong in ("", 3, [], b"x", "\0", float("nan")):
        with pytest.raises(ValueError, match="cache is"): from_documents(STORIES, cache=wrong, **LOOSE)


# ---- compressed files, by their first bytes ------------------------------------------------------------------------------
def zst(data):
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor().compress(data)

def zst_streamed(data):
    "Without the size in the header, in two frames, a skippable frame between them."
    zstandard = pytest.importorskip("zstandard")
    halves = [zstandard.ZstdCompressor().compressobj() for _ in "12"]
    cut = len(data) // 2
    first, second = (h.compress(part) + h.flush() for h, part in zip(halves, (data[:cut], data[cut:])))
    return first + b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + second

PACK = dict(gz=gzip.compress, bz2=bz2.compress, xz=lzma.compress, zst=zst, zst_streamed=zst_streamed,
            two_gz=lambda d: gzip.compress(d[:99]) + gzip.compress(d[99:]), two_bz2=lambda d: bz2.compress(d[:99]) + bz2.compress(d[99:]))

@pytest.mark.parametrize("how", PACK)
@pytest.mark.parametrize("ending", ["", ".gz", ".zst", ".bz2", ".txt"])
def test_compression_is_known_by_content(how, ending, here):
    packed = PACK[how](lines(*RECORDS))
    assert from_jsonl(write(here / f"a.jsonl{ending}", packed), **LOOSE) == from_documents(STORIES, **LOOSE)

@pytest.mark.parametrize("how", PACK)
def test_compressed_text_in_a_folder(how, here):
    for n, ts in STORIES.items():
        for i, t in enumerate(ts): write(here / f"text/{n}/{i}.txt.{how[-3:]}", PACK[how](t.encode() + b"\n" * 120))
    assert from_folder("text", **LOOSE) == from_documents({n: [t + "\n" * 120 for t in ts] for n, ts in STORIES.items()}, **LOOSE)

@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst", ".xz"])
def test_plain_text_named_otherwise_is_plain_text(ending, here):
    assert from_jsonl(write(here / f"a.jsonl{ending}", lines(*RECORDS)), **LOOSE) == from_documents(STORIES, **LOOSE)
    write(here / f"text/letters.txt{ending}", "\n\n".join(texts("é")))
    assert from_folder("text", **LOOSE).names == ("letters",)

@pytest.mark.parametrize("how", ["gz", "bz2", "xz", "zst"])
def test_damage_to_a_compressed_file_names_it(how, here):
    raw, rng = PACK[how](lines(*[dict(r, n=hashlib.sha256(str(i).encode()).hexdigest()) for i, r in enumerate(RECORDS)])), random.Random(0)
    for i in range(12):
        bad = bytearray(raw)
        if i < 4: bad = bad[:len(bad) * (i + 1) // 5]
        else:
            place = rng.randrange(10, len(bad) - 10)
            bad[place] ^= 0xFF
            bad[place + 1] ^= 0xFF
        try: c = from_jsonl(write(here / f"a.jsonl.{how}", bytes(bad)), **LOOSE)
        except CorpusError as e: assert f"a.jsonl.{how}" in str(e)
        else: assert how == "zst" and i >= 4, "only zst without its checksum may not notice"
    write(here / "text/letters.txt", bytes(raw[:len(raw) // 2]))
    with pytest.raises(CorpusError, match=r"letters\.txt: cannot be read .*damaged"): from_folder("text", **LOOSE)

def test_without_zstandard_the_remedy_is_named(here, monkeypatch):
    file = write(here / "a.jsonl.zst", b"\x28\xb5\x2f\xfd" + bytes(20))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(CorpusError, match=r"pip install zstandard, or 'mixlab\[hf\]'"): from_jsonl(file, **LOOSE)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(CorpusError, match=r"pip install tokenizers"): train_bpe(texts("x"), vocab=300)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CorpusError, match=r"pip install pyarrow"): from_parquet(write(here / "a.parquet", "x"), **LOOSE)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"pip install datasets"): from_hf("some/where", **LOOSE)

def test_a_packed_table_is_named(here):
    parquet(here / "a.parquet", dict(text=["x"], domain=["a"]))
    file = write(here / "b.parquet.gz", gzip.compress((here / "a.parquet").read_bytes()))
    with pytest.raises(CorpusError, match=r"b\.parquet\.gz: a Parquet file inside gzip.*unpack it first"): from_parquet(file, **LOOSE)

WIDE = {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32"}

@pytest.mark.parametrize("codec", WIDE)
def test_utf_16_is_named_as_such(codec, here):
    wide, said = lines(*RECORDS).decode().encode(codec), f"this is {WIDE[codec]}, expected UTF-8; convert it first"
    with pytest.raises(CorpusError, match=rf"a\.jsonl: {said}"): from_jsonl(write(here / "a.jsonl", wide), **LOOSE)
    with pytest.raises(CorpusError, match=rf"a\.jsonl\.gz: {said}"): from_jsonl(write(here / "a.jsonl.gz", gzip.compress(wide)), **LOOSE)
    write(here / "text/prose/1.txt", wide)
    with pytest.raises(CorpusError, match=rf"prose/1\.txt: {said}"): from_folder("text", **LOOSE)
    with pytest.raises(CorpusError, match=rf"document 0 of 'a': {said}"): from_documents([("a", wide)], **LOOSE)

def test_text_with_zeros_is_still_text(here):
    docs = [f"{i}\0\0a\0b" + "\0\0 " * 9 for i in range(60)]
    assert from_documents([("a", d.encode()) for d in docs], **LOOSE) == from_documents([("a", d) for d in docs], **LOOSE)

def test_another_encoding_is_told_how_to_mend(here):
    with pytest.raises(CorpusError, match=r"line 1: invalid UTF-8 \(byte 0xef\); if it is another encoding, convert it first \(iconv\)"):
        from_jsonl(write(here / "a.jsonl", "привет мир".encode("cp1251")), **LOOSE)


# ---- large and many ------------------------------------------------------------------------------------------------------
def test_a_line_that_is_too_long_is_named(here, monkeypatch):
    monkeypatch.setattr(module, "_LINE", 1000)
    whole = json.dumps(dict(domain="prose", text="y"))
    whole = whole[:-2] + "y" * (999 - len(whole)) + '"}'
    assert len(whole) == 999
    assert from_jsonl(write(here / "a.jsonl", lines(*RECORDS, whole)), **LOOSE)  # with its line end: 1000
    for longer in (whole[:-2] + 'yy"}', whole[:-2] + "y" * 9000 + '"}'):
        for pack in (bytes, gzip.compress):
            with pytest.raises(CorpusError, match=r"b\.jsonl, line 151: longer than \d+ MiB; cut this document"):
                from_jsonl(write(here / "b.jsonl", pack(lines(*RECORDS, longer) + b"\n")), **LOOSE)

HUGE = """
import sys
from mixlab import corpus
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1000
before = peak()
try: corpus.from_jsonl("a.jsonl", progress=False)
except corpus.CorpusError as e: print(peak() - before, e)
"""
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's account of memory")
def test_memory_is_bounded_for_a_huge_line(here):
    with open(here / "a.jsonl", "wb") as f:
        f.write(lines(*RECORDS) + b'\n{"domain": "prose", "text": "')
        for _ in range(200): f.write(b"lorem ipsum " * 83_334)
        f.write(b'"}\n')
    out = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True)
    grown, said = out.stdout.split(" ", 1)
    assert "a.jsonl, line 151: longer than 64 MiB" in said and float(grown) < 250, out

MANY = """
import resource, sys
import numpy as np
from mixlab import corpus
files = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
names = [f"d{i}" for i in range(int(sys.argv[2]))]
documents = ((n, f"document {i} of {n}") for n in names for i in range(30))
c = corpus.from_documents(documents, context=1, splits=(.5, .1), progress=False)
held = {(n, s): c.tokens(n, s) for n in names for s in ("train", "valid")}
assert sum(len(t) for t in held.values()) == c.table().tokens.drop("test", level="split").sum()
for key, t in held.items():
    assert bytes(t) == c._file(*key).read_bytes() and not t.flags.writeable
    assert [d for d in c.documents(*key)] == bytes(t).split(b"\\xff")[:-1]
c.ensure_sound()
print(len(c.names), sum(isinstance(t, np.memmap) for t in held.values()))
"""
@pytest.mark.parametrize("files, domains", [(64, 100), (256, 300)])
def test_more_domains_than_files_may_be_open(files, domains, here):
    pytest.importorskip("resource")
    out = subprocess.run([sys.executable, "-c", MANY, str(files), str(domains)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-800:]
    assert out.stdout.split() == [str(domains), str(min(256, files // 4))]


# ---- numbers by hand -------------------------------------------------------------------------------------------------------
def test_position_by_hand():
    "The first 53 bits of the SHA-256, as a fraction."
    assert position(b"") == (0xE3B0C44298FC1C14 >> 11) / 2**53 == 0.8894159948913373
    assert position(b"abc") == (0xBA7816BF8F01CFEA >> 11) / 2**53 == 0.7283949105904021

def side(text, valid, test):
    "The split of a document, from its hash and nothing else."
    place = int(hashlib.sha256(text).hexdigest(), 16) / 2**256
    return "valid" if place < valid else "test" if place < valid + test else "train"

def test_every_token_is_where_its_hash_says_it_should_be(here):
    "The whole of a corpus, made here from nothing but the hashes."
    options = dict(context=1, splits=(.3, .15), heldout_splits=(.5, .1), progress=False)
    c = from_documents(THREE, heldout="news", **options)
    for n, ts in THREE.items():
        cuts = (.5, .1) if n == "news" else (.3, .15)
        unique = sorted({t.encode() for t in ts}, key=lambda d: hashlib.sha256(d).digest())
        for s in ("train", "valid", "test"):
            mine = [d for d in unique if side(d, *cuts) == s]
            assert bytes(c.tokens(n, s)) == b"".join(d + b"\xff" for d in mine) and [*c.documents(n, s)] == mine
            row = c.table().loc[n, s]
            assert [row.tokens, row["bytes"], row.documents] == [sum(map(len, mine)) + len(mine), sum(map(len, mine)), len(mine)]
            assert row.mean_bytes == sum(map(len, mine)) / len(mine) and row.heldout == (n == "news")
    assert [*c.sizes] == [len(c.tokens(n, "train")) for n in ("prose", "verse")]
    assert np.allclose(c.natural, [s / sum(c.sizes) for s in c.sizes]) and c.natural[0] != c.natural[1]
    assert c.sizes.dtype == np.int64 and c.eod == 255 and [*c.token_bytes] == [1] * 255 + [0]
    assert [*c.table().index] == [(n, s) for n in ("prose", "verse", "news") for s in ("train", "valid", "test")]

def test_order_of_domains(here):
    c = from_documents({n: texts(n) for n in "dbcae"}, heldout=["e", "a"], **LOOSE)
    assert c.names == ("b", "c", "d") and c.heldout == ("a", "e") and c.targets == ("b", "c", "d", "a", "e")
    assert [*c.documents("c", "train")][0].startswith(b"c ") and [*c.documents("a", "valid")][0].startswith(b"a ")

def test_manifest_by_hand(here):
    docs = dict(a=["one", "two", "two", " \n"], b=["two", "three", "four", "four", "four"], x=["two", "five", "five", "six", "one"])
    docs = {n: [t + f" {i}" if t.strip() else t for i in range(40) for t in ts] for n, ts in docs.items()}
    m = from_documents(docs, heldout="x", sources={"a": "from here"}, **LOOSE).manifest()
    # given: all but white space; duplicates: copies inside a domain; withheld: what a training domain has too; shared: in two domains
    assert m.given.to_dict() == dict(a=120, b=200, x=200) and m.duplicates.to_dict() == dict(a=40, b=80, x=40)
    assert m.withheld.to_dict() == dict(a=0, b=0, x=80) and m.shared.to_dict() == dict(a=40, b=40, x=0)
    assert m.documents.to_dict() == dict(a=80, b=120, x=80) and m.source.to_dict() == dict(a="from here", b="", x="")
    assert m.heldout.to_dict() == dict(a=False, b=False, x=True) and m["bytes"]["a"] == 2 * (40 * 4 + 10 + 60)

def test_unique_by_hand():
    rows = np.zeros(7, module._ROW)
    rows["hash"][:, 3] = [7, 5, 7, 5, 7, 9, 5]
    rows["domain"] = [0, 0, 0, 1, 2, 2, 3]  # 2 and 3 are held out
    kept, domain, holders, withheld = module._unique(rows, np.arange(4), 2)
    assert kept.tolist() == [1, 0, 3, 5] and domain.tolist() == [0, 0, 1, 2] and holders.tolist() == [2, 1, 2, 1] and withheld.tolist() == [0, 0, 1, 1]
    rows["hash"][3] = [1, 0, 0, 5]  # the same last word, another hash
    kept, domain, holders, withheld = module._unique(rows, np.array([0, 1, 3, 2]), 2)
    assert kept.tolist() == [1, 0, 3, 5] and domain.tolist() == [0, 0, 1, 3] and holders.tolist() == [1, 1, 1, 1] and withheld.tolist() == [0, 0, 1, 1]

def test_two_held_out_domains_may_share(here):
    c = from_documents(dict(a=texts("a"), x=texts("x"), y=texts("x")), heldout=["x", "y"], **LOOSE)
    assert c.manifest().shared.to_dict() == dict(a=0, x=60, y=60) and c.manifest().withheld.sum() == 0

def test_a_split_must_be_longer_than_a_context(here):
    "A window of T tokens and the next one: T + 1."
    c = from_documents(STORIES, **LOOSE)
    for split in ("train", "valid"):
        n = min(len(c.tokens(d, split)) for d in c.names)
        if split == "valid": assert from_documents(STORIES, **LOOSE | dict(context=n - 1)) == c
        with pytest.raises(CorpusError, match=rf"shorter than a context of {n} and"): from_documents(STORIES, **LOOSE | dict(context=n))
    for split, other in (("train", "valid"), ("valid", "train")):
        d = {s: dict(tokens=999, documents=2) for s in ("train", "valid", "test")} | dict(withheld=3, name="a")
        d[split]["tokens"] = 8
        module._long_enough(d, 7)
        with pytest.raises(CorpusError, match=rf"domain 'a': its {split}.* split has 8 tokens.*\(6 documents, 3 withheld\)"): module._long_enough(d, 8)
    d["valid"]["tokens"], d["train"]["tokens"], d["test"]["tokens"] = 9, 9, 0
    module._long_enough(d, 8)

def test_pieces_by_hand():
    cases = [(b"aaaa\nbb;c}d e", 8, [b"aaaa\n", b"bb;c}d e"]), (b"aaaabb;c}d e", 8, [b"aaaabb;", b"c}d e"]), (b"aaaabbbc}d e", 9, [b"aaaabbbc}", b"d e"]),
             (b"aaaabb cccc", 8, [b"aaaabb ", b"cccc"]), (b"aaaaaaaaaa", 4, [b"aaaa", b"aaaa", b"aa"]), (b"a\nbbbbbbbb", 8, [b"a\nbbbbbb", b"bb"]),
             (b"aaaa\nb\ncccc", 8, [b"aaaa\nb\n", b"cccc"]), ("aaaé".encode(), 4, [b"aaa", "é".encode()]), (b"", 4, [b""]), (b"aaaa", 4, [b"aaaa"]),
             (b"aaaab", 4, [b"aaaa", b"b"]), ("🚀🚀".encode(), 5, ["🚀".encode()] * 2)]
    for text, longest, want in cases: assert pieces(text, longest) == want
    for wrong in (0, 3, -1, 2.5, None, True, "8", float("nan")):
        with pytest.raises(ValueError, match="longest is"): pieces(b"abc", wrong)
    with pytest.raises(ValueError, match=r"text is 'abc', expected bytes; text\.encode"): pieces("abc", 8)
    assert pieces(b"abc", 10**9) == [b"abc"] == pieces(bytearray(b"abc"), np.int64(8))

def test_longest_cuts_documents(here):
    docs = {n: [t * 4 for t in ts] for n, ts in STORIES.items()}
    c = from_documents(docs, longest=200, **LOOSE)
    assert c == from_documents({n: [p for t in ts for p in pieces(t.encode(), 200)] for n, ts in docs.items()}, **LOOSE) != from_documents(docs, **LOOSE)
    assert max(len(d) for n in c.names for d in c.documents(n)) <= 200

def test_a_piece_of_a_file_is_at_most_longest(here):
    write(here / "f.txt", "word " * 100 + "\n\nsecond\n\n\n  \nthird\n" + "x" * 90)
    assert [*module._from_file(here / "f.txt", True, 5000)] == [(b"word " * 100 + b"\n", 1), (b"second\n", 3), (b"third\n" + b"x" * 90, 7)]
    assert [*module._from_file(here / "f.txt", False, 5000)] == [((here / "f.txt").read_bytes(), 1)]
    assert max(len(t) for t, _ in module._from_file(here / "f.txt", True, 64)) <= 64

def test_bytes_by_hand():
    t = Bytes()
    assert t.encode([b"ab", b"", "é".encode()]).tolist() == [97, 98, 255, 255, 0xC3, 0xA9, 255] and t.vocab == 256 and t.dtype == np.uint8
    assert t.decode([97, 255, 98]) == b"ab" and t.decode(np.array([104, 105], np.int64)) == b"hi" and t.decode([]) == b""
    for wrong in ([256], [-1], [1.5], ["a"], 3, None, [[1]], [True], [[1], [2, 3]]):
        with pytest.raises(ValueError, match="tokens"): t.decode(wrong)
    for wrong in (["text"], "text", b"text", None, [3], [b"\xff"]):
        with pytest.raises(ValueError, match="documents"): t.encode(wrong)

def test_bpe_by_hand():
    "The most frequent pair first: h+e of `hehe he`, then he+he."
    t = train_bpe(["hehe he", "hehe"], vocab=258)
    assert t.vocab == 259 and t.eod == 258 and t.dtype == np.uint16 and sorted(t.token_bytes.tolist()) == [0] + [1] * 256 + [2, 4]
    assert [t.decode([i]) for i in t.encode([b"hehe", b"he"]).tolist()] == [b"hehe", b"", b"he", b""]
    assert t.encode([b"hehe", b"he"])[1] == t.encode([])[:0].sum() + 258 and t.token_bytes[t.encode([b"hehe"])].tolist() == [4, 0]
    assert train_bpe([b"hehe he", b"hehe"], vocab=258).name == t.name != train_bpe(["hehe he", "hehe"], vocab=257).name
    for wrong in ([259], [-1], [0.5], None):
        with pytest.raises(ValueError, match="tokens"): t.decode(wrong)
    for wrong in (["x"], [b"\xff"], None, 3):
        with pytest.raises(ValueError, match=r"documents"): t.encode(wrong)
    for wrong in (["x", 3], [b"\xff"], "text", b"text", 3, None, [], [""]):
        with pytest.raises(ValueError, match=r"texts"): train_bpe(wrong, vocab=300)

def test_bpe_learns_from_training_text_only(here):
    c = from_documents({"a": [f"{i} zzzz" if side(f"{i} zzzz".encode(), .3, .2) != "train" else f"{i} zzzz" for i in range(300)]}, **LOOSE)
    read = []
    class Seen(Corpus):
        def documents(self, domain, split="train"): read.append((domain, split)); return super().documents(domain, split)
    assert train_bpe(Seen(c.path), vocab=260).name == train_bpe([*c.documents("a", "train")], vocab=260).name and read == [("a", "train")]

def test_end_of_document_is_the_token_that_says_so(bpe):
    base = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    def eod(**special):
        return BPE(json.dumps(json.loads(bpe.text) | dict(added_tokens=[dict(base, content=c, id=i) for c, i in special.items()]))).eod
    assert eod() == 320 and eod(**{"<pad>": 320}) == 321 and eod(**{"</s>": 320}) == 320
    assert eod(**{"</s>": 320, "<|end_of_text|>": 321}) == 321 and eod(**{"<|end_of_text|>": 320, "<|endoftext|>": 321, "</s>": 322}) == 321


# ---- every option changes what it is for ---------------------------------------------------------------------------------
def test_fields_are_named(here):
    two = [dict(text=r["text"], body=r["text"] + "!", domain=r["domain"], kind="all") for r in RECORDS]
    parquet(here / "a.parquet", {k: [r[k] for r in two] for k in two[0]})
    write(here / "a.jsonl", lines(*two))
    loaders = [lambda **k: from_jsonl("a.jsonl", **LOOSE | k), lambda **k: from_parquet("a.parquet", **LOOSE | k), lambda **k: from_hf(two, **LOOSE | k)]
    body = from_documents({n: [t + "!" for t in ts] for n, ts in STORIES.items()}, **LOOSE)
    for load in loaders:
        assert load() == from_documents(STORIES, **LOOSE) and load(text="body") == body and load(domain="kind").names == ("all",)
    for load in loaders:
        for wrong in (None, "", 3, [], b"text"):
            with pytest.raises(ValueError, match="text is"): load(text=wrong)
        for wrong in ("", 3, [], b"text"):
            with pytest.raises(ValueError, match="domain is"): load(domain=wrong)

def test_options_reach_the_build_by_every_loader(here):
    write(here / "a.jsonl", lines(*RECORDS))
    for n, ts in STORIES.items():
        for i, t in enumerate(ts): write(here / f"text/{n}/{i}.txt", t)
    parquet(here / "a.parquet", dict(text=[r["text"] for r in RECORDS], domain=[r["domain"] for r in RECORDS]))
    other = [dict(heldout="prose"), dict(splits=(.2, .2)), dict(splits=(.3, .3)), dict(heldout="verse", heldout_splits=(.5, .2)), dict(longest=64),
             dict(heldout="verse", heldout_splits=(.4, .3)), dict(tokenizer=train_bpe(STORIES["prose"], vocab=300)), dict(cache=here / "elsewhere")]
    want = [from_documents(STORIES, **LOOSE | o).hash for o in other]
    assert len(set(want)) == len(other) and want[-1] == from_documents(STORIES, **LOOSE).hash
    for load in (lambda **k: from_jsonl("a.jsonl", **k), lambda **k: from_folder("text", **k), lambda **k: from_parquet("a.parquet", **k), lambda **k: from_hf(RECORDS, **k)):
        got = [load(**LOOSE | o) for o in other]
        assert [c.hash for c in got] == want and got[-1].path.parent == here / "elsewhere/corpora"
        other, want = other[-2:], want[-2:]  # the loaders hand their options on alike
        with pytest.raises(CorpusError, match="context of 99999"): load(**LOOSE | dict(context=99999))

def test_a_key_is_asked_for_with_its_options(here):
    def must_not_be_read(): raise AssertionError("read again"); yield
    c = from_documents(STORIES, key=["k", 1], **LOOSE)
    assert from_documents(must_not_be_read(), key=["k", 1], **LOOSE) == c
    for other in (dict(key=["k", 2]), dict(key=["k", 1], context=2), dict(key=["k", 1], splits=(.3, .1)), dict(key=["k", 1], longest=99), dict(key=["k", 1], heldout="a"),
                  dict(key=["k", 1], heldout_splits=(.4, .1)), dict(key=["k", 1], tokenizer=train_bpe(["x"], vocab=256)), dict(key=["k", 1], cache=here / "x"), {}):
        with pytest.raises(AssertionError, match="read again"): from_documents(must_not_be_read(), **LOOSE | other)
    for wrong in (object(), {1, 2}, b"x", lambda: 0, {(1, 2): 3}):
        with pytest.raises(ValueError, match="key is"): from_documents(STORIES, key=wrong, **LOOSE)

def test_progress_is_shown_on_request(here, monkeypatch):
    import tqdm.auto
    seen, real = [], tqdm.auto.tqdm
    class Bar(real):
        def __init__(self, *args, **how): seen.append(how["disable"]); super().__init__(*args, **how | dict(disable=True))
        def update(self, n=1): seen.append(n); super().update(n)
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    from_documents({"a": ["é" * 40 + str(i) for i in range(40)]}, **LOOSE | dict(progress=True))
    assert seen[0] is False and sum(seen[1:]) == sum(80 + len(str(i)) for i in range(40)), "in bytes"
    seen.clear()
    from_documents(STORIES, **LOOSE)
    assert seen[0] is True

def test_declared_domains_must_come(here):
    assert from_documents(STORIES, declared={"prose": "a.txt"}, **LOOSE) == from_documents(STORIES, **LOOSE)
    with pytest.raises(CorpusError, match=r"domain 'letters' is empty: no text in b\.txt"): from_documents(STORIES, declared={"letters": "b.txt"}, **LOOSE)

def test_rows_taken_and_split_of_datasets(here):
    def rows(n): return ((r for i, r in enumerate(RECORDS) if i < n))
    assert from_hf(RECORDS, take=140, **LOOSE) == from_hf([*rows(140)], **LOOSE) != from_hf([*rows(139)], **LOOSE)
    data = dict(train="a.jsonl", extra="b.jsonl")
    write(here / "a.jsonl", lines(*RECORDS))
    write(here / "b.jsonl", lines(*[dict(r, text="+" + r["text"]) for r in RECORDS]))
    assert from_hf("json", load=dict(data_files=data), **LOOSE) == from_documents(STORIES, **LOOSE)
    assert from_hf("json", split="extra", load=dict(data_files=data), **LOOSE) == from_documents({n: ["+" + t for t in ts] for n, ts in STORIES.items()}, **LOOSE)
    with pytest.raises(CorpusError, match="split='nowhere'.* cannot be loaded"): from_hf("json", split="nowhere", load=dict(data_files=data), **LOOSE)
    with pytest.raises(CorpusError, match="'json' is a format: say which files"): from_hf("json", **LOOSE)
    for wrong in (dict(take=0), dict(take=1.5), dict(take=True), dict(split=None), dict(split=""), dict(load=3), dict(load={1: 2}), dict(load=dict(split="x")), dict(load=dict(streaming=False))):
        with pytest.raises(ValueError, match=next(iter(wrong))): from_hf("json", **LOOSE | wrong)

@pytest.mark.parametrize("how", ["file", "list", "splits", "pattern", "folder", "data_dir"])
def test_local_files_behind_a_dataset_are_seen_to_change(how, here, monkeypatch):
    files = [write(here / f"data/part-{i}.jsonl", lines(*RECORDS[i::2])) for i in range(2)]
    dataset, load = {"file": ("json", dict(data_files=str(files[0]))), "list": ("json", dict(data_files=[str(f) for f in files])),
                     "splits": ("json", dict(data_files=dict(train="data/part-0.jsonl"))), "pattern": ("json", dict(data_files="data/*.jsonl")),
                     "folder": ("data", {}), "data_dir": ("json", dict(data_dir="data"))}[how]
    one = from_hf(dataset, load=load, **LOOSE)
    with monkeypatch.context() as m:
        m.setattr(module, "_build", lambda *a: pytest.fail("built again"))
        assert from_hf(dataset, load=load, **LOOSE) == one
    write(files[0], lines(*RECORDS[::2], dict(domain="prose", text="one more")))
    two = from_hf(dataset, load=load, **LOOSE)
    assert two != one and b"one more" in {d for s in ("train", "valid", "test") for d in two.documents("prose", s)}
    state = files[0].stat()
    write(files[0], files[0].read_bytes().replace(b"one more", b"one less"))  # equal length
    os.utime(files[0], ns=(1, state.st_mtime_ns + 1))
    assert from_hf(dataset, load=load, **LOOSE) not in (one, two)

@pytest.mark.parametrize("loader", ["folder", "jsonl", "parquet"])
def test_a_file_of_equal_length_is_seen_to_change(loader, here):
    write(here / "in/a.jsonl", lines(*RECORDS))
    write(here / "text/prose/0.txt", "\n".join(STORIES["prose"]) * 3)
    for i, t in enumerate(STORIES["prose"]): write(here / f"text/prose/{i + 1}.txt", t)
    parquet(here / "a.parquet", dict(text=[r["text"] for r in RECORDS], domain=[r["domain"] for r in RECORDS]))
    load, file = {"folder": (lambda: from_folder("text", **LOOSE), here / "text/prose/7.txt"), "jsonl": (lambda: from_jsonl("in", **LOOSE), here / "in/a.jsonl"),
                  "parquet": (lambda: from_parquet("a.parquet", **LOOSE), here / "a.parquet")}[loader]
    one = load()
    if loader == "parquet": parquet(file, dict(text=[r["text"].replace("prose 7", "prosa 7") for r in RECORDS], domain=[r["domain"] for r in RECORDS]))
    else: file.write_bytes(file.read_bytes().replace(b"prose 6", b"prosa 6"))
    os.utime(file, ns=(1, 1))
    assert load() != one

def test_a_build_inside_a_build(here):
    def documents():
        inner = from_documents(STORIES, **LOOSE)
        for n in inner.names:
            for s in ("train", "valid", "test"): yield from ((n, d) for d in inner.documents(n, s))
    assert from_documents(documents(), **LOOSE) == from_documents(STORIES, **LOOSE) and not [p for p in left() if p.startswith(".")]

def test_a_folder_without_a_lock_is_swept_and_a_held_one_is_left(here):
    root = module._cache()
    (root / ".building-dead").mkdir()
    with module._workspace(root) as mine:
        assert left() == [mine.name] and (mine / "lock").exists()
        with module._workspace(root) as other: assert sorted(left()) == sorted([mine.name, other.name])
        assert module._held(mine) is None
    assert left() == []


# ---- what one domain's statistics are worth on another -------------------------------------------------------------------
def byte_model(train, test, order, strength):
    "Mean nats per byte, by dictionaries of counts: the k bytes before each byte, from none to `order`, each smoothed towards the one below."
    seen = [collections.Counter(train[i - k:i + 1] for i in range(order, len(train))) for k in range(order + 1)]
    total = 0
    for i in range(order, len(test)):
        p = 1 / 256
        for k, counts in enumerate(seen):
            context = test[i - k:i]
            of = sum(n for gram, n in counts.items() if gram[:k] == context)
            p = (counts[test[i - k:i + 1]] + strength * p) / (of + strength)
        total -= math.log(p)
    return total / (len(test) - order)

@pytest.mark.parametrize("how", [dict(), dict(order=0), dict(order=1), dict(order=3), dict(read=300), dict(test=60), dict(strength=.5)], ids=str)
def test_cross_entropies_by_hand(how, here):
    c = from_documents({"a": [f"{i} abcab" * 3 for i in range(60)], "b": [f"{i} bba" * 3 for i in range(60)], "x": [f"cab {i}" * 3 for i in range(60)]}, heldout="x", **LOOSE)
    full = dict(order=2, read=500, test=90, strength=4.0) | how
    got = cross_entropies(c, **full)
    assert [*got.index] == ["a", "b"] and [*got.columns] == ["a", "b", "x"]
    for n in got.index:
        train = b"".join(c.documents(n, "train"))[:full["read"]]
        for m in got.columns:
            test = b"".join(c.documents(m, "valid"))[:full["test"]]
            assert got.loc[n, m] == pytest.approx(byte_model(train, test, full["order"], full["strength"]), rel=1e-9)
    if how: assert not np.allclose(got, cross_entropies(c, order=2, read=500, test=90, strength=4.0))

def test_cross_entropies_read_training_and_predict_validation_text(here):
    c, read = three(), []
    class Seen(Corpus):
        def documents(self, domain, split="train"): read.append((domain, split)); return super().documents(domain, split)
    cross_entropies(Seen(c.path), read=500, test=100)
    assert sorted(read) == [("news", "valid"), ("prose", "train"), ("prose", "valid"), ("verse", "train"), ("verse", "valid")]

def test_defaults_of_cross_entropies(here):
    c = from_documents({n: [t + f" {i}" for i in range(260) for t in ts] for n, ts in STORIES.items()}, **LOOSE)
    assert c.sizes.min() > 300_000
    assert np.allclose(cross_entropies(c), cross_entropies(c, order=2, read=300_000, test=20_000, strength=4.0), rtol=1e-12)
    assert not np.allclose(cross_entropies(c, read=299_000), cross_entropies(c, read=300_000), rtol=1e-12)

def test_text_ends_where_it_should(here):
    c = three()
    whole = b"".join(c.documents("prose"))
    for most in (1, 10, 1000, len(whole), len(whole) + 1, 10**9): assert module._text(c, "prose", "train", most).tobytes() == whole[:most]

@pytest.mark.parametrize("wrong", [dict(order=-1), dict(order=7), dict(order=1.5), dict(order=True), dict(read=0), dict(read=2, order=2), dict(test=0), dict(test="x"),
                                   dict(strength=0), dict(strength=-1), dict(strength=float("nan")), dict(strength=float("inf")), dict(corpus=None), dict(corpus="x")], ids=str)
def test_wrong_arguments_of_cross_entropies_are_named(wrong, here):
    with pytest.raises(ValueError, match=f"{[*wrong][0]} is"): cross_entropies(**dict(corpus=three()) | wrong)

def test_too_little_text_for_the_order_is_named(here):
    c = from_documents({"a": ["ab" + c for c in "0123456789cdefghijklmnopqrstuvwxyz"], "b": texts("b")}, **LOOSE)
    assert np.isfinite(cross_entropies(c, order=6)).all().all()
    d = from_documents({"a": texts("a"), "x": ["0", "1", "2", "3", "4", "5", "6", "7"]}, heldout="x", **LOOSE | dict(heldout_splits=(.4, .3)))
    n = sum(map(len, d.documents("x", "valid")))
    cross_entropies(d, order=n - 1)
    with pytest.raises(CorpusError, match=f"validation split of 'x' is not longer than order = {n} bytes"): cross_entropies(d, order=n)

def test_a_map_of_domains_shows_the_table():
    import matplotlib.pyplot as plt
    e = pd.DataFrame([[1.5, 2.5, 9.5], [3.5, 1.25, 8.5]], index=["a", "b"], columns=["a", "b", "x"])
    fig, ax = plt.subplots()
    assert module.show_domains(e, ax) is ax
    shown = [t.get_text() for t in ax.texts]
    assert shown == [f"{v:.1f}" for v in e.to_numpy().ravel()] and [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "x"]
    assert "held out" in ax.get_xlabel() and len(ax.patches) == 2 and [l.get_xdata()[0] for l in ax.lines] == [2]
    plt.close("all")
    turned = module.show_domains(e[["x", "b", "a"]])
    assert [t.get_text() for t in turned.get_xticklabels()] == ["a", "b", "x"] and [t.get_text() for t in turned.texts] == shown
    square = module.show_domains(e[["a", "b"]])
    assert "held out" not in square.get_xlabel() and not square.lines
    plt.close("all")
    for wrong in (None, e.to_numpy(), e * np.nan, -e, e[["x"]], 3, "x"):
        with pytest.raises(ValueError, match="entropies"): module.show_domains(wrong)
    with pytest.raises(ValueError, match="ax is"): module.show_domains(e, ax=3)
    assert not plt.get_fignums(), "no empty figure is left behind"

def test_arithmetic_by_hand():
    page = arithmetic(7, 6).splitlines()
    assert len(page) == 6 and arithmetic(7).splitlines()[:6] == page and len(arithmetic(7).splitlines()) == 24 and arithmetic(np.int64(7), 6) == arithmetic(7, 6) != arithmetic(8, 6)
    right = {r"What is (\d+) \+ (\d+)\? (.*)": lambda a, b, x: a + b == x, r"Calculate (\d+) - (\d+)\. (.*)": lambda a, b, x: a - b == x,
             r"Multiply (\d+) by (\d+)\. (.*)": lambda a, b, x: a * b == x, r"Divide (\d+) by (\d+)\. (.*)": lambda a, b, x: a == b * x,
             r"What is the remainder when (\d+) is divided by (\d+)\? (.*)": lambda a, b, x: a % b == x,
             r"Solve (\d+)\*x \+ (\d+) = (\d+) for x\. (.*)": lambda c, b, d, x: c * x + b == d,
             r"Let f\(x\) = (\d+)\*x - (\d+)\. What is f\((\d+)\)\? (.*)": lambda c, b, a, x: c * a - b == x,
             r"Is (\d+) greater than (\d+)\? (.*)": lambda a, b, x: (a > b) == x, r"Sort (\d+), (\d+), (\d+)\. (.*)": lambda *n: [*n[3]] == sorted(n[:3])}
    kinds = collections.Counter()
    for line in (l for i in range(60) for l in arithmetic(i).splitlines()):
        (pattern, match), = [(p, m) for p in right if (m := __import__("re").fullmatch(p, line))]
        assert right[pattern](*map(eval, match.groups())), line
        kinds[pattern] += 1
    assert len(kinds) == 9 and min(kinds.values()) > 100
    for wrong in (dict(i=-1), dict(i=1.5), dict(i=None), dict(lines=0), dict(lines=10**9), dict(lines=True)):
        with pytest.raises(ValueError, match=f"{[*wrong][0]} is"): arithmetic(**dict(i=1) | wrong)


# ---- the door ------------------------------------------------------------------------------------------------------------
WRONG = dict(
    heldout=(3, b"x", [3], [None], {"a": 1}, [""], float("nan")), tokenizer=(None, 3, "", [], object(), Bytes), splits=(None, 3, (.1,), (.1, .2, .3), (0, .1), (.5, .5), (-.1, .2), (.1, -.2), ("a", "b"), (float("nan"), .1), {"a": .1, "b": .2}),
    heldout_splits=(None, (.1,), (.6, .4)), context=(0, -1, 1.5, True, None, "8", float("inf")), longest=(0, 63, -1, 64.5, True, None, "x"),
    progress=(None, 1, "yes"), declared=(None, 3, ["a"]), sources=(None, 3, ["a"]),
)
@pytest.mark.parametrize("argument", WRONG)
def test_wrong_options_are_named_before_anything_is_read(argument, here):
    def documents(): raise AssertionError("read"); yield
    write(here / "a.jsonl", b"not JSON")
    for wrong in WRONG[argument]:
        for load in (lambda **k: from_documents(documents(), **k), lambda **k: from_jsonl("a.jsonl", **k)):
            with pytest.raises(ValueError, match=rf"{argument}( is| = |:)"): load(**LOOSE | {argument: wrong})
    assert left() == []

def test_whole_numbers_of_numpy_are_whole_numbers(here):
    assert from_documents(STORIES, **LOOSE | dict(context=np.int64(1), longest=np.int32(1 << 20), splits=np.array([.3, .2]))) == from_documents(STORIES, **LOOSE)
    assert from_documents(STORIES, **LOOSE | dict(heldout=None)) == from_documents(STORIES, **LOOSE | dict(heldout=set()))

@pytest.mark.parametrize("wrong", [None, 3, "text", b"text", float("nan"), object(), {"a": None}, {"a": 3}, {"a": {"b": 1}}, [3], [("a",)], [("a", "b", "c", "d", "e")]], ids=str)
def test_wrong_documents_are_named(wrong, here):
    with pytest.raises(ValueError, match=r"^documents"): from_documents(wrong, **LOOSE)
    assert left() == []

@pytest.mark.parametrize("wrong", [None, 3, b"x", "", "\0", [], [3], {"a": 1}, float("nan"), "no/where", ["no/where"]], ids=str)
def test_wrong_paths_are_named(wrong, here):
    for load in (from_jsonl, from_parquet):
        with pytest.raises(ValueError, match=r"^paths"): load(wrong, **LOOSE)
    for load in (from_folder, Corpus, Corpus.open, load_bpe):
        with pytest.raises(ValueError, match=r"path|folder"): load(wrong)

@pytest.mark.parametrize("wrong", [None, 3, b"x", "", " ", "\0", {}, {"a": None}, {"a": ""}, {3: "x"}, {"": "x"}, float("nan")], ids=str)
def test_wrong_datasets_are_named(wrong, here):
    with pytest.raises(ValueError, match=r"^dataset"): from_hf(wrong, **LOOSE)

@pytest.mark.parametrize("wrong", [dict(scale=0), dict(scale=-1), dict(scale=float("nan")), dict(scale="x"), dict(scale=10**9), dict(heldout=["nowhere"]), dict(context=0), dict(progress=None)], ids=str)
def test_wrong_options_of_local_corpus_are_named_before_anything_is_read(wrong, here, monkeypatch):
    monkeypatch.setattr(module, "_Installed", lambda: pytest.fail("read"))
    with pytest.raises(ValueError, match=[*wrong][0]): local_corpus(**wrong)

def test_options_of_local_corpus(here, monkeypatch):
    monkeypatch.setattr(module, "_Installed", lambda: None)  # arithmetic alone
    monkeypatch.setattr("importlib.metadata.packages_distributions", dict)  # which takes seconds
    monkeypatch.setattr(module, "_LOCAL", dict(math=(700_000, "generated arithmetic")))
    monkeypatch.setattr(module, "_LOCAL_HELDOUT", {})
    how = dict(cache=here, heldout=(), progress=False)
    pages = [arithmetic(i).encode() for i in range(800)]
    for scale in (.1, .2):
        c = local_corpus(scale=scale, **how)
        n = next(n for n in range(800) if sum(map(len, pages[:n])) >= scale * 700_000)  # the page that reaches the cap is the last
        assert c == from_documents({"math": pages[:n]}, longest=2048, cache=here, progress=False)
        assert c.names == ("math",) and c.manifest().source["math"] == "generated arithmetic; Apache-2.0: mixlab"
    for more in (dict(longest=256), dict(splits=(.2, .1)), dict(tokenizer=train_bpe(["x"], vocab=256))):
        first = next(n for n in range(800) if sum(map(len, pages[:n])) >= 70_000)
        want = from_documents({"math": pages[:first]}, **dict(longest=2048, cache=here, progress=False) | more)
        assert local_corpus(scale=.1, **how | more) == want
    with pytest.raises(CorpusError, match="every domain is held out"): local_corpus(scale=.1, **how | dict(heldout="math"))


def test_a_small_domain_is_not_left_without_validation_by_bad_luck(tmp_path):
    "60 documents at 5 %: none has a position below .05, so the first by hash validates; 15 are too few to expect one."
    texts, i = [], 0
    while len(texts) < 60:
        i += 1
        text = f"document {i} " + "word " * 20
        if position(text.encode()) >= .05: texts.append(text)
    c = from_documents({"a": texts}, cache=tmp_path, context=32, progress=False)
    assert list(c.documents("a", "valid")) == [min(texts, key=lambda t: position(t.encode())).encode()]
    with pytest.raises(CorpusError, match="validation split has 0 tokens"):
        from_documents({"a": texts[:15]}, cache=tmp_path, context=32, progress=False)
