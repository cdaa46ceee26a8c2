"""A trained model as one file that serves anywhere JAX runs, without this package.

`export` writes a folder:

    model.stablehlo   history -> items and scores, for cpu, cuda and tpu, any number of histories
    weights.npz       its arrays by name
    vocabulary.npz    raw ids: `item_ids[j]` is item j + 1, as is `item_titles[j]` where the run
                      was given titles
    README.md         the lines that serve it
"""

import calendar
import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import layout
from jaxrec_diff.data import ids
from jaxrec_diff.evaluation import rank
from jaxrec_diff.experiments import restore
from jaxrec_diff.experiments.phases import PhaseRun
from jaxrec_diff.inference import recommender
from jaxrec_diff.models import registry
from jaxrec_diff.ops import files, streams

PLATFORMS = ("cpu", "cuda", "tpu")
_CHUNK = 8192  # items scored at once; a literal, because the number of rows is not known

_README = """\
# {title}

Top {k} items for histories of raw ids, by {model}{seen}. Serve it in the same folder with JAX
{version} or newer; nothing else is needed:

```python
{code}
```

`history` holds item numbers, oldest first, right-padded with 0; any number of rows and of columns
works. `row` and `seed` key the noise of the sampler: equal ones give equal lists. Ids that are not
in the vocabulary have no number: leave them out. An item 0 means that no candidate was left.
{note}
JAX promises to read a program for six months after the JAX that exported it came out: any that
comes out until {until} at the latest reads this one, which JAX {exact} exported on {today}. Keep
that JAX to serve longer, or export the run again with a newer one:

    bin/export --workdir=RUN --output=FOLDER --k={k}{include}
"""

_IDS = 'np.load("vocabulary.npz")["item_ids"]'
# of ids that fixed-width text cannot hold
_IDS_OF_BYTES = """\
(lambda v, e: np.array([bytes(v[a:b]).decode() for a, b in zip([0, *e], e)], object))(
    *map(np.load("vocabulary.npz").__getitem__, ("item_ids_utf8", "item_ids_end")))"""

_CODE = """\
import jax, numpy as np; from jax import export
serve = jax.jit(export.deserialize(bytearray(open("model.stablehlo", "rb").read())).call)
weights, ids = dict(np.load("weights.npz")), {ids}
history = np.array([[1 + ids.tolist().index(raw) for raw in {example}]], np.int32)
items, scores = serve(weights, history, {user}np.arange(1, dtype=np.int32), np.int32({seed}))"""


def export(
    restored: restore.Restored,
    output: Path,
    *,
    k: int = 20,
    include_seen: bool = False,
    platforms: Sequence[str] = PLATFORMS,
) -> dict[str, Any]:
    """Writes a model for serving; its lists are those of `recommend` with one draw.

    Args:
      restored: a trained model.
      output: a folder that does not exist or is empty.
      k: length of the lists.
      include_seen: items of a history may be recommended again.
      platforms: of the program.

    Returns:
      Sizes of the files in bytes by name.

    Raises:
      ValueError: if the folder is in use, or the model reads what a history does not hold.
    """
    from jax import export as jax_export

    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise ValueError(f"{output} is not empty; name a new folder")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    phase = restored.phase
    k = recommender.capped(k, phase.dataset.num_items)
    serve, weights, by_user = program(restored, k=k, include_seen=include_seen)
    b, s = jax_export.symbolic_shape("b, s")
    number = jax.ShapeDtypeStruct((b,), jnp.int32)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), weights)
    args = [shapes, jax.ShapeDtypeStruct((b, s), jnp.int32), number]
    args += [number] if by_user else []
    artifact = jax_export.export(jax.jit(serve), platforms=tuple(platforms))(
        *args, jax.ShapeDtypeStruct((), jnp.int32)
    )
    vocabulary = ids.pack("item_ids", phase.dataset.item_ids)
    if by_user:
        vocabulary |= ids.pack("user_ids", phase.dataset.user_ids)
    if phase.dataset.titles is not None:
        vocabulary |= ids.pack("item_titles", phase.dataset.titles)

    def write() -> dict[str, int]:
        with files.replacing_folder(output) as folder:
            (folder / "model.stablehlo").write_bytes(artifact.serialize())
            np.savez(folder / "weights.npz", **weights)  # type: ignore[arg-type]
            np.savez(folder / "vocabulary.npz", **vocabulary)  # type: ignore[arg-type]
            (folder / "README.md").write_text(_readme(phase, k, include_seen, by_user))
        return {path.name: path.stat().st_size for path in sorted(output.iterdir())}

    return layout.by_first(write)


def program(
    restored: restore.Restored, *, k: int, include_seen: bool = False
) -> tuple[Callable, dict[str, np.ndarray], bool]:
    """What is exported, before it is.

    Returns:
      serve: (weights, history i32[B, S], [user i32[B],] row i32[B], seed i32[]) -> items i32[B, k],
        scores f32[B, k]; `user` only for a model that knows users by number.
      weights: its first argument.
      by_user: whether it takes `user`.

    Raises:
      ValueError: on a model whose input depends on more than a history (weights by time).
    """
    phase, model, params, state = restore.honest(restored)
    kind = registry.input_of(phase.settings.model)
    by_user, settings = kind.knows_users, phase.settings.data
    if kind.weighs_by_time and settings.time_weight_min != settings.time_weight_max:
        raise ValueError(
            f"{phase.title} weighs a history by time, which the program is not told; export a "
            "model without data.time-weight-min"
        )
    state = rank.precompute(model, params, state)
    leaves, tree = jax.tree.flatten((params, state))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path((params, state))]
    names = [f"{number:03d}{path}" for number, path in enumerate(paths)]
    weights = dict(zip(names, map(np.asarray, layout.whole(leaves)), strict=True))
    weights["candidates"] = phase.dataset.candidates()

    def serve(weights, history, *rest):
        user, row_id, seed = rest if by_user else (jnp.zeros_like(rest[0]), *rest)
        params, state = jax.tree.unflatten(tree, [weights[name] for name in names])
        query = kind.from_history(history, row_id, user, settings)
        drawn = rank.sample(model, params, state, streams.draw(seed, 0), query)
        top = rank.top(
            drawn,
            k=k,
            seen=None if include_seen else history,
            allowed=weights["candidates"],
            chunk=max(k, min(_CHUNK, rank.num_rows(drawn))),
        )
        return top.items, top.scores

    return serve, weights, by_user


def six_months_after(day: datetime.date) -> datetime.date:
    """The same day six months later, or the last one of a shorter month.

    >>> six_months_after(datetime.date(2026, 8, 31)).isoformat()
    '2027-02-28'
    """
    year, month = divmod(day.year * 12 + day.month - 1 + 6, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return datetime.date(year, month + 1, min(day.day, last))


def _readme(phase: PhaseRun, k: int, include_seen: bool, by_user: bool) -> str:
    example, today = phase.dataset.item_ids[:2].tolist(), datetime.date.today()
    plain = "item_ids" in ids.pack("item_ids", phase.dataset.item_ids)
    note = (
        "\nThis model knows users by number: pass `user`, the place of the user's id in\n"
        "`user_ids` of the vocabulary, before `row`.\n"
        if by_user
        else ""
    )
    return _README.format(
        title=f"{phase.title} on {phase.dataset.name}",
        k=k,
        model=phase.title,
        seen="" if include_seen else ", without those of the history",
        version=".".join(jax.__version__.split(".")[:2]),
        exact=jax.__version__,
        today=today.isoformat(),
        until=six_months_after(today).isoformat(),
        include=" --include-seen" if include_seen else "",
        code=_CODE.format(
            example=json.dumps(example),
            ids=_IDS if plain else _IDS_OF_BYTES,
            user="np.zeros(1, np.int32), " if by_user else "",
            seed=phase.settings.seed,
        ),
        note=note,
    )
