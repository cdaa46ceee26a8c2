"""Files of histories that are damaged."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.inference import files


def test_damaged_pages_of_histories_are_refused_by_name(tmp_path):
    path = tmp_path / "histories.parquet"
    histories = [[f"item-{n}"] for n in range(2000)]
    table = pa.table({"history": histories})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    whole = path.read_bytes()
    assert sum(len(raw.names) for raw in files.read_histories(path, DataConfig())) == 2000
    at = whole.index(b"item-1000")
    path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    with pytest.raises(ValueError, match="histories.parquet is not a readable parquet file"):
        list(files.read_histories(path, DataConfig()))
    path.write_bytes(whole[:at])
    with pytest.raises(ValueError, match="histories.parquet is not a readable parquet file"):
        files.count_rows(path)
