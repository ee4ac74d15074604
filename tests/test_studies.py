"Slow studies: one command fills one store, and goes on where it was stopped."
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))
import pages

TRAIN = """#| slow
import os
from pathlib import Path
folder = Path(os.environ["MIXLAB_CACHE"])
(folder / "trained").write_text((folder / "trained").read_text() + "x" if (folder / "trained").exists() else "x")
"""


@pytest.fixture
def environment():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def make_page(folder, *sources):
    cells = [pages.nbformat.v4.new_markdown_cell("# A page\n> A question?")]
    cells += map(pages.nbformat.v4.new_code_cell, sources)
    path = folder / "90_page.ipynb"
    path.write_text(pages.dumps(pages.nbformat.v4.new_notebook(cells=cells)))
    return path


def test_a_page_that_is_done_is_left_out(tmp_path, environment):
    path, store = make_page(tmp_path, TRAIN), tmp_path / "store"
    assert pages.studies([path], store) == [] and pages.studies([path], store) == []
    assert (store / "trained").read_text() == "x"
    assert list(json.loads((store / "studies.json").read_text())) == ["90_page.ipynb"]
    make_page(tmp_path, TRAIN, "2")
    assert pages.studies([path], store) == []
    assert (store / "trained").read_text() == "xx", "other code, so the page runs again"


def test_a_page_that_stops_keeps_its_store_and_is_tried_again(tmp_path, environment):
    store = tmp_path / "store"
    broken = make_page(tmp_path, TRAIN, "1 / 0")
    before = broken.read_text()
    assert "ZeroDivisionError" in pages.studies([broken], store)[0]
    assert broken.read_text() == before and (store / "trained").read_text() == "x"
    assert not (store / "studies.json").exists()
    assert len(pages.studies([broken], store)) == 1 and (store / "trained").read_text() == "xx"


def test_every_page_with_slow_cells_is_a_study():
    assert {p.name for p in pages.with_slow_cells()} >= {"21_regmix.ipynb", "30_average.ipynb", "52_online.ipynb"}
    assert not {p.name for p in pages.with_slow_cells()} & {"index.ipynb", "03_samples.ipynb"}
