"""The standings of a contest as a file that can be told again, and what several of them say.

`bin/leaderboard` writes `leaderboard.json`; as `leaderboard-DATA.json` among the results files it
is what the documentation tells.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxrec_diff.experiments import contest
from jaxrec_diff.reporting import board_text, diffusion, orders
from jaxrec_diff.reporting.leaderboard import Board, Run
from jaxrec_diff.reporting.standings import Cost, Row, short

_HEAD = ("metric", "dataset", "data_hash", "protocol", "num_users", "resamples")


class Told(NamedTuple):
    """A record that was read."""

    board: Board  # without entries, whose users' values no record has
    rows: tuple[Row, ...]
    note: str


def record(
    of: contest.Contest, board: Board, rows: Sequence[Row], runs: Sequence[Run]
) -> dict[str, Any]:
    """What `leaderboard.json` holds: where it comes from, and every row.

    Args:
      of: the contest.
      board: of its runs.
      rows: from `standings.rows`.
      runs: all that are finished.
    """
    results = [run.results for run in runs]
    judged = [at for each in results for at in each.get("control_commits", {}).values()]

    def all_of(name: str) -> list[Any]:
        """The values of the runs, each once, in their order."""
        return list(dict.fromkeys(str(each[name]) for each in results if name in each))

    return {
        "command": contest.command(of),
        "seeds": sorted({each["seed"] for each in results}),
        "device": ", ".join(all_of("device")),
        "commit": ", ".join(all_of("commit")),
        "commit_of_classics": ", ".join(dict.fromkeys(judged)),
        "versions": results[0].get("versions", {}),
        "split_rule": results[0].get("split_rule", ""),
        "budget": str(of.budget),
        **{name: getattr(board, name) for name in _HEAD},
        "metrics": list(board.metrics),
        "rows": [_plain(row) for row in rows],
    }


def read(kept: Mapping[str, Any]) -> Told:
    """A record's standings, as `standings` writes them."""
    board = Board(
        entries=(), differences=(), metrics=tuple(kept["metrics"]),
        **{name: kept[name] for name in _HEAD},
    )  # fmt: skip
    rows = [Row(**(each | {"cost": Cost(**each["cost"])})) for each in kept["rows"]]
    return Told(board, tuple(rows), note(kept["budget"]))


def note(budget: str) -> str:
    """The sentence under a table on how much its entries were tuned."""
    return f"Budget of tuning: {budget}."


def _plain(row: Row) -> dict[str, Any]:
    kept = {name: dict(getattr(row, name)) for name in ("diffusion", "order", "theirs")}
    return row._asdict() | {"cost": row.cost._asdict()} | kept


def kind(row: Row) -> str:
    """Whether an entry diffuses, is trained without, or is a classic."""
    if row.kind != "model":
        return "classic"
    return "diffusion" if row.diffuses else "yardstick"


def summary(records: Mapping[str, Told]) -> tuple[list[str], list[list[str]]]:
    """Head and cells: a row a data set, the best of each kind with its figure and its cost.

    Args:
      records: by data set.
    """
    head = ["data", "metric", "best diffusion", "best yardstick", "best classic", "first"]
    body = []
    for name, told in records.items():
        metric = told.board.metric
        best = {each: leader(told, each) for each in ("diffusion", "yardstick", "classic")}
        first = _ranked(told)[0]
        body.append(
            [
                name,
                metric,
                *(_cell(row, metric) for row in best.values()),
                f"{first.name} ({kind(first)})",
            ]
        )
    return head, body


def leader(told: Told, of: str) -> Row | None:
    """The best of a kind, or None."""
    return next((row for row in _ranked(told) if kind(row) == of), None)


def verdicts(told: Told) -> list[str]:
    """What a reader asks of a table, answered from it, a sentence each."""
    ranked, metric = _ranked(told), told.board.metric
    first, best = ranked[0], leader(told, "diffusion")
    if best is None:
        return [f"{first.name} is first; no system that diffuses has been run."]
    said = []
    if first is best:
        said.append(f"{best.name}, which diffuses, is first; {_behind(told, 'yardstick')}.")
    else:
        said.append(f"{first.name}, a {kind(first)}, is first; {_behind(told, 'diffusion')}.")
    for of in ("classic", "yardstick"):
        bar = leader(told, of)
        if bar is None:
            continue
        behind = [
            row.name
            for row in ranked
            if kind(row) == "diffusion" and row.means[metric] < bar.means[metric]
        ]
        count = sum(kind(row) == "diffusion" for row in ranked)
        who = f": {_all(behind)}" if behind else ""
        said.append(
            f"The best {of}, {bar.name}, has a higher {metric} than {len(behind)} of {count} "
            f"systems that diffuse{who}."
        )
    low = _below(ranked, "popularity")
    if low:
        said.append(f"Below popularity with these settings, no verdict on them: {_all(low)}.")
    asked = {row.name: diffusion.outcome(row.diffusion) for row in ranked if row.diffusion}
    blind = [name for name, each in asked.items() if each == diffusion.BLIND]
    pays = [name for name, each in asked.items() if each == diffusion.NEEDED]
    if asked:
        said.append(
            f"Of {len(asked)} that were asked, {len(blind)} make no use of x_t"
            + (f" ({_all(blind)})" if blind else "")
            + f", and the lists of {len(pays)} need their chain"
            + (f" ({_all(pays)})" if pays else "")
            + "."
        )
    mixed = [row for row in ranked if row.order]
    if mixed:
        hardly = [row.name for row in mixed if orders.kept(row.order) > orders.HARDLY]
        said.append(
            f"Of {len(mixed)} whose histories were shuffled, {len(hardly)} kept more than "
            f"{orders.HARDLY:.0%} of their {metric}" + (f": {_all(hardly)}." if hardly else ".")
        )
    rising = [row.name for row in ranked if row.rising]
    if rising:
        said.append(f"Still rising when training ended, so more epochs may help: {_all(rising)}.")
    return said


def _below(ranked: Sequence[Row], bar: str) -> list[str]:
    """The models that rank worse than a control."""
    names = [row.name for row in ranked]
    behind = ranked[names.index(bar) + 1 :] if bar in names else []
    return [row.name for row in behind if kind(row) != "classic"]


def _behind(told: Told, of: str) -> str:
    """How far the best of a kind is behind the first of all, and whether that can be told."""
    best, metric = leader(told, of), told.board.metric
    if best is None:
        return f"no {of} was run"
    apart = "told apart" if best.p is not None and best.p < board_text.LEVEL else "not told apart"
    seeds = min(row.seeds for row in (best, _ranked(told)[0]) if row.seeds)
    draws = f"{seeds} seed{'s' * (seeds > 1)}"
    return f"the best {of}, {best.name}, is {best.difference:+.4f} in {metric}, {apart}, {draws}"


def _all(names: Sequence[str]) -> str:
    return ", ".join(names)


def _ranked(told: Told) -> list[Row]:
    return [row for row in told.rows if row.means]


def _cell(row: Row | None, metric: str) -> str:
    if row is None:
        return "-"
    spread = row.deviations.get(metric)
    cost = row.cost
    serve = cost.users_per_processor_second or cost.users_per_second
    seconds = cost.cpu_seconds or cost.train_seconds
    costs = [f"{short(seconds)} s"] if seconds else []
    costs += [f"{serve:,.0f} users/s"] if serve else []
    figure = f"{row.means[metric]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")
    return f"{row.name} {figure}" + (f" ({', '.join(costs)})" if costs else "")
