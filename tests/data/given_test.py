"""Histories that are written as text."""

import pyarrow as pa
import pytest

from jaxrec_diff.data import given


@pytest.mark.parametrize(
    "texts, lists",
    [
        (["[1, 2]", "[3]", None, "[]"], [["1", "2"], ["3"], [], []]),
        (["(1, 2)", "(3,)", ""], [["1", "2"], ["3"], []]),
        (["1,2,", "|3", " 4  5 "], [["1", "2"], ["3"], ["4", "5"]]),
        # a bracket is a letter where it does not hold every row
        (["(a b", "c)", "x (y) z"], [["(a", "b"], ["c)"], ["x", "(y)", "z"]]),
        (["(old) and (new)", "[a]"], [["(old)", "and", "(new)"], ["[a]"]]),
        (
            ["1 2", "[4, 5]", "", None, "[6,]", "[7]"],
            [["1", "2"], ["4", "5"], [], [], ["6"], ["[7]"]],
        ),
        (['["a, b", "c"]', "[1 2]", "x (y)"], [["a, b", "c"], ["1", "2"], ["x", "(y)"]]),
    ],
)
def test_lists_written_as_text(texts, lists):
    assert given.of_text(pa.array(texts, pa.string()), "a.csv").to_pylist() == lists
