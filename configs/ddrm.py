"""DDRM (arXiv:2401.06982) on LightGCN, or on another backbone.

    bin/train --model=ddrm --data=PATH/ml-1m-noisy
    bin/train --model=ddrm --data=PATH/ml-1m-noisy --preset=ml-1m-noisy-mf
    bin/train --model=ddrm --data=PATH/ml-1m-noisy --backbone=tables.npz

tables.npz holds users f32[U, D] and items f32[I, D], by these names or by those of the released
checkpoints, which PyTorch turns into it: np.savez("tables.npz", **{name: table.numpy() for name,
table in torch.load(path, weights_only=True).items()}).

The released settings, a preset for each backbone, but checkpoints are picked on Recall@20, not @10.
Every run prints its two controls, the backbone itself and the mean of a user's items. Two readings
of the released LightGCN settings are worth knowing: they take the tables two steps along the graph
(model.layers), where the backbone is far from its best, and walk down more steps than they train
(model.extra-steps).
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Fast, Phase, Preset, phase
from jaxrec_diff.config.facts import Facts
from jaxrec_diff.config.space import Range
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.ddrm import DDRMConfig
from jaxrec_diff.training.config import TrainConfig

_TRAIN = TrainConfig(
    batch_size=2048, learning_rate=1e-3, epoch_sampler="whole", num_epochs=1000, eval_every=5,
    patience=5,
)  # fmt: skip
_EVAL = EvalConfig(metric="recall@20", ks=(10, 20, 50, 100))


def _ddrm(backbone: Phase | None = None, **model) -> Experiment:
    return Experiment(model=DDRMConfig(**model), backbone=backbone, train=_TRAIN, eval=_EVAL)


def _released(dataset: str) -> dict[str, Experiment]:
    """dataset, dataset-mf and dataset-sgl."""
    sgl = dict(readout="normalized_sum", activation="sigmoid")
    by_backbone = {
        "ml-1m-noisy": (
            dict(layers=4, dims=(100, 1000), activation="sigmoid", num_steps=20, noise_scale=1e-4,
                 reconstruction=0.4, gamma=1.0),
            dict(layers=2, extra_steps=12),
            dict(layers=5, dims=(300, 1000), noise_scale=1e-3, reconstruction=0.2, gamma=0.3),
        ),
        "yelp-noisy": (
            dict(layers=2, dims=(200, 1000), noise_scale=1e-4, noise_min=1e-3, noise_max=1e-1,
                 reconstruction=0.2, gamma=0.9),
            dict(layers=3, dims=(200, 1000), num_steps=30, extra_steps=7, noise_scale=1e-4,
                 noise_max=1e-2, reconstruction=0.3, gamma=0.8),
            dict(layers=2, dims=(200, 1000), extra_steps=12, noise_scale=1e-4, noise_min=1e-3,
                 noise_max=1e-2, reconstruction=0.3, gamma=0.05),
        ),
        "amazon-book-noisy": (
            dict(layers=0, dims=(200, 600), activation="sigmoid", num_steps=3, noise_scale=1e-3,
                 reconstruction=0.2, gamma=0.9),
            dict(layers=2, dims=(200, 1000), extra_steps=12, reconstruction=0.5),
            dict(layers=2, dims=(300, 1000), num_steps=3, noise_scale=1e-4, reconstruction=0.6,
                 gamma=0.5),
        ),
    }  # fmt: skip
    mf, lightgcn, on_sgl = by_backbone[dataset]
    light = phase("lightgcn", dataset)
    contrasted = replace(
        light,
        model=replace(
            light.model,
            layers=3, rank_layers=None, readout="normalized_sum", contrast_weight=0.1,
        ),
    )  # fmt: skip
    return {
        dataset: _ddrm(**lightgcn),
        f"{dataset}-mf": _ddrm(phase("mf", dataset), **mf),
        f"{dataset}-sgl": _ddrm(contrasted, **sgl, **on_sgl),
    }


PRESET = Preset(
    backbone="lightgcn",
    # Not tuned. It soon fits single items and then leaves the means that ranking starts from; less
    # dropout keeps it nearer to them.
    default=replace(
        _ddrm(dims=(100, 400), dropout_rate=0.1),
        train=replace(_TRAIN, batch_size=512, num_epochs=20, eval_every=1),
    ),
    published={
        name: experiment
        for dataset in ("ml-1m-noisy", "yelp-noisy", "amazon-book-noisy")
        for name, experiment in _released(dataset).items()
    },
    fast={
        "default": Fast(
            model={"sampler.kind": "mean", "sampler.steps": 2}, measured="fast-ddrm-ml-100k.json"
        )
    },
    # The ranges of the released scripts.
    search={
        "train.learning-rate": Range(1e-5, 1e-3, log=True),
        "model.layers": Range(0, 6),
        "model.num-steps": Range(10, 90),
        "model.noise-scale": Range(1e-5, 1e-1, log=True),
        "model.reconstruction": Range(0.05, 0.7),
        "model.gamma": Range(0.0, 1.0),
    },
    facts=Facts(
        differs=(
            "There are T reverse steps; the released settings walk 1.25 T (`--model.extra-steps`).",
            "Checkpoints are picked on Recall@20, not @10.",
        ),
        limits=(
            "On noisy MovieLens its lists are those of the mean of a user's items, below its own "
            "backbone.",
        ),
        choose="To see what denoising finished embeddings is worth; its two controls come with it.",
    ),
)
