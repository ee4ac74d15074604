#!/usr/bin/env python3
"""What a merge of checkpoints costs: a plain copy of the same bytes, mixlab, load-all-and-mean, tensor by tensor, mergekit.

    python benchmarks/merge_benchmark.py              K = 2, 8, 16 checkpoints of 128 MB (bfloat16) and 256 MB (float32), three rounds: about 10 minutes, 5 GB of disk
    python benchmarks/merge_benchmark.py --quick      K = 2, 8 of 100 MB, three rounds: about 3 minutes, 1 GB

Every job is a process of its own with one thread. Its imports are timed apart; then CPU seconds (user + system) are counted from `go` to the end, and
anonymous memory is read from outside every few milliseconds. The jobs take turns within a round; the table shows medians over rounds.
mergekit comes from the ordinary pip, into an environment that is removed at the end (or kept and used again: --venv FOLDER). Linux only.
"""
import argparse, json, math, os, shutil, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MERGEKIT = "0.1.5"
# ---- the jobs: (imports, work); `pool` is a list of folders, `out` does not exist yet -------------------------------------
JOBS = {
    "copy": ("", """
buffer = bytearray(2**20)
os.mkdir(out)
with open(out + "/model.safetensors", "wb", buffering=0) as to:
    for i, p in enumerate(pool):
        f, at = os.open(p + "/model.safetensors", os.O_RDONLY), 0
        while n := os.preadv(f, [buffer], at):
            if i == 0: to.write(memoryview(buffer)[:n])
            at += n
        os.close(f)"""),
    "mixlab": ("import torch; from tqdm.auto import tqdm; from mixlab.average import merge_files; torch.set_num_threads(1)",
               "merge_files(pool, [1 / len(pool)] * len(pool), out, progress=False)"),
    "load all, mean": ("import torch; from safetensors.torch import load_file, save_file; torch.set_num_threads(1)", """
states = [load_file(p + "/model.safetensors") for p in pool]
os.mkdir(out)
save_file({t: torch.stack([s[t].float() for s in states]).mean(0).to(x.dtype) for t, x in states[0].items()}, out + "/model.safetensors")"""),
    "tensor by tensor": ("import torch; from safetensors import safe_open; from safetensors.torch import save_file; torch.set_num_threads(1)", """
files, merged = [safe_open(p + "/model.safetensors", "pt") for p in pool], {}
for t in files[0].keys():
    total = torch.zeros(files[0].get_slice(t).get_shape())
    for f in files:
        x = f.get_tensor(t)
        total.add_(x.float(), alpha=1 / len(pool))
    merged[t] = total.to(x.dtype)
os.mkdir(out)
save_file(merged, out + "/model.safetensors")"""),
    "mergekit": ("import torch; from mergekit.config import MergeConfiguration; from mergekit.merge import run_merge; from mergekit.options import MergeOptions; torch.set_num_threads(1)", """
models = [{"model": p, "parameters": {"weight": 1.0}} for p in pool]
config = MergeConfiguration.model_validate({"merge_method": "linear", "dtype": dtype, "models": models})
run_merge(config, out, MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True))"""),
}
CHILD = """
import json, os, resource, sys
pool, out, dtype = json.loads(sys.argv[1])
cpu = lambda: sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
{imports}
print(cpu(), flush=True)
sys.stdin.readline()
start = cpu()
{work}
print(cpu() - start, flush=True)
sys.stdin.readline()
"""


def shapes(mb):
    "Tensors of a small Llama whose float32 copy has about `mb` megabytes; and its config."
    width, hidden, vocab = 512, 1376, 8000
    layer = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (width, width), "self_attn.v_proj": (width, width), "self_attn.o_proj": (width, width),
             "mlp.gate_proj": (hidden, width), "mlp.up_proj": (hidden, width), "mlp.down_proj": (width, hidden), "input_layernorm": (width,), "post_attention_layernorm": (width,)}
    layers = round((mb * 2**20 / 4 - 2 * vocab * width) / sum(map(math.prod, layer.values())))
    named = {f"model.layers.{i}.{t}.weight": s for i in range(layers) for t, s in layer.items()}
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=width, intermediate_size=hidden, num_attention_heads=8, num_key_value_heads=8, num_hidden_layers=layers,
                  vocab_size=vocab, max_position_embeddings=512, rms_norm_eps=1e-5, hidden_act="silu", tie_word_embeddings=False)
    return {"model.embed_tokens.weight": (vocab, width), "lm_head.weight": (vocab, width), "model.norm.weight": (width,), **named}, config

def make_pool(room, K, dtype, mb):
    "K folders of numbers that look random: shifted copies of the same noise, which is fast and makes no difference to anybody."
    import torch
    from safetensors.torch import save_file
    tensors, config = shapes(mb)
    noise = torch.randn(2**23, generator=torch.Generator().manual_seed(0)).to(dtype)
    for i in range(K):
        folder = room / f"unit-{i}"
        folder.mkdir()
        save_file({t: noise[97 * i + j:][:math.prod(s)].reshape(s).clone() for j, (t, s) in enumerate(tensors.items())}, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": str(dtype)[6:]}))
    return [str(room / f"unit-{i}") for i in range(K)]

def anonymous(pid):
    "MB of anonymous memory of a process."
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"): return int(line.split()[1]) / 1024
    return 0.

def run(job, python, pool, out, dtype):
    "One job in a fresh process: CPU seconds of the imports and of the work, peak anonymous MB above the interpreter with its imports."
    imports, work = JOBS[job]
    env = os.environ | dict(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONPATH=str(ROOT) if job == "mixlab" else "", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")
    log = open(out + ".log", "w+")
    p = subprocess.Popen([python, "-c", CHILD.format(imports=imports, work=work), json.dumps([pool, out, dtype])], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        imported, base = p.stdout.readline(), 0.
        if imported: base = peak = anonymous(p.pid)
        if imported: print("go", file=p.stdin, flush=True)
        os.set_blocking(p.stdout.fileno(), False)
        said = ""
        while imported and not said and p.poll() is None:
            peak = max(peak, anonymous(p.pid))
            time.sleep(.01)
            said = p.stdout.readline()
        if not said: raise RuntimeError(f"{job} failed:\n" + Path(log.name).read_text()[-2000:])
        return float(imported), float(said), peak - base
    finally:
        p.stdin.close(); p.wait(); p.stdout.close(); log.close()
        shutil.rmtree(out, ignore_errors=True)
        Path(log.name).unlink()

def mergekit_python(venv):
    "The interpreter of an environment with mergekit, made by pip if need be; None and a message if that fails."
    python = venv / "bin/python"
    test = [str(python), "-c", "import mergekit.merge"]
    if python.exists() and not subprocess.run(test, capture_output=True).returncode: return str(python)
    import torch
    print(f"installing mergekit {MERGEKIT} into {venv.name} ...", flush=True)
    for command in ([sys.executable, "-m", "venv", str(venv)], [str(python), "-m", "pip", "install", "-q", f"torch=={torch.__version__.split('+')[0]}", f"mergekit=={MERGEKIT}"], test):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"mergekit {MERGEKIT} cannot be had here, its rows are left out. {' '.join(command[1:4])} said:\n{(done.stderr or done.stdout)[-800:]}")
            return None
    return str(python)

def available_mb():
    return next(int(l.split()[1]) for l in Path("/proc/meminfo").read_text().splitlines() if l.startswith("MemAvailable")) / 1024

def measure(room, K, dtype, mb, rounds, kit):
    "{job: [(import s, work s, peak MB), ...]}, the jobs taking turns."
    size = mb / (1 if str(dtype) == "torch.float32" else 2)
    pool = make_pool(room, K, dtype, mb)
    jobs = [j for j in JOBS if (kit or j != "mergekit") and (j != "load all, mean" or K * mb * 2.2 < available_mb() / 3)]
    found = {j: [] for j in jobs}
    for p in pool: # into the page cache
        with open(p + "/model.safetensors", "rb", buffering=0) as f:
            while f.read(2**24): pass
    for r in range(rounds):
        for job in jobs[r % len(jobs):] + jobs[:r % len(jobs)]: found[job].append(run(job, kit if job == "mergekit" else sys.executable, pool, str(room / "out"), str(dtype)[6:]))
    for p in pool: shutil.rmtree(p)
    return found, size

def table(found, K, dtype, size):
    "Lines of text: medians, ratios round by round."
    ratio = lambda job, base: statistics.median(a[1] / b[1] for a, b in zip(found[job], found[base]))
    lines = []
    for job in JOBS:
        if job not in found:
            lines.append(f"{K:3} {dtype:9} {size:5.0f}  {job:17} not run")
            continue
        imports, cpu, peak = (statistics.median(r[i] for r in found[job]) for i in range(3))
        spread = sorted(r[1] for r in found[job])
        lines.append(f"{K:3} {dtype:9} {size:5.0f}  {job:17} {cpu:7.2f}  {spread[0]:6.2f} - {spread[-1]:6.2f} {ratio(job, 'copy'):8.2f} {ratio(job, 'mixlab'):9.2f} {max(r[2] for r in found[job]):9.0f} {imports:9.1f}")
    return lines, {"copy": ratio("mixlab", "copy"), "mergekit": ratio("mergekit", "mixlab") if "mergekit" in found else None, "memory": max(r[2] for r in found["mixlab"])}

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="K = 2, 8 of 100 MB")
    parser.add_argument("--mb", type=int, default=256, help="size of a float32 checkpoint; bfloat16 has half of it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--venv", type=Path, help="keep mergekit's environment here")
    parser.add_argument("--room", type=Path, help="folder for the checkpoints (default: the system's for temporary files)")
    parser.add_argument("--without-mergekit", action="store_true")
    given = parser.parse_args()
    if not os.path.exists("/proc/self/status"): sys.exit("the benchmark reads memory from Linux's /proc")
    import torch
    plan = [(K, dtype, mb) for dtype, mb in ((torch.bfloat16, 200 if given.quick else given.mb), (torch.float32, 100 if given.quick else given.mb)) for K in ((2, 8) if given.quick else (2, 8, 16))]
    with tempfile.TemporaryDirectory(prefix="mixlab-merge-", dir=given.room) as room:
        room = Path(room)
        most = max((K + 1) * mb / (1 if dtype == torch.float32 else 2) for K, dtype, mb in plan) + (0 if given.without_mergekit or given.venv else 1700)
        if (free := shutil.disk_usage(room).free / 2**20) < 1.1 * most: sys.exit(f"needs {most:,.0f} MB of disk, there are {free:,.0f}")
        kit = None if given.without_mergekit else mergekit_python(given.venv or room / "venv")
        print(f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f}), one thread each, {given.rounds} interleaved rounds, page cache warm\n")
        print("  K dtype        MB  job                CPU s    from -  to      x copy  x mixlab   anon MB  import s")
        targets = []
        for K, dtype, mb in plan:
            found, size = measure(room, K, dtype, mb, given.rounds, kit)
            lines, ratios = table(found, K, str(dtype)[6:], size)
            print("\n".join(lines) + "\n", flush=True)
            targets.append((K, str(dtype)[6:], ratios))
    print("Targets: CPU of a copy times at most 1.5 (float32), 3 (bfloat16); at K = 8 mergekit at least 3 times ours; anonymous memory under 32 MB")
    for K, dtype, r in targets:
        ok = r["copy"] <= (1.5 if dtype == "float32" else 3) and r["memory"] < 32 and (K != 8 or r["mergekit"] is None or r["mergekit"] >= 3)
        print(f"  K = {K:2} {dtype:9} {r['copy']:.2f} x copy, mergekit {'not run' if r['mergekit'] is None else format(r['mergekit'], '.1f') + ' x ours'}, {r['memory']:.0f} MB: {'met' if ok else 'MISSED'}")


if __name__ == "__main__": main()
