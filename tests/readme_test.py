"""The README's example runs as it stands."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        scope: dict = {}
        exec(block, scope)
        assert scope["x0"].shape == (8, 64)


def test_every_preset_is_in_the_table():
    names = {path.stem for path in (Path(__file__).parent.parent / "configs").glob("*.py")}
    listed = set(re.findall(r"^\| `([a-z0-9_]+)` \|", README, re.MULTILINE))
    assert names == listed
