"""Every system answers every question, on tiny shapes."""

import json

import jax
import pytest

from jaxrec_diff import config
from jaxrec_diff.benchmarking import asks, measures, shapes
from jaxrec_diff.benchmarking.asks import Ask

TINY = shapes.Shape(users=60, items=40, length=8)
_SMALL = {
    "model.width": "8", "model.num-blocks": "1", "model.num-heads": "2", "model.num-steps": "6",
    "model.num-negatives": "12", "model.num-codes": "3",
    "model.num-seeds": "2", "model.layers": "1", "model.dims": "8", "model.encoder-dims": "6",
    "model.denoiser-dims": "8", "backbone.model.width": "8", "backbone.model.num-blocks": "1",
    "backbone.model.layers": "1",
}  # fmt: skip
# What its network, as it is by default, does not take.
_OTHERS = {
    "diffuasr": {"model.denoiser": "mlp", "model.mlp-hidden": "16", "model.num-steps": "50",
                 "model.sampler.steps": "3", "data.prefix-len": "2"},
    "diffrec2": {"model.num-steps": "24"},
    "adrec": {"model.schedule": "cosine"},
    "diffurec": {"model.schedule": "cosine"},
    "diqdiff": {"model.schedule": "cosine"},
    "dreamrec": {"model.sampler.kind": "ddpm", "model.num-heads": "1"},
    "preferdiff": {"model.sampler.steps": "3"},
}  # fmt: skip
# The rest of the systems are as cheap, but there are many.
QUICK = {"dreamrec", "mf"}
PRESETS = config.preset_names()
EVERY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS]
WITHOUT = {"bert4rec", "lightgcn", "mf", "multvae", "sasrec"}


def small(name: str) -> tuple[str, ...]:
    known = config.flag_names(config.preset(name, "synthetic").experiment)
    chosen = {k: v for k, v in _SMALL.items() if k in known} | _OTHERS.get(name, {})
    return tuple(f"--{flag}={value}" for flag, value in chosen.items())


def ask(question: str, name: str, **more) -> tuple[list[dict], list[str]]:
    """The points of a question, and what was said beside them."""
    made = {"shapes": (TINY,), "batches": (8,), "devices": (1,), "repeats": 1} | more
    flags = (*small(name), *made.pop("flags", ()))
    asked = Ask(question, (name,), flags=flags, **made)
    asks.check(asked)
    said: list[str] = []
    found = list(measures.lines(asked, "bin/benchmark", said.append))
    json.dumps(found)
    return found, said


def sizes(point: dict) -> tuple:
    return tuple(point[name] for name in ("users", "items", "length", "batch", "devices"))


@pytest.mark.parametrize("name", EVERY)
def test_every_system_answers_for_its_sampler(name):
    found, said = ask("sampler", name)
    if name in WITHOUT:
        assert found == [] and len(said) == 1
        assert said[0].startswith(f"{name} has no reverse process")
        return
    (point,) = found
    assert said == []
    assert (point["model"], point["way"], point["unit"]) == (name, "ours", "users")
    assert sizes(point) == (60, 40, 8, 8, 1)
    assert point["rate"] > 0 and point["compile_s"] > 0 and point["flops"] > 0
    assert point["host_in_loops"] == ()
    assert point["memory"] > 0 and 0 < point["share_of_peak"] < 1
    assert {"commit", "device", "versions", "command", "clock", "load"} <= point.keys()


@pytest.mark.parametrize("name", EVERY)
def test_every_system_answers_for_its_updates(name):
    (point,), said = ask("train", name)
    assert said == [] and sizes(point) == (60, 40, 8, 8, 1)
    assert point["unit"] == "examples" and point["units"] % 8 == 0
    assert point["rate"] > 0 and point["flops"] > 0
    assert point["host_in_loops"] == ()


@pytest.mark.parametrize("name", EVERY)
def test_every_system_answers_for_its_lists(name):
    (point,), said = ask("rank", name)
    assert said == [] and sizes(point) == (60, 40, 8, 8, 1)
    assert point["product_flops"] >= 2 * 8 * 40 * 2 and point["rate"] > 0


def test_evaluation_takes_the_whole_split():
    (point,), _ = ask("evaluate", "mf")
    assert (point["units"], point["batch"]) == (60, 8)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dreamrec", "ddpm"),
        *(
            pytest.param(name, kind, marks=pytest.mark.slow)
            for name, kind in (("dreamrec", "dpmpp"), ("diffrec", "ddpm"), ("dimerec", "ddim"))
        ),
    ],
)
def test_peers_walk_the_same_path_with_the_same_noise(name, kind):
    found, said = ask("sampler", name, samplers=(kind,), peers=("loop", "eager-jax"))
    assert said == []
    assert [point["way"] for point in found] == ["ours", "loop", "eager-jax"]
    assert [point["sampler"] for point in found] == [kind] * 3
    assert max(point["difference"] for point in found[1:]) < 1e-4


def test_more_steps_are_the_same_program_and_proportional_work():
    short, long = ask("sampler", "dreamrec", steps=(2, 6), flags=("--model.denoiser=mlp2",))[0]
    assert (short["steps"], long["steps"]) == (2, 6)
    assert short["operations"] == long["operations"]
    # a step is two products, 8 x 8 x 16 and 8 x 16 x 8, two operations a multiplication
    assert long["product_flops"] - short["product_flops"] == 4 * 2 * (8 * 8 * 16 + 8 * 16 * 8)


@pytest.mark.parametrize("platform", ["tpu", pytest.param("cuda", marks=pytest.mark.slow)])
def test_a_program_is_lowered_for_a_platform_that_is_not_here(platform):
    (point,), _ = ask("sampler", "dreamrec", lower=platform)
    assert point["lowered_for"] == platform and "rate" not in point and "memory" not in point
    assert point["operations"] > 0 and point["bytes"] > 0
    steps = 6 * 2 * 8 * (8 * 8)  # of the chain alone: six products for eight rows
    assert steps < point["product_flops"] < 10 * steps


@pytest.mark.slow
def test_every_program_of_a_system_is_compiled_and_none_is_run():
    found, _ = ask("memory", "dreamrec")
    assert [point["part"] for point in found] == ["sampler", "rank", "train"]
    assert all(point["memory"] > 0 and "rate" not in point for point in found)


@pytest.mark.slow
def test_batches_are_split_over_devices():
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    one, two = ask("sampler", "dreamrec", devices=(1, 2))[0]
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["flops"] == two["flops"] and two["temporary_bytes"] <= one["temporary_bytes"]


@pytest.mark.slow
def test_a_system_that_answers_by_one_call_says_how_it_walks_a_chain():
    (point,), _ = ask("sampler", "diffrec2")
    assert (point["sampler"], point["steps"]) == ("one call", 1)
    with pytest.raises(ValueError, match="--model.inference=full walks one"):
        ask("sampler", "diffrec2", peers=("loop",))
    found, said = ask("sampler", "diffrec2", peers=("loop",), flags=("--model.inference=full",))
    assert said == [] and found[1]["difference"] < 1e-4


@pytest.mark.slow
def test_a_start_is_a_fresh_process():
    found, _ = ask("start", "mf")
    assert [point["way"] for point in found] == ["import jax", "cold", "warm"]
    jax_only, cold, warm = (point["seconds"] for point in found)
    assert jax_only < warm < cold


def test_one_of_several_systems_that_cannot_be_measured_is_said_and_passed_over():
    asked = Ask(
        "sampler", ("mf", "dimerec", "dreamrec"), shapes=(TINY,), batches=(8,), devices=(1,),
        samplers=("closed_form",), repeats=1,
        flags=("--model.width=8", "--model.num-steps=6"),
    )  # fmt: skip
    said: list[str] = []
    found = list(measures.lines(asked, "bin/benchmark", said.append))
    assert [point["model"] for point in found] == ["dreamrec"]
    assert len(said) == 2 and said[0].startswith("mf has no reverse process")
    assert said[1].startswith("dimerec: ") and "closed_form" in said[1]


def test_fast_is_the_sampler_that_the_preset_has_measured():
    (point,), _ = ask("sampler", "diffurec", samplers=("fast",))
    assert (point["sampler"], point["steps"]) == ("one_step", 1)
    with pytest.raises(ValueError, match="has not been measured for diffuasr"):
        ask("sampler", "diffuasr", samplers=("fast",))
