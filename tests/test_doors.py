"Names decide, never positions: every public function, each of its mixtures, targets and tables in other forms and orders."
import ast
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import calls

MODULES = sorted(p.stem for p in (ROOT / "mixlab").glob("*.py") if not p.stem.startswith("_"))


def public_names(module):
    tree = ast.parse((ROOT / f"mixlab/{module}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_stands_in_a_row(module):
    named = {call.name.split(".")[0] for call in calls.rows(module)} if module in calls.modules() else set()
    missing = set(public_names(module)) - named
    assert not missing, f"tests/calls/{module}.py has no row for {sorted(missing)}"
    assert not (unknown := named - set(public_names(module))), f"rows for names that are not public: {sorted(unknown)}"
    for call in calls.rows(module):
        assert call.arguments is not None or call.why, f"{call.name}: say why there is nothing to call"


# ---- forms of one thing ------------------------------------------------------------------------------------------------
def shuffled(keys, seed):
    keys = list(keys)
    return [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]


def mixture_forms(value):
    "The same mixture, or mixtures, in other forms with the names in another order."
    from mixlab.mixture import Mixture

    table = pd.DataFrame([dict(value)]) if isinstance(value, dict) else value
    rows = [dict(row) for _, row in table.iterrows()]
    order = shuffled(table.columns, 1)
    reorder = lambda row: {name: row[name] for name in order}
    yield "array", table.to_numpy() if not isinstance(value, dict) else table.to_numpy()[0]
    yield "DataFrame", table[order]
    yield "list of dicts", [reorder(row) for row in rows]
    yield "list of Mixtures", [Mixture(reorder(row)) for row in rows]
    yield "list of Series", [pd.Series(reorder(row)) for row in rows]
    if len(rows) == 1:
        yield "Mixture", Mixture(reorder(rows[0]))
        yield "dict", reorder(rows[0])
        yield "Series", pd.Series(reorder(rows[0]))


def weight_forms(value):
    "The same weights or amounts by name, in other forms and orders."
    order = shuffled(value, 2)
    turned = {name: value[name] for name in order}
    yield "dict", turned
    yield "Series", pd.Series(turned)
    if abs(sum(value.values()) - 1) < 1e-9:
        from mixlab.mixture import Mixture

        yield "Mixture", Mixture(turned)
    if len(set(value.values())) == 1:
        yield "list of names", order


# ---- answers as numbers ------------------------------------------------------------------------------------------------
def numbers(answer):
    "An answer as nested lists of arrays and plain values, names sorted."
    if hasattr(answer, "weights") and hasattr(answer, "names"):
        return numbers(dict(zip(answer.names, np.asarray(answer.weights).tolist())))
    if isinstance(answer, dict):
        return [[str(k), numbers(answer[k])] for k in sorted(answer, key=str)]
    if isinstance(answer, pd.DataFrame):
        return [list(map(str, sorted(answer.columns, key=str))), [numbers(answer[c]) for c in sorted(answer.columns, key=str)]]
    if isinstance(answer, pd.Series):
        return numbers(answer.to_numpy())
    if hasattr(answer, "detach"):
        return numbers(answer.detach().cpu().numpy())
    if isinstance(answer, np.ndarray):
        return answer.tolist() if answer.dtype == object else np.squeeze(answer)
    if isinstance(answer, (list, tuple)):
        return [numbers(x) for x in answer]
    return answer


def assert_same(a, b, tolerance, where):
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        assert np.shape(np.squeeze(a)) == np.shape(np.squeeze(b)), where
        if np.asarray(a).dtype.kind in "fiu":
            scale = max(1.0, float(np.nanmax(np.abs(a), initial=0)))
            assert np.allclose(np.squeeze(a), np.squeeze(b), atol=tolerance * scale, rtol=0, equal_nan=True), where
        else:
            assert np.array_equal(a, b), where
    elif isinstance(a, list) and isinstance(b, list):
        assert len(a) == len(b), where
        for x, y in zip(a, b):
            assert_same(x, y, tolerance, where)
    elif isinstance(a, float) and isinstance(b, float):
        assert a == pytest.approx(b, abs=tolerance * max(1, abs(a)), nan_ok=True), where
    elif isinstance(a, (str, int, bool, type(None))):
        assert a == b, where


def answer(module, call, **other):
    import matplotlib.pyplot as plt

    arguments = call.arguments() | other
    try:
        return numbers(call.result(calls.target_of(module, call)(**arguments)))
    finally:
        plt.close("all")


EVERY = [
    pytest.param(module, call, id=f"{module}.{call.name}") for module in calls.modules() for call in calls.rows(module)
    if call.arguments is not None
]


def having(kind):
    return [p for p in EVERY if getattr(p.values[1], kind)]


@pytest.mark.parametrize("module, call", EVERY)
def test_the_good_call_is_good(module, call):
    answer(module, call)


@pytest.mark.parametrize("module, call", having("mixtures"))
def test_mixtures_come_in_by_name(module, call):
    expected = answer(module, call)
    for argument in call.mixtures:
        value = call.arguments()[argument]
        for form, other in mixture_forms(value):
            assert_same(expected, answer(module, call, **{argument: other}), call.tolerance, f"{argument} as {form}")
        names = list(value) if isinstance(value, dict) else list(value.columns)
        strange = dict(zip([*names[:-1], "stranger"], [1 / len(names)] * len(names)))
        with pytest.raises(ValueError, match="stranger"):
            answer(module, call, **{argument: strange})


@pytest.mark.parametrize("module, call", having("targets"))
def test_targets_come_in_by_name(module, call):
    expected = answer(module, call)
    for argument in call.targets:
        for form, other in weight_forms(call.arguments()[argument]):
            assert_same(expected, answer(module, call, **{argument: other}), call.tolerance, f"{argument} as {form}")
        for wrong in ({"stranger": 1.0}, ["stranger"], "stranger"):
            with pytest.raises(ValueError, match="stranger"):
                answer(module, call, **{argument: wrong})


@pytest.mark.parametrize("module, call", having("amounts"))
def test_amounts_come_in_by_name(module, call):
    expected = answer(module, call)
    for argument in call.amounts:
        value = call.arguments()[argument]
        for form, other in [*weight_forms(value), ("array", np.array(list(value.values())))]:
            if form == "list of names":
                continue
            assert_same(expected, answer(module, call, **{argument: other}), call.tolerance, f"{argument} as {form}")
        with pytest.raises(ValueError, match="stranger"):
            answer(module, call, **{argument: {"stranger": 1.0}})


@pytest.mark.parametrize("module, call", having("tables"))
def test_rows_are_joined_by_index(module, call):
    expected = answer(module, call)
    for argument in call.tables:
        value = call.arguments()[argument]
        other = value.loc[shuffled(value.index, 3)]
        if isinstance(other, pd.DataFrame):
            other = other[shuffled(other.columns, 4)]
        assert_same(expected, answer(module, call, **{argument: other}), call.tolerance, f"{argument} with rows shuffled")
        if len(call.arguments()) > 1 and sum(hasattr(v, "iloc") for v in call.arguments().values()) > 1:
            renamed = value.rename(index={value.index[0]: "a run of another table"})
            with pytest.raises(ValueError):
                answer(module, call, **{argument: renamed})
