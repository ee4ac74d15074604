"""The drawings of the book, as SVG: one idea in space each, readable in greyscale.

    python tools/drawings.py            writes nbs/images/*.svg

Boxes differ by shade and by label, never by hue alone.
"""
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "nbs" / "images"
INK, DARK, MIDDLE, LIGHT, PAPER = "#222222", "#4c72b0", "#a9bcd9", "#e6ecf5", "#ffffff"


class Drawing:
    "Shapes on a sheet, in user units of one pixel."

    def __init__(self, width, height, title, description):
        self.width, self.height, self.title, self.description = width, height, title, description
        self.parts = []

    def box(self, x, y, w, h, text="", fill=LIGHT, size=14, dashed=False, color=INK):
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="4" fill="{fill}" stroke="{INK}" stroke-width="1.2"{dash}/>'
        )
        self.text(x + w / 2, y + h / 2, text, size, color=color)

    def text(self, x, y, text, size=14, anchor="middle", bold=False, color=INK, italic=False):
        lines = text.split("\n") if text else []
        style = (' font-weight="bold"' if bold else "") + (' font-style="italic"' if italic else "")
        for i, line in enumerate(lines):
            at = y + (i - (len(lines) - 1) / 2) * size * 1.25 + size * 0.35
            self.parts.append(
                f'<text x="{x}" y="{at:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}"{style}>{escape(line)}</text>'
            )

    def arrow(self, x1, y1, x2, y2, text="", both=False, dashed=False, above=True):
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        start = ' marker-start="url(#back)"' if both else ""
        self.parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" stroke-width="1.4" marker-end="url(#tip)"{start}{dash}/>'
        )
        if text:
            self.text((x1 + x2) / 2, (y1 + y2) / 2 + (-11 if above else 12), text, 12)

    def save(self, name):
        tip = '<path d="M0,0 L9,4 L0,8 z" fill="#222222"/>'
        back = '<path d="M9,0 L0,4 L9,8 z" fill="#222222"/>'
        marker = '<marker id="{0}" markerWidth="9" markerHeight="8" refX="{1}" refY="4" orient="auto" markerUnits="userSpaceOnUse">{2}</marker>'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="DejaVu Sans, Verdana, sans-serif" role="img">\n'
            f"<title>{escape(self.title)}</title>\n<desc>{escape(self.description)}</desc>\n"
            f"<defs>{marker.format('tip', 8, tip)}{marker.format('back', 1, back)}</defs>\n"
            f'<rect width="{self.width}" height="{self.height}" fill="{PAPER}"/>\n'
        )
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.svg").write_text(head + "\n".join(self.parts) + "\n</svg>\n")


def pipeline():
    "From text to a mixture in a trainer."
    d = Drawing(
        860, 250, "From text to a mixture",
        "Text in domains becomes a corpus; mixtures of it train a stack of small models; their losses are regressed on the "
        "shares; the best mixture leaves for a trainer. Averages and twins are two other ways from the corpus to a mixture.",
    )
    steps = [("text in\ndomains", PAPER), ("corpus\ntokens, hash", LIGHT), ("N mixtures\n(N, K)", LIGHT), ("a stack of\nN proxies", MIDDLE), ("losses\n(N, targets)", LIGHT), ("mixture\n± interval", DARK)]
    for i, (label, fill) in enumerate(steps):
        x = 20 + i * 140
        d.box(x, 30, 108, 62, label, fill, 13, color=PAPER if fill == DARK else INK)
        if i:
            d.arrow(x - 32, 61, x - 3, 61)
    for x, label in ((144, "tokenize"), (284, "draw"), (424, "train"), (564, "score"), (704, "regress")):
        d.text(x, 18, label, 12, italic=True)
    d.box(160, 165, 248, 46, "averages of models trained on the parts", PAPER, 12, dashed=True)
    d.box(430, 165, 270, 46, "proxy and reference that move the mixture", PAPER, 12, dashed=True)
    d.arrow(214, 95, 250, 162, dashed=True)
    d.arrow(240, 95, 470, 162, dashed=True)
    d.arrow(410, 178, 735, 96, dashed=True)
    d.arrow(703, 188, 772, 96, dashed=True)
    d.text(430, 234, "solid: regression over many runs; dashed: the two other families of methods", 12)
    d.save("pipeline")


def stack():
    "N models of one shape are one dict of tensors."
    d = Drawing(
        900, 290, "The stack", "N models of one shape are one dict of tensors with a leading axis of length N; each method acts along that axis."
    )
    for i in range(4):
        x, y = 60 + 26 * (3 - i), 36 + 20 * (3 - i)
        d.box(x, y, 200, 120, "", (LIGHT, LIGHT, LIGHT, MIDDLE)[i])
    d.text(160, 96, "embed  (V, D)\n0.in  (D, 3D+M)\n0.out  (D+M, D)\nhead  (D, V)", 13)
    d.arrow(64, 180, 150, 248, both=True)
    d.text(70, 226, "N members", 13, bold=True)
    d.text(205, 262, "one dict, each tensor (N, ...)", 13)
    rows = [
        ("regression", "train N mixtures at once, read an (N, targets) table"),
        ("averaging", "merges = A @ stack,  A (M, N)"),
        ("twins", "a stack of two: proxy and reference"),
        ("sharpness", "N step sizes along one direction"),
        ("repeats", "N seeds"),
    ]
    d.text(400, 30, "what a method does along the axis", 13, "start", bold=True)
    for i, (method, what) in enumerate(rows):
        y = 62 + 44 * i
        d.box(400, y - 15, 96, 30, method, MIDDLE if i % 2 else LIGHT, 12)
        d.text(506, y, what, 12, "start")
    d.save("stack")


def batches():
    "Draws, windows, batch."
    d = Drawing(
        800, 300, "From a mixture to a batch",
        "A mixture decides the domain of each row of a batch; the number of earlier draws of that domain decides which window "
        "of its text is next in a shuffled order. Nothing but seed, step and mixture enters.",
    )
    d.text(90, 24, "mixture", 14, bold=True)
    shares = [("web .5", 0.5, DARK), ("code .3", 0.3, MIDDLE), ("maths .2", 0.2, LIGHT)]
    y = 44
    for label, share, fill in shares:
        d.box(50, y, 80, 200 * share, label, fill, 12, color=PAPER if fill == DARK else INK)
        y += 200 * share
    d.text(270, 24, "draws of a step", 14, bold=True)
    order = [("web", DARK), ("web", DARK), ("code", MIDDLE), ("maths", LIGHT)]
    for i, (label, fill) in enumerate(order):
        d.box(220, 52 + 48 * i, 100, 34, label, fill, 12, color=PAPER if fill == DARK else INK)
        d.arrow(133, 69 + 48 * i, 216, 69 + 48 * i)
    d.text(490, 24, "windows of a domain, shuffled", 14, bold=True)
    numbers = [(1, 4), (1, 5), (0, 2), (2, 1)]
    for i, ((label, fill), (_, window)) in enumerate(zip(order, numbers)):
        for k in range(6):
            chosen = k == window
            d.box(400 + 30 * k, 56 + 48 * i, 28, 26, str(k) if not chosen else "●", fill if chosen else PAPER, 11, color=PAPER if chosen and fill == DARK else INK)
        d.arrow(322, 69 + 48 * i, 396, 69 + 48 * i)
        d.arrow(584, 69 + 48 * i, 634, 69 + 48 * i)
    d.text(700, 24, "batch (B, T+1)", 14, bold=True)
    for i, (label, fill) in enumerate(order):
        d.box(638, 56 + 48 * i, 124, 26, "", fill)
        for k in range(1, 8):
            d.parts.append(f'<line x1="{638 + 15.5 * k}" y1="{56 + 48 * i}" x2="{638 + 15.5 * k}" y2="{82 + 48 * i}" stroke="{INK}" stroke-width=".6"/>')
    d.text(400, 272, "a pure function of (seed, step, mixture): a run that stops and goes on reads what it would have read", 12, italic=True)
    d.save("batches")


def store():
    "Runs, claims, and who publishes."
    d = Drawing(
        830, 300, "The store",
        "Two drivers hand tasks to workers. A worker claims the runs it is about to train, trains them, and publishes each "
        "record under the hash of its configuration, at once and for ever. A damaged record is set aside and trained again.",
    )
    d.box(30, 50, 110, 46, "driver A", LIGHT)
    d.box(30, 190, 110, 46, "driver B", LIGHT)
    for i, y in enumerate((30, 90, 150, 210)):
        d.box(250, y, 110, 44, f"worker {i + 1}", MIDDLE)
    d.arrow(143, 66, 246, 52, "task")
    d.arrow(143, 80, 246, 110)
    d.arrow(143, 206, 246, 176)
    d.arrow(143, 220, 246, 232, "task", above=False)
    d.box(470, 20, 340, 250, "", PAPER)
    d.text(640, 40, "store: a folder", 14, bold=True)
    for i, (name, what, fill) in enumerate(
        [("claims/", "who trains which run now", LIGHT), ("runs/3f/3f…c1.run", "checksum, record, tensors", MIDDLE), ("log/", "what each worker began", LIGHT), ("damaged/", "set aside, never read", PAPER)]
    ):
        d.box(490, 62 + 50 * i, 130, 36, name, fill, 11, dashed=fill == PAPER)
        d.text(630, 80 + 50 * i, what, 11, "start")
    d.arrow(363, 52, 486, 76, "claim")
    d.arrow(363, 112, 486, 128, "publish")
    d.arrow(363, 172, 486, 136)
    d.arrow(363, 228, 486, 86, dashed=True)
    d.text(400, 288, "a key is the hash of (configuration, corpus content, code version): nothing is trained twice, nothing is overwritten", 12, italic=True)
    d.save("store")


def averages():
    "SEQ, IND, MERGED."
    d = Drawing(
        820, 300, "SEQ, IND, MERGED and the ensemble",
        "From one seed model: SEQ trains on the union of two partitions; IND is one of the models trained on a single "
        "partition; MERGED is the average of their parameters; the ensemble is the average of their predictions.",
    )
    d.box(20, 120, 110, 54, "seed model", LIGHT)
    for y, label in ((40, "model A"), (200, "model B")):
        d.box(270, y, 110, 54, label, MIDDLE)
    d.arrow(133, 136, 266, 70)
    d.arrow(133, 160, 266, 226)
    d.text(175, 78, "train on part A", 12)
    d.text(175, 220, "train on part B", 12)
    d.box(270, 120, 110, 54, "SEQ", DARK, color=PAPER)
    d.arrow(133, 147, 266, 147, "train on A and B")
    d.box(530, 40, 150, 54, "MERGED\nA and B averaged", PAPER, 12, dashed=True)
    d.box(530, 200, 150, 54, "ensemble\nlosses of both", PAPER, 12, dashed=True)
    d.arrow(383, 60, 526, 62, "(a + b) / 2")
    d.arrow(383, 216, 526, 80)
    d.arrow(383, 80, 526, 214)
    d.arrow(383, 236, 526, 234, "average of p(token)", above=False)
    d.text(325, 28, "IND", 13, bold=True)
    d.text(325, 270, "IND", 13, bold=True)
    d.text(750, 147, "which of them\nranks the parts\nas SEQ does?", 13, bold=True)
    d.arrow(383, 147, 690, 147, dashed=True)
    d.save("averages")


def twins():
    "Probing and synchronisation."
    d = Drawing(
        820, 290, "Twins",
        "A proxy and a reference start equal. For K steps both train, the proxy on the mixture and the reference on the mixture "
        "and the target; the difference of their losses on each domain moves the mixture; then the proxy takes E free steps "
        "and the reference starts again from it.",
    )
    d.text(60, 76, "proxy u", 14, bold=True)
    d.text(60, 186, "reference w", 14, bold=True)
    d.arrow(110, 76, 290, 76, "K steps on the mixture α")
    d.arrow(110, 186, 290, 186, "K steps on α and the target", above=False)
    d.parts.append(f'<line x1="110" y1="76" x2="110" y2="186" stroke="{INK}" stroke-dasharray="3 3"/>')
    d.text(104, 131, "equal", 12, "end", italic=True)
    d.box(300, 56, 120, 150, "loss of u\nminus loss of w\non each domain\n\nΔ (K,)", LIGHT, 13)
    d.arrow(423, 131, 486, 131)
    d.box(490, 102, 130, 58, "move α along Δ,\nproject on the\nsimplex", MIDDLE, 12)
    d.arrow(623, 131, 686, 131)
    d.box(690, 92, 110, 78, "E free steps\nof u, then\nw ← u", DARK, 12, color=PAPER)
    d.arrow(745, 174, 745, 250)
    d.parts.append(f'<path d="M745,250 L60,250 L60,205" fill="none" stroke="{INK}" stroke-width="1.4" marker-end="url(#tip)"/>')
    d.text(400, 266, "again, until the mixture stands still", 12, italic=True)
    d.save("twins")


def main():
    for draw in (pipeline, stack, batches, store, averages, twins):
        draw()
    print(f"{len(list(FOLDER.glob('*.svg')))} drawings in {FOLDER.name}/")


if __name__ == "__main__":
    main()
