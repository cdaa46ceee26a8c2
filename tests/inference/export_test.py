"""The exported program gives the lists of `recommend` where this package does not exist."""

import datetime
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxrec_diff import cli, config
from jaxrec_diff.commands import export as command_export
from jaxrec_diff.commands import terminal
from jaxrec_diff.data import ids
from jaxrec_diff.inference import export, recommend, recommender
from jaxrec_diff.inference import histories as inference_histories

pytest.importorskip("flatbuffers", reason="needs the extra `export`")


def serve(folder, more: str) -> str:
    """Runs the README's lines and some more in a process that cannot import this package."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    assert code.count("\n") == 5
    refuse = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in ('jaxrec_diff', 'flax', 'optax', 'orbax'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "try:\n    import jaxrec_diff\n    raise SystemExit('it is here')\n"
        "except ImportError: pass\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", refuse + code + more],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env={"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_program_gives_the_same_ids_without_this_package(clicks_run, tmp_path, capsys):
    folder = tmp_path / "serving"
    command = ["export", f"--workdir={clicks_run}", f"--output={folder}", "--k=6"]
    assert cli.main(command) == 0
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "model.stablehlo", "vocabulary.npz", "weights.npz",
    }  # fmt: skip
    histories = [
        ["shoe-01"],
        ["shoe-05", "shoe-02", "shoe-09"],
        [f"shoe-{item:02d}" for item in range(20)],  # longer than the model sees: all are masked
        ["shoe-07", "shoe-07", "shoe-11"],
    ]
    more = f"""
numbers = {{raw: 1 + j for j, raw in enumerate(ids.tolist())}}
for count in (4, 2):
    rows = {histories!r}[:count]
    history = np.zeros((count, 25), np.int32)
    for row, raw in enumerate(rows):
        history[row, : len(raw)] = [numbers[one] for one in raw]
    items, scores = serve(weights, history, np.arange(count, dtype=np.int32), np.int32(0))
    for row in np.asarray(items):
        print(*ids[row[row > 0] - 1])
"""
    got = [line.split() for line in serve(folder, more).splitlines()]
    want = [entry.items for entry in recommend.recommend(clicks_run, histories=histories, k=6)]
    assert got == want + want[:2]
    assert cli.main(command) == 2
    assert "is not empty" in capsys.readouterr().err


def test_ids_of_any_length_are_in_the_vocabulary(tmp_path):
    many = np.array(["x" * 100_000, "a\0", *map(str, range(3000))], object)
    np.savez(tmp_path / "vocabulary.npz", **ids.pack("item_ids", many))
    code = f"import numpy as np\nids = {export._IDS_OF_BYTES}\nprint(ids.shape, ids[:2].tolist())"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == f"(3002,) {many[:2].tolist()}"


def test_the_vocabulary_is_the_runs(clicks_run, tmp_path):
    assert cli.main(["export", f"--workdir={clicks_run}", f"--output={tmp_path / 'out'}"]) == 0
    with (
        np.load(tmp_path / "out" / "vocabulary.npz") as found,
        np.load(clicks_run / "vocab.npz") as stored,
    ):
        np.testing.assert_array_equal(found["item_ids"], stored["item_ids"])


@pytest.mark.parametrize("name", ["diffrec", "dimerec"])
def test_histories_with_repeated_items_get_the_lists_of_recommend(name, untrained):
    restored = untrained(name)
    ids = restored.phase.dataset.item_ids
    histories = [[4, 4, 9], [7, 2, 7, 2, 5, 7, 11, 3, 20], [6]]
    serve, weights, _ = export.program(restored, k=5)
    history, row_id = np.zeros((3, 10), np.int32), np.arange(3, dtype=np.int32)
    for row, items in enumerate(histories):
        history[row, : len(items)] = items
    seed = np.int32(restored.phase.settings.seed)
    found, scores = jax.jit(serve)(weights, history, row_id, seed)
    asked = recommender.of(restored, k=5, batch_size=16)
    raw = [[ids[item - 1] for item in items] for items in histories]
    want = recommend.recommend(asked, histories=raw)
    np.testing.assert_allclose(scores, [entry.scores for entry in want], rtol=1e-4, atol=1e-5)
    got = [ids[row - 1].tolist() for row in np.asarray(found)]
    assert got == [entry.items for entry in want]


@pytest.mark.slow
@pytest.mark.parametrize("name", config.preset_names())
def test_every_model_can_be_exported(name, untrained, tmp_path):
    restored = untrained(name)
    dataset = restored.phase.dataset
    if restored.phase.settings.data.time_weight_min != 1:
        with pytest.raises(ValueError, match="weighs a history by time"):
            export.program(restored, k=5)
        return
    export.export(restored, tmp_path / "out", k=5, platforms=("cpu", "cuda", "tpu"))
    program = bytearray((tmp_path / "out" / "model.stablehlo").read_bytes())
    with np.load(tmp_path / "out" / "weights.npz") as stored:
        weights = dict(stored)
    users = np.arange(4, dtype=np.int32)
    whole = inference_histories.known_users(dataset)
    history = np.zeros((4, 12), np.int32)
    for row in users:
        mine = whole.items[whole.start[row] : whole.end[row]]
        history[row, : len(mine)] = mine
    args = [users] if "user_ids" in np.load(tmp_path / "out" / "vocabulary.npz").files else []
    seed = np.int32(restored.phase.settings.seed)
    items, scores = jax.export.deserialize(program).call(weights, history, *args, users, seed)
    asked = recommender.of(restored, k=5, batch_size=4)
    (lists,) = recommender.ask(asked, inference_histories.of_users(asked, users))
    np.testing.assert_allclose(scores, lists.scores, rtol=1e-4, atol=1e-5)
    close = np.abs(np.diff(lists.scores, axis=1)).min(axis=1) < 1e-4
    np.testing.assert_array_equal(np.asarray(items)[~close], lists.items[~close])


def test_the_readme_says_until_when_a_program_is_read(untrained, monkeypatch):
    """JAX promises six months after the exporting version came out; the day of export is later."""

    class Day(datetime.date):
        @classmethod
        def today(cls):
            return cls(2026, 8, 31)

    monkeypatch.setattr(datetime, "date", Day)
    phase = untrained("dimerec").phase
    for seen, more in (False, ""), (True, " --include-seen"):
        said = " ".join(export._readme(phase, 7, seen, False).split())
        assert "promises to read a program for six months" in said
        assert f"until 2027-02-28 at the latest reads this one, which JAX {jax.__version__}" in said
        assert f"{jax.__version__} exported on 2026-08-31." in said
        command = f"bin/export --workdir=RUN --output=FOLDER --k=7{more}"
        assert said.endswith(f"export the run again with a newer one: {command}")
        words = terminal.split_flags(command.split()[1:], command_export.ACCEPTS)
        assert words.dotted == [] and words.bare["k"] == "7"  # it takes them all
        assert words.switches == ({"include-seen"} if seen else set())
