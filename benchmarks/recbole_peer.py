"""RecBole's SASRec, LightGCN, DiffRec and L-DiffRec on MovieLens-100K: seconds, memory, metric.

    python benchmarks/recbole_peer.py DIR/ml-100k --model=sasrec

in the environment that `benchmarks/recbole.sh` makes; `recbole_ours.py` does the same here, by the
same settings under our names. Prints a json line: processor seconds of an epoch of training and of
an evaluation of the test split among all items, medians, peak memory of the process, and metrics
after the last epoch as RecBole takes them.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

NAMES = {"sasrec": "SASRec", "lightgcn": "LightGCN", "diffrec": "DiffRec", "ldiffrec": "LDiffRec"}
EPOCHS = {"sasrec": 2, "lightgcn": 5, "diffrec": 50, "ldiffrec": 50}
_NOISE = {
    "steps": 5, "noise_schedule": "linear-var", "noise_scale": 0.01, "noise_max": 0.01,
    "embedding_size": 10, "mean_type": "x0", "reweight": True, "sampling_noise": False,
    "sampling_steps": 0, "train_batch_size": 400,
}  # fmt: skip
# What is told beside RecBole's defaults, so that both sides have the same.
SETTINGS = {
    "sasrec": {
        "n_layers": 2, "n_heads": 2, "hidden_size": 64, "inner_size": 256,
        "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1, "loss_type": "CE",
        "train_neg_sample_args": None, "MAX_ITEM_LIST_LENGTH": 20, "train_batch_size": 256,
    },
    # require_pow: the squared length of a pair's embeddings, as published
    "lightgcn": {
        "embedding_size": 64, "n_layers": 3, "reg_weight": 1e-4, "require_pow": True,
        "train_batch_size": 2048,
    },
    "diffrec": _NOISE | {"dims_dnn": [600, 200, 600], "noise_min": 0.001},
    "ldiffrec": _NOISE | {
        "n_cate": 1, "in_dims": [300], "dims_dnn": [300], "noise_min": 0.005, "beta_fixed": False,
        "lamda": 0.03, "anneal_cap": 0.005, "anneal_steps": 1000, "vae_anneal_cap": 0.3,
        "vae_anneal_steps": 200,
    },
}  # fmt: skip


def patched() -> None:
    """What RecBole 1.2.1 asks of libraries that have moved on."""
    import numpy as np
    import scipy.sparse
    import torch

    for name, kind in (("bool", bool), ("float", float), ("int", int), ("object", object)):
        if name not in np.__dict__:
            setattr(np, name, kind)
    if not hasattr(scipy.sparse.dok_matrix, "_update"):  # LightGCN fills its graph by it
        scipy.sparse.dok_matrix._update = lambda self, pairs: self._dict.update(pairs)
    load = torch.load
    torch.load = lambda *args, **more: load(*args, **{"weights_only": False} | more)


def measured(name: str, folder: Path, repeats: int) -> dict:
    """A model trained for its epochs, each timed, and evaluated a few times then."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    # RecBole counts scores, not users, where a model is no sequential one
    users = 1024 if name == "sasrec" else 1024 * 1683
    fixed = {
        "data_path": str(folder.parent), "seed": 0, "use_gpu": False, "device": "cpu",
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user",
                      "mode": "full"},
        "metrics": ["NDCG", "Hit"], "topk": [10], "valid_metric": "NDCG@10",
        "eval_batch_size": users, "epochs": EPOCHS[name], "learning_rate": 1e-3,
        "show_progress": False, "state": "ERROR", "checkpoint_dir": tempfile.mkdtemp(),
        "nproc": 1, "worker": 0, "metric_decimal_place": 6,
    }  # fmt: skip
    settings = fixed | SETTINGS[name]
    config = Config(model=NAMES[name], dataset=folder.name, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    train, _, test = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, train.dataset).to("cpu")
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.eval_collector.data_collect(train)
    training, evaluating, found = [], [], {}
    for epoch in range(EPOCHS[name]):
        start = time.process_time()
        trainer._train_epoch(train, epoch, show_progress=False)
        training.append(time.process_time() - start)
    for _ in range(repeats):
        start = time.process_time()
        found = trainer.evaluate(test, load_best_model=False, show_progress=False)
        evaluating.append(time.process_time() - start)
    return {
        "epochs": EPOCHS[name],
        "updates": len(train),
        "users": train.dataset.user_num - 1,
        "items": train.dataset.item_num - 1,
        "parameters": sum(each.numel() for each in model.parameters()),
        "epoch_seconds": statistics.median(training),
        "evaluation_seconds": statistics.median(evaluating),
        "ndcg@10": float(found["ndcg@10"]),
        "hr@10": float(found["hit@10"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=NAMES, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    folder = options.folder.resolve()
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    os.chdir(tempfile.mkdtemp())  # and logs where it stands
    patched()
    import torch

    torch.set_num_threads(1)
    found = measured(options.model, folder, options.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    versions = {name: metadata.version(name) for name in ("recbole", "torch")}
    about = {"which": "recbole", "model": options.model}
    print(json.dumps(about | found | {"peak_bytes": peak, "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
