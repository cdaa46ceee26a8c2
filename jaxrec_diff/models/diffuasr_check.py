"""What DiffuASR asks of the data and of a recommender before anything is trained."""

from typing import Any

from jaxrec_diff.models.contract import DataSpec


def check(config: Any, spec: DataSpec, given: frozenset[str], backbone: Any = None) -> None:
    """Refuses settings that cannot work, before anything is trained.

    Args:
      config: a `DiffuASRConfig`, whose module imports this one.
      spec: sizes; nothing of the recommender is looked at.
      given: names of the recommender's arrays, and "reader" if it can be asked about points.
      backbone: its settings, of which nothing matters.

    Raises:
      ValueError: in one sentence.
    """
    del backbone
    if spec.prefix_len < 1:
        raise ValueError(f"data.prefix-len must be at least 1, got {spec.prefix_len}")
    if config.items == "frozen" and "items" not in given:
        raise ValueError(
            "model.items=frozen takes the rows of a trained recommender, got none: give "
            "--backbone=sasrec, or model.items=trained"
        )
    if config.guidance == "classifier":
        if "reader" not in given:
            raise ValueError(
                "model.guidance=classifier asks a trained recommender, got none that reads points: "
                "give --backbone=sasrec, or model.guidance=classifier_free"
            )
        if spec.prefix_len > spec.max_len:
            raise ValueError(
                f"data.prefix-len={spec.prefix_len} items are more than data.max-len="
                f"{spec.max_len} that the recommender reads; model.guidance=classifier needs fewer"
            )
        if config.items == "trained" and config.compat == "paper":
            raise ValueError(
                "model.guidance=classifier asks the recommender about its own rows, which "
                "model.items=trained are not; model.items=frozen are"
            )
    blind = config.denoiser == "sunet" and config.predict == "eps" and not config.input_skip
    if blind and config.channels < spec.prefix_len and config.compat == "paper":
        near = -(-spec.prefix_len // 8) * 8
        raise ValueError(
            f"model.channels={config.channels} is less than data.prefix-len={spec.prefix_len}: a "
            f"network that predicts noise cannot see all of x_t; {near} channels can, and "
            "model.predict=x0 need not"
        )
