"""The documentation: it is whole, its links lead somewhere, and what it shows is true."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from jaxrec_diff import cli, config
from jaxrec_diff.commands.docs import usages
from jaxrec_diff.docs import systems

pytest.importorskip("pdoc", reason="needs the extra `docs`")
from jaxrec_diff.docs import site  # noqa: E402
from tests import shown  # noqa: E402

PAGES = Path(site.__file__).parent / "pages"
TEXTS = {path.stem: path.read_text() for path in sorted(PAGES.glob("*.md"))}
COMMANDS = [
    (name, words) for text in TEXTS.values() for name, words in shown.commands(text)
]  # fmt: skip


class Links(HTMLParser):
    """What a page points at, and the places that can be pointed at in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") == "icon":
            pass
        else:
            self.loaded += [given[name] for name in ("src", "href") if given.get(name)]


def broken(folder: Path) -> list[str]:
    """Links between the pages of a folder that lead nowhere, and what a page would ask others."""
    read = {path.resolve(): Links(path.read_text()) for path in folder.rglob("*.html")}
    out = []
    for path, page in read.items():
        out += [
            f"{path.name} loads {each}" for each in page.loaded if re.match("(https?:)?//", each)
        ]
        for link in page.links:
            if re.match(r"(https?|mailto):", link):
                continue
            file, _, place = link.partition("#")
            goal = (path.parent / unquote(file)).resolve() if file else path
            if not goal.exists():
                out.append(f"{path.name} -> {link}")
            elif goal in read and unquote(place) not in read[goal].places:
                out.append(f"{path.name} -> {link}: no such place")
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    site.build(folder, usages(), reference=False)
    return folder


def test_a_deviation_stays_beside_its_figure():
    text = site.html("| a | b |\n| --- | --- |\n| x | 0.1116 ± 0.0035 |\n")
    assert "0.1116&nbsp;±&nbsp;0.0035" in text


def test_indices_are_no_emphasis():
    text = site.html("without x_t, with another's x_0, *true*")
    assert text.strip() == "<p>without x_t, with another's x_0, <em>true</em></p>"


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="x">a</h1><a href="b.html">b</a><a href="#x">x</a><a href="#y">y</a>'
        '<script src="https://example.org/s.js"></script>'
    )
    assert broken(tmp_path) == [
        "a.html loads https://example.org/s.js", "a.html -> b.html", "a.html -> #y: no such place",
    ]  # fmt: skip


def test_every_link_leads_somewhere_and_nothing_is_asked_of_others(folder):
    assert not broken(folder)
    assert len(list(folder.rglob("*.html"))) == 1 + len(site.GUIDES) + len(config.preset_names())


def test_every_page_is_there_and_is_listed():
    assert {*TEXTS} == {*site.GUIDES, "index"} - {"commands"}
    assert "{{" not in "".join(site.source(name) for name in {*site.GUIDES} - {"commands"})


def test_pages_have_tables_commands_and_titles(folder):
    text = (folder / "data.html").read_text()
    assert "<title>Bring your own data</title>" in text and "prefers-color-scheme: dark" in text
    assert '<div class="scroll prose"><table>' in text and 'name="viewport"' in text
    assert '<div class="command"><pre>bin/train --model=dimerec --data=clicks.csv' in text
    model = (folder / "models" / "dreamrec.html").read_text()
    for said in ("Published figures", "What differs from the paper", "--model.num-steps",
                 "zhihu-dreamrec-seed100.json", "https://arxiv.org/abs/2310.20453",
                 "../protocols.html", "Measured here"):  # fmt: skip
        assert said in model, said


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=lambda part: part[:40])
def test_flags_of_commands_are_known(name, words, capsys):
    if name != "launch" and "gcloud" not in words:
        shown.check(name, words, capsys)


def test_every_flag_that_is_named_is_a_field():
    fields = set()
    for name in config.preset_names():
        fields |= set(config.field_values(config.preset(name, "").experiment))
    known = {field.replace("_", "-") for field in fields}
    processes = {"distributed.coordinator", "distributed.num-processes", "distributed.process-id"}
    for name, text in TEXTS.items():
        assert shown.flags(text) <= known | processes, name


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if shown.snippets(text)])
def test_python_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for snippet in shown.snippets(TEXTS[name]):
        exec(snippet, scope)


def test_the_table_has_every_system_with_its_mark(tmp_path):
    for file in (shown.ROOT / "benchmarks" / "results").glob("*.json"):
        if re.match("zhihu-dreamrec|ml-1m-clean-diffrec-seed", file.name):
            (tmp_path / file.name).write_text(file.read_text())
    head, rule, *rows = systems.table(tmp_path).splitlines()
    assert {head.count("|"), rule.count("|")} == {8} == {row.count("|") for row in rows}
    named = [re.match(r"\| `(\w+)` \|", row)[1] for row in rows]
    assert named == list(config.preset_names())
    found = dict(zip(named, rows, strict=True))
    assert found["diffrec"].endswith("| 11.48 | reproduced |")
    assert "ml-1m-clean, ndcg@20 | 11.20 ± " in found["diffrec"]
    assert found["dreamrec"].endswith("| lower |") and "| not run |" in found["giffcf"]


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    assert cli.main(["docs", f"--output={tmp_path}"]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    assert cli.main(["docs", "--port=99999"]) == 2
    assert "at most 65,535" in capsys.readouterr().err


def test_a_module_whose_extra_is_missing_is_left_out(monkeypatch):
    assert "jaxrec_diff.diffusion.samplers" in site._modules()
    assert not any("examples" in name for name in site._modules())
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "jaxrec_diff.experiments.tuning", raising=False)
    assert not site._importable("jaxrec_diff.experiments.tuning")
    assert site._importable("jaxrec_diff.losses")


@pytest.mark.slow
def test_the_whole_documentation_with_its_reference(tmp_path, capsys):
    assert cli.main(["docs", f"--output={tmp_path / 'site'}"]) == 0
    assert "the documentation is" in capsys.readouterr().out
    assert (
        tmp_path / "site" / "reference" / "jaxrec_diff" / "diffusion" / "samplers.html"
    ).exists()
    assert not broken(tmp_path / "site")
