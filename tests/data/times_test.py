"""Times and ratings of columns against the standard library."""

import datetime as dt
import email.utils

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrec_diff.data import times


def seconds(text):
    return times.numbers(text, "the column", "timestamp")


def utc(*parts):
    return dt.datetime(*parts, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2020-11-11 17:39:39 UTC", utc(2020, 11, 11, 17, 39, 39)),
        ("2020/10/06", utc(2020, 10, 6)),
        ("2020-10-06T01:02", utc(2020, 10, 6, 1, 2)),
        ("2020-10-06T01:02:03+0530", utc(2020, 10, 5, 19, 32, 3)),
        ("2020-10-06 01:02:03-05", utc(2020, 10, 6, 6, 2, 3)),
        ("13/06/2020 21:47", utc(2020, 6, 13, 21, 47)),
        ("06/13/2020 9:47 PM", utc(2020, 6, 13, 21, 47)),
        ("13.06.2020", utc(2020, 6, 13)),
        ("Fri, 06 Nov 2020 21:47:00 +0000", utc(2020, 11, 6, 21, 47)),
        ("Fri, 6 Nov 2020 21:47:00 GMT", utc(2020, 11, 6, 21, 47)),
        ("Tue Apr 03 18:00:09 +0000 2012", utc(2012, 4, 3, 18, 0, 9)),
        ("Tue Apr 03 18:00:09 +0900 2012", utc(2012, 4, 3, 9, 0, 9)),
        ("Tue Apr  3 18:00:09 2012", utc(2012, 4, 3, 18, 0, 9)),
        ("07 22, 2014", utc(2014, 7, 22)),
        ("November 6, 2020", utc(2020, 11, 6)),
        ("Jan 1, 2020 12:00:00 AM", utc(2020, 1, 1)),
        ("1969-12-31 23:59:59", -1),
        ("2020-02-29", utc(2020, 2, 29)),
        ("2020-01-01T00:00:00.5", 1577836800.5),
        ("2020-01-01T00:00:00.123456789", 1577836800123456789),
    ],
)
def test_dates_of_many_forms(text, want):
    assert seconds(pa.array([text])).tolist() == [want]


def test_day_or_month_is_read_off_the_whole_column():
    assert seconds(pa.array(["01/02/2020", "13/02/2020"])).tolist() == [
        utc(2020, 2, 1),
        utc(2020, 2, 13),
    ]
    assert seconds(pa.array(["01/02/2020", "02/13/2020"])).tolist() == [
        utc(2020, 1, 2),
        utc(2020, 2, 13),
    ]
    with pytest.raises(ValueError, match="2020-06-10 .day first. or 2020-10-06 .month first"):
        seconds(pa.array(["10/06/2020 21:47"]))
    with pytest.raises(ValueError, match="other rows hold both"):
        seconds(pa.array(["13/02/2020", "02/13/2020"]))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["2020-01-01", "soon"], "holds 'soon' in row 2, which is neither"),
        (["5", "2020-01-01", "7"], "holds '2020-01-01' in row 2, which is neither"),
        (["2021-02-29"], "does not exist"),
        (["2020-13-01"], "does not exist"),
        (["2020-01-01 25:00"], "does not exist"),
        (["5", "inf"], "timestamp inf in row 2"),
        (["12:00"], "neither"),
    ],
)
def test_what_is_no_time_is_named(texts, said):
    with pytest.raises(ValueError, match=said) as caught:
        times.numbers(pa.array(texts), "f", "timestamp")
    assert "np." not in str(caught.value)


def test_numbers_keep_every_digit():
    nanoseconds = [1588687728923456789, 1588687728923456790]
    assert times.numbers(pa.array(map(str, nanoseconds)), "f", "t").tolist() == nanoseconds
    assert times.numbers(pa.array(nanoseconds), "f", "t").tolist() == nanoseconds
    assert times.numbers(pa.array([" 5", "+6", "7. "]), "f", "t").tolist() == [5, 6, 7]
    assert times.numbers(pa.array(["5", "2.5e1"]), "f", "t").tolist() == [5, 25]
    with pytest.raises(ValueError, match="holds '2020-01-01' in row 1, which is no number"):
        times.numbers(pa.array(["2020-01-01"]), "f", "rating", dates=False)


@given(
    st.lists(
        st.datetimes(
            dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC)
        ).map(lambda time: time.replace(microsecond=0)),
        min_size=1,
    )
)
def test_every_form_reads_as_the_standard_library_wrote_it(moments):
    want = [int(moment.timestamp()) for moment in moments]
    forms = {
        "iso": [m.isoformat() for m in moments],
        "words": [m.strftime("%Y/%m/%d %H:%M:%S UTC") for m in moments],
        "email": [email.utils.format_datetime(m) for m in moments],
        "twitter": [m.strftime("%a %b %d %H:%M:%S +0000 %Y") for m in moments],
    }
    for name, texts in forms.items():
        np.testing.assert_array_equal(seconds(pa.array(texts)), want, name)
    names = list(forms)
    mixed = [forms[names[place % 4]][place] for place in range(len(moments))]
    np.testing.assert_array_equal(seconds(pa.array(mixed)), want)
