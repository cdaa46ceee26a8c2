"""Model cards: every system has one, and it says what stands in other places."""

import pytest

from jaxrec_diff.config import presets
from jaxrec_diff.reporting import cards


@pytest.mark.parametrize("name", presets.preset_names())
def test_every_system_has_a_card(name, tmp_path):
    made = cards.card(name, tmp_path)
    assert made.name == name and made.choose
    assert made.papers or name == "bayesrec"  # which is of no paper
    assert {each.name for each in made.data} >= set(presets.load(name).published)
    assert {each.verdict for each in made.parity} <= {"not run", "not comparable"}
    page = cards.markdown(made)
    assert page.startswith(f"# {name}\n") and made.choose in page and made.official in page
    assert all(line in page for line in (*made.differs, *made.limits))


def test_a_card_says_what_a_system_is(tmp_path):
    dreamrec, sasrec = (cards.card(name, tmp_path) for name in ("dreamrec", "sasrec"))
    assert dreamrec.diffuses and not sasrec.diffuses
    assert dreamrec.papers == ("arXiv:2310.20453",) and dreamrec.reads == "sequences"
    assert cards.card("diffuasr", tmp_path).backbone == "sasrec"
    zhihu = dreamrec.data[0]
    assert (zhihu.name, zhihu.published) == ("zhihu", True)
    assert "rows beyond the last full batch of 100 are dropped" in dreamrec.official
    with pytest.raises(ValueError, match="unknown model"):
        cards.card("dreamrecc", tmp_path)
