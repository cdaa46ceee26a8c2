"""Arrays on the devices of one process and of two, and what two processes agree on."""

import json

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from tests import processes

ROWS = np.arange(24, dtype=np.float32).reshape(8, 3)


def mesh():
    count = len(jax.devices())
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))


def test_a_mesh_has_both_axes_in_the_order_of_devices():
    for model in (1, 2, 8):
        made = layout.make_mesh(model=model)
        assert dict(made.shape) == {"data": 8 // model, "model": model}
        assert list(made.devices.flat) == jax.devices()
        assert set(made.axis_types) == {AxisType.Auto}
    assert layout.make_mesh(jax.devices()[:3]).size == 3


def test_arrays_of_one_process_come_back_as_they_were():
    tree = {"rows": ROWS, "count": 3, "key": jax.random.key(5)}
    by_row, everywhere = NamedSharding(mesh(), P("data")), NamedSharding(mesh(), P())
    placed = layout.put(tree, {"rows": by_row, "count": everywhere, "key": everywhere})
    assert placed["rows"].sharding == by_row
    assert placed["key"].dtype == jax.random.key(5).dtype
    back = layout.whole({name: placed[name] for name in ("rows", "count")})
    np.testing.assert_array_equal(back["rows"], ROWS)
    assert isinstance(back["rows"], np.ndarray) and back["count"] == 3


def test_filled_tables_and_their_moments_are_cut_along_model():
    made = layout.make_mesh(model=4)
    params = {"items": np.zeros((512, 3)), "net": {"kernel": np.zeros((256, 3))}}
    tree = {
        "params": params,
        "opt_state": optax.adam(0.1).init(params),
        "users": np.zeros((300, 3)),
    }
    found = layout.shardings(tree, made)
    adam = found["opt_state"][0]
    for part in (found["params"], adam.mu, adam.nu):
        assert part["items"].spec == P("model") and part["net"]["kernel"].spec == P()
    assert adam.count.spec == found["users"].spec == P()  # a table that is not filled up


def test_one_process_agrees_with_itself():
    assert layout.first()
    assert layout.agree((3, "x")) == (3, "x")
    assert layout.agree(3, choose=max) == 3
    layout.barrier("alone")
    program = jax.jit(lambda x: x + 1)
    assert layout.compiled(program, 1) is program


def test_states_are_replicated():
    found = layout.shardings({"a": ROWS, "b": jax.ShapeDtypeStruct((2,), "int32")}, mesh())
    assert set(found) == {"a", "b"}
    assert all(each == NamedSharding(mesh(), P()) for each in found.values())


_TOGETHER = """
import json
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxrec_diff import layout

rows = np.arange(24, dtype=np.float64).reshape(8, 3)
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
by_row, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
placed = layout.put(rows, by_row)
key = layout.put(jax.random.key(5), everywhere)
draw = jax.jit(lambda key, rows: rows * jax.random.uniform(key, (8, 1)))
drawn = layout.compiled(draw, key, placed)(key, placed)
me = jax.process_index()
said = [layout.agree([n, me / 3], choose=lambda each: each) for n in range(12)]
uneven = layout.put_parts(lambda n: np.arange(1, n + 2), mesh, uneven=True)
layout.barrier("before the end")
made = []
parts = layout.put_parts(lambda n: made.append(n) or {"rows": rows[2 * n : 2 * n + 2]}, mesh)
left = layout._client().key_value_dir_get("jaxrec/said/")
print(json.dumps({
    "first": layout.first(),
    "local": placed.addressable_data(0).shape[0],
    "dtype": str(placed.dtype),
    "whole": layout.whole(placed).tolist(),
    "parts": layout.whole(parts["rows"]).reshape(8, 3).tolist(),
    "held": parts["rows"].addressable_data(0).shape,
    "made": made,
    "uneven": layout.whole(uneven).tolist(),
    "anew": layout.whole(layout.put(placed, everywhere)).tolist(),
    "drawn": layout.whole(drawn).tolist(),
    "said": said,
    "mine": layout.agree(me), "most": layout.agree(me, choose=max),
    "left": len(left),
}))
"""


def test_two_processes_hold_one_array_and_agree():
    # Gloo says on stdout that it is connected
    said = [text.splitlines()[-1] for text in processes.outputs(_TOGETHER)]
    one, two = (json.loads(line) for line in said)
    assert one.pop("first") and not two.pop("first")
    assert (one.pop("made"), two.pop("made")) == ([0, 1], [2, 3])  # its own, no other
    assert one == two
    assert one["parts"] == ROWS.tolist() and one["held"] == [1, 2, 3]
    assert one["uneven"] == np.tril(np.tile(np.arange(1, 5), (4, 1))).tolist()
    assert one["local"] == 2 and one["dtype"] == "float32"
    assert one["whole"] == one["anew"] == ROWS.tolist()
    want = ROWS * np.asarray(jax.random.uniform(jax.random.key(5), (8, 1)))
    np.testing.assert_array_equal(np.float32(one["drawn"]), want)
    # float64 to the bit, in the order of the processes
    assert one["said"] == [[[n, 0.0], [n, 1 / 3]] for n in range(12)]
    assert one["mine"] == 0 and one["most"] == 1
    assert one["left"] == 2  # those of the last time only
