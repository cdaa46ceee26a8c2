"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end of the block.

    If the block raises, what was written is removed and `path` stays as it was. A process that is
    killed leaves it behind; the next one writes over it.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "figures.txt"
    >>> with replacing(path) as partial:
    ...     _ = partial.write_text("whole")
    >>> [file.name for file in Path(folder.name).iterdir()]
    ['figures.txt']
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
