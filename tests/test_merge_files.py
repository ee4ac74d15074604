"Page 30's merges of files under attack: what does not fit, damaged files, full disks, kill -9; exactness and memory."
import errno, hashlib, json, math, os, re, shutil, signal, subprocess, sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mixlab import average
from mixlab.average import merge_files as merge_loud, open_checkpoint
from mixlab.mixture import Mixture

HALF = [.5, .5]
LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from Linux's /proc")
FLOATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}
CONFIG = {"model_type": "made-up", "rope_theta": 10000., "hidden_size": 8}
VOCABULARY = {"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2}}, "added_tokens": []}


def merge_files(*args, **kw): return merge_loud(*args, progress=False, **kw)

def numbers(seed, dtype=torch.float32, shapes=(("embed.weight", (16, 8)), ("norm", (5,)), ("w.0", (7, 3)), ("w.1", (3, 7)))):
    g = torch.Generator().manual_seed(seed)
    return {t: torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for t, s in shapes}

def folder(path, state, config=CONFIG, tokenizer=VOCABULARY, shards=None):
    "A checkpoint as Hugging Face lays it out; `shards`: {file: [tensors]}."
    path.mkdir(parents=True)
    if shards is None: save_file(state, path / "model.safetensors", {"format": "pt"})
    else:
        for file, names in shards.items(): save_file({t: state[t] for t in names}, path / file, {"format": "pt"})
        index = {"metadata": {}, "weight_map": {t: file for file, names in shards.items() for t in names}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    if config is not None: (path / "config.json").write_text(json.dumps(config))
    if tokenizer is not None: (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path

@pytest.fixture
def pool(tmp_path): return [folder(tmp_path / n, numbers(i)) for i, n in enumerate("abc")]

def everything(path): return {str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in path.rglob("*") if f.is_file()}

def same(x, y): return x.keys() == y.keys() and all(x[t].dtype == y[t].dtype and x[t].shape == y[t].shape and bits(x[t]) == bits(y[t]) for t in x)

def bits(x): return x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()

def header_of(file):
    with open(file, "rb") as f: return json.loads(f.read(int.from_bytes(f.read(8), "little")))

def rewrite(file, change):
    "Change a safetensors file: `change(header, data) -> header, data`, or bytes for the header."
    raw = file.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header, data = change(json.loads(raw[8:8 + n]), raw[8 + n:])
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


# ---- refused: nothing half-written, inputs untouched -----------------------------------------------------------------
def drop(state): del state["norm"]
def add(state): state["new"] = torch.ones(2)
def reshape(state): state["w.1"] = state["w.1"].T.contiguous()
def bigger(state): state["embed.weight"] = torch.ones(18, 8)
def retype(state): state["w.0"] = state["w.0"].bfloat16()
def nan(state): state["w.1"][2, 4] = math.nan
def inf(state): state["norm"][4] = -math.inf

@pytest.mark.parametrize("change, said", [
    (drop, r"norm: in a, missing in b"), (add, r"new: in b, missing in a"), (reshape, r"w.1: shape \(3, 7\) in a, \(7, 3\) in b"),
    (bigger, r"embed.weight: shape \(16, 8\) in a, \(18, 8\) in b"), (retype, r"w.0: F32 in a, BF16 in b"),
    (nan, r"^b: tensor 'w.1' holds nan"), (inf, r"^b: tensor 'norm' holds -inf")], ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.parametrize("many", [False, True])
def test_members_that_do_not_fit_are_refused(tmp_path, pool, change, said, many):
    state = numbers(1)
    change(state)
    shutil.rmtree(pool[1])
    folder(pool[1], state)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=said):
        if many: merge_files(pool, [[1, 0, 0], [.5, .25, .25]], [tmp_path / "x.safetensors", tmp_path / "merged"])
        else: merge_files(pool, [.5, .25, .25], tmp_path / "merged")
    assert everything(tmp_path) == before and sorted(os.listdir(tmp_path)) == ["a", "b", "c"]

def test_a_member_of_weight_0_is_not_read(tmp_path, pool):
    want = load_file(merge_files(pool[:2], HALF, tmp_path / "want.safetensors").out)
    save_file({t: torch.full_like(x, math.nan) for t, x in numbers(2).items()}, pool[2] / "model.safetensors")
    assert same(load_file(merge_files(pool, [.5, .5, 0], tmp_path / "m.safetensors").out), want)

def test_all_disagreements_are_said_at_once(tmp_path, pool):
    folder(tmp_path / "d", {**numbers(1), "new": torch.ones(1), "norm": torch.ones(6)}, {**CONFIG, "rope_theta": 5.})
    with pytest.raises(ValueError, match=r"(?s)3 reasons.*new.*norm.*config.json/rope_theta: 10000.0 in a, 5.0 in d"): merge_files([pool[0], tmp_path / "d"], HALF, tmp_path / "m")

def permuted(): return {**VOCABULARY, "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 2, "c": 1}}}

@pytest.mark.parametrize("file, content, said", [
    ("config.json", {**CONFIG, "rope_theta": 5e5}, "config.json/rope_theta: 10000.0 in a, 500000.0 in b"),
    ("config.json", {**CONFIG, "extra": 1}, "config.json/extra: None in a, 1 in b"),
    ("tokenizer.json", permuted(), "tokenizer.json: differs between a and b: token 'b' has number 1 and 2"),
    ("tokenizer.json", {**VOCABULARY, "added_tokens": [{"id": 3, "content": "<s>"}]}, "tokenizer.json: differs between a and b"),
    ("tokenizer.json", {**VOCABULARY, "model": {"type": "Unigram", "vocab": [["a", -1.], ["b", -2.]]}}, "tokenizer.json: differs"),
    ("vocab.json", {"a": 0}, "vocab.json: missing in a"), ("tokenizer.model", "sentences", "tokenizer.model: missing in a")])
def test_settings_and_tokenizers_must_agree(tmp_path, pool, file, content, said):
    (pool[1] / file).write_text(content if isinstance(content, str) else json.dumps(content))
    for w in (HALF, [1, 0]): # a member of weight 0 must fit, too
        with pytest.raises(ValueError, match=re.escape(said)): merge_files(pool[:2], w, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    merge_files(pool[:2], HALF, tmp_path / "m", ignore=[f"{file}*"]) # on request

def test_tokenizers_compare_by_what_they_say(tmp_path, pool):
    (pool[1] / "tokenizer.json").write_text(json.dumps({"padding": {"direction": "Left"}, **dict(reversed(VOCABULARY.items()))}, indent=1))
    (pool[1] / "config.json").write_text(json.dumps({**CONFIG, "transformers_version": "9", "_name_or_path": "x"}))
    (pool[2] / "tokenizer.json").unlink() # says nothing, contradicts nobody
    for p, text in zip(pool, ("x y", "x y", "y x")): (p / "merges.txt").write_text(text)
    with pytest.raises(ValueError, match="merges.txt: differs between a and c"): merge_files(pool, [.5, .25, .25], tmp_path / "m", ignore="tokenizer.json")
    merge_files(pool[:2], HALF, tmp_path / "m")

def test_a_tokenizer_is_compared_even_when_the_first_member_has_none(tmp_path, pool):
    (pool[0] / "tokenizer.json").unlink()
    (pool[2] / "tokenizer.json").write_text(json.dumps(permuted()))
    with pytest.raises(ValueError, match="differs between b and c"): merge_files(pool, [.5, .25, .25], tmp_path / "m")

@pytest.mark.parametrize("weights, said", [
    ([.5, .4, 0], r"weights\[0\] sums to 0.9"), ([1, 1, -1], "c has weight -1.0, which needs negative=True"), ([.5, .5, math.nan], "c has weight nan"),
    ([math.inf, 0, 0], "a has weight inf"), ([.5, .5], r"shape \(2,\); expected \(3,\)"), ([[1, 0, 0], [.5, .5, .02]], r"weights\[1\] sums to 1.02"), ([], "expected"),
    ([0, 0, 0], r"weights\[0\] sums to 0"), ([[[1, 0, 0]]], "shape"), (1., "shape")])
def test_bad_weights(tmp_path, pool, weights, said):
    with pytest.raises(ValueError, match=said): merge_files(pool, weights, [tmp_path / "m"] * max(1, len(np.atleast_1d(weights))))
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]

@pytest.mark.parametrize("kw, said", [
    (dict(out="m.bin"), "a result is a .safetensors file or the folder"), (dict(names=["a", "a", "b"]), "as many different names"), (dict(names=["a"]), "as many different names"),
    (dict(config_from="d"), "config_from is 'd', expected one of a, b, c"), (dict(config_from=3), "config_from is 3"), (dict(dtype="int8"), "dtype is torch.int8"),
    (dict(dtype="float7"), "dtype is float7"), (dict(out=["m", "n"]), "1 rows of weights, 2 results"), (dict(weights=[[1, 0, 0]] * 2, out=["m", "./m"]), "same name"),
    (dict(weights=[[1, 0, 0]] * 2, out="m"), "2 rows of weights, 1 results")])
def test_bad_requests(tmp_path, pool, kw, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said): merge_files(pool, kw.pop("weights", [.5, .25, .25]), kw.pop("out", "m"), **kw)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


# ---- damaged files ---------------------------------------------------------------------------------------------------
def shift(header, data): header["norm"]["data_offsets"] = [n + 4 for n in header["norm"]["data_offsets"]]; return header, data
def overlap(header, data): header["w.1"]["data_offsets"] = header["w.0"]["data_offsets"]; return header, data
def huge(header, data): header["norm"]["shape"] = [2**62, 4]; return header, data
def negative(header, data): header["norm"]["shape"] = [-5]; return header, data
def fraction(header, data): header["norm"]["shape"] = [2.5]; return header, data
def float8(header, data): header["norm"]["dtype"] = "F8_E4M3"; return header, data
def no_entry(header, data): header["norm"] = 3; return header, data
def a_list(header, data): return b"[]", data
def no_json(header, data): return b"\xff{", data
def twice(header, data): return json.dumps(header).replace('"w.1"', '"w.0"').encode(), data
def tail(header, data): return header, data + b"\0"

@pytest.mark.parametrize("change", [shift, overlap, huge, negative, fraction, float8, no_entry, a_list, no_json, twice, tail])
def test_a_header_must_describe_its_file(tmp_path, pool, change):
    rewrite(pool[1] / "model.safetensors", change)
    with pytest.raises(ValueError, match=r"b.model.safetensors: ") as e: merge_files(pool, [.5, .25, .25], tmp_path / "m")
    if change is float8: assert "F8_E4M3, which cannot be averaged as it stands" in str(e.value)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]

@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1, -500])
def test_a_truncated_file_is_named_even_at_weight_0(tmp_path, pool, keep):
    raw = (pool[2] / "model.safetensors").read_bytes()
    (pool[2] / "model.safetensors").write_bytes(raw[:keep])
    with pytest.raises(ValueError, match=r"c.model.safetensors: truncated"): merge_files(pool, [.5, .5, 0], tmp_path / "m")

def test_a_header_of_absurd_length(tmp_path, pool):
    (pool[1] / "model.safetensors").write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="truncated or not safetensors"): open_checkpoint(pool[1])

@pytest.mark.parametrize("weight_map, said", [
    ({"norm": "../evil.safetensors"}, "not a file beside the index"), ({"norm": "/etc/passwd"}, "not a file beside the index"), ({"norm": "sub/x.safetensors"}, "not a file beside"),
    ({"norm": "C:\\x"}, "not a file beside"), ({"norm": ".."}, "not a file beside"), ({"norm": 3}, "not a file beside"), ({"norm": "three.safetensors"}, "three.safetensors is missing"),
    ({"norm": "one.safetensors"}, "'norm' should be in one.safetensors, and is in .'two.safetensors'"), ({"ghost": "one.safetensors"}, "'ghost' should be in one.safetensors, and is in ..$"),
    ({"norm": None}, "not a file beside")])
def test_a_bad_shard_index(tmp_path, pool, weight_map, said):
    state = numbers(3)
    names = list(state)
    d = folder(tmp_path / "d", state, shards={"one.safetensors": names[2:], "two.safetensors": names[:2]})
    index = json.loads((d / "model.safetensors.index.json").read_text())
    index["weight_map"].update(weight_map)
    (d / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises((ValueError, FileNotFoundError), match=said): merge_files([pool[0], d], HALF, tmp_path / "m")
    assert not (tmp_path / "m").exists()

def test_a_shard_may_hold_nothing_that_the_index_does_not_name(tmp_path):
    state = numbers(3)
    d = folder(tmp_path / "d", state, shards={"one.safetensors": list(state)})
    save_file({**state, "new": torch.ones(1)}, d / "one.safetensors")
    with pytest.raises(ValueError, match="'new' should be in None"): open_checkpoint(d)

def test_missing_paths(tmp_path, pool):
    (tmp_path / "empty").mkdir()
    for path, said in ((tmp_path / "none", "none"), (tmp_path / "empty", "holds none of model.safetensors"), (tmp_path / "x.safetensors", "x.safetensors is missing")):
        with pytest.raises(FileNotFoundError, match=said): merge_files([pool[0], path], HALF, tmp_path / "m")

class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (self.path,)

@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_runs_no_code(tmp_path, pool, zipped):
    torch.save({"norm": torch.ones(5), "w": Evil(str(tmp_path / "ran"))}, tmp_path / "evil.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="evil.bin: .*"): merge_files([pool[0], tmp_path / "evil.bin"], HALF, tmp_path / "m")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "m").exists()
    torch.load(tmp_path / "evil.bin", weights_only=False)
    assert (tmp_path / "ran").exists(), "the trap works"

def test_a_pickle_of_something_else(tmp_path):
    torch.save({"model": numbers(0), "step": 3}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="'model' is a dict, expected only tensors by name"): open_checkpoint(tmp_path / "x.pt")


# ---- the target ------------------------------------------------------------------------------------------------------
def test_what_exists_is_not_overwritten(tmp_path, pool):
    old, full = tmp_path / "m.safetensors", folder(tmp_path / "full", numbers(9))
    old.write_bytes(b"old")
    before = everything(tmp_path)
    for out, kw in ((old, {}), (full, {}), (full, dict(overwrite=True)), (pool[0], dict(overwrite=True))):
        with pytest.raises(FileExistsError): merge_files(pool[:2], HALF, out, **kw)
    with pytest.raises(ValueError, match="is a file of b; members are never overwritten"): merge_files(pool[:2], HALF, pool[1] / "model.safetensors", overwrite=True)
    assert everything(tmp_path) == before
    merge_files(pool[:2], HALF, old, overwrite=True)
    (tmp_path / "empty").mkdir()
    merge_files(pool[:2], HALF, tmp_path / "empty")
    assert same(load_file(old), load_file(tmp_path / "empty/model.safetensors"))

def test_somebody_else_takes_the_name_meanwhile(tmp_path, pool, monkeypatch):
    really = average._Output.finish
    def finish(self, *a): really(self, *a); self.out.write_bytes(b"theirs")
    monkeypatch.setattr(average._Output, "finish", finish)
    with pytest.raises(FileExistsError): merge_files(pool, [.5, .25, .25], tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == b"theirs" and sorted(os.listdir(tmp_path)) == ["a", "b", "c", "m.safetensors"]

def test_a_link_to_a_member_is_a_member(tmp_path, pool):
    (tmp_path / "link.safetensors").symlink_to(pool[0] / "model.safetensors")
    with pytest.raises(ValueError, match="is a file of a"): merge_files(pool, [.5, .25, .25], tmp_path / "link.safetensors", overwrite=True)

@pytest.mark.parametrize("out", ["m.safetensors", "m"])
def test_a_full_disk_is_said_before_and_during(tmp_path, pool, monkeypatch, out):
    with monkeypatch.context() as m:
        m.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**9, 10**9 - 100, 100))
        with pytest.raises(OSError, match="the disk has 100 left") as e: merge_files(pool, [.5, .25, .25], tmp_path / out)
        assert e.value.errno == errno.ENOSPC
    if os.name == "nt": return
    code = """import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from mixlab.average import merge_files
resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)) # the system refuses to let a file grow further
merge_files(sys.argv[2:], [.5, .25, .25], sys.argv[1], progress=False)"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / out, *pool], capture_output=True, text=True)
    assert re.search(rf"OSError: .*cannot write .*{out} .*nothing is left of the attempt", done.stderr), done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]

def test_an_output_that_cannot_be_written(tmp_path, pool, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="cannot write .*file.m"): merge_files(pool, [.5, .25, .25], tmp_path / "file/m.safetensors")
    if os.name == "posix" and os.geteuid(): # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o555)
        with pytest.raises(PermissionError, match="cannot write .*locked"): merge_files(pool, [.5, .25, .25], tmp_path / "locked/m.safetensors")
    elif os.path.isdir("/proc/self"):
        monkeypatch.setattr(average, "_check_room", lambda *a: None) # which would say that /proc is full
        with pytest.raises(OSError, match="cannot write /proc/m"): merge_files(pool, [.5, .25, .25], "/proc/m.safetensors")

def test_a_member_that_changes_while_it_is_read(tmp_path, pool, monkeypatch):
    really = average._stream
    def stream(*a): really(*a); os.utime(pool[1] / "model.safetensors", ns=(1, 1))
    monkeypatch.setattr(average, "_stream", stream)
    with pytest.raises(ValueError, match="b.model.safetensors changed while it was read"): merge_files(pool, [.5, .25, .25], tmp_path / "m")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]

@LINUX
@pytest.mark.parametrize("when, said", [("_move", "ended while it was read"), ("_fetch", "cannot be read")])
def test_a_member_that_is_shortened_while_it_is_read(tmp_path, monkeypatch, when, said):
    monkeypatch.setattr(average, "WINDOW", 2**22)
    pool = [folder(tmp_path / n, {"w": torch.zeros(3 * 2**20)}) for n in "ab"]
    really, calls = getattr(average._Reader, when), []
    def shorten(self, *a):
        calls.append(a)
        if len(calls) == 4: os.truncate(pool[1] / "model.safetensors", 2**20) # the second window of b
        return really(self, *a)
    monkeypatch.setattr(average._Reader, when, shorten)
    with pytest.raises(ValueError, match="b.model.safetensors.*" + said): merge_files(pool, HALF, tmp_path / "m")
    assert len(calls) == 4 and sorted(os.listdir(tmp_path)) == ["a", "b"]

def test_ctrl_c_leaves_nothing(tmp_path, pool, monkeypatch):
    def stop(*a): raise KeyboardInterrupt
    monkeypatch.setattr(average, "_copy", stop)
    for p in pool: save_file({**numbers(1), "step": torch.tensor([1])}, p / "model.safetensors")
    with pytest.raises(KeyboardInterrupt): merge_files(pool, [.5, .25, .25], tmp_path / "m")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]

UNTIL_KILLED = """import sys, time
from mixlab import average
really, blocks = average._Output.put, []
def put(self, x):
    really(self, x)
    blocks.append(1)
    print("wrote", flush=True)
    if len(blocks) == 3: time.sleep(600) # the parent kills it long before
average._Output.put = put
average.merge_files(sys.argv[3:], [.5, .5], sys.argv[1], overwrite=sys.argv[2] == "yes", progress=False)
"""
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("out, old", [("m.safetensors", b"old"), ("m.safetensors", None), ("m", None)])
def test_kill_9_leaves_the_old_file_or_none(tmp_path, out, old):
    pool = [folder(tmp_path / n, {f"w.{j}": torch.full((300_000,), float(i)) for j in range(4)}) for i, n in enumerate("ab")]
    before, out = everything(tmp_path), tmp_path / out
    if old: out.write_bytes(old)
    child = subprocess.Popen([sys.executable, "-c", UNTIL_KILLED, out, "yes" if old else "no", *pool], stdout=subprocess.PIPE, text=True)
    for _ in range(3): assert child.stdout.readline() == "wrote\n"
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    left = [f for f in os.listdir(tmp_path) if f.endswith(".tmp")]
    assert len(left) == 1 and left[0].startswith(".m"), "killed in the middle"
    assert out.read_bytes() == old if old else not out.exists()
    merge_files(pool, HALF, out, overwrite=bool(old)) # what was left does not hurt
    made = load_file(out if out.suffix else out / "model.safetensors")
    assert all(torch.equal(made[f"w.{j}"], torch.full((300_000,), .5)) for j in range(4)) and (tmp_path / left[0]).exists()
    assert {k: v for k, v in everything(tmp_path).items() if k in before} == before


# ---- what comes out --------------------------------------------------------------------------------------------------
def test_config_and_tokenizer_come_from_the_named_member(tmp_path, pool):
    for n, p in zip("abc", pool): (p / "generation_config.json").write_text(json.dumps({"from": n}))
    (pool[1] / "optimizer.pt").write_bytes(b"x"); (pool[1] / "trainer_state.json").write_text("{}")
    for name, want in (("b", "b"), (2, "c")):
        m = merge_files(pool, [.5, .25, .25], tmp_path / f"m{want}", config_from=name)
        assert json.loads((m.out / "generation_config.json").read_text()) == {"from": want} and m.config_from == want
        assert sorted(os.listdir(m.out)) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
        assert header_of(m.out / "model.safetensors")["__metadata__"]["mixlab.config_from"] == want
    save_file(numbers(4), tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="bare.safetensors is a bare file without config"): merge_files([tmp_path / "bare.safetensors", pool[0]], HALF, tmp_path / "n")
    assert merge_files([tmp_path / "bare.safetensors", pool[0]], HALF, tmp_path / "n", config_from="a").config_from == "a"
    (pool[1] / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json: missing in b"): merge_files(pool, [.5, .25, .25], tmp_path / "o")

def test_metadata_and_hashes(tmp_path, pool):
    m = merge_files(pool, [1 / 3, 0, 2 / 3], tmp_path / "m.safetensors", names=["x", "y", "z"], hashes=True, config_from="z")
    said = safe_open(m.out, "pt").metadata()
    assert said["format"] == "pt" and said["mixlab.version"] and said["mixlab.kind"] == "weighted" and said["mixlab.config_from"] == "z"
    members = json.loads(said["mixlab.members"])
    assert [(d["name"], float(d["weight"])) for d in members] == [("x", 1 / 3), ("y", 0.), ("z", 2 / 3)] and "sha256" not in members[1]
    data = lambda f: f.read_bytes()[8 + int.from_bytes(f.read_bytes()[:8], "little"):]
    assert members[2]["sha256"] == hashlib.sha256(data(pool[2] / "model.safetensors")).hexdigest()
    assert said["mixlab.sha256"] == m.sha256 == hashlib.sha256(data(m.out)).hexdigest()
    again = merge_files([m.out, pool[0]], HALF, tmp_path / "n.safetensors", hashes=True)
    assert json.loads(safe_open(again.out, "pt").metadata()["mixlab.members"])[0]["sha256"] == m.sha256, "a merge of merges can be followed back"
    assert merge_files(pool, [.5, .5, 0], tmp_path / "o.safetensors").sha256 is None and header_of(tmp_path / "o.safetensors")["__metadata__"]["mixlab.kind"] == "uniform"

def test_whole_numbers_are_copied_or_refused(tmp_path):
    whole = {"step": torch.tensor([7]), "mask": torch.tensor([True, False, True]), "q": torch.arange(-4, 4, dtype=torch.int8)}
    pool = [folder(tmp_path / n, {**numbers(i), **whole}) for i, n in enumerate("ab")]
    m = merge_files(pool, HALF, tmp_path / "m")
    made = load_file(m.out / "model.safetensors")
    assert same({t: made[t] for t in whole}, whole) and "whole numbers, equal in all members, were copied: step, mask, q" in m.notes
    odd = folder(tmp_path / "c", {**numbers(2), **whole, "mask": torch.tensor([True, True, True])})
    with pytest.raises(ValueError, match="^c: tensor 'mask' differs from a's; whole numbers are not averaged"): merge_files([*pool, odd], [.5, .25, .25], tmp_path / "n")
    assert not (tmp_path / "n").exists()
    merge_files([*pool, odd], [.5, .5, 0], tmp_path / "n") # not used, not read
    assert "step" not in load_file(merge_files([*pool, odd], [.5, .25, .25], tmp_path / "o.safetensors", ignore=["step", "ma*"]).out)

def test_a_matrix_tied_in_some_members_only(tmp_path):
    states = [numbers(i) for i in range(3)]
    with_head = {**states[1], "lm_head.weight": states[1]["embed.weight"].clone()}
    pool = [folder(tmp_path / "a", states[0]), folder(tmp_path / "b", with_head), folder(tmp_path / "c", states[2])]
    m = merge_files(pool, [.5, .25, .25], tmp_path / "m")
    assert "lm_head.weight repeats embed.weight (tied) in the members that have it, and is left out" in m.notes
    assert same(load_file(m.out / "model.safetensors"), load_file(merge_files(pool, [.5, .25, .25], tmp_path / "n.safetensors").out))
    assert sorted(load_file(m.out / "model.safetensors")) == sorted(states[0])
    both = [folder(tmp_path / f"t{i}", {**s, "lm_head.weight": s["embed.weight"].clone()}) for i, s in enumerate(states)]
    made = load_file(merge_files(both, [.2, .3, .5], tmp_path / "o.safetensors").out)
    assert bits(made["lm_head.weight"]) == bits(made["embed.weight"]), "tied stays tied"
    with_head["lm_head.weight"][3, 3] += 1e-3
    with pytest.raises(ValueError, match="lm_head.weight: in d, missing in a"): merge_files([pool[0], folder(tmp_path / "d", with_head)], HALF, tmp_path / "p")

@pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)
def test_one_weight_returns_that_member_bit_for_bit(tmp_path, dtype):
    special = torch.tensor([0., -0., torch.finfo(dtype).tiny, torch.finfo(dtype).smallest_normal / 2, torch.finfo(dtype).max, torch.finfo(dtype).min, 1 / 3, -1.], dtype=torch.float64).to(dtype)
    states = [{**numbers(i, dtype), "special": special.roll(i)} for i in range(3)]
    pool = [folder(tmp_path / f"u{i}", s) for i, s in enumerate(states)]
    for i, m in enumerate(merge_files(pool, np.eye(3), [tmp_path / f"m{i}" for i in range(3)])):
        assert same(load_file(m.out / "model.safetensors"), states[i])

def test_copies_of_one_model_give_it_back(tmp_path):
    state = numbers(0, torch.bfloat16)
    pool = [folder(tmp_path / f"u{i}", state) for i in range(5)]
    assert same(load_file(merge_files(pool, [.2] * 5, tmp_path / "m.safetensors").out), state)
    m = merge_files([pool[0]] * 4 + [pool[1]], [.1, .2, .3, .2, .2], tmp_path / "n.safetensors") # the same file, four times
    assert same(load_file(m.out), state) and sum("weights were added" in n for n in m.notes) == 3
    assert sum(m.weights.values()) == pytest.approx(1)

def test_many_rows_are_the_same_rows_one_by_one(tmp_path):
    shapes = (("a", (300, 701)), ("b", (33,)), ("c", (1, 7)), ("d", (0, 3)), ("e", ()))
    for dtype in (torch.float32, torch.bfloat16):
        pool = [folder(tmp_path / f"{dtype}-{i}", {**numbers(i, dtype, shapes), "step": torch.tensor(3)}) for i in range(4)]
        A = np.random.default_rng(0).dirichlet(np.ones(4), 40)
        A[3:6] = np.eye(4)[:3]
        many = merge_files(pool, A, [tmp_path / f"{dtype}-many-{i}.safetensors" for i in range(40)])
        for i in (0, 3, 17, 39):
            one = merge_files(pool, A[i], tmp_path / f"{dtype}-one-{i}.safetensors")
            assert one.out.read_bytes() == many[i].out.read_bytes()

def test_shards_order_and_format_make_no_difference(tmp_path):
    states = [numbers(i, torch.bfloat16) for i in range(2)]
    names = list(states[0])
    plain = [folder(tmp_path / f"p{i}", s) for i, s in enumerate(states)]
    split = [folder(tmp_path / f"s{i}", s, shards={"x.safetensors": [names[i], names[3]], "y.safetensors": [names[1 - i], names[2]]}) for i, s in enumerate(states)]
    for i, s in enumerate(states): torch.save(s, tmp_path / f"b{i}.bin")
    for i, s in enumerate(states): torch.save(s, tmp_path / f"old{i}.pt", _use_new_zipfile_serialization=False)
    want = merge_files(plain, [.3, .7], tmp_path / "want.safetensors", names=["x", "y"]).out.read_bytes()
    pools = [split, [split[0], plain[1]], [tmp_path / "b0.bin", tmp_path / "b1.bin"], [tmp_path / "old0.pt", split[1]], [split[0] / "model.safetensors.index.json", plain[1] / "model.safetensors"]]
    for k, pool in enumerate(pools):
        kw = dict(config_from=1) if pool[0].is_file() and pool[1].is_dir() else {}
        m = merge_files(pool, [.3, .7], tmp_path / f"{k}.safetensors", names=["x", "y"], **kw)
        assert header_of(m.out) | {"__metadata__": 0} == header_of(tmp_path / "want.safetensors") | {"__metadata__": 0}
        assert same(load_file(m.out), load_file(tmp_path / "want.safetensors"))
    # data in another order than the library's own
    def reverse(header, data):
        entries, at, parts = {}, 0, []
        for t in sorted((t for t in header if t != "__metadata__"), reverse=True):
            a, b = header[t]["data_offsets"]
            entries[t] = {**header[t], "data_offsets": [at, at + b - a]}
            at += b - a
            parts.append(data[a:b])
        return entries, b"".join(parts)
    rewrite(plain[0] / "model.safetensors", reverse)
    assert merge_files(plain, [.3, .7], tmp_path / "reversed.safetensors", names=["x", "y"]).out.read_bytes() == want

def test_a_pickled_model_in_shards(tmp_path):
    state = numbers(5)
    names = list(state)
    d = tmp_path / "d"
    d.mkdir()
    torch.save({t: state[t] for t in names[:2]}, d / "pytorch_model-1.bin")
    torch.save({t: torch.nn.Parameter(state[t]) for t in names[2:]}, d / "pytorch_model-2.bin")
    (d / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {t: f"pytorch_model-{1 + (i > 1)}.bin" for i, t in enumerate(names)}}))
    assert same(load_file(merge_files([d], [1], tmp_path / "m.safetensors").out), state), "and so a pickle becomes a safetensors file"

def test_chosen_dtype(tmp_path, pool):
    m = merge_files([folder(tmp_path / "d", numbers(0), {**CONFIG, "dtype": "float32"})], [1], tmp_path / "m", dtype="bfloat16")
    assert {x.dtype for x in load_file(m.out / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((m.out / "config.json").read_text())["dtype"] == "bfloat16"
    save_file({"w": torch.tensor([1e5])}, tmp_path / "big.safetensors")
    with pytest.raises(ValueError, match="too large for torch.float16"): merge_files([tmp_path / "big.safetensors"], [1], tmp_path / "n.safetensors", dtype=torch.float16)
    assert not (tmp_path / "n.safetensors").exists()

def test_large_numbers_whose_sum_overflows_are_no_error(tmp_path):
    for i, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16)):
        state = {"w": torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)}
        for j in range(2): save_file(state, tmp_path / f"{i}{j}.safetensors")
        assert same(load_file(merge_files([tmp_path / f"{i}{j}.safetensors" for j in range(2)], HALF, tmp_path / f"{i}.safetensors").out), state)

def test_torch_keeps_its_threads(tmp_path, pool):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        merge_files(pool, [.5, .25, .25], tmp_path / "m")
        assert torch.get_num_threads() == 2
    finally: torch.set_num_threads(before)

def test_inputs_are_untouched(tmp_path, pool):
    before = everything(tmp_path)
    merge_files(pool, [.5, .25, .25], tmp_path / "m", hashes=True)
    assert {k: v for k, v in everything(tmp_path).items() if not k.startswith("m")} == before
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "m"]


# ---- what is right is taken, and an error names its remedy -------------------------------------------------------------
def test_folders_with_nothing_but_numbers_are_merged(tmp_path, pool):
    bare = [folder(tmp_path / f"bare{i}", numbers(i), config=None, tokenizer=None) for i in range(2)]
    (bare[0] / "README.md").write_text("x")
    m = merge_files(bare, HALF, tmp_path / "m")
    assert os.listdir(m.out) == ["model.safetensors"] and open_checkpoint(bare[0]).folder is None
    want = {t: .5 * x + .5 * numbers(1)[t] for t, x in numbers(0).items()}
    assert all(torch.allclose(x, want[t]) for t, x in load_file(m.out / "model.safetensors").items())
    mixed = merge_files([pool[2], bare[0]], HALF, tmp_path / "n") # says nothing, contradicts nobody
    assert sorted(os.listdir(mixed.out)) == ["config.json", "model.safetensors", "tokenizer.json"] and open_checkpoint(pool[2]).folder == pool[2]
    with pytest.raises(ValueError, match="bare0 is a bare file without config; name a folder that has one: config_from='c'"): merge_files([bare[0], pool[2]], HALF, tmp_path / "o")
    (bare[0] / "generation_config.json").write_text("{}")
    (bare[1] / "generation_config.json").write_text("{}")
    assert sorted(os.listdir(merge_files(bare, HALF, tmp_path / "p").out)) == ["generation_config.json", "model.safetensors"], "no config in either is no difference"

@pytest.mark.parametrize("ignore", ["*", ["embed*", "norm", "w.?"], ["w*", "*e*", "norm"]])
def test_a_result_holds_something(tmp_path, pool, ignore):
    with pytest.raises(ValueError, match="ignore is .* leaves out all 4 tensors"): merge_files(pool, [.5, .25, .25], tmp_path / "m", ignore=ignore)
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(ValueError, match=r"paths\[0\]: .*empty.safetensors holds no tensors"): merge_files([tmp_path / "empty.safetensors"], [1], tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert sorted(load_file(merge_files(pool, [.5, .25, .25], tmp_path / "n.safetensors", ignore="w*").out)) == ["embed.weight", "norm"]

def test_weights_come_by_the_members_names(tmp_path, pool):
    want = load_file(merge_files(pool, [.5, .3, .2], tmp_path / "want.safetensors").out)
    by_name = {"c": .2, "a": .5, "b": .3}
    for i, w in enumerate((by_name, pd.Series(by_name), Mixture(by_name))):
        m = merge_files(pool, w, tmp_path / f"{i}.safetensors")
        assert same(load_file(m.out), want) and m.weights == {"a": .5, "b": .3, "c": .2}
    table = pd.DataFrame([by_name, {"a": 1., "b": 0., "c": 0.}])
    for i, w in enumerate((table, [by_name, {"a": 1, "c": 0, "b": 0}])):
        one, two = merge_files(pool, w, [tmp_path / f"{i}-{j}.safetensors" for j in range(2)])
        assert same(load_file(one.out), want) and same(load_file(two.out), numbers(0))
    other = merge_files(pool, {"x": .2, "y": .5, "z": .3}, tmp_path / "names.safetensors", names=["y", "z", "x"])
    assert same(load_file(other.out), want)
    for w, said in (({"a": .5, "b": .5}, "has no weight for 'c'"), ({"a": .5, "b": .3, "d": .2}, "names 'd', which is no member; the members are a, b, c")):
        with pytest.raises(ValueError, match=said): merge_files(pool, w, tmp_path / "m")

def test_negative_weights_on_request_and_rounded_ones_are_divided(tmp_path, pool):
    m = merge_files(pool, {"c": -.5, "a": 1., "b": .5}, tmp_path / "m.safetensors", negative=True)
    states = [numbers(i) for i in range(3)]
    for t, x in load_file(m.out).items(): assert torch.allclose(x, states[0][t] + .5 * states[1][t] - .5 * states[2][t], atol=1e-5)
    for i, negative in enumerate((False, True)):
        third = merge_files(pool, [.333] * 3, tmp_path / f"{i}.safetensors", negative=negative).weights
        assert np.allclose(list(third.values()), 1 / 3, atol=1e-15, rtol=0)
        with pytest.raises(ValueError, match=r"weights\[0\] sums to 0.98"): merge_files(pool, [.49, .49, 0], tmp_path / "n", negative=negative)

def test_numpy_numbers_are_numbers(tmp_path, pool):
    m = merge_files(pool, np.float32([.5, .25, .25]), tmp_path / "m", config_from=np.int64(1))
    assert m.config_from == "b"
    for kw, said in ((dict(config_from=True), "config_from is True"), (dict(overwrite=1), "overwrite is 1"), (dict(hashes="yes"), "hashes"), (dict(negative=None), "negative"), (dict(names="abc"), "names is 'abc'"), (dict(names=[1, 2, 3]), "names: 1"),
                     (dict(ignore=3), "ignore is 3"), (dict(dtype=3), "dtype is 3")):
        with pytest.raises(ValueError, match=said): merge_files(pool, [.5, .25, .25], tmp_path / "n", **kw)
    for paths, said in ((str(pool[0]), "paths is"), ([], "paths is"), ([3], r"paths\[0\] is 3"), ([pool[0], tmp_path / "none"], r"paths\[1\]: .*none is missing")):
        with pytest.raises((ValueError, FileNotFoundError), match=said): merge_files(paths, [1], tmp_path / "n") if len(paths) != 2 else merge_files(paths, HALF, tmp_path / "n")
    with pytest.raises(ValueError, match=r"out\[0\] is 3"): merge_files(pool, [.5, .25, .25], [3])

def test_home_is_expanded(tmp_path, pool, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert merge_files(["~/a", "~/b"], HALF, "~/m.safetensors").out == tmp_path / "m.safetensors"
    assert open_checkpoint("~/a").name == "a" and not (tmp_path / "~").exists()

def test_errors_name_their_remedy(tmp_path, pool):
    save_file({**numbers(1), "norm": torch.full((5,), math.nan)}, pool[1] / "model.safetensors")
    with pytest.raises(ValueError, match="give b the weight 0, or leave the tensor out with ignore="): merge_files(pool, [.5, .25, .25], tmp_path / "m")
    (pool[2] / "config.json").write_text(json.dumps({**CONFIG, "use_cache": False}))
    with pytest.raises(ValueError, match=r"ignore=\['config.json/use_cache'\]"): merge_files(pool, [.5, .25, .25], tmp_path / "m")
    (tmp_path / "old.safetensors").write_bytes(b"")
    with pytest.raises(FileExistsError, match="overwrite=True replaces it"): merge_files(pool[:1], [1], tmp_path / "old.safetensors")
    with pytest.raises(FileExistsError, match="only a single .safetensors file can be overwritten"): merge_files(pool[:1], [1], pool[1])
    (tmp_path / "odd").mkdir()
    save_file(numbers(0), tmp_path / "odd/adapter.safetensors")
    with pytest.raises(FileNotFoundError, match="give one of its files instead: adapter.safetensors"): merge_files([tmp_path / "odd"], [1], tmp_path / "m")

@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_what_would_fail_at_the_end_fails_before_the_work(tmp_path, pool, monkeypatch, content):
    monkeypatch.setattr(average, "_stream", lambda *a: pytest.fail("the work has begun"))
    (pool[0] / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json: "): merge_files(pool[:1], [1], tmp_path / "m", dtype="bfloat16")
    with pytest.raises(ValueError, match="config.json: "): merge_files(pool[:2], HALF, tmp_path / "m")
    assert not (tmp_path / "m").exists()

def test_results_are_checked_before_anything_is_compared(tmp_path, pool, monkeypatch):
    monkeypatch.setattr(average, "_leave_out_ties", lambda *a: pytest.fail("the work has begun"))
    with pytest.raises(FileExistsError): merge_files(pool, [.5, .25, .25], pool[0])

def test_room_is_asked_for_all_results(tmp_path, pool, monkeypatch):
    asked = 4 * sum(x.numel() for x in numbers(0).values())
    monkeypatch.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**9, 0, 2 * asked))
    merge_files(pool, [.5, .25, .25], tmp_path / "one.safetensors")
    with pytest.raises(OSError, match="out: .* bytes are needed"): merge_files(pool, np.eye(3)[:2], [tmp_path / f"{i}.safetensors" for i in range(2)])

def test_a_head_that_differs_in_one_member_is_not_tied(tmp_path):
    e = torch.arange(6.).view(2, 3)
    for name, head in (("a", None), ("b", e), ("d", e + 1)): save_file({"embed.weight": e.clone()} | ({} if head is None else {"lm_head.weight": head.clone()}), tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match="lm_head.weight: in"): merge_files([tmp_path / f"{n}.safetensors" for n in "abd"], [.5, .25, .25], tmp_path / "m.safetensors")

@LINUX
@pytest.mark.parametrize("out", ["m.safetensors", "m"])
def test_numbers_and_names_are_made_durable(tmp_path, pool, monkeypatch, out):
    synced, really = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or really(fd))
    merge_files(pool, [.5, .25, .25], tmp_path / out)
    assert any(".tmp" in p for p in synced[:-1]) and synced[-1] == str(tmp_path), "first the numbers, last the name"
    if out == "m": assert {os.path.basename(p) for p in synced} >= {"model.safetensors", "config.json", "tokenizer.json"}

def test_numbers_begin_at_a_multiple_of_eight(tmp_path, pool):
    for k in range(9):
        made = merge_files(pool[:1], [1], tmp_path / "m.safetensors", names=["a" + "x" * k], overwrite=True).out
        assert int.from_bytes(made.read_bytes()[:8], "little") % 8 == 0


@pytest.mark.parametrize("head", [0, 1, 4], ids=["aligned", "odd", "by fours"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_blocks_and_windows_leave_no_seam(tmp_path, monkeypatch, dtype, head):
    "Several windows of several blocks and a rest, headers of every alignment: each number equals torch's, bit for bit."
    monkeypatch.setattr(average, "WINDOW", 2**22)
    states = [{"x": torch.randn(2_500_001, generator=torch.Generator().manual_seed(i)).to(dtype), "y": torch.randn(1_234_567, generator=torch.Generator().manual_seed(9 + i)).to(dtype)} for i in range(3)]
    files, w = [tmp_path / f"{i}.safetensors" for i in range(3)], [.2, .3, .5]
    for i, (f, s) in enumerate(zip(files, states)):
        save_file(s, f)
        if i == 1: rewrite(f, lambda header, data: (json.dumps(header).encode().ljust(1024 + head), data))
    rows = merge_files(files, [w, w[::-1]], [tmp_path / "m.safetensors", tmp_path / "t.safetensors"])
    for row, weights in zip(rows, (w, w[::-1])):
        made = load_file(row.out)
        for t in ("x", "y"):
            want = states[0][t].float() * weights[0]
            for s, wi in zip(states[1:], weights[1:]): want.add_(s[t].float(), alpha=wi)
            assert torch.equal(made[t], want.to(dtype))


# ---- properties ------------------------------------------------------------------------------------------------------
@st.composite
def problems(draw):
    n, k = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    w = np.array(draw(st.lists(st.integers(0, 9), min_size=k, max_size=k).filter(any)), float)
    return draw(st.sampled_from(sorted(FLOATS))), n, w / w.sum(), draw(st.integers(0, 2**31)), 10. ** draw(st.integers(-6, 4))

@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems())
def test_the_average_is_exact_to_the_last_rounding(tmp_path_factory, problem):
    kind, n, w, seed, size = problem
    dtype, room, g = FLOATS[kind], tmp_path_factory.mktemp("p"), torch.Generator().manual_seed(seed)
    states = [{"x": (torch.randn(n, generator=g, dtype=torch.float64) * size).to(dtype), "y": torch.randn(3, n, generator=g, dtype=torch.float64).to(dtype)} for _ in w]
    files = [room / f"{i}.safetensors" for i in range(len(w))]
    for s, f in zip(states, files): save_file(s, f)
    merged = load_file(merge_files(files, w, room / "m.safetensors").out)
    turned = load_file(merge_files(files[::-1], w[::-1], room / "t.safetensors").out)
    wide = torch.float64 if kind == "fp64" else torch.float32
    for t in ("x", "y"):
        exact = sum(wi * s[t].double() for wi, s in zip(w, states))
        bound = sum(abs(wi * s[t].double()) for wi, s in zip(w, states)) * torch.finfo(wide).eps * (len(w) + 1)
        once = torch.finfo(dtype).eps / 2 * exact.abs() * 1.01 + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps # one rounding to the type of the file
        assert ((merged[t].double() - exact).abs() <= bound + (once if dtype != wide else 0) + 1e-300).all(), "float32 inside, rounded once"
        assert ((merged[t].double() - turned[t].double()).abs() <= 2 * (bound + once)).all(), "order makes no difference beyond rounding"
        used = torch.stack([s[t] for wi, s in zip(w, states) if wi]).double()
        assert (merged[t] >= used.amin(0) - bound - once).all() and (merged[t] <= used.amax(0) + bound + once).all(), "between its members"
    shutil.rmtree(room)

@settings(max_examples=15, deadline=None)
@given(a=st.floats(-2, 3), seed=st.integers(0, 999))
def test_linear_in_the_weights(tmp_path_factory, a, seed):
    room = tmp_path_factory.mktemp("p")
    files = [room / f"{i}.safetensors" for i in range(3)]
    for i, f in enumerate(files): save_file(numbers(seed + i), f)
    u, v = np.array([.2, .3, .5]), np.array([.6, .4, 0])
    out = [load_file(m.out) for m in merge_files(files, [u, v, a * u + (1 - a) * v], [room / f"m{i}.safetensors" for i in range(3)], negative=True)]
    x = {t: sum(numbers(seed + i)[t].double().abs() for i in range(3)) for t in out[0]} # no weight of u or v is above 1
    for t in out[0]:
        want = a * out[0][t].double() + (1 - a) * out[1][t].double()
        bound = 2 * (abs(a) + abs(1 - a)) * x[t] * torch.finfo(torch.float32).eps * 4 # three members: Σ|w x| eps (n + 1)
        assert ((out[2][t].double() - want).abs() <= bound).all()
    shutil.rmtree(room)

def test_bfloat16_is_not_added_in_bfloat16(tmp_path):
    "RMS error of 16 members in units of the error of rounding the exact mean once: 1.000; adding in bfloat16 gives more than 2."
    g, K = torch.Generator().manual_seed(0), 16
    x = torch.randn(K, 200_000, generator=g).bfloat16()
    for i in range(K): save_file({"x": x[i].clone()}, tmp_path / f"{i}.safetensors")
    made = load_file(merge_files([tmp_path / f"{i}.safetensors" for i in range(K)], [1 / K] * K, tmp_path / "m.safetensors").out)["x"]
    exact, loop = x.double().mean(0), torch.zeros_like(x[0])
    for row in x: loop += row * (1 / K)
    rms = lambda y: (y.double() - exact).square().mean().sqrt()
    assert abs(rms(made) / rms(exact.bfloat16()) - 1) < 1e-3 and rms(loop) / rms(exact.bfloat16()) > 1.5


# ---- cost: processes of their own ------------------------------------------------------------------------------------
def big_pool(room, K, dtype, mb, empty=False):
    "Paths of K files of `mb` MB; `empty`: of zeros that take no room on the disk."
    n, named = mb * 2**20 // dtype.itemsize // 8, str(dtype)[6:]
    files = [room / f"{named}-{i}.safetensors" for i in range(K)]
    for i, f in enumerate(files):
        save_file({f"layer.{j}.weight": torch.full((n if not empty else 1,), i + j / 8, dtype=dtype) for j in range(8)}, f)
        if empty:
            entries = {f"layer.{j}.weight": {"dtype": header_of(f)["layer.0.weight"]["dtype"], "shape": [n], "data_offsets": [j * n * dtype.itemsize, (j + 1) * n * dtype.itemsize]} for j in range(8)}
            rewrite(f, lambda header, data: (json.dumps(entries).encode().ljust(1024), b""))
            os.truncate(f, 8 + 1024 + 8 * n * dtype.itemsize)
    return list(map(str, files))

MEMORY = """import re, sys
from mixlab import average
from tqdm.auto import tqdm
anonymous = lambda: int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
rows, out, *pool = int(sys.argv[1]), *sys.argv[2:]
seen, really = [anonymous()], average._Output.put
def put(self, x): seen.append(anonymous()); really(self, x) # all buffers are full then
average._Output.put = put
w = [1 / len(pool)] * len(pool)
average.merge_files(pool, [w] * rows if rows else w, [f"{out}-{i}.safetensors" for i in range(rows)] if rows else out, progress=False)
print(len(seen), max(seen) - seen[0])
"""
@LINUX
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_memory_does_not_grow_with_members_or_size(tmp_path, dtype):
    "Peak of anonymous memory less than 32 MB above the interpreter, for 2 and 16 members, and for 3 rows at once."
    pool, grown = big_pool(tmp_path, 16, dtype, 80, empty=True), {}
    for K, rows in ((2, 0), (16, 0), (4, 3)):
        done = subprocess.run([sys.executable, "-c", MEMORY, str(rows), tmp_path / f"m{K}.safetensors", *pool[:K]], capture_output=True, text=True)
        assert not done.returncode, done.stderr
        blocks, grown[K, rows] = map(float, done.stdout.split())
        assert blocks > 80 and grown[K, rows] < 32, grown
    print(dtype, grown)

# ---- Hugging Face ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
def test_a_hugging_face_model_loads_the_result(tmp_path, tied, sharded):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied)
    models = []
    for i in range(3):
        torch.manual_seed(i)
        models.append(transformers.LlamaForCausalLM(config).eval())
        models[-1].save_pretrained(tmp_path / f"u{i}", max_shard_size="20KB" if sharded else "1GB")
    assert (tmp_path / "u0/model.safetensors.index.json").exists() == sharded
    w = [.2, .3, .5]
    m = merge_files([tmp_path / f"u{i}" for i in range(3)], w, tmp_path / "m")
    assert tied == any("ties the output layer" in n for n in m.notes)
    loaded = transformers.LlamaForCausalLM.from_pretrained(m.out).eval()
    states = [x.state_dict() for x in models]
    models[0].load_state_dict({t: sum(wi * s[t].double() for wi, s in zip(w, states)).float() for t in states[0]})
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad(): assert torch.allclose(loaded(ids).logits, models[0](ids).logits, atol=1e-5)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied or (loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()) == tied
