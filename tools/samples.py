#!/usr/bin/env python3
"""Write the manifest of `fixed_corpus` anew: mixlab/data/samples.csv (files) and samples.json (packages, domains).

    python tools/samples.py          write both files
    python tools/samples.py --check  only say whether they are what this environment gives

Run it where the packages of constraints.txt are installed. A package may be named here when constraints.txt pins it to
one version for every Python and its wheel is the same on every system; both are checked.
"""
import argparse
import csv
import hashlib
import io
import json
import re
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "mixlab/data"

LIBRARIES = ("prompt-toolkit", "traitlets", "jinja2", "joblib", "fsspec", "pyparsing", "jedi", "parso", "pygments")
SCIENCE = ("sympy", "mpmath")
EVERY = (*LIBRARIES, *SCIENCE, "narwhals", "babel", "mistune", "jupyterlab", "jupyter-builder", "jupyter-server",
         "jupyter-lsp", "jsonschema", "nbformat", "widgetsnbextension")
LICENCES = (*EVERY, "fqdn", "typing-extensions")
TESTS = r"(^|/)(tests?|testing)/|(^|/)(test_|conftest)"
GENERATED = r"(^|/)_?version\.py$|/third_party/|pygments/(lexers|styles)/|parser(tables|_antlr|/autolev/_antlr)|/_antlr/"

# domain: (bytes at most, held out?, what it is, packages, files wanted, files left out)
RULES = {
    "docs": (2_500_000, False, "docstrings", (*LIBRARIES, *SCIENCE), r"\.py$", f"{TESTS}|{GENERATED}"),
    "i18n": (1_500_000, False, "names in the world's languages", ("babel",), r"locale-data/[a-z]{2,3}\.dat$", r"/(root|en)\.dat"),
    "js": (3_500_000, False, "bundled JavaScript", ("jupyterlab", "jupyter-builder"), r"^jupyter.*\.js$", r"/(test|galata)"),
    "legal": (1_000_000, False, "licence texts by paragraph", LICENCES,
              r"licenses\.json$|licen[cs]es?(\.\w+)?$|(LICENSE|COPYING|NOTICE|AUTHORS)[^/]*$", r"^\.\./|\.pyi?$"),
    "math": (700_000, False, "generated arithmetic", (), "", ""),
    "python": (3_000_000, False, "Python source, no docstrings or comment lines", LIBRARIES, r"\.py$", f"{TESTS}|{GENERATED}"),
    "stubs": (3_000_000, False, "type stubs of Python packages", ("jedi",), r"\.pyi$", r"$^"),
    "html": (600_000, True, "reference and read-me texts as HTML", EVERY, r"narwhals/.*\.py$|dist-info/METADATA$|\.html$", r"^\.\./|narwhals/_"),
    "json": (600_000, True, "JSON files", EVERY, r"\.json$", r"^\.\./|dist-info/|third-party-licenses"),
    "pytest": (800_000, True, "tests in Python", SCIENCE, TESTS + r".*\.py$", r"$^"),
    "sci": (800_000, True, "scientific Python", SCIENCE, r"\.py$", f"{TESTS}|{GENERATED}"),
    "ts": (800_000, True, "readable modules out of a source map", ("widgetsnbextension",), r"^widgets.*\.js\.map$", r"$^"),
}


def pins() -> dict[str, list[str]]:
    "Lines of constraints.txt by package."
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if match := re.match(r"([\w.-]+)==(\S+)(.*)", line):
            found.setdefault(match[1].lower(), []).append(match[2] + match[3])
    return found


def check_package(name: str, pinned: dict) -> str:
    "The version of a package, after a look at its pins and at its wheel."
    version, found = metadata.version(name), pinned.get(name, [])
    if found != [version]:
        sys.exit(f"{name}: installed {version}, but constraints.txt has {found or 'no pin'}; one version for all Pythons is needed")
    if "none-any" not in (metadata.distribution(name).read_text("WHEEL") or ""):
        sys.exit(f"{name}: its wheel differs from system to system")
    return version


def licence(name: str) -> str:
    "The licence as the package's metadata say it, shortly."
    said = metadata.metadata(name)
    classified = [c.rsplit(" :: ", 1)[-1] for c in said.get_all("Classifier") or () if c.startswith("License")]
    full = (said.get("License") or "").splitlines()[:1]
    return next(text for text in (said.get("License-Expression"), *classified, *full) if text and len(text) < 90)


def candidates(packages, wanted, unwanted):
    "(package, name, bytes) in the order of a hash of the name."
    found = []
    for package in packages:
        for file in metadata.files(package):
            name = str(file).replace("\\", "/")
            if re.search(wanted, name) and not re.search(unwanted, name) and "__pycache__" not in name:
                found.append((hashlib.sha256(name.encode()).digest(), package, name, file.locate()))
    for _, package, name, path in sorted(found):
        data = path.read_bytes()
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            if not name.endswith(".dat"):
                continue
        yield package, name, data


def choose(domain, limit, packages, wanted, unwanted):
    "(rows of the manifest, texts) of one domain, up to its limit."
    from mixlab.corpus import arithmetic
    from mixlab.samples import domain_texts

    rows, texts, size, seen = [], [], 0, set()
    if domain == "math":
        while size < limit:
            texts.append(arithmetic(len(texts)))
            size += len(texts[-1].encode())
    for package, name, data in candidates(packages, wanted, unwanted):
        new = [text for text in domain_texts(domain, name, data) if text.strip()]
        fresh = {hashlib.sha256(text.encode()).digest(): len(text.encode()) for text in new}
        gain = sum(fresh[key] for key in fresh.keys() - seen)
        if not gain:
            continue
        if size >= limit:
            break
        seen |= fresh.keys()
        size += gain
        rows.append({"domain": domain, "package": package, "file": name, "sha256": hashlib.sha256(data).hexdigest()})
        texts += domain_texts(domain, name, data)
    return rows, texts


def manifest() -> tuple[str, dict]:
    "The text of samples.csv, and the content of samples.json without the corpus hash."
    pinned, rows, domains = pins(), [], {}
    for domain, (limit, heldout, what, packages, wanted, unwanted) in RULES.items():
        chosen, texts = choose(domain, limit, packages, wanted, unwanted)
        digest = hashlib.sha256(b"".join(hashlib.sha256(text.encode()).digest() for text in texts))
        size = sum(len(text.encode()) for text in texts)
        domains[domain] = dict(what=what, heldout=heldout, documents=len(texts), bytes=size, sha256=digest.hexdigest())
        print(f"{domain:8} {len(chosen):5} files {size:>10,} bytes", file=sys.stderr)
        rows += chosen
    used = sorted({row["package"] for row in rows} | {"mistune"} | {"babel"})
    packages = {name: dict(version=check_package(name, pinned), licence=licence(name)) for name in used}
    out = io.StringIO()
    writer = csv.DictWriter(out, ["domain", "package", "file", "sha256"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue(), dict(packages=packages, domains=domains)


def corpus_hash() -> str:
    "The hash of the corpus that the manifest on the disk gives."
    from mixlab import samples

    samples._facts.cache_clear()
    with tempfile.TemporaryDirectory() as cache:
        return samples.fixed_corpus(cache=cache, progress=False).hash


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    table, facts = manifest()
    old = json.loads((DATA / "samples.json").read_text()) if (DATA / "samples.json").exists() else {}
    if check:
        same = (DATA / "samples.csv").read_text() == table and {**old, "corpus": None} == {**facts, "corpus": None}
        sys.exit(0 if same and old["corpus"] == corpus_hash() else "the manifest is not what this environment gives")
    (DATA / "samples.csv").write_text(table)
    (DATA / "samples.json").write_text(json.dumps(facts, indent=1) + "\n")
    facts["corpus"] = corpus_hash()
    (DATA / "samples.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"corpus {facts['corpus']}")


if __name__ == "__main__":
    main()
