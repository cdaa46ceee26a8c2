"""The package as a wheel, in an environment of its own."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SMALL = [
    "--data.synthetic.num-users=60",
    "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4",
    "--data.synthetic.max-length=8",
    "--data.max-len=6",
    "--train.batch-size=32",
    "--train.num-epochs=1",
    "--model.width=8",
    "--model.num-steps=4",
    "--model.num-negatives=16",
]


def run(*words, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess:
    """A program that knows nothing of the checkout."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    found = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert found.returncode == expect, found.stderr
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.slow
def test_a_wheel_holds_the_presets_the_license_and_the_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "jaxrec_diff/configs/dimerec.py" in names and "jaxrec_diff/py.typed" in names
    assert {"index.html", "page.css", "page.js"} <= {
        name.removeprefix("jaxrec_diff/serving/page/") for name in names
    }
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "jaxrec_diff/LICENSE" in names and "jaxrec_diff/docs/pages/faq.md" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"jaxrec_diff"}


@pytest.mark.slow
def test_an_installed_package_trains_from_another_folder(wheel, tmp_path):
    """Its dependencies are those of this environment."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    python, program = (tmp_path / "env" / "bin" / name for name in ("python", "jaxrec-diff"))
    installer = [sys.executable, "-m", "pip", "--python", python, "install"]
    run(*installer, "--no-deps", "--no-index", "--disable-pip-version-check", wheel, cwd=tmp_path)
    paths = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    site = Path(sysconfig.get_path("purelib", vars=paths))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    where = "import jaxrec_diff; print(jaxrec_diff.__file__, jaxrec_diff.__version__)"
    file, version = run(python, "-P", "-c", where, cwd=elsewhere).stdout.split()
    assert Path(file).is_relative_to(tmp_path) and version == wheel.name.split("-")[1]

    assert (
        "usage: jaxrec-diff train --model=NAME" in run(program, "train", "-h", cwd=elsewhere).stdout
    )
    run(program, "train", "--model=dimerec", "--workdir=run", "--quiet", *SMALL, cwd=elsewhere)
    results = json.loads((elsewhere / "run" / "results.json").read_text())
    assert results["num_users"] == 60 and results["command"].startswith("jaxrec-diff train --model")
    refused = run(program, "evaluate", "--workdir=nowhere", cwd=elsewhere, expect=2).stderr
    assert refused.count("\n") == 1 and "jaxrec-diff train made" in refused
