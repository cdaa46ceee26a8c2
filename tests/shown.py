"""What a text shows of the package: commands whose flags are known, Python that runs."""

import re
import shlex
from pathlib import Path

from jaxrec_diff import cli, config
from jaxrec_diff.commands import distributed

ROOT = Path(__file__).parent.parent


def snippets(text: str) -> list[str]:
    """Blocks of Python, in their order."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[tuple[str, str]]:
    """Indented lines that call a command: its name and its words."""
    joined = text.replace("\\\n", " ")
    return re.findall(r"^    bin/(\S+)[ \t]*(.*)$", joined, re.MULTILINE)


def flags(text: str) -> set[str]:
    """Dotted flags that are named anywhere: "data.max-len"."""
    return set(re.findall(r"--([a-z]+\.[a-z][a-z.-]*[a-z])", text))


def check(name: str, words: str, capsys) -> None:
    """Flags of a command are those that its help has, or dotted ones that parse."""
    _, argv = distributed.split([name, *shlex.split(words, comments=True)])
    assert (ROOT / "bin" / name).exists(), name
    if name == "test":
        return
    given = [word for word in argv if word.startswith("--") and word != "--"]
    assert cli.main([name, "--help"]) == 0
    known = set(re.findall(r"--([a-z-]+)", capsys.readouterr().out))
    dotted = []
    for flag in given:
        if "." in flag.split("=")[0]:
            dotted.append(flag)
        else:
            assert flag.split("=")[0].removeprefix("--") in known, flag
    models = [flag.partition("=")[2] for flag in given if flag.startswith("--model=")]
    model = models[0] if models else "dimerec"
    if model == "NAME":  # a placeholder
        return
    config.parse(config.preset(model, "clicks").experiment, dotted)
