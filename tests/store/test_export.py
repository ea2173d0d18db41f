"""Exported files tell what the store tells: read back with DuckDB, pyarrow and datasets, and held against the views."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import yaml
from store_example import FORK, RUN, Example, names

from reval_core.errors import StoreError
from reval_core.store import Store
from reval_core.store.exchange import PURPOSES, Selection, columns, export, layouts, selection
from reval_core.store.exchange.card import size_category

ALL = Selection(purposes=PURPOSES)
SHOWN = "trajectory_id, run_id, iteration, question, gold, status, correct, reward, answer, reward_used, truncated"


def write(store: Store, dest: Path, what: Selection = ALL, layout: str = "parquet") -> Path:
    export(store, dest, layout, what)
    return dest


def read(dest: Path, query: str = "FROM exported ORDER BY trajectory_id") -> list[dict[str, Any]]:
    """Rows of a query on an export, as anybody reads it with DuckDB."""
    files = f"read_parquet('{dest}/**/*.parquet', hive_partitioning = {str(not (dest / 'data').exists()).lower()})"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW exported AS SELECT * FROM {files}")
        return connection.sql(query).to_arrow_table().to_pylist()


@pytest.fixture(scope="module")
def exported(example: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(example.store, tmp_path_factory.mktemp("exports") / "all")


def test_a_row_is_a_response_with_what_the_view_says_of_it(example: Example, exported: Path) -> None:
    found = read(exported, f"SELECT {SHOWN} FROM exported ORDER BY trajectory_id")
    assert len(found) == 18  # 3 rounds and a fork of 4 each, an evaluation of 2
    assert found == example.store.query(f"SELECT {SHOWN} FROM trajectories ORDER BY trajectory_id").to_pylist()


def test_tokens_and_the_batch_are_those_of_the_store(example: Example, exported: Path) -> None:
    shared = "trajectory_id, prompt_ids, response_ids, seed, behaviour_logprob, engine, policy_id, weights_checksum"
    query = f"SELECT {shared}, tokenizer_id, sampling FROM {{}} ORDER BY trajectory_id"
    assert read(exported, query.format("exported")) == example.store.query(query.format("tokens")).to_pylist()
    batch = example.rounds[1]
    (row,) = read(exported, f"FROM exported WHERE trajectory_id = '{names(batch)[3]}'")
    told = ("batch_id", "purpose", "round", "generation", "trajectory_count", "finish_reason", "seed", "messages")
    assert [row[name] for name in told] == [
        *(batch.batch_id, "training", 1, 0, 4, "length", 2**64 - 4),
        [{"role": "user", "content": "question 3"}],
    ]


def test_every_verdict_gold_and_source_comes_along(example: Example, exported: Path) -> None:
    store = example.store
    for column, table, key in (
        ("verdicts", "verdicts", "trajectory_id"),
        ("golds", "golds", "problem_id"),
        ("sources", "problem_sources", "problem_id"),
    ):
        (kept,) = (f for f in columns.SCHEMA if f.name == column)
        fields = [f.name for f in kept.type.value_type if not f.name.startswith("verifier_") or f.name == "verifier_id"]
        query = f"SELECT DISTINCT {key}, {', '.join(f for f in fields if f != 'verifier')}"
        unnested = read(
            exported, f"{query} FROM (SELECT {key}, unnest({column}, max_depth := 2) FROM exported) ORDER BY ALL"
        )
        assert unnested == store.query(f"{query} FROM store.{table} ORDER BY ALL").to_pylist(), column
    first = read(exported, f"FROM exported WHERE trajectory_id = '{names(example.rounds[0])[3]}'")[0]
    told = [(v["verifier"], v["verifier_version"], v["status"]) for v in first["verdicts"]]
    assert sorted(told) == [("math", 1, "incorrect"), ("math", 1, "incorrect"), ("math", 2, "correct")]


def test_reference_scores_come_along(example: Example, tmp_path: Path) -> None:
    shutil.copy(example.store.path, tmp_path / "reval.duckdb")
    store, name = Store(tmp_path / "reval.duckdb"), names(example.rounds[0])[1]
    with store.write() as connection:
        connection.execute(f"INSERT INTO store.reference_scores VALUES ('{name}', 'pol_base', 'sco_0', -3.5, 9.25)")
    rows = {row["trajectory_id"]: row["reference_scores"] for row in read(write(store, tmp_path / "out"))}
    score = {"reference_policy_id": "pol_base", "scoring_id": "sco_0", "logprob": -3.5, "root_value": 9.25}
    assert rows.pop(name) == [score]
    assert all(scores == [] for scores in rows.values())


def test_a_runs_export_is_what_the_run_saw_its_ancestors_rounds_included(example: Example, tmp_path: Path) -> None:
    dest = write(example.store, tmp_path / "fork", Selection(run_id=FORK))
    query = f"SELECT {SHOWN} FROM {{}} ORDER BY trajectory_id"
    of_the_view = query.format(f"run_trajectories WHERE run_id = '{FORK}'")
    assert read(dest, query.format("exported")) == example.store.query(of_the_view).to_pylist()
    folders = sorted(str(path.parent.relative_to(dest)) for path in dest.rglob("*.parquet"))
    assert folders == [f"run_id={FORK}/iteration={iteration}" for iteration in range(3)]


def test_a_runs_evaluations_are_those_that_it_uses(example: Example, tmp_path: Path) -> None:
    dest = write(example.store, tmp_path / "out", Selection(run_id=FORK, purposes=("evaluation",)))
    rows = read(dest)  # made by the other run, found done by the fork
    assert [row["trajectory_id"] for row in rows] == sorted(names(example.evaluation))
    assert {(row["run_id"], row["iteration"], row["purpose"]) for row in rows} == {(FORK, None, "evaluation")}


def test_a_condition_chooses_rows_by_the_views_columns(example: Example, tmp_path: Path) -> None:
    dest = write(example.store, tmp_path / "out", Selection(where="correct AND iteration = 2 -- the last"))
    assert len(read(dest)) == 3
    with pytest.raises(StoreError, match=r"(?s)'corect' on the view trajectories failed.*\"correct\""):
        write(example.store, tmp_path / "wrong", Selection(where="corect"))
    with pytest.raises(StoreError, match=r"No response is selected \(training, where iteration = 9\)"):
        write(example.store, tmp_path / "none", Selection(where="iteration = 9"))
    with pytest.raises(StoreError, match="Imported responses belong to no run"):
        write(example.store, tmp_path / "run", Selection(run_id=RUN, purposes=("imported",)))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_there_is_left_alone(example: Example, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match=r"exists already\. Name another folder"):
        write(example.store, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_that_is_cut_short_leaves_nothing(example: Example, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(example.store, tmp_path / "out", "parquet", ALL, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(example: Example, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/out cannot be written: (Not a directory|File exists)"):
        write(example.store, tmp_path / "file" / "out")


@pytest.mark.parametrize("layout", ["parquet", "hf"])
def test_slices_change_nothing_but_the_files(
    layout: str, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(example.store, tmp_path / "whole", layout=layout)
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(selection, "SLICE_BYTES", 3000)
    export(example.store, tmp_path / "sliced", layout, ALL, lambda done, total: steps.append((done, total)))
    assert len(steps) == 9  # of 18 rows at a little more than 1 kB, two a slice
    assert [done for done, _ in steps] == list(range(2, 20, 2))
    assert read(tmp_path / "sliced") == read(whole)


def test_the_database_is_free_between_two_slices(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: Callable[..., Any]
) -> None:
    shutil.copy(example.store.path, tmp_path / "reval.duckdb")
    monkeypatch.setattr(selection, "SLICE_BYTES", 8000)

    def another_process_writes(done: int, total: int) -> None:
        hold(tmp_path / "reval.duckdb", "write").communicate(timeout=30)

    export(Store(tmp_path / "reval.duckdb"), tmp_path / "out", "parquet", ALL, another_process_writes)
    assert len(read(tmp_path / "out")) == 18


def test_slices_are_cut_by_size() -> None:
    places = pa.table({"size": [10, 10, 10, 100, 10, 10]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "SLICE_BYTES", 25)
        cut = [piece.column("size").to_pylist() for piece in selection.slices(places)]
    assert cut == [[10, 10], [10], [100], [10, 10]]


def test_a_response_without_tokens_is_left_out_and_counted(example: Example, tmp_path: Path) -> None:
    shutil.copy(example.store.path, tmp_path / "reval.duckdb")
    store, name = Store(tmp_path / "reval.duckdb"), names(example.rounds[0])[0]
    with store.write() as connection:
        connection.execute(f"DELETE FROM store.payloads WHERE trajectory_id = '{name}'")
    done = export(store, tmp_path / "out", "parquet", ALL)
    assert (done.rows, done.without_tokens) == (17, 1)
    assert name not in {row["trajectory_id"] for row in read(tmp_path / "out")}


def test_pandas_and_pyarrow_read_the_folders(exported: Path, example: Example, tmp_path: Path) -> None:
    trained = write(example.store, tmp_path / "training", Selection(run_id=RUN))
    accuracy = pd.read_parquet(trained).groupby("iteration", observed=True).correct.mean()
    assert accuracy.tolist() == [0.25, 0.5, 0.75]
    hive = pa.dataset.partitioning(pa.schema([("run_id", pa.string()), ("iteration", pa.int32())]), flavor="hive")
    rounds = pd.read_parquet(exported, partitioning=hive).iteration  # an evaluation has none
    assert rounds.isna().sum() == 2
    assert rounds.max() == 2


def test_a_runs_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    table = pa.table({"run_id": ["../../etc"], "iteration": pa.array([None], pa.int32()), "a": [1]})
    writer = layouts.Partitions(tmp_path / "out")
    writer.write(table)
    assert [path.resolve().is_relative_to(tmp_path / "out") for path in writer.close()] == [True]
    assert read(tmp_path / "out", "FROM exported") == [{"a": 1, "iteration": None, "run_id": "../../etc"}]


def test_the_hub_layout_has_messages_for_trl_and_the_same_rows(
    example: Example, exported: Path, tmp_path: Path
) -> None:
    dest = write(example.store, tmp_path / "set", layout="hf")
    rows = read(dest)
    assert rows[0]["prompt"] == [{"role": "user", "content": rows[0]["question"]}]
    assert rows[0]["completion"] == [{"role": "assistant", "content": rows[0]["completion_text"]}]
    back = [
        {columns.HUB_NAMES.get(name, name): value for name, value in row.items() if name != "completion"}
        for row in read(exported)
    ]
    ours = [{name: value for name, value in row.items() if name != "completion"} for row in rows]
    for row, text in zip(back, read(exported), strict=True):
        row["completion_text"] = text["completion"]
    assert ours == back


def test_datasets_loads_the_hub_layout_and_infers_its_features(example: Example, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dest = write(example.store, tmp_path / "set", layout="hf")
    found = datasets.load_dataset(str(dest), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.column_names == columns.HUB_SCHEMA.names
    assert sorted(found["trajectory_id"]) == [row["trajectory_id"] for row in read(dest)]
    assert found.features["seed"].dtype == "uint64"
    assert found.filter(lambda row: row["correct"]).num_rows == 8


def test_shards_are_numbered_of_their_total(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SLICE_BYTES", 8000)
    monkeypatch.setattr(layouts, "SHARD_BYTES", 0)
    dest = write(example.store, tmp_path / "set", layout="hf")
    files = sorted(path.name for path in (dest / "data").iterdir())
    assert files == [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    assert sum(pq.read_metadata(dest / "data" / name).num_rows for name in files) == 18


def test_the_card_has_the_header_that_loaders_read_and_says_what_is_in_it(example: Example, tmp_path: Path) -> None:
    text = (write(example.store, tmp_path / "sums", layout="hf") / "README.md").read_text(encoding="utf-8")
    _, header, page = text.split("---\n", 2)
    fields = yaml.safe_load(header)
    assert fields["pretty_name"] == "sums"
    assert fields["size_categories"] == ["n<1K"]
    assert fields["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert f"| training | {RUN} |" in page
    assert "| 12 | 4 | 3 | 58.3% | 4 |" in page  # responses, problems, rounds, 7 of 12 right, 50 tokens
    for name in columns.HUB_SCHEMA.names:
        assert f"| `{name}` |" in page


def test_every_column_carries_its_meaning_in_the_file(exported: Path) -> None:
    schema = pq.read_schema(next(exported.rglob("*.parquet")))
    assert schema.names == [name for name in columns.SCHEMA.names if name not in columns.PARTITIONS]
    assert all(field.metadata[b"comment"] for field in schema)
    assert json.loads(read(exported)[0]["sampling"]) == {"temperature": 1.0}


@pytest.mark.parametrize(
    ("rows", "words"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**12 - 1, "100B<n<1T"), (10**12, "n>1T")],
)
def test_sizes_are_told_in_the_hubs_words(rows: int, words: str) -> None:
    assert size_category(rows) == words
