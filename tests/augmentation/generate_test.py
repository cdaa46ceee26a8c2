"""From a recommender over generated items to the recommender again, and what the items are like."""

import json
import re
import shlex
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.augmentation import baselines, generate, quality
from jaxrec_diff.cli import main
from jaxrec_diff.commands import augment
from jaxrec_diff.data import views
from jaxrec_diff.data.load import load
from jaxrec_diff.evaluation import held_out
from jaxrec_diff.experiments import generation, judging, pipeline, restore, runs, workdirs
from jaxrec_diff.models.contract import Head, Model, Variables
from jaxrec_diff.ops.ragged import Ragged

DATA = [
    "--data.synthetic.num-users=150", "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4", "--data.synthetic.min-length=4",
    "--data.synthetic.max-length=12", "--data.max-len=8", "--data.buckets=8", "--data.prefix-len=2",
]  # fmt: skip
SMALL = [
    "--model.denoiser=mlp", "--model.mlp-hidden=16", "--model.num-steps=50",
    "--model.sampler.steps=3", "--train.batch-size=32", "--train.num-epochs=2",
    "--train.eval-every=1", "--backbone.model.width=8", "--backbone.model.num-blocks=1",
    "--backbone.train.batch-size=32", "--backbone.train.num-epochs=2",
    "--backbone.eval.candidates=20", "--devices=1",
]  # fmt: skip

USER_ITEMS = Ragged(np.array([3, 4, 5, 1, 2, 3]), *(np.array(p) for p in ([0, 3, 5], [3, 5, 5])),
                  np.array([3, 5, 5]))  # fmt: skip


def constant_model(length=2):
    """Points near the row of (user number + place + 1) % 5 + 1, so that every item is known."""
    table = jnp.eye(5)

    def sample(params, state, key, query):
        wanted = (query.row_id[:, None] + jnp.arange(length)) % 5
        noise = 0.01 * jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), (5,)))(
            query.row_id
        )
        return table[wanted] + noise[:, None, :]

    return Model(
        init=lambda key, example: Variables((), ()),
        loss=None,
        sample=sample,
        head=lambda params, state: Head(table),
    )


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_items_are_nearest_rows_whatever_the_batch(batch_size):
    chunks = list(
        generate.prefixes(
            constant_model(), (), (), USER_ITEMS, seed=0, max_len=4, batch_size=batch_size
        )
    )
    items = np.concatenate([chunk for _, chunk in chunks])
    assert items.tolist() == [[1, 2], [2, 3], [0, 0]]  # the last user has nothing to go by
    assert [first for first, _ in chunks] == list(range(0, 3, min(batch_size, 3)))


def test_controls_draw_from_the_catalogue_and_from_the_history():
    drawn = baselines.uniform(USER_ITEMS, 7, 400, seed=0)
    assert set(drawn[0]) == set(range(1, 8)) and not drawn[2].any()
    own = baselines.resampled(USER_ITEMS, 400, seed=0)
    assert [set(row) for row in own.tolist()] == [{3, 4, 5}, {1, 2}, {0}]
    np.testing.assert_allclose(np.bincount(own[0])[3:], 400 / 3, rtol=0.2)


def test_reversed_recommender_is_continued_item_by_item():
    # its next item is one more than the mean of the last two: seen backwards, a plain recursion
    table = jnp.eye(60)

    def sample(params, state, key, query):
        count = (query.seq > 0).sum(axis=1)
        rows = jnp.arange(len(count))
        last = query.seq[rows, jnp.maximum(count - 1, 0)]
        return table[(2 * last + jnp.where(count > 3, query.seq[:, 0], 1)) % 60]

    model = Model(None, None, sample, lambda params, state: Head(table))
    bounds = ([0, 5, 6], [5, 6, 6], [5, 6, 6])
    user_items = Ragged(np.array([3, 4, 5, 1, 2, 3]), *map(np.array, bounds))
    found = baselines.recommended(model, (), (), user_items, 3, max_len=4, batch_size=2)
    expected = []
    for row in ([3, 4, 5, 1, 2], [3]):
        seen = row[:4][::-1]
        for _ in range(3):
            nxt = (2 * seen[-1] + (seen[0] if len(seen) > 3 else 1)) % 60 + 1
            seen = (seen + [nxt])[-4:]
        expected.append(seen[-3:][::-1])
    assert found.tolist() == [*expected, [0, 0, 0]]


def test_quality_of_items_by_hand():
    prefix = np.array([[3, 3], [4, 1], [0, 0]], np.int32)
    counts = np.array([1, 1, 2, 1, 1])
    true = np.array([[3, 9], [4, 1], [0, 0]])[:2]
    found = quality.quality(prefix[:2], Ragged(*(p for p in USER_ITEMS)), counts, true)
    assert found["distinct_in_row"] == 0.75
    assert found["coverage"] == 3 / 5
    assert found["in_history"] == 3 / 4
    assert found["recall"] == 0.75
    popular = (0.5 + 0.5) / 2  # items 3 and 1
    assert found["recall_popular"] == popular
    p, q = np.array([2, 1, 3, 2, 1]) / 9, np.array([2, 2, 3, 2, 2]) / 11
    np.testing.assert_allclose(found["popularity_kl"], np.sum(p * np.log(p / q)))


def cut(part):
    return (part.end - part.start).tolist()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augment") / "run"
    words = ["train", "--model=diffuasr", f"--workdir={folder}", *DATA, *SMALL]
    assert main(words) == 0
    return folder


def test_one_command_ends_in_the_recommender_on_longer_sequences(workdir):
    results = json.loads((workdir / "results.json").read_text())
    assert results["model"] == "sasrec+diffuasr"
    with np.load(workdir / "stages" / "generator" / "export.npz") as stored:
        prefix = stored["prefix"]
    assert prefix.shape == (150, 2) and 1 <= prefix.min() and prefix.max() <= 40
    found, _ = judging.reevaluate(restore.reopen(workdir), workdir, "test")
    assert found[0].metrics == pytest.approx(results["metrics"], abs=1e-6)


def test_frozen_rows_are_the_trained_backbones(workdir):
    with np.load(workdir / "stages" / "backbone" / "export.npz") as stored:
        items = stored["items"]
    generator = generation.generator_of(restore.reopen(workdir), workdir)
    state = generator.train.state
    rows = np.asarray(state["items"])[1 : len(items) + 1]
    np.testing.assert_allclose(np.corrcoef(rows[:, 0], items[:, 0])[0, 1], 1.0, rtol=1e-5)


def test_the_generator_is_chosen_by_its_held_out_loss(workdir):
    log = workdir / "stages" / "generator" / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    best = min(lines, key=lambda line: line["valid/loss"])
    generator = generation.generator_of(restore.reopen(workdir), workdir)
    assert len(lines) == 2 and int(generator.train.step) == best["step"]
    assert lines[0]["valid/loss"] > lines[1]["valid/loss"]  # it learns, so the later one is kept


def test_held_out_loss_against_a_loop():
    held = Ragged(np.arange(12), np.array([0, 4, 7]), np.array([2, 5, 10]), np.array([4, 7, 12]))

    def loss(params, state, key, example):
        first, row, weight = example
        each = params * first + row + jax.random.uniform(key)
        return jnp.sum(each * weight) / weight.sum(), None

    def example(rows, index, row, key):
        return rows.items[rows.start[jnp.maximum(index, 0)]] + 1.0, row, index >= 0

    model = Model(lambda key, example: None, loss, lambda *of: None, lambda *of: None)
    key = jax.random.key(3)
    found = held_out.held_out_loss(model, example, held, key, batch_size=100)
    rows = np.arange(4098)  # three rows, 1,366 times over
    first = np.array([1.0, 5.0, 8.0])[rows % 3]
    wanted = [p * first.mean() + rows.mean() + float(jax.random.uniform(key)) for p in (2.0, -3.0)]
    assert [found(p, None) for p in (2.0, -3.0)] == pytest.approx(wanted, rel=1e-6)


def test_results_have_both_protocols_by_length_and_the_items_quality(workdir):
    results = json.loads((workdir / "results.json").read_text())
    for found in (results["groups"], results["without"]["groups"]):
        assert set(found) == {"full", "among_21"}
        for group in found.values():
            assert group["all"]["users"] == sum(
                part["users"] for name, part in group.items() if name != "all"
            )
            assert 0 <= group["all"]["ndcg@10"] <= group["all"]["hr@10"] <= 1
    # among 21 an answer is ranked at least as high as among 40
    assert (
        results["groups"]["among_21"]["all"]["hr@10"] >= results["groups"]["full"]["all"]["hr@10"]
    )
    assert results["groups"]["full"]["all"]["hr@10"] == pytest.approx(results["metrics"]["hr@10"])
    assert {"recall", "recall_popular", "popularity_kl", "in_history"} < set(results["generated"])


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_sequences_are_written_and_read_as_they_were_trained_on(workdir, tmp_path, ending):
    output = tmp_path / f"longer.{ending}"
    words = ["augment", f"--workdir={workdir}", f"--output={output}", "--quiet"]
    assert main([*words, "--batch-size=40"]) == 0
    assert not (tmp_path / f"longer.{ending}.parts").exists()
    whole = output.read_bytes()
    assert main(words) == 2 and output.read_bytes() == whole  # nothing is overwritten
    run = restore.reopen(workdir)
    with np.load(workdir / "stages" / "generator" / "export.npz") as stored:
        trained_on = views.longer(run.dataset, stored["prefix"])
    # the synthetic catalogue numbers items that occur in no sequence, a file cannot
    read = load(str(output), run.experiment.data)
    assert read.num_users == trained_on.num_users
    for part, other in ((read.train, trained_on.train), (read.user_items, trained_on.user_items),
                        (read.shown["test"], trained_on.shown["test"])):  # fmt: skip
        for bound in ("start", "end", "stop", "generated"):
            np.testing.assert_array_equal(getattr(part, bound), getattr(other, bound))
        raw = read.item_ids[part.items - 1]
        np.testing.assert_array_equal(raw, run.dataset.item_ids[other.items - 1])
    # what is seen and ranked is raw
    assert cut(read.test) == cut(run.dataset.test)


def test_a_stopped_augmentation_goes_on_and_other_settings_are_refused(
    workdir, tmp_path, monkeypatch, capsys
):
    once, again = tmp_path / "once.csv", tmp_path / "again.csv"
    words = ["augment", f"--workdir={workdir}", "--quiet", "--batch-size=40"]
    assert main([*words, f"--output={once}"]) == 0
    whole = generate.prefixes

    def cut_short(*args, **kwargs):
        for number, chunk in enumerate(whole(*args, **kwargs)):
            if number == 2:
                raise KeyboardInterrupt
            yield chunk

    monkeypatch.setattr(generate, "prefixes", cut_short)
    assert main([*words, f"--output={again}"]) == 130
    assert not again.exists()
    asked = []
    monkeypatch.setattr(
        generate, "prefixes", lambda *a, **k: asked.append(k["first"]) or whole(*a, **k)
    )
    other = [*words, f"--output={again}", "--model.guidance-weight=3"]
    assert main(other) == 2
    assert "begun with other settings" in capsys.readouterr().err
    assert main([*words, f"--output={again}"]) == 0
    assert asked == [80] and again.read_bytes() == once.read_bytes()


def test_what_a_kill_leaves_of_an_augmentation_is_no_obstacle(workdir, tmp_path, monkeypatch):
    once, again = tmp_path / "once.csv", tmp_path / "again.csv"
    words = ["augment", f"--workdir={workdir}", "--quiet", "--batch-size=40"]
    monkeypatch.setattr(augment, "_clear", lambda parts: None)  # killed when all was written
    assert main([*words, f"--output={once}"]) == 0
    parts = tmp_path / "once.csv.parts"
    kept = {path.name: path.read_bytes() for path in parts.iterdir()}
    monkeypatch.undo()
    assert main([*words, f"--output={once}"]) == 2 and not parts.exists()

    def leave(**changed):
        again.unlink(missing_ok=True)
        folder = tmp_path / "again.csv.parts"
        folder.mkdir()
        for name, data in (kept | changed).items():
            if data is not None and name != "written":
                (folder / name).write_bytes(data)

    first = f"{0:012d}.npz"
    for changed in (
        dict.fromkeys(kept),  # an empty folder
        dict.fromkeys(kept) | {"recipe.json.partial": b"{"},
        {first: None},  # a gap: what follows is made again
        {first: kept[first][:90]},
    ):
        leave(**changed)
        assert main([*words, f"--output={again}"]) == 0
        assert again.read_bytes() == once.read_bytes()
    leave(**{"recipe.json": None})  # somebody's own
    again.unlink(missing_ok=True)
    assert main([*words, f"--output={again}"]) == 2


class Killed(Exception):
    """Stands in for a signal that cannot be caught."""


@pytest.mark.parametrize("phase", ["backbone", "generator"])
def test_a_run_that_has_no_trained_generator_is_refused(phase, tmp_path, capsys):
    folder, output = tmp_path / "half run", tmp_path / "longer.csv"
    asked = config.parse(config.preset("diffuasr", "synthetic").experiment, [*DATA, *SMALL])
    run = runs.prepare("diffuasr", asked, "synthetic")

    def kill(progress):
        # the first epoch is logged after its checkpoint was written
        if progress.phase == phase and progress.kind == "epoch":
            raise Killed

    with pytest.raises(Killed):
        pipeline.train(run, folder, log=lambda text: None, on_progress=kill)
    before = sorted(tmp_path.rglob("*"))
    augmented = ["augment", f"--workdir={folder}", f"--output={output}", "--quiet"]
    name = {"backbone": "sasrec", "generator": "diffuasr"}[phase]
    for words in (
        [*augmented, "--force"],
        ["evaluate", f"--workdir={folder}"],
        ["recommend", f"--workdir={folder}", f"--output={tmp_path / 'top.csv'}"],
    ):
        capsys.readouterr()
        assert main(words) == 2
        said = capsys.readouterr().err
        found = re.fullmatch(
            rf"error: .*half run is not finished: its {phase}, {name}, stands at update (\d+) "
            r"of at most (\d+); (bin/train .*) goes on\n",
            said,
        )
        assert found and 2 * int(found[1]) == int(found[2]) > 0, said
        assert sorted(tmp_path.rglob("*")) == before
    if phase == "backbone":
        return
    # the command that was named does go on
    _, *words = shlex.split(found[3])
    assert main(["train", *words, "--quiet"]) == 0
    assert main(augmented) == 0 and output.exists()


def test_a_generator_that_is_not_begun_is_refused(workdir, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder)
    shutil.rmtree(folder / "stages" / "generator")
    assert main(["augment", f"--workdir={folder}", f"--output={tmp_path / 'longer.csv'}"]) == 2
    assert "its generator, diffuasr, has saved no update yet; bin/train" in capsys.readouterr().err
    assert not list(tmp_path.glob("longer*"))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_rounding_leaves_out_what_it_is_told_to(batch_size):
    # every place of user u wants item u + 1, then item 5 and so on down
    table = jnp.eye(5)

    def sample(params, state, key, query):
        wanted = 10 * table[query.row_id % 5] + jnp.arange(5.0)
        return jnp.tile(wanted[:, None], (1, 3, 1))

    model = constant_model()._replace(sample=sample)
    for rounding, expected in (
        (generate.Rounding(), [[1, 1, 1], [2, 2, 2], [0, 0, 0]]),
        (generate.Rounding(dedup=True), [[1, 5, 4], [2, 5, 4], [0, 0, 0]]),
        (generate.Rounding(exclude_seen=True), [[1, 1, 1], [5, 5, 5], [0, 0, 0]]),
        (generate.Rounding(True, True), [[1, 2, 0], [5, 4, 3], [0, 0, 0]]),
    ):
        chunks = generate.prefixes(
            model, (), (), USER_ITEMS, seed=0, max_len=2, batch_size=batch_size, rounding=rounding
        )
        assert np.concatenate([items for _, items in chunks]).tolist() == expected


ROUNDED = [
    "--data.prefix-dedup=true", "--data.prefix-exclude-seen=true", "--data.prefix-max-items=4",
]  # fmt: skip


def test_rounding_is_the_same_in_a_run_and_afterwards(workdir, tmp_path):
    folder = tmp_path / "run"
    words = ["train", "--model=diffuasr", f"--workdir={folder}", "--quiet"]
    assert main([*words, *DATA, *SMALL, *ROUNDED]) == 0
    with np.load(folder / "stages" / "generator" / "export.npz") as stored:
        prefix = stored["prefix"]
    user_items = restore.reopen(folder).dataset.user_items
    sizes = user_items.end - user_items.start
    np.testing.assert_array_equal((prefix > 0).all(axis=1), sizes <= 4)
    np.testing.assert_array_equal((prefix > 0).any(axis=1), sizes <= 4)
    assert 0 < (sizes <= 4).sum() < len(sizes)
    few = prefix[sizes <= 4]
    assert (few[:, 0] != few[:, 1]).all()
    results = json.loads((folder / "results.json").read_text())
    assert results["generated"]["in_history"] == 0 and results["generated"]["distinct_in_row"] == 1
    # the other run differs in its rounding alone: its generator is trained before anything is
    # rounded, and was asked for by flags of bin/augment
    files = [tmp_path / name for name in ("own.csv", "other.csv", "plain.csv")]
    for file, run, flags in (
        (files[0], folder, []), (files[1], workdir, ROUNDED), (files[2], workdir, []),
    ):  # fmt: skip
        assert main(["augment", f"--workdir={run}", f"--output={file}", "--quiet", *flags]) == 0
    own, other, plain = (file.read_bytes() for file in files)
    assert own == other and own != plain
    made = load(str(files[0]), workdirs.read_config(folder)[2].data)
    assert made.user_items.generated.sum() == (prefix > 0).sum()


def test_a_limit_that_leaves_nobody_is_refused(workdir, tmp_path, capsys):
    output = tmp_path / "none.csv"
    assert main(["augment", f"--workdir={workdir}", f"--output={output}", "--max-items=1"]) == 2
    assert "data.prefix-max-items=1 leaves nobody" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_few_items_alone_get_more(workdir, tmp_path, capsys):
    output = tmp_path / "short.parquet"
    words = ["augment", f"--workdir={workdir}", f"--output={output}", "--quiet", "--max-items=4"]
    assert main(words) == 0
    run = restore.reopen(workdir)
    user_items = run.dataset.user_items
    read = load(str(output), run.experiment.data)
    ahead = np.add.reduceat(read.user_items.generated, read.user_items.start)
    few = user_items.end - user_items.start <= 4
    assert few.any() and not few.all()
    said = f"{2 * few.sum()} generated items ahead of the sequences of {few.sum()} of 150 users in "
    assert capsys.readouterr().out.startswith(said)
    np.testing.assert_array_equal(ahead > 0, few)


def test_shrinking_rows_are_warned_of(tmp_path, capsys):
    # decay takes the part of a loss that falls with its rows: .97^100 is less than a tenth
    words = [
        "train", "--model=diffuasr", f"--workdir={tmp_path / 'run'}", *DATA,
        *(word for word in SMALL if "num-epochs" not in word and "eval-every" not in word),
        "--model.items=trained", "--model.width=8", "--model.guidance=none",
        "--train.num-epochs=200", "--train.eval-every=100", "--train.learning-rate=0.03",
        "--train.optimizer=adamw", "--train.weight-decay=1", "--backbone.train.num-epochs=1",
    ]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("item rows have shrunk") == 1
    # every phase is told of by the metric that picks its checkpoint
    epochs = [
        re.findall(r"valid/(\S+)", line) for line in said.splitlines() if "examples/s" in line
    ]
    assert epochs == [["hr@20"], ["loss"], ["loss"], ["hr@20"]]


def test_what_cannot_be_started_from_is_refused(tmp_path):
    made = config.preset("diffuasr", "synthetic").experiment
    np.savez(tmp_path / "items.npz", items=np.zeros((600, 4), np.float32))
    given = config.with_backbone(made, str(tmp_path / "items.npz"), "synthetic")
    with pytest.raises(ValueError, match="--backbone=sasrec is"):
        runs.prepare("diffuasr", given, "synthetic")
    asked = config.parse(made, ["--model.guidance=classifier"])
    blind = config.with_backbone(asked, "mf", "synthetic")
    with pytest.raises(ValueError, match="classifier_free"):
        runs.prepare("diffuasr", blind, "synthetic")
