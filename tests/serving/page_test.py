"""The page in a real browser: by keyboard, on a phone, with titles that would like to be markup."""

import re
import signal

import pytest

pytest.importorskip("uvicorn", reason="needs the extra `serve`")

from tests.serving.browser import PROGRAM, Browser  # noqa: E402
from tests.serving.server_test import Process  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs Chromium or Chrome"),
]
MARKUP = "<script>window.hurt=1</script><img src=x onerror=window.hurt=1>"


@pytest.fixture(scope="module")
def server(clicks_run, tmp_path_factory):
    titles = tmp_path_factory.mktemp("titles") / "titles.tsv"
    lines = [f"shoe-{n:02d}\tShoe {n} {MARKUP if n % 2 else 'of leather'}" for n in range(40)]
    titles.write_text("\n".join(["item_id\ttitle", *lines]) + "\n")
    made = Process(clicks_run, f"--data.titles={titles}")
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def page(server, tmp_path):
    made = Browser(tmp_path / "profile")
    made.open(f"http://127.0.0.1:{server.port}/")
    made.until("document.querySelectorAll('#popular button').length === 8")
    yield made
    made.close()


def add(page: Browser, text: str) -> None:
    """Searches and takes what comes first, by keyboard alone."""
    before = page.value("document.querySelectorAll('#history li').length")
    page.write(text)
    page.until("document.getElementById('search').getAttribute('aria-expanded') === 'true'")
    page.key("Enter")
    page.until(f"document.querySelectorAll('#history li').length === {before + 1}")


def settled(page: Browser) -> None:
    page.until(
        "document.querySelectorAll('#list li').length && !document.querySelector('[aria-busy]') "
        "&& document.querySelectorAll('#walks ol').length > 0"
    )


def texts(page: Browser, where: str) -> list[str]:
    return page.value(f"[...document.querySelectorAll({where!r})].map((each) => each.textContent)")


def contrast(page: Browser, where: str) -> float:
    """Of a text and the page, as WCAG 2.2 defines it."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ink = page.value(f"getComputedStyle(document.querySelector({where!r})).color")
    paper = page.value("getComputedStyle(document.body).backgroundColor")
    high, low = sorted((light(ink), light(paper)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_history_is_chosen_and_walked_by_keyboard(page, server):
    page.value("document.getElementById('search').focus()")
    page.write("shoe")
    page.until("document.querySelectorAll('#found [role=option]').length === 12")
    active = "document.getElementById('search').getAttribute('aria-activedescendant')"
    assert page.value(active) == "found-0"
    page.key("ArrowDown")
    assert page.value(active) == "found-1"
    chosen = page.value("document.getElementById('found-1').querySelector('small').textContent")
    page.key("Enter")
    add(page, "shoe-04")
    settled(page)
    history = texts(page, "#history small")
    assert history == [chosen, "shoe-04"]

    asked = {"histories": [history], "k": 10, "draws": 4}
    (want,) = server.ask("/recommend", asked)[1]["lists"]
    assert texts(page, "#list small") == want["items"]
    assert [float(score) for score in texts(page, "#list .score")] == pytest.approx(
        want["scores"], abs=1e-3
    )
    walk = server.ask("/walk", {"history": history, "draws": 4, "nearest": 5})[1]
    assert walk["steps"] == 4
    page.value("document.getElementById('step').focus()")
    for step in (4, 3, 2):
        said = page.value("document.getElementById('step').getAttribute('aria-valuetext')")
        assert said == f"step {step} of 4" == texts(page, "#taken")[0]
        titles = [title for draw in walk["draws"] for title in draw[step]["titles"]]
        assert texts(page, "#walks li") == titles
        page.key("ArrowLeft")
    page.key("Home")
    assert texts(page, "#taken") == ["the start, 0 of 4"]
    assert len(page.value("document.querySelector('.strip').getAttribute('aria-label')")) > 20

    page.value("document.querySelector('#history button').focus()")
    page.key("Enter")
    page.until("document.querySelectorAll('#history li').length === 1")
    assert page.value("document.activeElement.getAttribute('aria-label')").startswith("Remove")
    page.key("Enter")
    page.until("document.querySelectorAll('#list li').length === 0")
    assert page.value("document.activeElement.id") == "search"


def test_titles_are_text_and_nothing_foreign_is_asked_or_run(page):
    page.value("document.getElementById('search').focus()")
    add(page, "shoe 7")
    settled(page)
    assert any(MARKUP in text for text in texts(page, "#history .name"))
    assert page.value("window.hurt") is None
    assert page.value("document.scripts.length") == 1
    assert page.value("document.querySelectorAll('main img').length") == 0
    blocked = "fetch('http://192.0.2.1/').then(() => 'asked', (error) => error.name)"
    assert page.value(blocked) == "TypeError"
    page.value(
        "document.body.append(Object.assign(document.createElement('script'),"
        "{textContent: 'window.hurt = 1'}))"
    )
    assert page.value("window.hurt") is None
    asked = {
        event["params"]["request"]["url"] for event in page.events
        if event["method"] == "Network.requestWillBeSent"
    }  # fmt: skip
    assert all(re.match(r"http://127\.0\.0\.1:|data:|http://192\.0\.2\.1/$", url) for url in asked)
    said = [event["params"] for event in page.events if event["method"] == "Log.entryAdded"]
    assert said and all("Content Security Policy" in each["entry"]["text"] for each in said)


def test_a_phone_needs_no_sideways_scroll_and_every_control_has_a_name(page):
    page.resize(390)
    page.value("document.querySelector('#popular button').click()")
    settled(page)
    page.value("document.getElementById('side').open = true")
    assert page.value("document.documentElement.scrollWidth") <= 390
    small = (
        "[...document.querySelectorAll('button, input')].filter((each) => each.offsetParent && "
        "each.getBoundingClientRect().height < 24).length"  # WCAG 2.2, target size
    )
    assert page.value(small) == 0
    tree = page.tell("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "combobox", "textbox", "slider", "searchbox", "listbox", "image")
    for node in tree:
        if node.get("role", {}).get("value") in controls and not node.get("ignored"):
            assert node.get("name", {}).get("value", "").strip(), node
    for scheme in ("light", "dark"):
        page.shade(scheme)
        for where in ("h1", ".soft", ".score", "#history .name", "#history small"):
            assert contrast(page, where) >= 4.5, (scheme, where)
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"


def test_a_known_user_is_taken_and_a_server_that_ended_is_said(page, server):
    def take(user):
        page.value(f"document.getElementById('user').value = {user!r}")
        page.value("document.querySelector('#known button').click()")

    take("nobody")
    page.until("!document.getElementById('trouble').hidden")
    assert texts(page, "#trouble") == ["no user 'nobody' is known"]
    take("u-07")
    settled(page)
    known = server.ask("/users/u-07")[1]
    assert texts(page, "#history small") == known["items"]
    assert page.value("document.getElementById('trouble').hidden")
    (want,) = server.ask("/recommend", {"users": ["u-07"], "k": 10, "draws": 4})[1]["lists"]
    assert texts(page, "#list small") == want["items"]
    server.process.send_signal(signal.SIGTERM)  # the last test
    assert server.process.wait(120) == 0
    page.value("document.querySelector('#list button').click()")
    page.until("!document.getElementById('trouble').hidden")
    assert "does not answer" in texts(page, "#trouble")[0]
