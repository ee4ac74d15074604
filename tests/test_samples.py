"The fixed corpus: the same hash everywhere, and a clear word where it cannot be had."
import ast
import hashlib
import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from mixlab import samples
from mixlab.corpus import CorpusError
from mixlab.samples import domain_texts, fixed_corpus, sample_files, sample_packages, split_python

ROOT = Path(__file__).resolve().parents[1]
FACTS = json.loads((ROOT / "mixlab/data/samples.json").read_text())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return fixed_corpus(cache=tmp_path_factory.mktemp("fixed"), progress=False)


# ---- the same everywhere ---------------------------------------------------------------------------------------------
def test_the_hash_is_the_committed_one(corpus):
    assert corpus.hash == FACTS["corpus"], "the text is right (each domain's is checked): run `python tools/samples.py`"


def test_seven_domains_to_mix_and_five_held_out(corpus):
    assert list(corpus.names) == ["docs", "i18n", "js", "legal", "math", "python", "stubs"]
    assert list(corpus.heldout) == ["html", "json", "pytest", "sci", "ts"]
    size = corpus.manifest()["bytes"]
    assert size.min() > 100_000 and size.drop("legal").min() > 500_000
    valid = corpus.table()["tokens"].xs("valid", level="split")
    assert (valid > 8_000).all(), "losses need a validation part"


def test_training_and_validation_share_no_document(corpus):
    for name in corpus.targets:
        train, valid, test = (set(corpus.documents(name, split)) for split in ("train", "valid", "test"))
        assert train and valid and test
        assert not train & valid and not train & test and not valid & test
    mixed = {doc for name in corpus.names for doc in corpus.documents(name, "train")}
    assert not any(doc in mixed for name in corpus.heldout for doc in corpus.documents(name, "valid"))


def some(corpus, name):
    return [*list(corpus.documents(name))[:60], *list(corpus.documents(name, "valid"))[:20]]


def test_options_reach_the_corpus(corpus, monkeypatch, tmp_path):
    from mixlab.corpus import train_bpe

    small = [(name, doc) for name in corpus.targets for doc in some(corpus, name)]
    monkeypatch.setattr(samples, "_documents", lambda: iter(small))
    tokenizer = train_bpe((doc for _, doc in small[::9]), vocab=300)
    plain, other = (fixed_corpus(cache=tmp_path, progress=False, tokenizer=t) for t in ("bytes", tokenizer))
    assert plain.tokenizer.vocab == 256 and other.tokenizer.vocab >= 300 and plain.hash != other.hash
    assert {plain.path.parent, other.path.parent} == {tmp_path / "corpora"}


def test_a_second_call_reads_no_package(corpus, monkeypatch):
    monkeypatch.setattr(samples, "_installed", lambda package: None)
    assert fixed_corpus(cache=corpus.path.parents[1], progress=False) == corpus


# ---- the manifest ----------------------------------------------------------------------------------------------------
def test_every_package_is_pinned_once_and_the_same_on_every_system():
    for name, facts in FACTS["packages"].items():
        lines = re.findall(rf"^{name}==.*$", (ROOT / "constraints.txt").read_text(), re.M)
        assert lines == [f"{name}=={facts['version']}"]
        assert "none-any" in metadata.distribution(name).read_text("WHEEL")


def test_the_manifest_names_files_of_the_wheel_alone():
    rows = sample_files()
    assert len({(row["domain"], row["package"], row["file"]) for row in rows}) == len(rows)
    assert {row["package"] for row in rows} == set(FACTS["packages"])
    assert not [row["file"] for row in rows if row["file"].startswith((".", "/")) or row["file"].endswith((".so", ".pyc"))]
    assert (ROOT / "mixlab/data/samples.csv").stat().st_size < 500_000


def test_packages_are_listed_with_what_is_installed(monkeypatch):
    table = sample_packages()
    assert (table["version"] == table["installed"]).all() and table["licence"].str.len().min() > 2
    assert table.loc["babel", "files"] == len({row["file"] for row in sample_files() if row["package"] == "babel"})
    assert "i18n" in table.loc["babel", "domains"]
    monkeypatch.setattr(samples, "_installed", lambda package: None)
    assert set(sample_packages()["installed"]) == {"missing"}


# ---- what is missing or different is named, with the line that mends it ------------------------------------------------
@pytest.fixture
def moved(monkeypatch, tmp_path):
    "`moved(package, file, data)`: as if a file of an installed package held `data`, or were missing."
    located = samples._located

    def move(package, file, data):
        def instead(name):
            files = located(name)
            if name == package:
                files[file] = tmp_path / "other"
                if data is None:
                    del files[file]
                else:
                    (tmp_path / "other").write_bytes(data)
            return files

        monkeypatch.setattr(samples, "_located", instead)

    return move


def refusal(tmp_path):
    with pytest.raises(CorpusError) as error:
        fixed_corpus(cache=tmp_path / "cache", progress=False)
    assert not [p for p in (tmp_path / "cache/corpora").iterdir() if p.is_dir()], "nothing is left behind"
    return str(error.value)


def test_a_tampered_file_is_named(moved, tmp_path):
    row = next(row for row in sample_files() if row["package"] == "traitlets")
    path = metadata.distribution("traitlets").locate_file(row["file"])
    moved("traitlets", row["file"], Path(path).read_bytes() + b"\n")
    said = refusal(tmp_path)
    assert f"traitlets: its file {row['file']} differs" in said
    version = FACTS["packages"]["traitlets"]["version"]
    assert f"pip install --force-reinstall --no-deps 'traitlets=={version}'" in said


def test_a_missing_file_is_named(moved, tmp_path):
    row = next(row for row in sample_files() if row["package"] == "babel")
    moved("babel", row["file"], None)
    assert f"babel: its file {row['file']} is missing" in refusal(tmp_path)


@pytest.mark.parametrize("found, words", [(None, "is not installed"), ("0.1", "is version 0.1")])
def test_another_version_or_none_is_named(found, words, monkeypatch, tmp_path):
    installed = samples._installed
    monkeypatch.setattr(samples, "_installed", lambda package: found if package == "jupyterlab" else installed(package))
    version, said = FACTS["packages"]["jupyterlab"]["version"], refusal(tmp_path)
    assert f"jupyterlab {words}, expected {version}" in said
    assert f"pip install 'jupyterlab=={version}'" in said


def test_several_faults_are_mended_by_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "_installed", lambda package: None)
    said = refusal(tmp_path)
    assert all(f"'{name}=={facts['version']}'" in said for name, facts in FACTS["packages"].items())


def test_text_that_comes_out_differently_is_refused(monkeypatch, tmp_path):
    import mistune

    monkeypatch.setattr(mistune, "html", lambda text: f"<p>{text}</p>")
    said = refusal(tmp_path)
    assert "domain 'html'" in said and "pip install --force-reinstall --no-deps 'babel==" in said and "'mistune==" in said


@pytest.mark.parametrize("name, value", [("progress", "yes"), ("progress", None), ("cache", 3), ("cache", ""), ("tokenizer", 5)])
def test_arguments_are_checked_first(name, value):
    with pytest.raises(ValueError, match=name):
        fixed_corpus(**{name: value})


# ---- the readers -----------------------------------------------------------------------------------------------------
def test_split_python_by_hand():
    source = '''#!/usr/bin/env python
"""Of a module."""
class A:
    r"""A raw one: \\d.

        Indented.
    """
    x = """no docstring"""  # kept
    # dropped

    def f(self, a={"k": "v"}, b="#"):
        'One line.'
        return "\\"" + """
# not a comment
"""
'''
    code, docstrings = split_python(source)
    assert docstrings == ["Of a module.", "A raw one: \\d.\n\nIndented.", "One line."]
    assert "dropped" not in code and "env python" not in code and "Of a module" not in code
    assert 'x = """no docstring"""  # kept' in code and "# not a comment" in code
    assert isinstance(ast.parse(code), ast.Module)


def test_split_python_leaves_code_that_means_the_same():
    paths = [f.locate() for f in metadata.files("traitlets") if f.suffix == ".py"][:40]
    for path in paths:
        tree, ours = ast.parse(path.read_text()), ast.parse(split_python(path.read_text())[0])
        for t in (tree, ours):
            for node in ast.walk(t):
                if isinstance(getattr(node, "body", None), list):
                    node.body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
        assert ast.dump(tree) == ast.dump(ours), path.name


def test_domain_texts_of_each_kind():
    paragraph = b"word " * 30
    assert domain_texts("legal", "LICENSE", paragraph + b"\r\n\r\nshort") == ["word " * 29 + "word\n"]
    licences = json.dumps({"packages": [{"extractedText": paragraph.decode()}, {"extractedText": None}]}).encode()
    assert domain_texts("legal", "licenses.json", licences) == ["word " * 29 + "word\n"]
    assert domain_texts("html", "x/METADATA", b"Name: x\n\n# Title") == ["<h1>Title</h1>\n"]
    assert domain_texts("html", "x.html", b"<p>") == ["<p>"]
    long = ("*so* " * 40).strip()
    assert domain_texts("html", "x.py", f'"""{long}"""'.encode())[0].startswith("<p><em>so</em> ")
    assert domain_texts("docs", "x.py", f'"""{long}"""\ndef f():\n    "short"'.encode()) == [long]
    assert domain_texts("python", "x.py", b'"""doc"""\nx = 1') == ["...\nx = 1\n"]
    sources = json.dumps({"sourcesContent": ["a", "b", "c", "d", "e", "f", None]}).encode()
    assert domain_texts("ts", "x.map", sources) == ["a", "d"]
    assert domain_texts("js", "x.js", b"x" * 200_000) == ["x" * 131072]
    assert any("Deutsch" in text for text in domain_texts("i18n", "locale-data/de.dat", b"\x80"))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("web", "x", b""), "domain is 'web'"),
        (("js", None, b""), "file is of type NoneType"),
        (("js", "x.js", "text"), "data is of type str, expected the bytes"),
        (("js", "x.js", b"\xff"), "'x.js' cannot be read as text of domain 'js'"),
        (("ts", "x.map", b"{"), "'x.map' cannot be read"),
        (("legal", "x.json", b"[]"), "'x.json' cannot be read"),
        (("i18n", "nowhere.dat", b""), "'nowhere.dat' cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        domain_texts(*arguments)
    with pytest.raises(TypeError, match="source is of type bytes"):
        split_python(b"x = 1")


def test_texts_are_what_the_manifest_counts():
    for name in ("legal", "json"):
        rows = [row for row in sample_files() if row["domain"] == name]
        data = [Path(metadata.distribution(row["package"]).locate_file(row["file"])).read_bytes() for row in rows]
        texts = [text for row, d in zip(rows, data) for text in domain_texts(name, row["file"], d)]
        digest = hashlib.sha256(b"".join(hashlib.sha256(text.encode()).digest() for text in texts)).hexdigest()
        assert digest == FACTS["domains"][name]["sha256"] and len(texts) == FACTS["domains"][name]["documents"]
