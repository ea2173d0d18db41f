"""Responses come into a store: exported ones as they were, those of other systems in tokens and with their labels."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import store_example

from reval_core.errors import ProblemError
from reval_core.policies.tiny import arithmetic_tokenizer, byte_tokenizer
from reval_core.problems import Problem, ask
from reval_core.store import Store, lineage, problems, trajectories
from reval_core.store.exchange import (
    PURPOSES,
    Selection,
    Tally,
    Tokeniser,
    export,
    import_completions,
    import_export,
    importing,
)
from reval_core.store.sqlfiles import query_names
from reval_core.store.trajectories import PART_SCHEMA, SCORE_SCHEMA, VERDICT_SCHEMA, BatchRecord, prompt_digest

TABLES = (
    *("problems", "problem_sources", "golds", "batches", "prompts", "trajectories", "payloads", "verifiers"),
    *("verdicts", "reference_scores", "policies"),
)
ASKED = (
    Problem(ask("1+1=?"), gold="2", source="sums.jsonl", external_id="1", metadata={"level": 3, "text": 'a "b"'}),
    Problem(
        ({"role": "system", "content": "Short."}, {"role": "user", "content": "2+2 = ?\nπ²"}), "4", "sums.jsonl", "2"
    ),
)


def batch_of(round: int = 0, purpose: str = "training") -> BatchRecord:
    """Two samples of each problem, whose prompts are their bytes."""
    return BatchRecord(
        purpose=purpose,
        policy_id="pol_0",
        weights_checksum="wts_0",
        tokenizer_id="tok_0",
        round=round,
        generation=0,
        engine="test",
        sampling={"temperature": 1.0, "seed": 7},
        prompt_ids=tuple(prompt_digest(list(problem.question.encode())) for problem in ASKED),
        problem_ids=tuple(problem.problem_id for problem in ASKED),
        samples_per_prompt=2,
    )


def rows_of(batch: BatchRecord) -> pa.Table:
    rows = []
    for index, (problem, sample) in enumerate((p, s) for p in ASKED for s in (0, 1)):
        tokens = list(problem.question.encode())
        rows.append(
            {
                "trajectory_id": trajectories.trajectory_id(batch.batch_id, problem.problem_id, sample),
                "problem_id": problem.problem_id,
                "sample_index": sample,
                "prompt_id": prompt_digest(tokens),
                "prompt_ids": tokens,
                "prompt_text": problem.question,
                "response_ids": [5, 6, index],
                "completion": f"answer {index}",
                "finish_reason": "stop" if sample else "length",
                "behaviour_logprob": None if index == 3 else -1.5 - index,
                "seed": 2**64 - 1 - index,
            }
        )
    return pa.Table.from_pylist(rows, schema=PART_SCHEMA)


def verdicts_of(batch: BatchRecord, statuses: tuple[str, ...], seconds: float = 0.5) -> pa.Table:
    names = rows_of(batch).column("trajectory_id").to_pylist()
    golds = [ASKED[index // 2].gold_digest for index in range(4)]
    rows = [
        {
            "trajectory_id": name,
            "gold_digest": gold,
            "status": status,
            "reward": float(status == "correct"),
            "answer": None if status == "timeout" else str(index),
            "tier": "exact",
            "seconds": seconds,
            "details": "",
        }
        for index, (name, gold, status) in enumerate(zip(names, golds, statuses, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=VERDICT_SCHEMA)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two rounds of four responses, graded by two verifiers and scored, with a gold answer that was mended."""
    store = Store(tmp_path_factory.mktemp("source") / "reval.duckdb")
    store.prepare()
    with store.write() as connection:
        problems.add(connection, ASKED)
        problems.add(connection, [Problem(ASKED[0].messages, "two", "other.jsonl", "9")])
        for verifier in ("ver_1", "ver_2"):
            trajectories.add_verifier(connection, verifier, "math", int(verifier[-1]), {"policy": {}})
    for round in range(2):
        batch = batch_of(round)
        store.append_batch(batch, rows_of(batch), run_id="run-a", attempt=2)
        scores = rows_of(batch).select(["trajectory_id"]).to_pylist()
        scores = [{**row, "logprob": -3.25, "root_value": 9.0} for row in scores]
        with store.write() as connection:
            for verifier, last in (("ver_1", "timeout"), ("ver_2", "no_answer")):
                trajectories.add_verdicts(
                    connection, verifier, verdicts_of(batch, ("correct", "incorrect", "correct", last))
                )
            trajectories.add_reference_scores(
                connection, "pol_0", "sco_0", pa.Table.from_pylist(scores, schema=SCORE_SCHEMA)
            )
    store.settle()
    return store


def write(store: Store, dest: Path, layout: str = "parquet", **what: Any) -> list[Path]:
    """Export and return the files."""
    export(store, dest, layout, Selection(**({"purposes": PURPOSES} | what)))
    return sorted(dest.rglob("*.parquet"))


def content(store: Store, table: str) -> Counter[str]:
    """Rows of a table as they count: JSON by what it says."""
    rows = store.query(f"FROM store.{table}").to_pylist()
    if table == "problems":
        rows = [row | {"messages": json.loads(row["messages"])} for row in rows]
    if table in ("verifiers", "policies"):  # when they were first seen is not in a file
        rows = [{key: value for key, value in row.items() if not key.endswith("_at")} for row in rows]
    return Counter(str(row) for row in rows)


def take(store: Store, *paths: Path) -> Tally:
    tally = Tally()
    for path in paths:
        tally.add(import_export(store, path))
    return tally


# -- exports come back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["parquet", "hf"])
def test_an_export_comes_back_into_an_empty_store_as_it_was(
    layout: str, source: Store, store: Store, tmp_path: Path
) -> None:
    tally = take(store, *write(source, tmp_path / "out", layout))
    assert (tally.read, tally.new, tally.known, tally.refused) == (8, 8, 0, {})
    for table in TABLES:
        assert content(store, table) == content(source, table), table
    assert store.query("SELECT gold FROM problems ORDER BY gold").column("gold").to_pylist() == ["4", "two"]


def test_doing_it_twice_changes_nothing(source: Store, store: Store, tmp_path: Path) -> None:
    files = write(source, tmp_path / "out") + write(source, tmp_path / "again", "hf")
    take(store, *files)
    before = {table: content(store, table) for table in TABLES}
    tally = take(store, *files)
    assert (tally.read, tally.new, tally.known) == (16, 0, 16)
    assert {table: content(store, table) for table in TABLES} == before


def test_what_came_back_is_exported_alike(source: Store, store: Store, tmp_path: Path) -> None:
    files = write(source, tmp_path / "out")
    take(store, *files)
    again = write(store, tmp_path / "again")
    assert [p.relative_to(tmp_path / "again") for p in again] == [p.relative_to(tmp_path / "out") for p in files]
    assert [pq.read_table(path, partitioning=None) for path in again] == [
        pq.read_table(path, partitioning=None) for path in files
    ]


def test_its_tokens_can_be_learned_from(source: Store, store: Store, tmp_path: Path) -> None:
    take(store, *write(source, tmp_path / "out"))
    name = rows_of(batch_of(1)).column("trajectory_id")[2].as_py()
    with store.read() as connection:
        tokens = trajectories.tokens(connection, [name])[name]
        assert trajectories.reference_scores(connection, [name], "pol_0", "sco_0") == {name: (-3.25, 9.0)}
        trajectories.check_batch(connection, batch_of(1))
    assert tokens.response_ids.tolist() == [5, 6, 2]
    assert bytes(tokens.prompt_ids.tolist()).decode() == "2+2 = ?\nπ²"


Change = Callable[[pa.Table], pa.Table]


def with_value(name: str, row: int, value: Any) -> Change:
    """A file's table with another value in one place."""

    def change(table: pa.Table) -> pa.Table:
        values = table.column(name).to_pylist()
        values[row] = value
        return table.set_column(
            table.column_names.index(name), table.field(name), pa.array(values, table.field(name).type)
        )

    return change


def with_verdict(field: str, value: Any) -> Change:
    def change(table: pa.Table) -> pa.Table:
        verdicts = table.column("verdicts").to_pylist()
        verdicts[3][1][field] = value
        return with_value("verdicts", 3, verdicts[3])(table)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_value("trajectory_id", 2, "trj_other"), "row 3: its trajectory_id is not the digest"),
        (with_value("sample_index", 0, 1), "row 1: its trajectory_id is not the digest"),
        (with_value("prompt_ids", 1, [1, 2]), "row 2: its prompt_id is not the digest of prompt_ids"),
        (with_value("messages", 3, [{"role": "user", "content": "?"}]), "row 4: its problem_id is not the digest"),
        (with_value("response_ids", 3, []), "row 4: a response without a token"),
        (with_value("response_ids", 3, [1, None]), "row 4: response_ids is null"),
        (with_value("completion", 1, None), "row 2: completion is null"),
        (with_value("finish_reason", 1, "eos"), "row 2: finish_reason is none of stop, length"),
        (with_value("purpose", 0, "test"), "row 1: purpose is none of training, evaluation, imported"),
        (with_value("sampling", 2, "{"), "row 3: sampling is not JSON"),
        (with_verdict("status", "right"), "row 4: verdicts.status is none of correct"),
        (with_verdict("gold_digest", None), "row 4: verdicts.gold_digest is null"),
        (with_verdict("verifier_settings", "x"), "row 4: verdicts.verifier_settings is not JSON"),
        (lambda table: table.drop_columns(["golds"]), "it lacks the column golds"),
        (
            lambda table: table.set_column(
                table.column_names.index("round"), "round", pa.array(["zero"] * table.num_rows)
            ),
            "its columns have other types",
        ),
    ],
)
def test_a_file_that_does_not_hold_is_refused_whole_and_the_row_is_named(
    change: Change, words: str, source: Store, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "SLICE_BYTES", 1)
    monkeypatch.setattr(importing, "_ROWS", 1)  # the rows before the wrong one are slices of their own
    first, second = write(source, tmp_path / "out")
    pq.write_table(change(pq.read_table(first, partitioning=None)), first)
    tally = take(store, first, second)
    (refused,) = tally.refused.values()
    assert f"{first}: {words}" in refused.example
    assert (tally.read, tally.new, refused.count) == (8, 4, 4)
    assert store.query("SELECT DISTINCT round FROM store.batches").column("round").to_pylist() == [1]


def test_a_damaged_file_is_refused(source: Store, store: Store, tmp_path: Path) -> None:
    first, _ = write(source, tmp_path / "out")
    data = first.read_bytes()
    first.write_bytes(data[:1000] + bytes(64) + data[1064:])
    tally = take(store, first)
    assert tally.new == 0
    assert "in a file that was refused as a whole" in tally.refused
    assert store.query("FROM store.trajectories").num_rows == 0


def test_a_file_that_another_tool_has_filtered_still_comes_in(source: Store, store: Store, tmp_path: Path) -> None:
    write(source, tmp_path / "out")
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * FROM '{tmp_path}/out/**/*.parquet' WHERE correct) TO '{tmp_path}/kept.parquet'"
        )
    write(source, tmp_path / "set", "hf")
    frame = pd.read_parquet(tmp_path / "set" / "data")
    frame[~frame.correct].to_parquet(tmp_path / "others.parquet")
    assert take(store, tmp_path / "kept.parquet").new == 4
    assert take(store, tmp_path / "others.parquet").new == 4
    assert content(store, "verdicts") == content(source, "verdicts")


def test_a_response_that_a_file_repeats_goes_in_once(source: Store, store: Store, tmp_path: Path) -> None:
    first, _ = write(source, tmp_path / "out")
    table = pq.read_table(first, partitioning=None)
    pq.write_table(pa.concat_tables([table, table]), first)
    tally = take(store, first)
    assert (tally.read, tally.new, tally.known) == (8, 4, 4)
    assert store.query("FROM store.payloads").num_rows == 4


def test_another_response_under_a_known_id_is_told_and_not_taken(source: Store, store: Store, tmp_path: Path) -> None:
    files = write(source, tmp_path / "out")
    take(store, *files)
    pq.write_table(with_value("response_ids", 1, [9])(pq.read_table(files[0], partitioning=None)), files[0])
    tally = take(store, files[0])
    (reason,) = tally.refused
    assert (tally.known, tally.left_out, reason[:11]) == (3, 1, "that differ")
    assert content(store, "payloads") == content(source, "payloads")


def test_a_verdict_stands_and_one_that_could_not_be_found_is_replaced(
    source: Store, store: Store, tmp_path: Path
) -> None:
    files = write(source, tmp_path / "out")
    batch = batch_of()
    store.append_batch(batch, rows_of(batch))
    with store.write() as connection:
        here = verdicts_of(batch, ("timeout", "correct", "error", "correct"), seconds=9.0)
        trajectories.add_verdicts(connection, "ver_1", here)
    take(store, files[0])
    statuses = store.query(
        "SELECT v.status FROM store.verdicts AS v JOIN store.trajectories AS t USING (trajectory_id) "
        "WHERE verifier_id = 'ver_1' ORDER BY t.seed DESC"
    )
    assert statuses.column("status").to_pylist() == ["correct", "correct", "correct", "correct"]


def test_an_old_file_puts_no_gold_answer_back(source: Store, store: Store, tmp_path: Path) -> None:
    files = write(source, tmp_path / "out")
    take(store, *files)
    with store.write() as connection:
        problems.add(connection, [Problem(ASKED[0].messages, "II", "newest.jsonl", "1")])
    take(store, *files)
    assert "II" in store.query("SELECT gold FROM problems").column("gold").to_pylist()


def test_an_import_that_was_cut_short_is_finished_by_the_next(
    source: Store, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "SLICE_BYTES", 1)
    monkeypatch.setattr(importing, "_ROWS", 1)
    (path,) = write(source, tmp_path / "out", "hf")

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_export(store, path, stop)
    assert store.query("FROM store.trajectories").num_rows == 3
    tally = take(store, path)
    assert (tally.new, tally.known) == (5, 3)
    assert content(store, "payloads") == content(source, "payloads")


# -- completions of other systems --------------------------------------------------------------------------------------

BYTES = Tokeniser(byte_tokenizer(), "tok_bytes")
EOS = byte_tokenizer().eos_token_id


def row(question: str, completion: str, **others: Any) -> dict[str, Any]:
    return {"question": question, "gold": "2", "completion": completion, **others}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


SAID = [
    row("1+1=?", "2", model="a", label=True, id="x1", dataset="sums", level=1),
    row("1+1=?", "3", model="a", label=False, id="x2"),
    row("1+2=?", "2", model="a", label=None, id="x3"),
    row("1+1=?", "2", model="b", label=True, truncated=True),
    row("1+1=?", "2", model="a", label=True, id="x1", dataset="sums", level=1),
]


def test_each_model_and_number_of_samples_is_a_batch(store: Store, tmp_path: Path) -> None:
    tally = import_completions(store, lines(tmp_path / "said.jsonl", SAID), BYTES, {})
    assert (tally.read, tally.new, tally.known, tally.labels, tally.refused) == (5, 5, 0, 4, {})
    found = store.query(
        """
        SELECT p.settings ->> 'model' AS model, b.prompt_count, b.trajectory_count, b.purpose, p.kind, b.tokenizer_id
        FROM store.batches AS b JOIN policies AS p USING (policy_id) ORDER BY ALL
        """
    ).to_pylist()
    assert [tuple(batch.values()) for batch in found] == [
        ("a", 1, 1, "imported", "foreign", "tok_bytes"),
        ("a", 1, 3, "imported", "foreign", "tok_bytes"),
        ("b", 1, 1, "imported", "foreign", "tok_bytes"),
    ]


def test_an_imported_response_shows_in_the_view_with_source_and_verdict(store: Store, tmp_path: Path) -> None:
    import_completions(store, lines(tmp_path / "said.jsonl", SAID), BYTES, {})
    found = store.query(
        """
        SELECT t.purpose, t.run_id, t.iteration, question, gold, completion, status, reward, truncated, response_tokens,
               sample_index, problem_source, p.settings ->> 'source' AS source
        FROM trajectories AS t JOIN policies AS p USING (policy_id)
        WHERE p.settings ->> 'model' = 'a' AND question = '1+1=?' ORDER BY sample_index
        """
    ).to_pylist()
    first, second, third = found
    assert first == {
        **{"purpose": "imported", "run_id": None, "iteration": None, "question": "1+1=?", "gold": "2"},
        **{"completion": "2", "status": "correct", "reward": 1.0, "truncated": False, "response_tokens": 2},
        **{"sample_index": 0, "problem_source": "sums", "source": "said.jsonl"},
    }
    assert (second["completion"], second["status"], second["reward"]) == ("3", "incorrect", 0.0)
    assert third == first | {"sample_index": 2}  # an identical row keeps an index of its own
    metadata = store.query("SELECT metadata FROM problems WHERE question = '1+1=?'").column("metadata").to_pylist()
    assert json.loads(metadata[0]) == {"level": 1}


def test_labels_are_verdicts_of_the_source_and_null_is_none(store: Store, tmp_path: Path) -> None:
    said = [row("1+1=?", "2", label=label) for label in (True, False, None, 1, 0, float("nan"), 1.0)]
    tally = import_completions(
        store, lines(tmp_path / "said.jsonl", [*said, row("1+1=?", "2", label="yes")]), BYTES, {}
    )
    found = store.query(
        "SELECT sample_index, v.status, verifier, v.tier, v.details FROM verdicts AS v "
        "JOIN trajectories USING (trajectory_id) ORDER BY sample_index"
    )
    assert found.column("status").to_pylist() == ["correct", "incorrect", "correct", "incorrect", "correct"]
    assert found.column("sample_index").to_pylist() == [0, 1, 3, 4, 6]
    assert found.slice(0, 1).to_pylist()[0] | {"status": ""} == {
        **{"sample_index": 0, "status": "", "verifier": "label of said.jsonl", "tier": "label"},
        "details": "row 1 of said.jsonl",
    }
    (refused,) = tally.refused.values()
    assert refused.example == "said.jsonl, line 8: column 'label' is 'yes', neither true, false nor null"


def test_importing_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    path = lines(tmp_path / "said.jsonl.gz", [*SAID, row("1+1=?", "2", model="a") | {"gold": "two"}])
    import_completions(store, path, BYTES, {})
    before = {table: store.query(f"FROM store.{table} ORDER BY ALL") for table in TABLES}
    tally = import_completions(store, path, BYTES, {})
    assert (tally.new, tally.known) == (0, 6)
    assert {table: store.query(f"FROM store.{table} ORDER BY ALL") for table in TABLES} == before


def test_other_completions_are_another_batch_and_mended_labels_other_verdicts(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    import_completions(store, lines(path, SAID), BYTES, {})
    changed = import_completions(store, lines(path, [row("1+1=?", "4", model="a"), *SAID[1:]]), BYTES, {})
    assert (changed.new, changed.known) == (3, 2)  # the batch of three; those of one are as they were
    mended = import_completions(store, lines(path, [SAID[0] | {"label": False}, *SAID[1:]]), BYTES, {})
    assert (mended.new, mended.known) == (0, 5)
    names = [row["name"] for row in store.query("FROM store.verifiers").to_pylist()]
    assert names == ["label of said.jsonl"] * 3
    another = Tokeniser(byte_tokenizer(), "tok_other")
    assert import_completions(store, lines(path, SAID), another, {}).new == 5


def test_the_files_own_sample_numbers_count_where_it_has_them(store: Store, tmp_path: Path) -> None:
    said = [row("1+1=?", text, sample=sample) for text, sample in (("c", 2), ("a", 0), ("b", 1), ("b again", 1))]
    import_completions(store, lines(tmp_path / "said.jsonl", said), BYTES, {})
    found = store.query("SELECT completion FROM trajectories ORDER BY sample_index")
    assert found.column("completion").to_pylist() == ["a", "b", "b again", "c"]


def test_tokens_are_the_texts_and_eos_unless_it_was_cut(store: Store, tmp_path: Path) -> None:
    said = [
        row("π=?", "3.14 ≈ π"),
        row("π=?", "3.14", truncated=True),
        row("π=?", ""),
        row("π=?", "3<|endoftext|>", truncated=True),
        row("π=?", "", truncated=True),
        row("π=?", "3<|endoftext|>4"),
        row("π=?", "half \ud835 a pair"),
    ]
    tally = import_completions(store, lines(tmp_path / "said.jsonl", said), BYTES, {})
    found = store.query(
        "SELECT completion, truncated, response_ids FROM trajectories JOIN tokens USING (trajectory_id, truncated)"
    )
    rows = {one["completion"]: (one["truncated"], one["response_ids"]) for one in found.to_pylist()}
    decode = byte_tokenizer().decode
    assert {text: (cut, decode([i for i in ids if i != EOS]), ids.count(EOS)) for text, (cut, ids) in rows.items()} == {
        "3.14 ≈ π": (False, "3.14 ≈ π", 1),
        "3.14": (True, "3.14", 0),
        "": (False, "", 1),
        "3": (False, "3", 1),  # it says that it ended
    }
    assert {reason: refused.count for reason, refused in tally.refused.items()} == {
        "without a token": 1,
        "that go on after their end": 1,
        "that no tokenizer can write": 1,
    }


def test_a_tokenizer_that_cannot_write_a_row_refuses_it(store: Store, tmp_path: Path) -> None:
    said = [row("1+1=?", "\\boxed{2}"), row("1+1=?", "two"), row("One and one?", "2")]
    tally = import_completions(
        store, lines(tmp_path / "said.jsonl", said), Tokeniser(arithmetic_tokenizer(), "tok"), {}
    )
    assert (tally.read, tally.new, tally.left_out) == (3, 1, 2)
    told = {reason: refused.example for reason, refused in tally.refused.items()}
    assert told["that the tokenizer cannot write"].startswith("said.jsonl, line 2: its tokens read ''")
    assert told["whose prompt cannot be rendered"].startswith("said.jsonl, line 3: Problem 3 of said.jsonl:")


def test_columns_have_other_names_or_lie_in_mappings(store: Store, tmp_path: Path) -> None:
    said = [{"prompt": "1+1=?", "out": {"text": "2", "ok": True}, "answer": "2", "by": "a", "level": 1}]
    fields = {"question": "prompt", "completion": "out.text", "label": "out.ok", "model": "by"}
    assert import_completions(store, lines(tmp_path / "said.jsonl", said), BYTES, fields).labels == 1
    found = store.query("SELECT question, completion, correct, policy_id FROM trajectories").to_pylist()
    assert [tuple(one.values())[:3] for one in found] == [("1+1=?", "2", True)]
    assert store.query("SELECT settings ->> 'model' AS model FROM policies").column("model").to_pylist() == ["a"]
    with pytest.raises(ProblemError, match="'responce', which is none of question, answer"):
        import_completions(store, tmp_path / "said.jsonl", BYTES, {"responce": "out"})


def test_what_no_store_can_hold_is_refused_row_by_row(store: Store, tmp_path: Path) -> None:
    half = "\ud800"
    asked = {"question": "1+1=?", "answer": "2", "completion": "2"}
    said = [
        asked | {"n": float("nan")},
        *(asked | {column: half} for column in ("completion", "model", "dataset", "n", "answer")),
        asked | {"n": 10**4299},
    ]
    path = lines(tmp_path / "said.jsonl", said)
    with open(path, "ab") as file:
        file.write(b'{"question": "q", "n": ' + b"9" * 5000 + b"}\n" + b"[" * 100_000 + b"]" * 100_000 + b"\n")
    tally = import_completions(store, path, BYTES, {})
    assert (tally.read, tally.left_out) == (9, 7)
    assert {reason: refused.count for reason, refused in tally.refused.items()} == {
        "that no tokenizer can write": 1,
        "that cannot be written as text": 1,
        "without a usable problem": 3,
        "that cannot be read": 2,
    }


def test_rows_that_cannot_be_used_are_counted_by_reason_and_the_rest_goes_in(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    good = json.dumps(row("1+1=?", "2")).encode()
    texts = [
        good,
        b"{",
        b"[1]",
        b'"\xff"',
        b"",
        good,
        b'{"question": "q", "gold": "1"}',
        b'{"completion": "2", "a": 1}',
    ]
    path.write_bytes(b"\n".join([*texts, json.dumps({"question": "1+1=?", "completion": "2"}).encode()]))
    tally = import_completions(store, path, BYTES, {})
    assert (tally.read, tally.new, tally.left_out) == (8, 2, 6)
    told = {reason: (refused.count, refused.example) for reason, refused in tally.refused.items()}
    count, example = told.pop("that cannot be read")
    assert count == 3
    assert example.startswith("said.jsonl, line 2: not JSON (")
    assert told == {
        "without a completion": (
            1,
            "said.jsonl, line 7: column 'completion' is missing or no text; there are question, gold; "
            "map one with completion=COLUMN",
        ),
        "without a usable problem": (
            2,
            "said.jsonl, line 8: column 'question' is missing or null. "
            "There are a; map one with fields: {question: ...} or --fields question=...",
        ),
    }


def test_nothing_of_a_damaged_file_goes_in(store: Store, tmp_path: Path) -> None:
    path = lines(tmp_path / "said.jsonl.gz", SAID * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ProblemError, match=r"said\.jsonl\.gz is not a whole gzip file \(after line \d+\)"):
        import_completions(store, path, BYTES, {})
    path = tmp_path / "said.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ProblemError, match="is not a readable Parquet file"):
        import_completions(store, path, BYTES, {})
    assert store.query("FROM store.problems").num_rows == 0


def test_parquet_of_another_system_with_nan_comes_in(store: Store, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "question": ["1+1=?", "1+2=?"],
            "answer": [2, 3],
            "completion": ["2", "3"],
            "label": [1.0, float("nan")],
            "difficulty": [0.5, float("nan")],
        }
    )
    frame.to_parquet(tmp_path / "said.parquet")
    assert not importing.is_export(tmp_path / "said.parquet")
    tally = import_completions(store, tmp_path / "said.parquet", BYTES, {})
    assert (tally.new, tally.labels) == (2, 1)
    found = store.query("SELECT gold, metadata ->> 'difficulty' AS difficulty FROM problems ORDER BY gold").to_pylist()
    assert found == [{"gold": "2", "difficulty": "0.5"}, {"gold": "3", "difficulty": None}]


def test_a_large_file_goes_in_by_slices(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reval_core.store.exchange import completions

    path = lines(tmp_path / "said.jsonl", SAID)
    whole = Store(tmp_path / "whole" / "reval.duckdb")
    whole.path.parent.mkdir()
    whole.prepare()
    import_completions(whole, path, BYTES, {})
    monkeypatch.setattr(completions, "SLICE_BYTES", 1)
    steps: list[tuple[int, int]] = []
    import_completions(store, path, BYTES, {}, lambda done, total: steps.append((done, total)))
    assert steps == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    for table in ("payloads", "prompts"):
        assert content(store, table) == content(whole, table)
    names = "SELECT trajectory_id, batch_id, sample_index, prompt_id FROM store.trajectories ORDER BY ALL"
    assert store.query(names) == whole.query(names)


def test_imports_are_exported_and_come_back(store: Store, tmp_path: Path) -> None:
    import_completions(store, lines(tmp_path / "said.jsonl", SAID), BYTES, {})
    files = write(store, tmp_path / "out", purposes=("imported",))
    other = Store(tmp_path / "other" / "reval.duckdb")
    other.path.parent.mkdir()
    other.prepare()
    assert take(other, *files).new == 5
    for table in TABLES:
        expected = content(store, table)
        if table == "policies":
            expected = Counter(
                text.replace('"model": "', '"model":"').replace(', "source": "', ',"source":"') for text in expected
            )
        assert content(other, table) == expected, table


def test_no_policy_is_made_up_for_what_a_run_sampled(source: Store, store: Store, tmp_path: Path) -> None:
    take(store, *write(source, tmp_path / "out"))
    with store.read() as connection:
        assert not lineage.exists(connection, "pol_0")


def test_every_row_of_the_real_files_comes_in(reval_data: Path, store: Store, tmp_path: Path) -> None:
    files = sorted((reval_data / "completions").glob("*.jsonl.gz"))
    if not files:
        pytest.skip(f"no completions in {reval_data}")
    total = 0
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            head = [json.loads(line) for _, line in zip(range(40), stream, strict=False)]
        path = lines(tmp_path / file.name, [one for one in head if len(one["completion"]) < 20_000])
        tally = import_completions(store, path, BYTES, {})
        assert (tally.new, tally.refused) == (tally.read, {}), file.name
        total += tally.labels
    judged = store.query("SELECT count(*) AS n FROM trajectories WHERE purpose = 'imported' AND correct IS NOT NULL")
    assert judged.column("n").to_pylist() == [total]


@pytest.mark.long
def test_no_named_query_counts_imports_as_training(tmp_path: Path) -> None:
    store = store_example.build(tmp_path / "reval.duckdb").store
    asked = [name for name in query_names() if name != "storage_by_table"]  # that one counts rows, whoever wrote them
    before = {name: store.query(name).to_pylist() for name in asked}
    import_completions(store, lines(tmp_path / "said.jsonl", [row("question 0", "2", label=True), *SAID]), BYTES, {})
    assert {name: store.query(name).to_pylist() for name in asked} == before
    assert store.query("SELECT * FROM trajectories WHERE purpose = 'imported'").num_rows == 6
