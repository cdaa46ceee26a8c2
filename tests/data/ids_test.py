"""Ids: text until each is spelled as its number is."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrec_diff.data import ids

INT64 = 2**63


def settled(*columns):
    return [one.tolist() for one in ids.settle([ids.code(c, "f", "item") for c in columns])]


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["7", "12", "0", "-3"], True),
        ([str(INT64 - 1), str(-INT64)], True),
        (["7", "07"], False),
        (["7", "007", "7 "], False),
        (["12e3", "12000"], False),
        (["0x1F", "31"], False),
        (["-0", "0"], False),
        (["+1", "1"], False),
        (["1.0", "1"], False),
        (["12:00", "1"], False),
        (["true", "FALSE", "1"], False),
        (["a", "a\0"], False),
        ([str(INT64), "1"], False),
        (["18446744073709551610", "18446744073709551611"], False),
        (["123456789012345678901", "123456789012345678902"], False),
        (["١", "1"], False),  # a digit of another script
    ],
)
def test_text_is_a_number_only_where_every_value_is_spelled_so(texts, whole):
    (got,) = settled(pa.array(texts))
    assert got == ([int(text) for text in texts] if whole else texts)
    assert len(set(got)) == len(texts)


def test_one_text_makes_all_files_of_a_folder_text():
    assert settled(pa.array([1, 2]), pa.array(["01", "1"]), pa.array(["3"])) == [
        ["1", "2"],
        ["01", "1"],
        ["3"],
    ]
    assert settled(pa.array([1, 2]), pa.array(["1", "3"])) == [[1, 2], [1, 3]]


def test_types_that_hold_ids_keep_every_digit():
    big = [2**64 - 1, 2**64 - 2, 5]
    assert settled(pa.array(big, pa.uint64())) == [[str(n) for n in big]]
    assert settled(pa.array([3, 5], pa.uint64())) == [[3, 5]]
    assert settled(pa.array([3.0, 2.0**53 - 1])) == [[3, 2**53 - 1]]
    assert settled(pa.array(["b", "a", "b"]).dictionary_encode()) == [["b", "a", "b"]]
    assert settled(pa.array(["é".encode(), b"b"])) == [["é", "b"]]
    assert settled(pa.chunked_array([pa.array(["a"]), pa.array(["b", "a"])])) == [["a", "b", "a"]]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([1.0, 1.5]), "item id 1.5 in row 2, which is no whole number"),
        (
            pa.array([1.0, 2.0**53]),
            "9007199254740992.0 in row 2, and floats of that size have lost",
        ),
        (pa.array([b"\xff"]), "no UTF-8"),
        (pa.array([{"a": 1}]), "struct"),
    ],
)
def test_ids_that_cannot_be_kept_are_refused(column, said):
    with pytest.raises(ValueError, match=said):
        ids.code(column, "f", "item")


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), min_size=1))
def test_text_comes_back_sorted_by_code_point_and_packed(texts):
    given_ids = np.array([*texts, None], object)[:-1]
    values, places = ids.unique(given_ids)
    assert values.tolist() == sorted(set(texts))
    assert values[places].tolist() == texts
    assert ids.places(values, given_ids).tolist() == places.tolist()
    packed = ids.pack("name", given_ids)
    assert all(array.dtype.kind != "O" for array in packed.values())
    assert ids.unpack("name", packed).tolist() == texts


def test_one_long_id_does_not_make_all_as_wide(tmp_path):
    many = np.array(["x" * 100_000, *map(str, range(5000))], object)
    np.savez(tmp_path / "v.npz", **ids.pack("item_ids", many))
    assert (tmp_path / "v.npz").stat().st_size < 2e6  # fixed-width text takes 2 GB
    with np.load(tmp_path / "v.npz") as stored:
        assert ids.unpack("item_ids", stored).tolist() == many.tolist()


def test_places_of_ids_of_the_other_type_are_none():
    assert ids.places(np.array([7, 8]), np.array(["7"], object)).tolist() == [-1]
    assert ids.places(np.array(["7"], object), np.array(["07", "7"], object)).tolist() == [-1, 0]


def test_only_what_is_spelled_as_a_number_is_one():
    text = pa.array(["7", "07", "x", str(INT64), str(-INT64), None])
    assert ids.each_integer(text.slice(0, 3)).to_pylist() == [7, None, None]
    # 19 digits are looked up only where all of them fit
    assert ids.each_integer(pa.array([str(INT64 - 1), "7"])).to_pylist() == [INT64 - 1, 7]
    assert ids.each_integer(text).to_pylist()[:4] == [7, None, None, None]
