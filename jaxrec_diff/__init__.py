"""Diffusion recommenders in JAX.

    import jaxrec_diff
    jaxrec_diff.train("sasrec", "clicks.csv", "runs/shop").recommend(histories=[["a", "b"]])
    jaxrec_diff.samplers.ddim_steps

    from jaxrec_diff import losses, samplers, schedules

Every mathematical module is here by its name, wherever it lies. Nothing is imported before it is
asked for.
"""

from typing import TYPE_CHECKING

from jaxrec_diff import lazy

if TYPE_CHECKING:
    from jaxrec_diff import losses as losses
    from jaxrec_diff._version import __version__ as __version__
    from jaxrec_diff.api import compare as compare
    from jaxrec_diff.api import evaluate as evaluate
    from jaxrec_diff.api import export as export
    from jaxrec_diff.api import list_models as list_models
    from jaxrec_diff.api import load as load
    from jaxrec_diff.api import recommend as recommend
    from jaxrec_diff.api import report as report
    from jaxrec_diff.api import settings as settings
    from jaxrec_diff.api import train as train
    from jaxrec_diff.api import tune as tune
    from jaxrec_diff.diffusion import closed_form as closed_form
    from jaxrec_diff.diffusion import forward as forward
    from jaxrec_diff.diffusion import guidance as guidance
    from jaxrec_diff.diffusion import heat as heat
    from jaxrec_diff.diffusion import process as process
    from jaxrec_diff.diffusion import samplers as samplers
    from jaxrec_diff.diffusion import schedules as schedules
    from jaxrec_diff.diffusion import sphere as sphere
    from jaxrec_diff.diffusion import timesteps as timesteps
    from jaxrec_diff.diffusion import weights as weights
    from jaxrec_diff.evaluation import metrics as metrics
    from jaxrec_diff.evaluation import topk as topk
    from jaxrec_diff.ops import graph as graph
    from jaxrec_diff.ops import id_rows as id_rows
    from jaxrec_diff.ops import kmeans as kmeans
    from jaxrec_diff.ops import meshes as meshes
    from jaxrec_diff.ops import negatives as negatives
    from jaxrec_diff.ops import normals as normals
    from jaxrec_diff.ops import quantize as quantize
    from jaxrec_diff.ops import ragged as ragged
    from jaxrec_diff.ops import rng as rng
    from jaxrec_diff.ops import sparse as sparse
    from jaxrec_diff.ops import streams as streams
    from jaxrec_diff.ops import threefry as threefry
    from jaxrec_diff.ops import vectors as vectors

_MODULES = {
    "closed_form": "jaxrec_diff.diffusion.closed_form",
    "forward": "jaxrec_diff.diffusion.forward",
    "graph": "jaxrec_diff.ops.graph",
    "id_rows": "jaxrec_diff.ops.id_rows",
    "guidance": "jaxrec_diff.diffusion.guidance",
    "heat": "jaxrec_diff.diffusion.heat",
    "kmeans": "jaxrec_diff.ops.kmeans",
    "losses": "jaxrec_diff.losses",
    "meshes": "jaxrec_diff.ops.meshes",
    "metrics": "jaxrec_diff.evaluation.metrics",
    "negatives": "jaxrec_diff.ops.negatives",
    "normals": "jaxrec_diff.ops.normals",
    "process": "jaxrec_diff.diffusion.process",
    "quantize": "jaxrec_diff.ops.quantize",
    "ragged": "jaxrec_diff.ops.ragged",
    "topk": "jaxrec_diff.evaluation.topk",
    "rng": "jaxrec_diff.ops.rng",
    "samplers": "jaxrec_diff.diffusion.samplers",
    "schedules": "jaxrec_diff.diffusion.schedules",
    "sparse": "jaxrec_diff.ops.sparse",
    "sphere": "jaxrec_diff.diffusion.sphere",
    "streams": "jaxrec_diff.ops.streams",
    "threefry": "jaxrec_diff.ops.threefry",
    "timesteps": "jaxrec_diff.diffusion.timesteps",
    "vectors": "jaxrec_diff.ops.vectors",
    "weights": "jaxrec_diff.diffusion.weights",
}
_NAMES = {
    "__version__": "jaxrec_diff._version",
    "compare": "jaxrec_diff.api",
    "evaluate": "jaxrec_diff.api",
    "export": "jaxrec_diff.api",
    "list_models": "jaxrec_diff.api",
    "load": "jaxrec_diff.api",
    "recommend": "jaxrec_diff.api",
    "report": "jaxrec_diff.api",
    "settings": "jaxrec_diff.api",
    "train": "jaxrec_diff.api",
    "tune": "jaxrec_diff.api",
}

if not TYPE_CHECKING:  # so that a checker knows an unknown name
    __getattr__, __dir__ = lazy.handed_on(__name__, modules=_MODULES, names=_NAMES)
