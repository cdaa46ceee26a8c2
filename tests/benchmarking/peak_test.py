"""The machine's peak is of the order that machines have."""

from jaxrec_diff.benchmarking import peak


def test_a_product_and_a_copy_take_their_time():
    found = peak.measured("cpu", processor_clock=True, repeats=1)
    assert 1e8 < found.flops < 1e14 and 1e7 < found.bytes < 1e13
    assert peak.measured("cpu", processor_clock=True, repeats=1) is found  # once a process
