"""Builds the pages: guides, systems, commands, and the reference that pdoc makes of docstrings.

A guide is `pages/NAME.md`, in which `{{systems}}`, `{{choices}}`, `{{diffuses}}` and
`{{leaderboards}}` stand for tables that are made, and `{{share: ...}}` for a figure of a results
file (`figures`). Its links are to `.md` files, so that it can be read as it is; the pages link to
`.html`. Nothing in a page asks the network.
"""

import importlib
import re
import warnings
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from jaxrec_diff import _version
from jaxrec_diff.config.presets import about, preset_names
from jaxrec_diff.docs import boards, figures, systems
from jaxrec_diff.ops import files
from jaxrec_diff.reporting import page

GUIDES: Mapping[str, str] = {
    "choose": "Which model should I use?",
    "leaderboards": "Which system for which data",
    "data": "Bring your own data",
    "python": "From Python",
    "commands": "Commands",
    "protocols": "Protocols and controls",
    "workdir": "What a run leaves",
    "scale": "Many devices, a TPU pod, large catalogues",
    "functions": "Pure functions in other JAX code",
    "questions": "Open questions of the papers",
    "ours": "A diffusion of our own",
    "glossary": "Glossary",
    "faq": "Questions",
}
"""The guides by the names of their files, in the order of reading, with their titles."""

_MARK = ".written-by-jaxrec-docs"
_SOURCES = Path(__file__).parent / "pages"
_MADE: Mapping[str, Callable[[], str]] = {
    "systems": systems.table,
    "choices": systems.choices,
    "diffuses": figures.diffuses,
    "leaderboards": boards.leaderboards,
}


def build(
    output: Path,
    usages: Mapping[str, tuple[str, str]],
    *,
    reference: bool = True,
    tell: Callable[[str], None] = lambda said: None,
) -> Path:
    """Writes all pages into a folder and returns the first of them.

    Args:
      output: new, empty, or written by this function before.
      usages: of every command, what it does in a line and its help.
      reference: also the reference of the package, which takes most of the time.
      tell: is told what is worked on.

    Raises:
      ValueError: if the folder holds anything else, or what the pages are made by is missing.
    """
    _check(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / _MARK).write_text("")
    for name, title in GUIDES.items():
        tell(title.lower())
        text = _commands(usages) if name == "commands" else source(name)
        _write(output / f"{name}.html", title, text)
    for name in preset_names():
        tell(name)
        _write(output / "models" / f"{name}.html", name, _below(systems.page(name)))
    if reference:
        tell("the reference")
        _reference(output / "reference")
    first = output / "index.html"
    _write(first, f"jaxrec_diff {_version.__version__}", _index(reference))
    return first


def source(name: str) -> str:
    """The markdown of a guide that is written by hand, with what is made in its places."""
    text = (_SOURCES / f"{name}.md").read_text()
    for what, make in _MADE.items():
        if f"{{{{{what}}}}}" in text:
            text = text.replace(f"{{{{{what}}}}}", make())
    return figures.filled(text)


def html(markdown: str) -> str:
    """Markdown as html: tables that scroll, and commands that can be copied."""
    import markdown2

    plain = ("tables", "fenced-code-blocks", "header-ids")
    # x_t and x_0 in one sentence are no emphasis
    extras = {**dict.fromkeys(plain), "middle-word-em": False}
    text = str(markdown2.markdown(markdown, extras=extras))
    text = re.sub(r'(href="(?!https?:)[^"#]*)\.md(?=[#"])', r"\1.html", text)
    text = text.replace(" ± ", "&nbsp;±&nbsp;")  # a figure and its deviation stay on one line
    text = text.replace("<table>", '<div class="scroll prose"><table>')
    text = text.replace("</table>", "</table></div>")
    return re.sub(
        r"<pre><code>(bin/[^<]*?)\n?</code></pre>",
        r'<div class="command"><pre>\1</pre></div>',
        text,
    )


def _check(output: Path) -> None:
    try:
        import markdown2  # noqa: F401
        import pdoc  # noqa: F401
    except ImportError:
        raise ValueError("the documentation needs pdoc: pip install 'jaxrec-diff[docs]'") from None
    if output.is_file():
        raise ValueError(f"{output} is a file; name a folder")
    if output.is_dir() and any(output.iterdir()) and not (output / _MARK).exists():
        raise ValueError(f"{output} holds other files; name a new folder")


def _write(path: Path, title: str, markdown: str) -> None:
    up = "../" if path.parent.name == "models" else ""
    links = [f'<a href="{up}index.html">jaxrec_diff</a>']
    links += [f'<a href="{up}{name}.html">{escape(told)}</a>' for name, told in GUIDES.items()]
    path.parent.mkdir(exist_ok=True)
    with files.replacing(path) as partial:
        navigation = f"<nav class=soft>{' · '.join(links)}</nav>"
        partial.write_text(page.document(title, [("", html(markdown))], above=navigation))


def _index(reference: bool) -> str:
    """The first page: what there is."""
    guides = "\n".join(f"- [{title}]({name}.md)" for name, title in GUIDES.items())
    models = "\n".join(f"- [{name}](models/{name}.md): {about(name)}" for name in preset_names())
    parts = [source("index"), f"## Guides\n\n{guides}", f"## Systems\n\n{models}"]
    if reference:
        parts.append(
            "## Reference\n\n[Every module, function and class](reference/jaxrec_diff.html), "
            "with a search."
        )
    return "\n\n".join(parts)


def _commands(usages: Mapping[str, tuple[str, str]]) -> str:
    """What every command says of itself."""
    parts = [
        "Each is `bin/NAME` in a checkout and `jaxrec-diff NAME` where the package is installed. "
        "A wrong use is a sentence and exit code 2.",
        "| exit code | |\n|---|---|\n| 0 | done |\n| 2 | input that cannot be used; nothing was "
        "written |\n| 3 | a loss that stopped being a number |\n| 4 | a disk that takes nothing "
        "more; what was saved is whole |\n| 75 | another process of the run was lost |\n"
        "| 130, 143 | stopped by SIGINT or SIGTERM, with the state saved |",
    ]
    for name, (what, usage) in usages.items():
        parts.append(f"## {name}\n\n{what[0].upper()}{what[1:]}.\n\n```\n{usage.strip()}\n```")
    return "\n\n".join(parts)


def _below(markdown: str) -> str:
    """A page of a system without its title, which the page has."""
    return markdown.split("\n", 1)[1]


def _reference(folder: Path) -> None:
    """A page a module, from docstrings; the modules are imported for it.

    One that needs an extra which is not installed is left out.
    """
    import pdoc

    left_out = [f"!{name}" for name in _modules() if not _importable(name)]

    pdoc.render.configure(docformat="google", search=True, show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of annotations that only a type checker can resolve
        pdoc.pdoc("jaxrec_diff", "!jaxrec_diff.examples", *left_out, output_directory=folder)
    for path in folder.rglob("*.html"):
        path.write_text(_linked(path.read_text()))


def _modules() -> list[str]:
    """The modules of the package but for the examples, which train when they are imported."""
    root = Path(__file__).parents[1]
    files_of = (path.relative_to(root.parent) for path in sorted(root.rglob("*.py")))
    named = (".".join(path.with_suffix("").parts) for path in files_of)
    return [
        name.removesuffix(".__init__")
        for name in named
        if not name.startswith(("jaxrec_diff.examples", "jaxrec_diff.configs"))
    ]


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _linked(text: str) -> str:
    """A page without its links to places that it lacks: docstrings that are inherited have some."""
    places = set(re.findall(r'\bid="([^"]+)"', text))
    return re.sub(
        r'<a href="#([^"]+)">(.*?)</a>',
        lambda link: link[0] if link[1] in places else link[2],
        text,
    )
