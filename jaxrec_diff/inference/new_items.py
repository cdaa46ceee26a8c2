"""Items that training never met, recommended by their vectors without training again.

Where the rows of a model's table of items are frozen vectors (`data.item-features`), the row of a
new item is its own vector, scaled alike. Histories may hold new items too, and known items that
training never met become candidates, whose rows are as good.
"""

from pathlib import Path

import numpy as np

from jaxrec_diff import layout
from jaxrec_diff.data import item_features
from jaxrec_diff.data.item_features import Scaling
from jaxrec_diff.experiments import phases, workdirs
from jaxrec_diff.experiments.restore import Restored
from jaxrec_diff.models import given_rows, registry

_HOW = "train sasrec or preferdiff with data.item-features=FILE"


def extended(restored: Restored, workdir: Path, file: Path) -> Restored:
    """A trained model with the items of a file of vectors that it does not know behind its own.

    Args:
      restored: the model.
      workdir: its own, which holds how its vectors were scaled.
      file: as for `data.item-features`; items that are known are passed over.

    Raises:
      ValueError: on a model whose rows of items are not given vectors, or if the file has none of a
        new item, or others than the model was trained on.
    """
    _check(restored, workdir)
    phase, scaling = restored.phase, workdirs.read_scaling(workdir)
    dataset, settings = phase.dataset, phase.settings
    ids, vectors = item_features.others(file, settings.data, dataset.item_ids)
    rows = _rows(restored, scaling, vectors, file)
    known, new = item_features.alike(dataset.item_ids, ids)
    titles = dataset.titles
    if titles is not None:
        titles = np.concatenate([titles, np.full(len(new), "", object)])
    larger = dataset._replace(
        num_items=dataset.num_items + len(new),
        item_ids=np.concatenate([known, new]),
        train_counts=np.pad(dataset.train_counts, (0, len(new))),
        titles=titles,
        item_vectors=None,  # the rows are in the parameters
        any_item=True,
    )
    params = restored.params | {"items": layout.whole(restored.params["items"])}
    params = given_rows.grown(params, dataset.num_items, rows)
    params = layout.put(params, layout.shardings(params, phase.mesh))
    # what it started from has no row of a new item, and is in the parameters too
    phase = phases.changed(phase, dataset=larger, exports=phases.NOTHING)
    return Restored(phase, phases.model_of(phase), params, restored.state)


def _check(restored: Restored, workdir: Path) -> None:
    settings, title = restored.phase.settings, restored.phase.title
    table = registry.system(settings.model).item_table
    if table is None:
        raise ValueError(f"{title} learns an item from its users, and knows no new one; {_HOW}")
    if not settings.data.item_features:
        raise ValueError(
            f"{workdir} was trained without vectors of items, so that a new one has no row; {_HOW}"
        )
    if settings.data.item_features_use != "frozen":
        raise ValueError(
            f"{workdir} trained the rows of its items on from their vectors, which a new one's row "
            "has not been; train it with data.item-features-use=frozen"
        )
    if not table.grows:
        raise ValueError(
            f"{title} learns more of an item than its row, which a new one lacks; {_HOW}"
        )


def _rows(restored: Restored, scaling: Scaling, vectors: np.ndarray, file: Path) -> np.ndarray:
    """The rows of new items, f32[M, D], scaled as those of the others were."""
    settings, trained = restored.phase.settings, len(scaling.mean)
    if vectors.shape[1] != trained:
        raise ValueError(
            f"{file} holds vectors of {vectors.shape[1]} numbers, and the model was trained on "
            f"some of {trained}"
        )
    table = registry.system(settings.model).item_table
    assert table is not None  # `_check` looked
    return item_features.rows_for(
        scaling.apply(vectors),
        settings.data,
        settings.model.width,
        table.deviation(settings.model),
    )
