"""What a mesh is, and what is refused in a sentence."""

import pytest

from jaxrec_diff import config
from jaxrec_diff.config import mesh


@pytest.mark.parametrize(
    ("text", "count", "axes"),
    [
        ("", 1, (1, 1)), ("", 6, (6, 1)), ("model:2", 6, (3, 2)), ("data:3", 3, (3, 1)),
        ("data:4,model:2", 8, (4, 2)), ("model:8 data:1", 8, (1, 8)), ("model:256", 256, (1, 256)),
    ],
)  # fmt: skip
def test_axes_multiply_to_the_devices(text, count, axes):
    assert mesh.over(text, count) == axes


@pytest.mark.parametrize(
    ("text", "count", "said"),
    [
        ("data:4", 8, "takes 4 devices, but there are 8; data:8,model:1 takes 8"),
        ("data:4,model:4", 8, "takes 16 devices, but there are 8; data:2,model:4"),
        ("model:4", 6, "takes 4 devices, but there are 6; data:6,model:1"),
        ("model:8", 4, "takes 8 devices, but there are 4; data:4,model:1"),
        ("data:2,data:2", 4, "names the axis data twice"),
        ("data:0", 4, "'data:0' is no axis"),
        ("data=4", 4, "'data=4' is no axis"),
        ("4x2", 8, "'4x2' is no axis"),
        ("model:3", 3, "3 parts, but their rows divide by powers of two .* model:2 does"),
        ("model:512", 512, "model:256 does"),
    ],
)
def test_other_meshes_are_refused(text, count, said):
    with pytest.raises(ValueError, match=said):
        mesh.over(text, count)


def test_an_experiment_knows_whether_its_mesh_is_one():
    plain = config.preset("mf", "synthetic").experiment
    assert config.parse(plain, ["--mesh=data:4,model:2"]).mesh == "data:4,model:2"
    for flags, said in (
        (["--mesh=model:3"], "model:2 does"),
        (["--parallel=pmap", "--mesh=model:2"], "parallel=jit has one"),
    ):
        with pytest.raises(ValueError, match=said):
            config.parse(plain, flags)
    config.parse(plain, ["--parallel=pmap", "--mesh=data:8"])
    assert "mesh" in config.RUN_CONTROL
