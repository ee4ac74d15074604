"Page 14 under attack: kill -9, Ctrl-C, two drivers, four writers, torn and flipped files, a full disk, workers that die."
import errno, json, multiprocessing, os, random, shutil, signal, socket, subprocess, sys, threading, time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
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
    for name, age in dict(old=2 * 3600, young=60).items():
        (tmp_path / "tmp" / name).write_bytes(b"half a record")
        os.utime(tmp_path / "tmp" / name, (time.time() - age,) * 2)
    sweep(CORPUS, mixtures(1), store=store, workers=0, **FAKE)
    assert [f.name for f in (tmp_path / "tmp").iterdir()] == ["young"]


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
    with pytest.warns(UserWarning, match=r"row 3, run .* was set aside: LookupError: no such luck \(tried 3 times\)"):
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


# ---- claims ------------------------------------------------------------------------------------------------------------
@POSIX
@pytest.mark.parametrize("host, pid, age, free", [
    (None, None, 0, False), # a living process of this machine
    (None, 2**22 + 1, 0, True), # a dead one: no such number
    ("elsewhere", 2**22 + 1, 0, False), # another machine, renewed just now
    ("elsewhere", 1, 2 * runs.LEASE, True), # another machine, not renewed
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
    ([[.5, .5, 0], [.5, .6, -.1]], r"row 1: domain 'c' has weight -0.1"),
    ([[.5, .5, 0], [.5, float("nan"), .5]], r"row 1: domain 'b' has weight nan"),
    ([[.5, .5, .5]], r"row 0 sums to 1.5, expected 1"),
    ([[.5, .5]], r"row 0 has shape \(2,\), expected \(3,\): a, b, c"),
    ([[1, 0, 0], [.5, .5]], r"row 1 has shape"),
    ([["x", 0, 0]], r"row 0: .* is not a row of numbers"),
    ([], "W has no rows"),
    ([{"a": .5, "z": .5}], r"row 0: domains \['b', 'c', 'z'\]"),
    (np.full((2, 2, 3), 1 / 3), r"row 0 has shape \(2, 3\)")])
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
