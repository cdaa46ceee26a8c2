"""Interactions as a TFDS directory: the round trip changes nothing and needs no TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest

from jaxrec_diff import cli
from jaxrec_diff.data import sources, tfds
from jaxrec_diff.data.columns import Columns
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.data.sources import dataset_name

NAMES = DataConfig(user="visitor", item="product", timestamp="when")


def test_the_round_trip_gives_the_same_split(clicks, tmp_path, capsys):
    target = f"tfds:{tmp_path / 'my-clicks'}"
    columns = ["--data.user=visitor", "--data.item=product", "--data.timestamp=when"]
    assert cli.main(["convert", f"--data={clicks}", f"--output={target}", *columns]) == 0
    made = f"tfds:{tmp_path / 'my_clicks' / '1.0.0'}"
    assert made in capsys.readouterr().out and dataset_name(made) == "my_clicks"
    direct, through = load(str(clicks), NAMES), load(made, DataConfig())
    assert through.card["hash"] == direct.card["hash"]
    back = tmp_path / "back.csv"
    assert cli.main(["convert", f"--data={made}", f"--output={back}"]) == 0
    assert load(str(back), DataConfig()).card["hash"] == direct.card["hash"]
    assert cli.main(["convert", f"--data={clicks}", f"--output={target}", *columns]) == 2
    assert "write another version" in capsys.readouterr().err


def test_records_are_users_in_the_order_of_time(tmp_path):
    given = Columns(
        np.array([30, 10, 30, 30]),
        np.array([7, 8, 9, 7]),
        np.array([1.0, 2.0, 3.0, 4.5]),
        np.array([5, 1, 2, 5]),
    )
    path = tfds.write(given, tmp_path, "some", "2.1.0")
    got = tfds.read(path)
    assert path.name == "2.1.0" and got.users.tolist() == [10, 30, 30, 30]
    assert got.items.tolist() == [8, 9, 7, 7] and got.times.tolist() == [1, 2, 5, 5]
    assert got.ratings.tolist() == [2.0, 3.0, 1.0, 4.5]


def test_nothing_of_it_imports_tensorflow(tmp_path):
    program = (
        "import sys, pathlib, numpy as np\n"
        "from jaxrec_diff.data import columns, tfds\n"
        "c = columns.Columns(np.array(['a', 'b']), np.array(['x', 'y']), None, None)\n"
        f"print(tfds.read(tfds.write(c, pathlib.Path({str(tmp_path)!r}), 'few')).items.tolist())\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "['x', 'y']"


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no prepared TFDS directory"):
        load(f"tfds:{tmp_path}", DataConfig())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("u.data", "1\t20\t3\t881250949\n2\t10\t4\t881250950\n"),
        ("ratings.dat", "1::20::3::881250949\n2::10::4::881250950\n"),
        (
            "ratings.csv",
            "userId,movieId,rating,timestamp\n1,20,3.0,881250949\n2,10,4.0,881250950\n",
        ),
    ],
)
def test_raw_files_of_movielens_are_read(tmp_path, name, text):
    path = tmp_path / "ml-some" / name
    path.parent.mkdir()
    path.write_text(text)
    table = sources.read(str(path), DataConfig()).tables["all"]
    assert (table.users.tolist(), table.items.tolist()) == ([1, 2], [20, 10])
    assert (table.ratings.tolist(), table.times.tolist()) == ([3, 4], [881250949, 881250950])
    assert dataset_name(str(path)) == "ml-some"
    with pytest.raises(ValueError, match="grouplens.org/datasets/movielens"):
        sources.read(str(tmp_path / "ml-1m" / "ratings.dat"), DataConfig())
