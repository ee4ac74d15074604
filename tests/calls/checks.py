"Rows of mixlab.checks."
import numpy as np
import pandas as pd

from calls import Call

ROWS = [
    Call("as_count", lambda: dict(value=3, name="steps", least=1, most=9), fixed=("name", "least", "most")),
    Call("as_seed", lambda: dict(value=3, name="seed"), fixed=("name",)),
    Call("as_number", lambda: dict(value=3.0, name="lr", above=0), fixed=("name", "above")),
    Call("as_level", lambda: dict(value=0.9, name="level"), fixed=("name",)),
    Call("as_choice", lambda: dict(value="a", name="model", choices=("a", "b")), fixed=("name", "choices")),
    Call("as_flag", lambda: dict(value=True, name="progress"), fixed=("name",)),
    Call("as_path", lambda: dict(value="~/x", name="path"), fixed=("name",)),
    Call("as_function", lambda: dict(value=len, name="f", call="f(x)"), fixed=("name", "call")),
    Call(
        "as_having",
        lambda: dict(value=[], name="x", attributes=("append",), what="a list"),
        missing=("value",),
        fixed=("name", "attributes", "what"),
    ),
    Call("as_axes", lambda: dict(ax=None, figsize=(2, 2)), fixed=("figsize",)),
    Call("as_numbers", lambda: dict(values=[1.0, 2.0], name="x", ndim=1, least=1), fixed=("name", "ndim", "least")),
    Call("has_rows", lambda: dict(table=pd.Series([1.0])), fixed=("table",)),  # any object has an answer
    Call(
        "align_rows",
        lambda: dict(
            first=pd.Series(np.arange(4.0), index=list("wxyz")), second=pd.Series(np.arange(4.0), index=list("wxyz"))
        ),
        tables=("second",),
    ),
]
