# %% [markdown]
# # Bring your own data
#
# From a table of clicks to lists that can be served, in Python. Run it cell by cell, or whole:
#
#     python -m jaxrec_diff.examples.bring_your_own_data runs/shop
#
# Everything lands in the folder that is named (by default a temporary one).

# %%
import sys
import tempfile
from pathlib import Path

import numpy as np

from jaxrec_diff import api
from jaxrec_diff.data import card, config, load
from jaxrec_diff.inference import recommend

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "sasrec"

# %% [markdown]
# ## The table
#
# Any mapping of names to columns will do, and so will a DataFrame of pandas or polars or the path
# of a csv. This shop has ids of text, times in several zones, holes, and a column of no use. Its
# visitors like to go on to the product after the last one.

# %%
rng = np.random.default_rng(0)
NUM_VISITORS, NUM_PRODUCTS = 300, 60
clicks: dict[str, list] = {"visitor": [], "product": [], "when": [], "price": []}
for visitor in range(NUM_VISITORS):
    product = rng.integers(NUM_PRODUCTS)
    for step in range(rng.integers(5, 12)):
        clicks["visitor"].append(f"u-Zoë {visitor}" if rng.random() > 0.01 else None)
        clicks["product"].append(f"SKU-{product:03d}")
        clicks["when"].append(f"2026-03-{step + 1:02d}T12:00:00{('Z', '+02:00')[step % 2]}")
        clicks["price"].append(float(rng.integers(100)))
        follows = rng.random() < 0.8
        product = (product + 1) % NUM_PRODUCTS if follows else rng.integers(NUM_PRODUCTS)

# %% [markdown]
# ## Training
#
# Columns of unusual names are named. Settings are the flags of `bin/train`; the usual preset is the
# start. SASRec is the quick yardstick; `dimerec` in its place is a diffusion recommender, and
# `bin/train --help` lists the others.

# %%
settings = {
    "data.user": "visitor",
    "data.item": "product",
    "data.timestamp": "when",
    "data.max_len": 12,
    "train.batch_size": 64,
    "train.num_epochs": 8,
}
found = api.train("sasrec", clicks, folder, settings=settings, log=print)

# %% [markdown]
# The data card says what was read, what was left out and how it was split; its hash tells whether
# two figures may be compared.

# %%
columns = config.DataConfig(user="visitor", item="product", timestamp="when")
shown = load.load(f"{folder}.parquet", columns)
print(card.render(shown.card))

# %% [markdown]
# ## Is it any good?
#
# Controls that need no learning stand beside it. A model that does not beat them has learnt
# nothing.

# %%
for name, metrics in ((found["model"], found["metrics"]), *found["controls"].items()):
    print(f"{name:<14} hr@10 {metrics['hr@10']:.3f}   ndcg@10 {metrics['ndcg@10']:.3f}")

# %% [markdown]
# ## Lists
#
# For visitors that training met, and for histories that nobody has had before. Ids that training
# never met are skipped; where nothing is left of a history, the most popular products stand in.

# %%
for each in recommend.recommend(folder, users=["u-Zoë 0", "u-Zoë 7"], k=3):
    print(each.user, each.items)

# %%
histories = [["SKU-010", "SKU-011", "SKU-012"], ["SKU-040", "no such product"], ["nothing known"]]
lists = recommend.recommend(folder, histories=histories, k=3)
for history, each in zip(histories, lists, strict=True):
    print(history, "->", each.items, "(the most popular)" if each.fallback else "")

# %% [markdown]
# ## Onwards
#
# The folder is that of a command: `bin/report --workdir=...` makes a page of it, `bin/compare` sets
# it beside other runs, and `bin/export` makes a program that serves it without this package.

# %%
print("everything is in", folder)
