"""The pages' widgets, moved by keyboard and mouse in a real browser.

JupyterLab serves a copy of the pages on loopback, with folders of its own; every request that leaves the machine is
aborted, so what passes here works offline. Without a browser this is skipped; `.ci/run` installs one.
"""
import ast, os, shutil, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))
import pages
from test_pages import ABSENT, EXPORTS, defined, parsed

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(not CHROME, reason="no Chromium here: apt-get install chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
SECONDS = 540
SLIDER = ".jp-Notebook .widget-slider"

def has_widget(cell): return any(pages.VIEW in o.get("data", {}) for o in cell.get("outputs", []))

WIDGETS = [p for p in pages.pages() if any(map(has_widget, pages.read(p).cells))]

def for_widgets(nb):
    "`nb` with only its title, its exports, its widgets and the cells that define what these use; test_pages runs whole pages."
    keep, used = [], set()
    for cell in pages.code_cells(nb)[::-1]:
        if pages.is_slow(cell): continue
        names = [n for n in ast.walk(parsed(cell.source)) if isinstance(n, ast.Name)]
        if EXPORTS & set(pages.directives(cell)): keep.insert(0, cell)
        elif has_widget(cell) or used & {*defined(cell.source)}:
            keep.insert(0, cell)
            used |= {n.id for n in names if isinstance(n.ctx, ast.Load)}
    for cell in keep: cell.outputs, cell.execution_count = [], None
    nb.cells = nb.cells[:1] + keep
    nb.metadata.pop("widgets", None)
    return nb


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "Address of a JupyterLab over copies of the pages that have widgets."
    home = tmp_path_factory.mktemp("lab")
    folder, port = home / "pages", free_port()
    for p in WIDGETS:
        (folder / p.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        (folder / p.relative_to(ROOT)).write_text(pages.dumps(for_widgets(pages.clean(pages.read(p)))))
    for file, text in {"notebook-extension/tracker": '{"windowingMode": "none"}',  # every cell is in the page
                       "apputils-extension/notification": '{"fetchNews": "false"}'}.items():
        setting = home / f"settings/@jupyterlab/{file}.jupyterlab-settings"
        setting.parent.mkdir(parents=True)
        setting.write_text(text)
    own = {k: str(home / v) for k, v in dict(JUPYTER_CONFIG_DIR="config", JUPYTER_DATA_DIR="data", JUPYTER_RUNTIME_DIR="runtime",
           JUPYTERLAB_SETTINGS_DIR="settings", JUPYTERLAB_WORKSPACES_DIR="workspaces", IPYTHONDIR="ipython").items()}
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
               "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly", "--allow-root"]
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | own
    with open(home / "log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/api"), 90, lambda: (home / "log").read_text()[-3000:])
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def free_port():
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); return s.getsockname()[1]

def answers(url):
    try: return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError: return False

def wait_until(true, seconds, why=lambda: ""):
    end = time.monotonic() + seconds
    while not (x := true()):
        assert time.monotonic() < end, f"nothing after {seconds} s\n{why()}"
        time.sleep(0.1)
    return x


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        chrome = p.chromium.launch(executable_path=CHROME, args=FLAGS)
        yield chrome
        chrome.close()


@pytest.fixture
def tab(browser):
    context = browser.new_context(viewport=dict(width=1400, height=1000))
    yield context.new_page()
    context.close()


def run_all(tab, lab, page):
    "Open `page` and run every cell; requests that leave the machine are aborted."
    tab.route(lambda url: not url.startswith((lab, "data:", "blob:")), lambda route: route.abort())
    tab.goto(f"{lab}/lab/workspaces/{Path(page).stem}/tree/{page}", timeout=90_000)  # a workspace holds its open tabs
    session = "window.jupyterapp?.shell?.currentWidget?.sessionContext"
    idle = f"() => {session}?.session?.kernel?.status === 'idle'"
    tab.wait_for_function(idle, timeout=120_000)
    done = tab.evaluate("""([ms]) => Promise.race([window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => 'ran'),
                           new Promise(r => setTimeout(() => r('not done in time'), ms))])""", [SECONDS * 1000])
    failed = tab.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr'], .jp-RenderedText[data-mime-type='application/vnd.jupyter.error']")
    errors = [t for t in failed.all_inner_texts() if "Traceback" in t or "Error" in t]
    if any(ABSENT in t for t in errors): pytest.skip("RegMix's published runs are neither here nor to be downloaded")
    assert done == "ran" and not errors, (done, errors)
    tab.wait_for_selector(SLIDER, timeout=30_000)


def seen(cell):
    "What a reader sees of a widget: the numbers beside the sliders, and what they draw."
    return cell.locator(".widget-readout").all_inner_texts(), cell.evaluate(
        "c => [...c.querySelectorAll('img')].map(i => i.src).join() + [...c.querySelectorAll('.jp-RenderedHTML, svg, .jp-RenderedText')].map(e => e.innerHTML).join()")

def settled(cell):
    "What is seen once it has stood still for a second and a half."
    last, since, end = seen(cell), time.monotonic(), time.monotonic() + 60
    while time.monotonic() < min(end, since + 1.5):
        if (now := seen(cell)) != last: last, since = now, time.monotonic()
        time.sleep(0.1)
    return last

def moves(cell, act):
    "Do `act`; then both a label and the picture differ from before. A busy machine may lose a key: three tries."
    before = settled(cell)
    for _ in range(3):
        act()
        after = settled(cell)
        if all(a != b for a, b in zip(after, before)): return
    pytest.fail(f"label or picture stayed: {before[0]} -> {after[0]}")


@needs_browser
@pytest.mark.timeout(900)  # a whole page in a browser, and every widget moved
@pytest.mark.parametrize("path", WIDGETS, ids=lambda p: p.stem)
def test_widgets_move(tab, lab, path):
    run_all(tab, lab, pages.name(path))
    cells = tab.locator(".jp-CodeCell").filter(has=tab.locator(".widget-slider"))
    for n in range(cells.count()):
        cell = cells.nth(n)
        handle = cell.locator(".noUi-handle").first
        handle.scroll_into_view_if_needed()
        moves(cell, lambda: (handle.focus(), handle.press("ArrowRight")))
        moves(cell, lambda: drag(tab, handle, cell.locator(".noUi-base").first))
        if path.stem == "04_mixture": wait_until(lambda: on_simplex(cell), 30, lambda: f"off the simplex: {seen(cell)[0]}")
    if out := os.environ.get("MIXLAB_SCREENSHOTS"): tab.screenshot(path=f"{out}/{path.stem}.png")

def on_simplex(cell):
    shares = [float(t) for t in seen(cell)[0]]
    return abs(sum(shares) - 1) < 0.001 * len(shares)

def drag(tab, handle, track):
    "By mouse to a quarter of the track, or to three quarters when the handle is there already."
    a, b = handle.bounding_box(), track.bounding_box()
    x, y = a["x"] + a["width"] / 2, a["y"] + a["height"] / 2
    there = next(b["x"] + b["width"] * f for f in (0.25, 0.75) if abs(b["x"] + b["width"] * f - x) > b["width"] / 8)
    tab.mouse.move(x, y); tab.mouse.down(); tab.mouse.move((x + there) / 2, y); tab.mouse.move(there, y, steps=4); tab.mouse.up()


def test_some_page_has_a_widget():
    assert WIDGETS, "no page has a widget: the test above runs nothing"
