"""Points as a table and as plots."""

import pytest

from jaxrec_diff.reporting import benchmarks

BASE = {
    "question": "sampler", "part": "sampler", "model": "dreamrec", "data": "shape", "way": "ours",
    "sampler": "ddpm", "steps": 10, "batch": 100, "users": 60, "items": 40, "length": 8,
    "devices": 1, "unit": "users", "rate": 1234.5, "seconds": 0.081, "low": 0.08, "high": 0.083,
    "processor": 0.08, "compile_s": 0.5, "flops": 2e9, "bytes": 1e9, "intensity": 2.0,
    "flops_per_s": 2e10, "share_of_peak": 0.25, "peak_flops": 8e10, "peak_bytes": 1e10,
    "memory": 2**21, "operations": 12, "fusions": 5, "host_in_loops": [],
    "device": "cpu", "clock": "wall", "commit": "abc",
}  # fmt: skip


def point(**other):
    return BASE | other


def test_a_table_says_once_what_all_points_share():
    said = benchmarks.table([point(), point(batch=1000, rate=98765.0)])
    first, head, small, large = said.splitlines()
    assert first.startswith("sampler: ") and "steps 10" in first and "items 40" in first
    assert head.split()[:4] == ["model", "batch", "per", "s"] and "items" not in head
    assert small.split()[:3] == ["dreamrec", "100", "1,234"]
    assert large.split()[:3] == ["dreamrec", "1000", "98,765"]
    assert "0.081 (0.08-0.083)" in small and "25.0%" in small
    assert len(head) >= len(small) - 12


def test_a_figure_that_some_points_lack_is_a_dash():
    peer = {k: v for k, v in point(way="loop").items() if k not in ("flops", "memory")}
    *_, last = benchmarks.table([point(), peer]).splitlines()
    assert last.split()[1] == "loop" and " - " in last


def test_points_that_differ_in_one_size_make_a_line():
    points = [point(), point(batch=1000, rate=9e4), point(items=400), point(way="loop")]
    made = benchmarks.drawings(points)
    expected = {f"{what}-{size}" for what in ("rate", "seconds", "memory")
                for size in ("batch", "items")}  # fmt: skip
    assert made.keys() == expected | {"roofline"}
    lines, shared = benchmarks._lines(points, "batch", "rate")
    ((name, (x, y)),) = lines.items()
    assert (name, shared) == ("dreamrec", "items 40")  # said once, beside what it lies across
    assert x.tolist() == [100, 1000] and y.tolist() == [1234.5, 9e4]


def test_lines_are_named_by_what_sets_them_apart():
    points = [point(batch=batch, way=way) for batch in (1, 10) for way in ("ours", "loop")]
    lines, shared = benchmarks._lines([*points, point(steps=500)], "batch", "rate")
    assert (list(lines), shared) == (["dreamrec, ours", "dreamrec, loop"], "steps 10")


@pytest.mark.filterwarnings("error")  # of a legend that leaves no room
def test_plots_are_written_twice(tmp_path):
    pytest.importorskip("matplotlib")
    written = benchmarks.write([point(), point(batch=1000)], tmp_path)
    assert {path.suffix for path in written} == {".svg", ".png"}
    svg = (tmp_path / "sampler-rate-batch.svg").read_text()
    assert svg.startswith("<svg") and "rows of a batch" in svg
    assert (tmp_path / "sampler-roofline.png").read_bytes().startswith(b"\x89PNG")


def test_no_points_are_no_table_and_no_plots():
    assert benchmarks.table([]) == "" and benchmarks.drawings([]) == {}
