"""Lines and tables, word by word."""

import json

from jaxrec_diff.experiments import json_files
from jaxrec_diff.reporting import tables
from jaxrec_diff.training import progress

METRICS = {"hr@10": 0.2, "recall@10": 0.2, "ndcg@10": 0.1, "hr@20": 0.4, "recall@20": 0.4}
RESULTS = {
    "model": "mf",
    "metrics": METRICS | {"mrr@10": 0.3, "hr@5": 0.1},
    "diagnostics": {"mean_item": {"hr@10": 0.05, "ndcg@10": 0.04}, "gini@20": 0.9},
    "controls": {"popularity": {"hr@10": 0.15, "ndcg@10": 0.08, "hr@20": 0.25}},
    "optimum": {"hr@10": 0.8, "hr@20": 0.5, "hr@5": 0.4},
}


def rows(results):
    return [line.split() for line in tables.table(results).splitlines()]


def test_a_resumed_log_keeps_the_steps_up_to_the_checkpoint(tmp_path):
    log = tmp_path / "metrics.jsonl"
    for step in (10, 20, 30):
        json_files.append_line(log, {"step": step, "loss": step / 2})
    with log.open("a") as file:
        file.write('{"step": 4')  # cut in two by a kill
    json_files.truncate_after(log, 20)
    assert [json.loads(line) for line in log.read_text().splitlines()] == [
        {"step": 10, "loss": 5.0},
        {"step": 20, "loss": 10.0},
    ]
    json_files.truncate_after(tmp_path / "none.jsonl", 20)
    assert not (tmp_path / "none.jsonl").exists()


def test_a_table_of_one_target_a_row():
    assert rows(RESULTS) == [
        ["hr@10", "ndcg@10", "hr@20"],
        ["mf", "0.2000", "0.1000", "0.4000"],
        ["mean", "item", "0.0500", "0.0400", "-"],
        ["popularity", "0.1500", "0.0800", "0.2500"],
        ["best", "possible", "0.8000", "-", "0.5000"],
        ["share", "of", "best", "25.0%", "-", "80.0%"],
    ]


def test_recall_has_columns_where_rows_have_several_targets():
    several = RESULTS | {"metrics": METRICS | {"recall@20": 0.3}, "optimum": {}}
    assert rows(several)[:2] == [
        ["hr@10", "recall@10", "ndcg@10", "hr@20", "recall@20"],
        ["mf", "0.2000", "0.2000", "0.1000", "0.4000", "0.3000"],
    ]
    assert len(rows(several)) == 4


def test_cut_offs_that_were_asked_for_have_columns():
    metrics = {"hr@5": 0.2, "recall@5": 0.2, "ndcg@5": 0.1}
    few = RESULTS | {"metrics": metrics, "optimum": {}, "diagnostics": {}, "controls": {}}
    assert rows(few) == [["hr@5", "ndcg@5"], ["mf", "0.2000", "0.1000"]]


def test_a_line_of_progress_shows_the_metric_that_counts():
    metrics = {"loss": 0.25, "valid/hr@10": 0.5, "valid/hr@20": 0.75}
    assert progress.epoch_line(40, 2.0, 1234.5, metrics, "valid/hr@20") == (
        "epoch 2  step 40  loss 0.2500  valid/hr@20 0.7500  1,234 examples/s"
    )


def test_lists_in_words():
    said = {
        "distinct_items": 1500, "coverage@20": 0.5, "gini@20": 0.1234,
        "average_popularity@20": 99.6, "untrained_items": 0, "untrained_top20": 0.25,
        "hits_untrained": 0.125,
    }  # fmt: skip
    first, second = tables.diagnostics_lines(said)
    assert first == "distinct items in all top-20 lists: 1,500 (coverage 50.0%, gini 0.123)"
    assert second == "trained on 100 times on average"
    assert tables.diagnostics_lines(said | {"untrained_items": 7})[2] == (
        "items never trained: 7, 25.0% of top-20 slots and 12.5% of hits"
    )


def test_tuned_controls_say_their_setting_and_what_it_took():
    controls = {
        "item_knn": {"hr@10": 0.1, "shrink": 10.0, "neighbours": 0, "trials": 24, "at_edge": []},
        "ease": {"hr@10": 0.2, "regularisation": 30.0, "trials": 1, "at_edge": ["regularisation"]},
        "popularity": {"hr@10": 0.1},
    }
    seconds = {"item_knn": 3.4, "ease": 12.0}
    assert tables.control_lines({"controls": controls, "control_seconds": seconds}) == [
        "item_knn: shrink 10, neighbours all (24 trials, 3 s)",
        "ease: regularisation 30* (1 trial, 12 s)",
        "* border of the grid: a better one may lie beyond",
    ]
    assert tables.control_lines({"controls": controls}) == []
