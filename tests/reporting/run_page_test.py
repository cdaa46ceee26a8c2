"""The page of a run: what it says, and that a browser shows it without asking anybody."""

import json
import re
import shutil
import subprocess
from typing import NamedTuple

import numpy as np
import pytest

from jaxrec_diff import cli
from jaxrec_diff.experiments import judging, restore
from jaxrec_diff.inference import recommend


class Found(NamedTuple):
    """As much of an evaluation as the page looks at."""

    per_user: dict


pytest.importorskip("matplotlib", reason="needs the extra `report`")
from jaxrec_diff.reporting import drawing, figures, run_model, run_page, statistics  # noqa: E402

NAMES = ("chromium", "chromium-browser", "google-chrome")
PICTURES = 11  # of a model with a reverse process among its items
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def html(clicks_run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(clicks_run, workdir)
    return run_page.write(workdir)


def test_ranks_along_a_walk_by_hand():
    table = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    points = np.array([[[2.0, 1.0]], [[-1.0, 0.5]]])
    assert run_model.true_ranks(points, table, None, np.array([1])).tolist() == [[1], [3]]
    assert run_model.true_ranks(points, table, np.array([0, 9, 0]), np.array([1])).tolist() == [
        [2],
        [3],
    ]


@pytest.mark.parametrize("values", [np.arange(100), np.repeat([1, 2, 9], [70, 20, 10]), np.ones(5)])
def test_quarters_cover_every_value_once(values):
    groups, names = statistics.quarters(values.astype(float))
    assert set(groups) == set(range(len(names)))
    for group, name in enumerate(names):
        low, _, high = name.partition("-")
        inside = values[groups == group]
        assert (float(low), float(high or low)) == (inside.min(), inside.max())
    if len(np.unique(values)) == 100:
        assert np.bincount(groups).tolist() == [25, 25, 25, 25]


def test_the_page_holds_what_the_run_found(html, clicks_run):
    text = html.read_text()
    results = json.loads((clicks_run / "results.json").read_text())
    for metric in ("hr@10", "hr@20", "ndcg@10", "ndcg@20"):
        assert f"{results['metrics'][metric]:.4f}" in text
        assert f"{results['controls']['popularity'][metric]:.4f}" in text
    for heading in ("Training", "Quality against reverse steps", "Who is served well",
                    "What is shown", "From noise to an item", "Example users",
                    "Data"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text
    assert results["data_hash"][:12] in text and "bin/train --model=dimerec" in text
    assert text.count("<svg") == PICTURES and "shoe-" in text
    assert text.index("<ul class=verdict>") < text.index("<h2>")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_examples_show_the_newest_history_and_the_answers(html, clicks_run):
    dataset = restore.reopen(clicks_run).dataset
    truth = {}
    for row, user in enumerate(dataset.test_users):
        start, end, stop = (int(part[row]) for part in dataset.test[1:4])
        named = [str(dataset.item_ids[item - 1]) for item in dataset.test.items[start:stop]]
        truth[str(dataset.user_ids[user])] = named[: end - start][-8:], named[end - start :]
    section = html.read_text().partition("<h2>Example users</h2>")[2].partition("</table>")[0]
    rows = re.findall(r"<tr><td>(.*?)</td>(.*?)</tr>", section)
    assert len(rows) == 6
    for user, cells in rows:
        history, _, answers = (
            re.sub(r"<.*?>|… ", "", cell).split(", ")
            for cell in re.findall(r"<td class=text[^>]*>(.*?)</td>", cells)
        )
        assert (history, answers) == truth[user]


def test_curves_are_marked_at_the_epoch_of_the_checkpoint(clicks_run, monkeypatch):
    marks = []
    monkeypatch.setattr(figures, "curves", lambda *args, **named: marks.append(named) or "")
    results = json.loads((clicks_run / "results.json").read_text())
    lines = [json.loads(line) for line in (clicks_run / "metrics.jsonl").open()]
    run_page._training(lines, results, "hr@20", {"popularity": 0.1})
    (best,) = [line["epoch"] for line in lines if line["step"] == results["best_step"]]
    assert [named["mark"] for named in marks] == [best, best]


def test_the_runs_own_way_is_in_its_curve(clicks_run, monkeypatch):
    """One that has no steps, too: as a level and as a row."""
    asked = []

    def draws(phase, params, state, split):
        asked.append(phase.settings.model.sampler.kind)
        rows = len(phase.dataset.test.start)
        return [Found({"hr@20": np.full(rows, 0.75 if asked[-1] == "one_step" else 0.25)})]

    monkeypatch.setattr(judging, "draws", draws)
    drawn = {}
    monkeypatch.setattr(figures, "steps", lambda *x, **more: drawn.update(more) or "<svg/>")
    run = restore.reopen(clicks_run, ["--model.sampler.kind=one_step"])
    text = run_model.steps(restore.restore(run, clicks_run), "hr@20")
    assert asked[-1] == "one_step" and set(asked[:-1]) == {"ddim"}
    assert (drawn["own"], drawn["level"]) == (None, 0.75)
    assert "one step" in text and "0.7500" in text


def test_the_curve_over_steps_ends_with_the_whole_schedule(clicks_run, monkeypatch):
    asked = []
    draws = judging.draws

    def record(phase, *rest):
        asked.append((phase.settings.model.sampler.steps, phase.settings.eval.protocol))
        return draws(phase, *rest)

    monkeypatch.setattr(judging, "draws", record)
    run = restore.reopen(clicks_run)
    text = run_model.steps(restore.restore(run, clicks_run), "hr@20")
    assert run.experiment.model.num_steps == 4
    assert asked == [(1, "honest"), (2, "honest"), (3, "honest"), (0, "honest")]
    assert re.findall(r"<tr[^>]*><td[^>]*>(\d+)</td>", text) == ["1", "2", "3", "4"]


def test_a_run_of_the_official_protocol_has_its_page(tmp_path):
    """DreamRec's script ranks the padding row too, which is no item to recommend or to draw."""
    workdir = tmp_path / "run"
    flags = [
        "--eval.protocol=official", "--data.synthetic.num-users=100", "--devices=1",
        "--data.synthetic.num-items=30", "--data.synthetic.num-interests=4",
        "--data.synthetic.max-length=8", "--data.max-len=6", "--model.width=8",
        "--model.num-steps=4", "--train.batch-size=32", "--train.num-epochs=1",
        "--eval.batch-size=64",
    ]  # fmt: skip
    assert cli.main(["train", "--model=dreamrec", f"--workdir={workdir}", *flags]) == 0
    text = run_page.write(workdir).read_text()
    assert text.count("<svg") == PICTURES and "official protocol" in text
    assert "ranks the true item on its way, of 30;" in text
    found = recommend.recommend(workdir, users=["0", "1"], k=40)
    assert all(0 < len(entry.items) < 30 for entry in found)


def test_the_page_asks_nobody(html):
    text = html.read_text()
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?\s*(https?:)?//", text)
    assert "<script src" not in text and "@import" not in text


def test_a_model_without_a_walk_has_no_empty_sections(clicks_run, tmp_path, clicks):
    workdir = tmp_path / "run"
    flags = [
        f"--data={clicks}", "--data.user=visitor", "--data.item=product", "--data.timestamp=when",
        "--devices=1", "--data.max-len=8", "--model.width=8", "--train.num-epochs=2",
        "--train.batch-size=32", "--eval.batch-size=64",
    ]  # fmt: skip
    assert cli.main(["train", "--model=sasrec", f"--workdir={workdir}", *flags]) == 0
    told = []
    text = run_page.write(workdir, tell=told.append).read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert "What is shown" in headings and "Training" in headings
    assert not {"From noise to an item", "Quality against reverse steps"} & {*headings}
    assert told[0] == "beside its controls, 1 of 10" and len(told) == 10
    for body in re.findall(r"<h2>.*?</h2>(.*?)</section>", text, re.DOTALL):
        assert len(re.sub(r"<[^>]*>", "", body)) > 40


def test_the_error_of_an_estimate_by_hand():
    """Twice the true row has no error, nothing at all is as far as the rows are long."""
    table = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    answers = np.array([1, 3])
    true = table[answers - 1]
    found = run_model.Walk(
        np.zeros((3, 2, 2)), np.stack([2 * true, np.array([[0.0, 1.0], [0.0, 0.5]])]),
        np.array([1, 0]), table, None, answers, True,
    )  # fmt: skip
    t, error = run_model.unexplained(found)
    np.testing.assert_allclose(error, [0.0, 1.0], atol=1e-12)
    assert t.tolist() == [1, 0]


def test_a_walk_is_among_the_items_where_the_model_recommends_from_its_end():
    rng = np.random.default_rng(0)
    table, last = rng.normal(size=(50, 8)), rng.normal(size=(20, 8))
    assert run_model.among_items(last, 3 * last, table, None)
    assert not run_model.among_items(last, rng.normal(size=(20, 8)), table, None)
    assert not run_model.among_items(last, last[:, :4], table, None)


def test_controls_are_lines_of_the_validation_curve(clicks_run):
    """The same rows: a control that is the curve's own figure lies on it."""
    run = restore.reopen(clicks_run)
    found = run_page._valid(restore.restore(run, clicks_run).phase, "hr@20")
    again = judging.reevaluate(run, clicks_run, "valid")[1]
    assert found == {name: values["hr@20"] for name, values in again.items()}
    assert "popularity" in found


def test_marks_say_their_figures(html):
    """Points and bars have titles, and these lie inside their pictures."""
    text = html.read_text()
    spots = re.findall(r'<circle cx="([\d.-]+)" cy="([\d.-]+)" r="6"[^>]*><title>(.*?)</', text)
    assert len(spots) > 100
    assert all(0 <= float(x) <= 480 and 0 <= float(y) <= 320 for x, y, _ in spots)
    said = " ".join(title for _, _, title in spots)
    assert "validation: " in said and "trained on " in said and " steps: hr@20 " in said
    assert re.search(r"<rect [^>]*><title>popularity, training count of the answer ", text)


def test_pictures_follow_the_light(html):
    text = html.read_text()
    assert "@media screen and (prefers-color-scheme: dark)" in text
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    fixed = set(re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})", drawn))
    assert not fixed, fixed


def test_without_matplotlib_the_page_says_what_is_missing(clicks_run, monkeypatch):
    monkeypatch.setattr(drawing, "available", lambda: False)
    with pytest.raises(ValueError, match="needs matplotlib"):
        run_page.write(clicks_run)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it(html, tmp_path, width):
    """No message on the console, every figure has a size, and only tables scroll sideways."""
    probe = (
        "<script>addEventListener('load', () => { const box = e => e.getBoundingClientRect();"
        "const s = [...document.querySelectorAll('svg')].map(box);"
        "document.title = JSON.stringify({n: s.filter(b => b.width > 150 && b.height > 80).length,"
        "users: (e => e.scrollWidth <= e.clientWidth)(document.querySelector('.stack').parentNode),"
        "wide: document.documentElement.scrollWidth, window: innerWidth}); });</script>"
    )
    page = tmp_path / "page.html"
    page.write_text(html.read_text().replace("</head>", probe + "</head>"))
    # a window of its own may not be narrower than 500 pixels, a frame may
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe src="page.html" width="{width}" height="900" onload="document.title=this.contentDocument.title"></iframe>')  # fmt: skip  # noqa: E501
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--allow-file-access-from-files", "--virtual-time-budget=5000", "--window-size=1400,1000",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{frame}",
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in run.stderr
    seen = json.loads(re.search(r"<title>(\{.*?\})</title>", run.stdout)[1])
    assert seen["n"] == PICTURES and seen["users"]
    assert seen["wide"] <= seen["window"] <= width


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH")
def test_it_is_printed_on_few_pages(html, tmp_path):
    """Curves stand side by side on paper; without that, a page goes to each heading."""
    paper = tmp_path / "report.pdf"
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
        f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={paper}", f"file://{html}",
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    found = paper.read_bytes()
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", found)) <= 5
    box = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", found)
    assert [round(float(side)) for side in box.groups()] in ([595, 842], [596, 842])  # A4
