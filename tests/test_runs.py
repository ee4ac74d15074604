"Page 14 under attack: kill -9, Ctrl-C, two drivers, four writers, torn and flipped files, a full disk, workers that die."
import errno, json, multiprocessing, os, random, re, shutil, signal, socket, subprocess, sys, threading, time, warnings
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fake_engine
from mixlab import runs
from mixlab.runs import Damaged, RunStore, StoreError, claimed, key_of, pack, sweep, unpack

HERE = Path(__file__).parent
CORPUS = fake_engine.Corpus()
FAKE = dict(engine="fake_engine", progress=False)
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and process groups of POSIX")


def mixtures(n): return np.random.default_rng(0).dirichlet([1, 1, 1], n)

def contents(store): return {f.name: f.read_bytes() for f in RunStore(store).path.glob("runs/*/*")}

def trained(log): # how often each mixture was trained, by the share of its first domain
    return Counter(w for line in log.read_text().splitlines() for w in json.loads(line)) if log.exists() else Counter()

def published(store): return {r["identity"]["mixture"][0][1] for r in map(RunStore(store).get, RunStore(store).keys())}


# ---- processes of their own --------------------------------------------------------------------------------------------
DRIVER = """
import json, sys, time, pathlib, numpy, fake_engine
from mixlab.runs import sweep
store, n, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
meet = options.pop("meet", None)
if meet: # wait until as many drivers are ready
    folder = pathlib.Path(store).with_suffix(".ready")
    folder.mkdir(exist_ok=True)
    (folder / str(time.time_ns())).touch()
    while len(list(folder.iterdir())) < meet: time.sleep(.01)
W = numpy.random.default_rng(0).dirichlet([1, 1, 1], n)
print(len(sweep(fake_engine.Corpus(), W, store=store, engine="fake_engine", progress=False, **options)))
"""

def drive(store, n, log=None, seconds=0., code=DRIVER, **options):
    "A driver in a session of its own."
    env = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}", "FAKE_SECONDS": str(seconds), **({"FAKE_LOG": str(log)} if log else {})}
    return subprocess.Popen([sys.executable, "-c", code, str(store), str(n), json.dumps(options)], env=env, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def wait_for(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited in vain"
        time.sleep(.01)

def alive(group):
    "Processes of a group that have not ended."
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try: fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError): continue
        if int(fields[2]) == group and fields[0] != "Z": found.append(int(stat.parent.name))
    return found


@POSIX
def test_20_kills_lose_nothing_and_nothing_is_trained_twice(tmp_path):
    n, options, chance = 600, dict(stack=3, workers=2, parameters=3000), random.Random(0)
    sweep(CORPUS, mixtures(n), store=tmp_path / "unbroken", workers=0, stack=3, parameters=3000, **FAKE)
    store, log = tmp_path / "killed", tmp_path / "log"
    RunStore(store)
    for kill in range(20):
        done, before = published(store), trained(log)
        driver = drive(store, n, log, seconds=.02, **options)
        if kill % 5: wait_for(lambda: trained(log) != before) # most kills fall into training and writing, some into starting
        time.sleep(chance.uniform(0, .3))
        os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()
        again = set(trained(log) - before) & done
        assert not again, f"kill {kill}: {len(again)} published runs were trained again"
        assert not RunStore(store).verify()
    assert 0 < len(contents(store)) < n, "the kills came too late or too early to mean anything"
    out, err = drive(store, n, log, **options).communicate()
    assert out.split() == [str(n)], err
    assert contents(store) == contents(tmp_path / "unbroken")
    assert not list((store / "claims").iterdir())


@POSIX
def test_real_trainings_killed_and_resumed(tmp_path):
    from mixlab.corpus import from_folder
    code = DRIVER.replace("fake_engine.Corpus()", "Corpus.open(options.pop('corpus'))").replace("import json", "from mixlab.corpus import Corpus\nimport json")
    code = code.replace("[1, 1, 1]", "[1, 1]").replace('engine="fake_engine", ', "")
    corpus = from_folder(letters(tmp_path / "text"), cache=tmp_path / "cache", progress=False)
    options = dict(corpus=str(corpus.path), device="cpu", **SMALL)
    store, seen = tmp_path / "killed", 0
    for kill in range(2):
        driver = drive(store, 8, code=code, stack=2, workers=1, **options)
        wait_for(lambda: len(list(store.glob("runs/*/*"))) > seen or driver.poll() is not None)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()
        seen = len(list(store.glob("runs/*/*")))
    assert seen
    W = np.random.default_rng(0).dirichlet([1, 1], 8)
    del options["corpus"]
    resumed = sweep(corpus, W, store=store, workers=0, progress=False, **options)
    unbroken = sweep(corpus, W, store=tmp_path / "unbroken", workers=0, stack=3, progress=False, **options)
    assert contents(store) == contents(tmp_path / "unbroken") and resumed.equals(unbroken)


SMALL = dict(steps=8, width=16, heads=2, hidden=32, depth=1, context=32)

def letters(folder, seed=0):
    "Two domains of made-up words."
    rng = np.random.default_rng(seed)
    for domain, words in dict(vowels="a e i o u".split(), numbers="1 2 3 5 8 13 21".split()).items():
        (folder / domain).mkdir(parents=True)
        for i in range(80): (folder / domain / f"{i}.txt").write_text(" ".join(rng.choice(words, 60)))
    return folder


@POSIX
def test_two_drivers_share_one_store(tmp_path):
    store, log = tmp_path / "store", tmp_path / "log"
    drivers = [drive(store, 60, log, seconds=.1, stack=3, workers=1, meet=2) for _ in range(2)]
    said = [d.communicate() for d in drivers]
    assert [out.split() for out, _ in said] == [["60"], ["60"]], said
    assert len(contents(store)) == 60 and set(trained(log).values()) == {1}
    assert RunStore(store).history().driver.nunique() == 2, "both worked"


def write_300(path, barrier):
    store = RunStore(path)
    barrier.wait()
    return sum(store.put({"run": i}, {"status": "ok", "x": [i] * 50}) for i in range(300))

def test_four_writers_publish_300_keys_once(tmp_path):
    with multiprocessing.get_context("spawn").Manager() as m, ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        barrier = m.Barrier(4)
        counts = [f.result() for f in [pool.submit(write_300, tmp_path / "store", barrier) for _ in range(4)]]
    store = RunStore(tmp_path / "store")
    assert sum(counts) == 300 == len(store) and not store.verify() and not list((store.path / "tmp").iterdir())


@POSIX
@pytest.mark.parametrize("how", ["Ctrl-C in a terminal", "SIGINT to the driver", "kill -9 of the driver", "SIGTERM to the driver"])
def test_no_worker_outlives_its_driver(tmp_path, how):
    store = tmp_path / "store"
    driver = drive(store, 400, seconds=.05, stack=2, workers=2)
    wait_for(lambda: len(list(store.glob("runs/*/*"))) > 4)
    if how == "Ctrl-C in a terminal": os.killpg(driver.pid, signal.SIGINT)
    else: driver.send_signal({"S": signal.SIGTERM, "k": signal.SIGKILL}[how[0]] if how[3] != "I" else signal.SIGINT)
    _, err = driver.communicate(timeout=30)
    wait_for(lambda: not alive(driver.pid), 10)
    assert not RunStore(store).verify()
    if "C" in how or "SIGINT" in how:
        assert "of 400 runs are in RunStore('store'" in err and "the same call goes on" in err
        assert err.count("Traceback") == 1, f"only the driver speaks:\n{err}"


# ---- damage ------------------------------------------------------------------------------------------------------------
def test_every_truncation_and_every_flipped_bit_is_refused():
    raw = pack({"identity": {"run": 1}, "status": "ok", "losses": {"a": 2.5}}, {"params/a": np.arange(6, dtype=np.float32)})
    unpack(raw)
    for n in range(len(raw)):
        with pytest.raises(Damaged): unpack(raw[:n])
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged): unpack(bytes(flipped))
    with pytest.raises(Damaged): unpack(raw + b"\0")


@pytest.mark.parametrize("damage", ["cut to nothing", "cut in the first line", "cut in the middle", "cut by a byte", "flip first", "flip middle", "flip last", "another run's file"])
def test_damage_is_found_named_set_aside_and_only_that_run_is_trained_again(tmp_path, damage, monkeypatch):
    W, log = mixtures(12), tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    first = sweep(CORPUS, W, store=tmp_path / "s", workers=0, **FAKE)
    before, store = contents(tmp_path / "s"), RunStore(tmp_path / "s")
    key = first["run", "key"][5]
    raw = store.file(key).read_bytes()
    cuts = {"cut to nothing": 0, "cut in the first line": 20, "cut in the middle": len(raw) // 2, "cut by a byte": len(raw) - 1}
    flips = {"flip first": 0, "flip middle": len(raw) // 2, "flip last": len(raw) - 1}
    if damage in cuts: bad = raw[:cuts[damage]]
    elif damage in flips: bad = raw[:flips[damage]] + bytes([raw[flips[damage]] ^ 1]) + raw[flips[damage] + 1:]
    else: bad = store.file(first["run", "key"][6]).read_bytes()
    store.file(key).write_bytes(bad)
    with pytest.raises(Damaged, match=key): store.get(key)
    log.unlink()
    with pytest.warns(UserWarning, match=f"1 of 12 runs are damaged.*{key}"): second = sweep(CORPUS, W, store=store, workers=0, **FAKE)
    assert trained(log) == {W[5, 0]: 1} and second.equals(first) and contents(tmp_path / "s") == before
    assert [f.read_bytes() for f in (store.path / "damaged").iterdir()] == [bad], "set aside, not deleted"
    assert not store.verify()


def test_a_run_that_was_mended_meanwhile_stays(tmp_path):
    store = RunStore(tmp_path)
    store.put({"run": 1}, {"status": "ok"})
    runs._set_aside(store, key_of({"run": 1})) # by a driver that had seen the damaged file, after another one had replaced it
    assert len(store) == 1 and not store.verify()


def sound_but(text, tensors=b""):
    body = text + b"\n" + tensors
    import hashlib
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body

BAD = {
    "damaged": b"damaged", "empty": b"", "not JSON": sound_but(b"{"), "a list": sound_but(b"[1]"), "not UTF-8": sound_but(b"\xff\xfe"),
    "no identity": sound_but(b'{"status":"ok"}'), "no tensors": sound_but(b'{"status":"ok"}', b"xx"), "nested": sound_but(b"[" * 10**5),
    "odd mixture": sound_but(b'{"identity":{"mixture":5},"status":"ok"}'), "a folder": None,
    "odd losses": lambda identity: {"identity": identity, "status": "ok", "losses": [1]},
    "odd pairs": lambda identity: {"identity": identity, "status": "ok", "sampled": 3},
    "no status": lambda identity: {"identity": identity}}

@pytest.mark.parametrize("bad", BAD)
def test_one_bad_record_hides_no_other_and_is_named(tmp_path, bad):
    store = RunStore(tmp_path)
    identities = [{"i": i, "mixture": [["a", 1.]]} for i in range(4)]
    for identity in identities: store.put(identity, {"status": "ok", "sampled": {"a": 1.}, "losses": {"a": 2.}})
    bad_key, good = key_of(identities[2]), sorted({*store.keys()} - {key_of(identities[2])})
    path = store.file(bad_key)
    path.unlink()
    if bad == "a folder": path.mkdir()
    else: path.write_bytes(pack(BAD[bad](identities[2])) if callable(BAD[bad]) else BAD[bad])
    if bad == "a folder": assert len(store.frame()) == 3
    else:
        with pytest.warns(UserWarning, match=f"1 runs are left out.*{bad_key}"): assert sorted(store.frame()["run", "key"]) == good
        with pytest.raises(Damaged, match=bad_key): store.frame([good[0], bad_key])
    wrong = store.verify()
    assert list(wrong) == [bad_key] and bad_key in wrong[bad_key]
    assert store.keys() == good and not store.verify() and len(list((tmp_path / "damaged").iterdir())) == 1
    assert store.put(identities[2], {"status": "ok"}), "its place is free again"

def test_strays_are_passed_over(tmp_path):
    store = RunStore(tmp_path)
    store.put({"i": 1, "mixture": []}, {"status": "ok"})
    key, = store.keys()
    file = store.file(key)
    (file.parent / f"._{file.name}").write_bytes(b"\0\5\x16\7")
    (file.parent / f"{key} copy.run").write_bytes(file.read_bytes())
    (file.parent / "notes.run").mkdir()
    (tmp_path / "runs" / ".DS_Store").write_bytes(b"x")
    other = tmp_path / "runs" / ("00" if key[:2] != "00" else "11")
    other.mkdir()
    (other / file.name).write_bytes(file.read_bytes())
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "folder").mkdir()
    (tmp_path / "tmp" / "folder").mkdir()
    assert store.keys() == [key] and len(store) == len(store.frame()) == 1 and not store.verify()
    assert f"._{key}" not in store and 5 not in store
    assert (sweep(CORPUS, mixtures(2), store=store, workers=0, **FAKE)["run", "status"] == "ok").all()

def test_a_log_with_strays(tmp_path):
    store = RunStore(tmp_path)
    log = tmp_path / "log"
    log.mkdir()
    (log / "a-1.jsonl").write_text('{"begin": 2, "driver": "d", "runs": 3}\n5\n[1]\n{"begin": "x"}\n{"end": 4}\n{"beg')
    (log / "b-2.jsonl").write_text('{"end": 9}\n{"begin": 1, "driver": "d", "runs": 1}\n')
    (log / "._a-1.jsonl").write_bytes(b"\0\xff")
    (log / "c.jsonl").mkdir()
    tasks = store.history()
    assert list(tasks.worker) == ["b-2", "a-1"] and list(tasks.begin) == [1, 2] and np.isnan(tasks.end[0]) and tasks.end[1] == 4

def test_a_read_only_store_with_a_damaged_record(tmp_path, monkeypatch):
    W = mixtures(3)
    table = sweep(CORPUS, W, store=tmp_path, workers=0, **FAKE)
    store, keys = RunStore(tmp_path), list(table["run", "key"])
    for key in keys[:2]: store.file(key).write_bytes(b"damaged")
    def rename(*_): raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(StoreError, match="cannot be moved aside.*Read-only") as e: store.verify()
    assert all(key in str(e.value) for key in keys[:2]), "every one is named"
    with pytest.raises(StoreError, match="cannot be moved aside"): sweep(CORPUS, W, store=store, workers=0, **FAKE)

@pytest.mark.parametrize("says", [None, b"", b"{", b"\xff", b'{"other": 1}'], ids=["missing", "empty", "cut", "flipped", "of something else"])
def test_format_json_can_be_rebuilt(tmp_path, says):
    table = sweep(CORPUS, mixtures(3), store=tmp_path, workers=0, **FAKE)
    file = tmp_path / "format.json"
    file.unlink()
    if says is not None: file.write_bytes(says)
    with pytest.raises(ValueError, match="RunStore.rebuild"): RunStore(tmp_path)
    assert RunStore.rebuild(tmp_path).keys() == sorted(table["run", "key"]) and json.loads(file.read_text()) == runs.FORMAT
    assert sweep(CORPUS, mixtures(3), store=tmp_path, workers=0, **FAKE).equals(table)

def test_what_cannot_be_rebuilt(tmp_path):
    with pytest.raises(ValueError, match="no sound run"): RunStore.rebuild(tmp_path)
    assert not list(tmp_path.iterdir())
    sweep(CORPUS, mixtures(1), store=tmp_path, workers=0, **FAKE)
    (tmp_path / "format.json").write_text('{"mixlab": "runs", "format": 2}')
    with pytest.raises(ValueError, match="update mixlab"): RunStore.rebuild(tmp_path)

def test_a_new_folder_may_hold_what_a_system_hides_in_it(tmp_path):
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert len(RunStore(tmp_path)) == 0


# ---- values ------------------------------------------------------------------------------------------------------------
def test_a_name_is_the_sha256_of_sorted_json():
    import hashlib
    identity = {"b": [1, np.float64(.5)], "a": {"y": np.arange(2), "x": "z"}}
    text = '{"a":{"x":"z","y":[0,1]},"b":[1,0.5]}'
    assert runs.canonical(identity) == text and key_of(identity) == hashlib.sha256(text.encode()).hexdigest()
    assert runs.canonical(identity, sort=False) == '{"b":[1,0.5],"a":{"y":[0,1],"x":"z"}}'

def test_a_record_on_disk():
    import hashlib
    raw = pack({"status": "ok"})
    assert raw == hashlib.sha256(b'{"status":"ok"}\n').hexdigest().encode() + b'\n{"status":"ok"}\n'

@POSIX
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files")
def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_answer(tmp_path, monkeypatch):
    order, fsync, link = [], os.fsync, os.link
    def watched_fsync(fd):
        order.append(("fsync", os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)
    def watched_link(a, b):
        order.append(("link", str(b)))
        link(a, b)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "link", watched_link)
    place = tmp_path / "new" / "name"
    assert runs.publish(place, b"data", tmp_path / "tmp") and place.read_bytes() == b"data"
    kinds = [(kind, Path(path).parent.name if kind == "fsync" and "tmp" in Path(path).parent.name else Path(path).name) for kind, path in order]
    assert kinds == [("fsync", "tmp"), ("fsync", tmp_path.name), ("link", "name"), ("fsync", "new")]

def test_members_of_nested_parts():
    import torch
    parts = {"a": torch.arange(6.).view(2, 3), "deep": {"b": np.arange(4).reshape(2, 2)}, "step": 7}
    found = dict(runs._member(parts, 1, "params"))
    assert {n: x.tolist() for n, x in found.items()} == {"params/a": [3, 4, 5], "params/deep/b": [2, 3], "params/step": 7}

def test_losses_of_a_diverged_run_are_nan_whatever_it_stored(tmp_path):
    store = RunStore(tmp_path)
    store.put({"mixture": [["a", .25], ["b", .75]]}, {"status": "diverged", "sampled": {"a": .5, "b": None}, "losses": {"a": 9., "b": float("nan")}})
    table = store.frame()
    assert table["loss"].isna().to_numpy().all() and list(table["mixture"].iloc[0]) == [.25, .75]
    assert table["sampled", "a"][0] == .5 and np.isnan(table["sampled", "b"][0]) and table["run", "status"][0] == "diverged"

def test_digits_of_a_curve():
    assert runs._digits(np.float32([.1, 2.5])).tolist() == [.1, 2.5], "as few digits as tell float32 numbers apart"

def test_a_mixture_that_went_in_once_has_the_same_bits_ever_after(tmp_path):
    W = np.array([[.333, .333, .333], [.1, .2, .7]])
    first = sweep(CORPUS, W, store=tmp_path, workers=0, **FAKE)
    assert np.array_equal(first["mixture"], sweep(CORPUS, first["mixture"], store=tmp_path, workers=0, **FAKE)["mixture"])
    assert len(RunStore(tmp_path)) == 2 and first["mixture", "a"][1] == .1
    identity = RunStore(tmp_path).get(first["run", "key"][1])["identity"]
    assert identity == {"configuration": {"scale": "tiny", "seed": 0, "steps": 10}, "corpus": "0" * 64, "mixture": [["a", .1], ["b", .2], ["c", .7]]}


def test_nothing_is_overwritten(tmp_path):
    store = RunStore(tmp_path)
    assert store.put({"run": 1}, {"status": "ok", "x": 1}) and not store.put({"run": 1}, {"status": "ok", "x": 2})
    assert store.get(key_of({"run": 1}))["x"] == 1


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_hard_links(tmp_path, monkeypatch, code):
    def no_link(*_): raise OSError(code, os.strerror(code))
    monkeypatch.setattr(os, "link", no_link)
    test_nothing_is_overwritten(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda self: False) # the name is taken between the first look and the last
    assert not runs.publish(tmp_path / "format.json", b"other", tmp_path / "tmp")
    assert json.loads((tmp_path / "format.json").read_text()) == runs.FORMAT


def test_a_crash_leaves_old_scraps_that_are_swept_and_young_ones_that_are_not(tmp_path):
    store = RunStore(tmp_path)
    dead, alive = f"{socket.gethostname()}-{2**22 + 1}-x", f"{socket.gethostname()}-{os.getpid()}-x"
    for name, age in {"old": 2 * 3600, "young": 60, dead: 0, alive: 0}.items():
        (tmp_path / "tmp" / name).write_bytes(b"half a record")
        os.utime(tmp_path / "tmp" / name, (time.time() - age,) * 2)
    sweep(CORPUS, mixtures(1), store=store, workers=0, **FAKE)
    assert {f.name for f in (tmp_path / "tmp").iterdir()} == {"young", alive}


# ---- no room -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path):
    "A file system of 1 MB, where this user may mount one."
    folder = tmp_path / "disk"
    folder.mkdir()
    try: mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode == 0
    except FileNotFoundError: mounted = False
    if not mounted: pytest.skip("may not mount a small disk; the file-size limit below is the same lesson")
    yield folder
    subprocess.run(["umount", folder], check=True)

def test_a_full_disk_is_said_clearly_and_old_records_stay(small_disk):
    W, options = mixtures(12), dict(store=small_disk / "store", stack=2, parameters=40_000, **FAKE)
    for workers in (0, 2):
        with pytest.raises(StoreError, match=f"cannot write .* into the store .*No space left.*untouched") as e: sweep(CORPUS, W, workers=workers, **options)
        assert e.value.errno == errno.ENOSPC
    store = RunStore(small_disk / "store")
    assert 1 < len(store) < 12 and not store.verify() and not list((store.path / "tmp").iterdir())
    assert len(store.frame()) == len(store)
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert (sweep(CORPUS, W, workers=0, **options)["run", "status"] == "ok").all()

@POSIX
def test_a_limit_on_file_size_is_said_clearly_and_old_records_stay(tmp_path):
    sweep(CORPUS, mixtures(3), store=tmp_path / "store", workers=0, **FAKE)
    before = contents(tmp_path / "store")
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n" + DRIVER
    out, err = drive(tmp_path / "store", 6, code=code, workers=0, parameters=40_000).communicate()
    assert "StoreError" in err and "File too large" in err and "the 3 runs that it holds are untouched" in err, err
    assert contents(tmp_path / "store") == before and not RunStore(tmp_path / "store").verify()


# ---- workers that die, runs that fail ----------------------------------------------------------------------------------
def shared_pool(): return ProcessPoolExecutor(2, multiprocessing.get_context("fork" if os.name != "nt" else "spawn"))

@POSIX
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("executor", [None, shared_pool], ids=["own pool", "a pool that breaks as a whole"])
def test_a_run_that_kills_its_worker_is_set_aside_and_named_and_the_rest_is_trained(tmp_path, executor, monkeypatch):
    W, log = mixtures(16), tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    with pytest.warns(UserWarning) as said:
        table = sweep(CORPUS, W, store=tmp_path / "s", executor=executor, workers=2, stack=4, die=float(W[9, 0]), retries=1, **FAKE)
    assert list(np.flatnonzero(table["run", "status"] != "ok")) == [9] and table["loss"].isna().to_numpy().sum() == 4
    assert np.allclose(table["mixture"], W), "a run that failed keeps its mixture"
    text = next(str(w.message) for w in said if "set aside" in str(w.message))
    assert "row 9" in text and table["run", "key"][9][:12] in text and str(round(W[9, 0], 4)) in text and "'seed': 0" in text
    assert trained(log)[W[9, 0]] <= 8, "bounded"
    assert not list((tmp_path / "s" / "claims").iterdir())

def test_an_exception_is_reported_after_all_others_are_trained(tmp_path):
    W = mixtures(10)
    with pytest.warns(UserWarning, match=r"row 3, run .* was set aside: LookupError: no such luck \[fake_engine.py:\d+, in misbehave\]$"):
        table = sweep(CORPUS, W, store=tmp_path, workers=0, stack=5, fail=float(W[3, 0]), **FAKE)
    assert (table["run", "status"] == ["failed" if i == 3 else "ok" for i in range(10)]).all()

@POSIX
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_broken_executor_that_cannot_be_replaced_is_said(tmp_path):
    W = mixtures(8)
    with shared_pool() as pool, pytest.raises(RuntimeError, match="give a function that makes one"):
        sweep(CORPUS, W, store=tmp_path, executor=pool, stack=2, die=float(W[0, 0]), **FAKE)

def test_a_diverged_run_is_recorded_as_diverged(tmp_path):
    W = mixtures(4)
    for _ in range(2):
        with pytest.warns(UserWarning, match="row 2, .* diverged"): table = sweep(CORPUS, W, store=tmp_path, workers=0, diverge=float(W[2, 0]), **FAKE)
    assert list(table["run", "status"]) == ["ok", "ok", "diverged", "ok"] and table["loss"].iloc[2].isna().all()
    record = RunStore(tmp_path).get(table["run", "key"][2])
    assert record["losses"]["a"] is None and record["curve"] == [5.5, None]
    with pytest.raises(ValueError, match="status 'ok', but a number in it is not finite"): RunStore(tmp_path).put({"run": 0}, {"status": "ok", "x": float("nan")})
    with pytest.raises(ValueError, match="status is 'fine'"): RunStore(tmp_path).put({"run": 0}, {"status": "fine"})


# ---- an exception is no accident, a hang is ended -----------------------------------------------------------------------
@pytest.mark.parametrize("stack, most", [(4, 2), (16, 2), (40, 3)])
def test_a_member_is_trained_twice_at_most_when_every_run_raises(tmp_path, monkeypatch, stack, most):
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    with pytest.warns(UserWarning) as said:
        table = sweep(CORPUS, mixtures(40), store=tmp_path / "s", workers=0, stack=stack, fail="all", retries=5, **FAKE)
    assert max(trained(log).values()) == most and (table["run", "status"] == "failed").all()
    said = [str(w.message) for w in said]
    assert len(said) == 1 and "row 0" in said[0] and "so were rows 1, 2, 3" in said[0], "one cause, one warning"

def test_a_stack_that_raises_is_looked_through_member_by_member(tmp_path, monkeypatch):
    W, log = mixtures(8), tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    with pytest.warns(UserWarning, match="row 5"): sweep(CORPUS, W, store=tmp_path / "s", workers=0, stack=8, fail=float(W[5, 0]), **FAKE)
    assert [len(json.loads(line)) for line in log.read_text().splitlines()] == [8] + [1] * 8

def test_on_error_raise_stops_at_the_first_and_says_what_is_kept(tmp_path):
    W = mixtures(6)
    with pytest.raises(RuntimeError, match=r"mixture.*LookupError: no such luck.*4 of 6 runs are in RunStore.*the same call goes on"):
        sweep(CORPUS, W, store=tmp_path, workers=0, stack=2, fail=float(W[2, 0]), on_error="raise", **FAKE)

@POSIX
@pytest.mark.parametrize("retries", [0, 1])
def test_a_lost_worker_is_tried_again_as_often_as_retries_says(tmp_path, monkeypatch, retries):
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table = sweep(CORPUS, mixtures(2), store=tmp_path / "s", workers=1, stack=1, retries=retries, lost=str(tmp_path / "once"), **FAKE)
    assert list(table["run", "status"]) == ["ok" if retries else "failed", "ok"]
    assert sorted(trained(log).values()) == [1, 1 + retries] and (retries or "row 0" in str(said[0].message))

@POSIX
@pytest.mark.parametrize("how", ["hang", "stop"])
def test_a_worker_that_hangs_or_is_stopped_is_ended_and_its_run_named(tmp_path, monkeypatch, how):
    W, log = mixtures(6), tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    fault = {how: float(W[3, 0])}
    with pytest.warns(UserWarning, match=r"row 3, run .* TimeoutError: it ran longer than its time limit of 3 s \(tried 2 times\)"):
        table = sweep(CORPUS, W, store=tmp_path / "s", workers=2, stack=2, retries=1, timeout=3, **fault, **FAKE)
    assert (table["run", "status"] == ["failed" if i == 3 else "ok" for i in range(6)]).all()
    assert trained(log)[W[3, 0]] == 3, "in its stack, and twice alone"
    assert not list((tmp_path / "s" / "claims").iterdir())
    wait_for(lambda: not [p for p in multiprocessing.active_children() if "pebble" in p.name], 20)

@POSIX
def test_the_time_limit_comes_from_the_measured_pace(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FLOOR", 4)
    W = mixtures(4)
    with pytest.warns(UserWarning, match=r"row 2, .* time limit of \d"): # no timeout was given
        sweep(CORPUS, W, store=tmp_path, workers=2, stack=1, retries=0, hang=float(W[2, 0]), **FAKE)
    assert len(RunStore(tmp_path)) == 3

def test_the_time_limit_in_numbers():
    limit = runs._TimeLimit("auto")
    assert limit.of(1) == float("inf"), "nothing is measured yet"
    limit.learn(40., 4)
    limit.learn(3., 2)
    assert (runs.FLOOR, runs.FACTOR) == (300, 10) and limit.of(4) == limit.of(1) == 400 and limit.of(8) == 800
    limit = runs._TimeLimit("auto")
    limit.learn(2., 1)
    assert limit.of(1) == 300
    for off in (None, float("inf")):
        limit = runs._TimeLimit(off)
        limit.learn(1., 1)
        assert limit.of(1) == float("inf")
    limit = runs._TimeLimit(7.)
    limit.learn(100., 1)
    assert limit.of(1) == limit.of(99) == 7

class NeverAgain:
    "Loses its first task after the worker has begun, as an engine with a process per call does; the future never resolves."
    def __init__(self): self.lost = 0
    def submit(self, fn, path, jobs, how, owner):
        if self.lost: return runs.SerialExecutor().submit(fn, path, jobs, how, owner)
        self.lost += 1
        (Path(path) / "claims").mkdir(exist_ok=True)
        (Path(path) / "claims" / key_of(jobs[0])).write_text(f"elsewhere 1 {owner}")
        return Future()

def test_a_future_that_never_resolves_is_given_up(tmp_path):
    table = sweep(CORPUS, mixtures(4), store=tmp_path, executor=NeverAgain(), stack=2, timeout=.3, **FAKE)
    assert (table["run", "status"] == "ok").all()

def test_a_task_that_waits_in_a_queue_has_not_begun_to_hang(tmp_path):
    class Queued(NeverAgain):
        "Like a cluster: the first task begins after a while."
        def submit(self, fn, *args):
            future = Future()
            threading.Timer(4., lambda: future.set_result(fn(*args))).start()
            return future
    table = sweep(CORPUS, mixtures(2), store=tmp_path, executor=Queued(), stack=1, timeout=2, retries=0, **FAKE)
    assert (table["run", "status"] == "ok").all()

def test_threads_that_hang_are_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_RELEASE", str(tmp_path / "go"))
    W = mixtures(3)
    with ThreadPoolExecutor(4) as pool, pytest.warns(UserWarning, match="row 1, .* time limit of 3 s"):
        table = sweep(CORPUS, W, store=tmp_path / "s", executor=pool, stack=1, timeout=3, retries=0, hang=float(W[1, 0]), **FAKE)
        (tmp_path / "go").touch() # or the pool would wait for it
    assert list(table["run", "status"]) == ["ok", "failed", "ok"]

def test_silence_without_a_limit_is_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "NOTICE", .2)
    with pytest.warns(UserWarning, match="no task has finished for .*; 0 of 1 have begun.*timeout="):
        class Slow:
            def submit(self, fn, *args):
                future = Future()
                threading.Timer(2.5, lambda: future.set_result(fn(*args))).start()
                return future
        sweep(CORPUS, mixtures(1), store=tmp_path, executor=Slow(), timeout=None, **FAKE)

def test_an_executor_that_cannot_cancel_loses_nothing(tmp_path):
    class Rude(Future):
        def cancel(self): raise NotImplementedError
    class Parsl:
        def submit(self, fn, *args):
            future = Rude()
            future.set_result(fn(*args))
            return future
    W = mixtures(4)
    with pytest.raises(RuntimeError, match="no such luck"): # with tasks still pending when it leaves
        sweep(CORPUS, W, store=tmp_path, executor=Parsl(), stack=1, fail=float(W[0, 0]), on_error="raise", **FAKE)
    assert (sweep(CORPUS, W, store=tmp_path, executor=Parsl(), stack=1, **FAKE)["run", "status"] == "ok").all()


# ---- what would fail late is found first ---------------------------------------------------------------------------------
def test_a_store_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    store, log = RunStore(tmp_path / "s"), tmp_path / "log"
    done = sweep(CORPUS, mixtures(1), store=store, workers=0, **FAKE)
    monkeypatch.setenv("FAKE_LOG", str(log))
    def touch(self): raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(StoreError, match="Read-only.*make it writable"): sweep(CORPUS, mixtures(2), store=store, workers=0, **FAKE)
    assert not log.exists()
    assert sweep(CORPUS, mixtures(1), store=store, workers=0, **FAKE).equals(done), "reading needs no writing"

@pytest.mark.parametrize("wrong, said", [
    (dict(keep="all"), "keep is 'all'"), (dict(on_error="stop"), "on_error is 'stop'"), (dict(timeout=0), "timeout is 0"),
    (dict(timeout="fast"), "timeout is 'fast'.*auto"), (dict(timeout=float("nan")), "timeout is nan"), (dict(stack=0), "stack is 0"),
    (dict(stack=2.5), "stack is 2.5"), (dict(workers=-1), "workers is -1"), (dict(workers=True), "workers is True"),
    (dict(retries=-1), "retries is -1"), (dict(seed=.5), "seed is 0.5"), (dict(executor="dask"), "executor is 'dask'"),
    (dict(progress="no"), "progress is 'no'"), (dict(engine="no.such.module"), "engine is 'no.such.module'"),
    (dict(engine="json"), "engine is .*configuration"), (dict(store=""), "store is ''"), (dict(scale=3), "scale is 3"),
    (dict(device="gpu"), "device is 'gpu'"), (dict(start=""), "start: no run ''"), (dict(corpus="text"), "corpus is 'text'")])
def test_arguments_are_checked_before_the_work(tmp_path, wrong, said):
    import torch # knows which devices there are
    options = dict(corpus=CORPUS, W=mixtures(1), store=tmp_path) | FAKE | wrong
    with pytest.raises((ValueError, KeyError), match=said): sweep(**options)
    assert not (tmp_path / "runs").exists()

def test_whole_numbers_of_numpy_are_whole_numbers(tmp_path):
    two = np.int64(2)
    table = sweep(CORPUS, mixtures(2), store=tmp_path, stack=two, workers=np.int64(0), retries=two, seed=two, **FAKE)
    assert table.equals(sweep(CORPUS, mixtures(2), store=tmp_path, stack=2, workers=0, seed=2, **FAKE))

def test_a_class_of_a_script_trains_here_or_is_named(tmp_path):
    code = DRIVER.replace("W = numpy", "class Mine(fake_engine.Corpus): pass\nfake_engine.Corpus = Mine\nW = numpy")
    out, err = drive(tmp_path / "a", 3, code=code).communicate()
    assert out.split() == ["3"] and "'Mine' is defined in a script or notebook" in err and "train in this process" in err, err
    out, err = drive(tmp_path / "b", 3, code=code, workers=2).communicate()
    assert not out and "RuntimeError" in err and "'Mine'" in err and "workers=0" in err
    out, err = drive(tmp_path / "c", 3, code=code, workers=0).communicate()
    assert out.split() == ["3"] and "Mine" not in err

def test_a_corpus_that_cannot_be_sent_is_named(tmp_path):
    class Local(fake_engine.Corpus): "A class inside a function."
    with pytest.raises(RuntimeError, match="'.*Local'.*cannot be sent.*workers=0"): sweep(Local(), mixtures(3), store=tmp_path, workers=2, **FAKE)
    assert len(sweep(Local(), mixtures(3), store=tmp_path, executor=ThreadPoolExecutor(2), **FAKE)) == 3, "threads send nothing"

@POSIX
@pytest.mark.parametrize("executor", [None, lambda: ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))], ids=["own", "foreign"])
def test_a_corpus_that_the_worker_cannot_open_is_the_error_of_its_task(tmp_path, executor):
    with pytest.warns(UserWarning, match="FileNotFoundError: no corpus.json here"):
        table = sweep(fake_engine.Absent(), mixtures(3), store=tmp_path, executor=executor, workers=1, timeout=60, **FAKE)
    assert (table["run", "status"] == "failed").all()

class OtherMachine:
    "Its workers see other folders."
    def submit(self, fn, path, *args): return runs.SerialExecutor().submit(fn, path + "-there", *args)

def test_a_worker_never_makes_a_store(tmp_path):
    with pytest.raises(StoreError, match=f"{socket.gethostname()}: no store at .*-there: this worker does not share the folder"):
        sweep(CORPUS, mixtures(4), store=tmp_path / "s", executor=OtherMachine(), **FAKE)
    assert [f.name for f in tmp_path.iterdir()] == ["s"]

@pytest.mark.parametrize("falls", [1, 2], ids=["before the work", "before the records"])
def test_a_corpus_that_is_not_sound_publishes_nothing(tmp_path, monkeypatch, falls):
    class Checked(fake_engine.Corpus):
        calls = 0
        def ensure_sound(self):
            Checked.calls += 1
            if Checked.calls >= falls: raise ValueError("0000-train.bin: checksum mismatch")
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    options = dict(store=tmp_path / "s", workers=0, stack=2, **FAKE)
    if falls == 1:
        with pytest.raises(ValueError, match="0000-train.bin"): sweep(Checked(), mixtures(2), **options)
    else:
        with pytest.raises(ValueError, match="changed while it was trained on.*0000-train.bin"): sweep(Checked(), mixtures(2), **options)
    assert log.exists() == (falls == 2) and not len(RunStore(tmp_path / "s"))

def test_a_start_that_cannot_be_gone_on_from_is_said_first(tmp_path):
    W = mixtures(1)
    key = sweep(CORPUS, W, store=tmp_path, workers=0, keep="none", **FAKE)["run", "key"][0]
    with pytest.raises(ValueError, match="start: run .* was kept without its parameters"): sweep(CORPUS, W, store=tmp_path, start=key, workers=0, **FAKE)
    with pytest.raises(KeyError, match="start: no run 'abc'"): sweep(CORPUS, W, store=tmp_path, start="abc", workers=0, **FAKE)

def test_a_start_of_another_shape_is_said_first(tmp_path):
    from mixlab.corpus import from_folder
    corpus = from_folder(letters(tmp_path / "text"), cache=tmp_path / "cache", progress=False)
    options = dict(store=tmp_path / "s", workers=0, device="cpu", progress=False)
    key = sweep(corpus, [[.5, .5]], **options, **SMALL | dict(steps=1))["run", "key"][0]
    with pytest.raises(ValueError, match="start: run .* has the shape"): sweep(corpus, [[.5, .5]], start=key, **options, **SMALL | dict(steps=1, hidden=16))


# ---- options reach the engine, and the engine's numbers reach the table --------------------------------------------------
def losses_of(first_share, rest, seed=0, extra=0., level=2):
    "By hand: the fake engine's loss on a domain is the level of its split and a share of its second parameter."
    w = np.array([first_share, *rest])
    second = np.float32(np.sin(1 * (1 + w @ [1, 2, 3]) + seed)) + np.float32(extra)
    return level + float(second) * np.linspace(.1, 1, 4)

def test_numbers_of_the_table(tmp_path):
    W = [[.2, .3, .5], [.6, .3, .1]]
    table = sweep(CORPUS, W, store=tmp_path, workers=0, **FAKE)
    assert np.allclose(table["loss"], [losses_of(.2, (.3, .5)), losses_of(.6, (.3, .1))], atol=1e-6), "on the valid split"
    assert list(table["loss"].columns) == ["a", "b", "c", "d"] and np.array_equal(table["mixture"], W) and np.array_equal(table["sampled"], W)

def test_seed_device_and_start_reach_the_engine(tmp_path):
    W, options = [[.2, .3, .5]], dict(store=tmp_path, workers=0, **FAKE)
    key = sweep(CORPUS, W, **options)["run", "key"][0]
    assert np.allclose(sweep(CORPUS, W, seed=3, **options)["loss"], losses_of(.2, (.3, .5), seed=3), atol=1e-6)
    begun = sweep(CORPUS, W, seed=4, start=key, **options)
    second = np.sin(1 + np.array(W[0]) @ [1, 2, 3])
    assert np.allclose(begun["loss"], losses_of(.2, (.3, .5), seed=4, extra=second), atol=1e-6) and begun["run", "key"][0] != key
    assert RunStore(tmp_path).get(begun["run", "key"][0])["identity"]["start"] == key
    assert np.allclose(sweep(CORPUS, W, seed=5, device="meta", **options)["loss"], losses_of(.2, (.3, .5), seed=5, extra=1), atol=1e-6)

def test_stack_says_how_many_train_at_once(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    for stack in (1, 3, 100):
        sweep(CORPUS, mixtures(7), store=tmp_path / str(stack), workers=0, stack=stack, **FAKE)
        sizes = [len(json.loads(line)) for line in log.read_text().splitlines()]
        assert sizes == {1: [1] * 7, 3: [3, 3, 1], 100: [7]}[stack]
        log.unlink()

def test_default_sizes():
    size = lambda device: 5
    assert runs._defaults(None, None, None, 100, "cpu", lambda d: 99) == (runs._cores(), min(16, -(-100 // runs._cores())))
    assert runs._defaults(None, 4, None, 100, "cpu", size) == (4, 5)
    assert runs._defaults(None, 4, None, 8, "cpu", size) == (4, 2), "each worker has something to do"
    assert runs._defaults("given", None, None, 8, "cpu", size) == (runs._cores(), 5)
    assert runs._defaults(None, None, None, 1000, "cuda", lambda d: 700) == (1, 512)
    assert runs._defaults(None, 2, 3, 8, "cpu", size) == (2, 3)

def test_progress_is_shown_or_not(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    for progress in (True, False):
        sweep(CORPUS, mixtures(3), store=tmp_path / str(progress), workers=0, stack=3, engine="fake_engine", progress=progress)
        err = capsys.readouterr().err
        assert ("3/3" in err and "in stacks of 3" in err) == progress

def test_default_store_is_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path))
    sweep(CORPUS, mixtures(2), workers=0, **FAKE)
    assert len(RunStore(tmp_path / "runs")) == 2

def test_a_path_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunStore("~/store").path == tmp_path / "store" and (tmp_path / "store" / "format.json").exists()


# ---- switches of the process ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", ["abAB", "abBA", "aAbB", "abcBAC", "abcCAB"])
def test_one_thread_inside_and_as_before_outside_however_threads_overlap(order):
    "Small letters enter, capitals leave; each letter is a thread of its own, `a` that of the test."
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        blocks, counts = {}, {}
        workers = {name: ThreadPoolExecutor(1) for name in "bc"}
        def act(step):
            name = step.lower()
            if step == name:
                blocks[name] = runs._one_thread()
                blocks[name].__enter__()
            else: blocks[name].__exit__(None, None, None)
            return torch.get_num_threads()
        for i, step in enumerate(order):
            name = step.lower()
            counts[i] = act(step) if name == "a" else workers[name].submit(act, step).result()
            inside = [n for n in order[:i + 1].lower() if n in order[:i + 1] and n.upper() not in order[:i + 1]]
            for n in set(inside):
                seen = torch.get_num_threads() if n == "a" else workers[n].submit(torch.get_num_threads).result()
                assert seen == 1, f"{order[:i + 1]}: {n} still trains, on {seen} threads"
            if step != name: assert counts[i] == 3, f"{order[:i + 1]}: {name} is left with {counts[i]} threads"
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as new: assert new.submit(torch.get_num_threads).result() == 3, "a new thread"
    finally:
        torch.set_num_threads(before)
        for w in workers.values(): w.shutdown()

def test_starting_workers_leaves_environment_and_main_as_they_were(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    environment, main = dict(os.environ), dict(vars(sys.modules["__main__"]))
    with runs._clean_start():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert sys.modules["__main__"].__spec__ is None and not hasattr(sys.modules["__main__"], "__file__")
    with pytest.raises(KeyError):
        with runs._clean_start(): raise KeyError
    assert dict(os.environ) == environment and vars(sys.modules["__main__"]) == main
    if hasattr(signal, "pthread_sigmask"): assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])

@POSIX
def test_workers_compute_on_one_thread(tmp_path):
    with runs.SpawnPool(1) as pool:
        said = [pool.submit(os.getenv, name).result() for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    assert said == ["1"] * 3


# ---- claims ------------------------------------------------------------------------------------------------------------
def foreign_claim(store, key, ahead, text="far 4711 someone 2026-01-01T00:00:00+0000"):
    path = RunStore(store).path / "claims" / key
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() + ahead,) * 2)
    return path

@pytest.mark.parametrize("ahead", [10**6, 0, -10**6], ids=["a clock ahead", "the same clock", "a clock behind"])
def test_a_claim_that_nobody_touches_is_taken_over_and_its_owner_named(tmp_path, monkeypatch, ahead):
    monkeypatch.setattr(runs, "LEASE", .5)
    W = mixtures(3)
    keys = [key_of(job) for job in runs._identities(CORPUS, W, "tiny", 0, "fake_engine", {})]
    foreign_claim(tmp_path, keys[1], ahead)
    with pytest.warns(UserWarning, match=r"waiting for 1 runs .*: far, process 4711, since 2026-01-01T00:00:00\+0000"):
        table = sweep(CORPUS, W, store=tmp_path, workers=0, stack=1, **FAKE)
    assert (table["run", "status"] == "ok").all() and not list((tmp_path / "claims").iterdir())

@pytest.mark.parametrize("ahead", [10**6, -10**6], ids=["a clock ahead", "a clock behind"])
def test_a_claim_that_is_touched_is_left_alone(tmp_path, monkeypatch, ahead):
    monkeypatch.setattr(runs, "LEASE", .4)
    store = RunStore(tmp_path)
    for i in range(12):
        foreign_claim(store.path, "k", ahead + i)
        with claimed(store, ["k"]) as mine: assert mine == []
        time.sleep(.1)
    time.sleep(.5)
    with claimed(store, ["k"]) as mine: assert mine == ["k"]

def test_waiting_is_said_again(tmp_path, monkeypatch):
    store, clock = RunStore(tmp_path), [100.]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    wait = runs._Elsewhere(store)
    said = []
    for seconds in (0, 30, 61, 100, 182, 400):
        clock[0] = 100 + seconds
        foreign_claim(tmp_path, "k", seconds) # touched again: alive
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wait([("k",)])
        said.append(len(caught))
    assert said == [1, 0, 1, 0, 1, 1]

def test_a_claim_says_who_and_since_when(tmp_path):
    with claimed(RunStore(tmp_path), ["k"], owner="me"):
        host, pid, owner, since = (tmp_path / "claims" / "k").read_text().split()
    assert (host, pid, owner) == (socket.gethostname(), str(os.getpid()), "me") and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4}", since)

@POSIX
@pytest.mark.parametrize("host, pid, age, free", [
    (None, None, 0, False), # a living process of this machine
    (None, 2**22 + 1, 0, True), # a dead one: no such number
    ("elsewhere", 2**22 + 1, 0, False), # another machine, renewed just now
    ("elsewhere", 1, 2 * runs.LEASE, False), # another machine, whose clock may be behind: it must be watched first
    ("elsewhere", 1, -2 * runs.LEASE, False), # or ahead
    ("", "", 0, False)]) # being written
def test_claims(tmp_path, host, pid, age, free):
    store, text = RunStore(tmp_path), f"{socket.gethostname() if host is None else host} {os.getpid() if pid is None else pid} x"
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "k").write_text(text)
    os.utime(tmp_path / "claims" / "k", (time.time() - age,) * 2)
    with claimed(store, ["k", "l"]) as mine: assert mine == (["k", "l"] if free else ["l"])
    assert (tmp_path / "claims" / "k").exists() != free and not (tmp_path / "claims" / "l").exists()


def test_claims_are_renewed_while_they_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "LEASE", .4)
    with claimed(RunStore(tmp_path), ["k"]):
        time.sleep(.8)
        with claimed(RunStore(tmp_path), ["k"]) as other: assert other == []


# ---- executors ---------------------------------------------------------------------------------------------------------
class Bare:
    "An engine that is no Executor, with futures that can do no more than a sweep needs, finished in any order."
    def submit(self, fn, *args):
        self = Bare()
        self.value = fn(*args)
        return self
    def result(self): return self.value
    def add_done_callback(self, f): threading.Timer(random.uniform(0, .1), f, [self]).start()
    def cancel(self): return False

@pytest.mark.parametrize("make", [Bare, lambda: ThreadPoolExecutor(3), runs.SerialExecutor, None], ids=["bare", "threads", "here", "own"])
def test_rows_come_in_the_order_of_W_whatever_the_engine(tmp_path, make):
    W = mixtures(11)
    W = np.concatenate([W, W[[4, 4, 0]]])
    table = sweep(CORPUS, W, store=tmp_path, executor=make and make(), stack=2, workers=2, **FAKE)
    assert np.array_equal(table["mixture"], W) and len(RunStore(tmp_path)) == 11
    assert np.array_equal(table["loss"].iloc[[11, 12, 13]], table["loss"].iloc[[4, 4, 0]])
    assert list(table.columns.get_level_values(0).unique()) == ["run", "mixture", "sampled", "loss"] and table["loss"].shape == (14, 4)
    assert sweep(CORPUS, table["mixture"], store=tmp_path, **FAKE).equals(table), "what comes out can go in"
    alone = sweep(CORPUS, W, store=tmp_path / "other", workers=0, stack=14, **FAKE)
    assert alone.equals(table) and contents(tmp_path) == contents(tmp_path / "other")

@POSIX
@pytest.mark.parametrize("way", ["a script without a guard", "standard input"])
def test_a_plain_script_may_sweep(tmp_path, way):
    env = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    script = tmp_path / "script.py"
    script.write_text("print('once')\n" + DRIVER)
    command = [sys.executable, script if way[0] == "a" else "-", tmp_path / "s", "8", '{"workers": 2}']
    done = subprocess.run(command, input=None if way[0] == "a" else script.read_text(), env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["once", "8"] and len(RunStore(tmp_path / "s")) == 8, done.stderr


# ---- at the door -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("W, said", [
    ([[.5, .5, 0], [.5, .6, -.1]], r"W\[1\]: domain 'c' has share -0.1"),
    ([[.5, .5, 0], [.5, float("nan"), .5]], r"W\[1\]: domain 'b' has share nan"),
    ([[.5, .5, .5]], r"W\[0\] sums to 1.5, expected 1"),
    ([[.5, .5, .011]], r"W\[0\] sums to 1.011, expected 1"),
    ([[.5, .5]], "W.*expected .*a, b, c"),
    ([[1, 0, 0], [.5, .5]], r"W"),
    ([["x", 0, 0]], r"W"),
    ([], "W has shape"),
    ([{"a": .5, "z": .5}], r"W\[0\] has no domain 'b' and has an unknown domain 'z'"),
    (np.full((2, 2, 3), 1 / 3), r"W has shape \(2, 2, 3\)")])
def test_bad_mixtures_are_named(tmp_path, W, said):
    with pytest.raises(ValueError, match=said): sweep(CORPUS, W, store=tmp_path, **FAKE)
    assert not list(tmp_path.iterdir()), "nothing was begun"

def test_what_counts_as_a_mixture(tmp_path):
    from mixlab.mixture import Mixture, uniform
    forms = [uniform(["a", "b", "c"])], uniform(["c", "a", "b"]), [1/3] * 3, [[1/3] * 3], {"b": 1/3, "c": 1/3, "a": 1/3}, [Mixture({"b": 1/3, "c": 1/3, "a": 1/3})]
    keys = {k for W in forms for k in sweep(CORPUS, W, store=tmp_path, workers=0, **FAKE)["run", "key"]}
    assert len(keys) == 1 == len(RunStore(tmp_path))

def test_everything_that_matters_is_in_the_key(tmp_path):
    other = fake_engine.Corpus()
    other.hash = "1" * 64
    W, settings = [[.2, .3, .5]], [dict(), dict(seed=1), dict(scale="small"), dict(parameters=65)]
    keys = [sweep(CORPUS, W, store=tmp_path, workers=0, **s, **FAKE)["run", "key"][0] for s in settings]
    keys += [sweep(other, W, store=tmp_path, workers=0, **FAKE)["run", "key"][0], sweep(CORPUS, [[.3, .2, .5]], store=tmp_path, workers=0, **FAKE)["run", "key"][0]]
    assert len(set(keys)) == 6
    assert sweep(CORPUS, W, store=tmp_path, stack=7, keep="params", retries=0, **FAKE)["run", "key"][0] == keys[0]

def test_what_is_kept(tmp_path):
    for keep, names in {"none": [], "params": ["params/a", "params/b"], "optimizer": ["optimizer/a/exp_avg", "optimizer/step", "params/a", "params/b"]}.items():
        store = RunStore(tmp_path / keep)
        key, = sweep(CORPUS, [[.2, .3, .5]], store=store, workers=0, keep=keep, **FAKE)["run", "key"]
        assert sorted(store.get(key)["tensors"]) == names
    with pytest.raises(ValueError, match="without what keep='optimizer' asks for"): sweep(CORPUS, [[.2, .3, .5]], store=tmp_path / "params", keep="optimizer", **FAKE)
    with pytest.raises(ValueError, match="keep is 'all'"): sweep(CORPUS, [[.2, .3, .5]], store=tmp_path / "params", keep="all", **FAKE)

def test_a_folder_that_is_no_store(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="not a store"): RunStore(tmp_path)
    with pytest.raises(StoreError, match="Not a directory"): RunStore(tmp_path / "thesis.tex")
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]

def test_a_store_of_the_future(tmp_path):
    RunStore(tmp_path)
    (tmp_path / "format.json").write_text(json.dumps({**runs.FORMAT, "format": 2}))
    with pytest.raises(ValueError, match="format.*2.*reads.*1.*update mixlab"): RunStore(tmp_path)


# ---- old stores --------------------------------------------------------------------------------------------------------
OLD = HERE / "fixtures" / "store-1" # written by release 0.1.0 with `write_fixture`; stays as it is for ever

def write_fixture(path, folder):
    "Two real runs with parameters, and one that diverged."
    from mixlab.corpus import from_folder
    corpus = from_folder(letters(folder / "text"), cache=folder / "cache", progress=False)
    table = sweep(corpus, [[.5, .5], [.125, .875]], store=path, workers=0, device="cpu", progress=False, **SMALL)
    record = {"status": "diverged", "sampled": {"a": .5, "b": .5}, "losses": {"a": float("nan"), "b": 9.}, "curve": [5.5, float("inf")]}
    RunStore(path).put({"configuration": {}, "corpus": "none", "mixture": [["a", .5], ["b", .5]]}, record)
    for scrap in ("tmp", "claims", "log"): shutil.rmtree(Path(path) / scrap, ignore_errors=True)
    return table

def test_an_old_store_opens(tmp_path):
    before = {f: f.read_bytes() for f in OLD.rglob("*") if f.is_file()}
    store = RunStore(OLD)
    assert len(store) == 3 and not store.verify()
    assert sorted(store.frame()["run", "status"]) == ["diverged", "ok", "ok"]
    real = [r for r in map(store.get, store.keys()) if r["status"] == "ok"]
    assert all(r["tensors"]["params/embed"].shape == (256, 16) and len(r["curve"]) == 8 for r in real)
    assert {f: f.read_bytes() for f in OLD.rglob("*") if f.is_file()} == before, "reading writes nothing"

def test_the_engine_still_gives_the_numbers_of_an_old_store(tmp_path):
    "If this fails because training or evaluation was changed, raise `ENGINE`: then old runs keep their keys and new ones get others."
    old, new = RunStore(OLD), write_fixture(tmp_path / "new", tmp_path)
    kept = [k for k in new["run", "key"] if k in old]
    ours, theirs = (r["identity"] for r in (RunStore(tmp_path / "new").get(new["run", "key"][0]), next(r for r in map(old.get, old.keys()) if r["status"] == "ok")))
    if ours["configuration"].get("engine") == theirs["configuration"].get("engine"):
        assert ours["corpus"] == theirs["corpus"], "the hash of a corpus has changed: every stored run is stranded"
        assert len(kept) == 2, f"the configuration has changed: {ours['configuration'].items() ^ theirs['configuration'].items()}"
        assert np.allclose(new["loss"], old.frame(kept)["loss"], atol=1e-3), "same configuration, other numbers: raise ENGINE"
