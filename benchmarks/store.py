"""The store's speed and size, each figure beside the plain way of doing it in the same run and the machine's own floor.

    python benchmarks/store.py                      # needs the folder of completions: REVAL_DATA, or ../shared/data
    python benchmarks/store.py --quick --json result.json

Payload: int32 token ids and text of real completions, tokenised by a 32k BPE that is trained on them; no per-token
log-probs. MB are Arrow bytes given in. Each time is the median of seven. The plain way is one wide table with a
primary key, inserted by Arrow, and DuckDB's own reservoir sample; the floors are a file written and synced, a copy in
memory, and a connection that is only opened and closed.
Ratios are the result; seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from reval_core.config_replay import ReplayConfig
from reval_core.store import Store, replay, runs, trajectories
from reval_core.store.runs import RunRecord
from reval_core.store.store import SLICE_BYTES
from reval_core.store.trajectories import PART_SCHEMA, BatchRecord

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 7
RUN = "bench-0"
SAMPLES = 8
WIDE = """
CREATE TABLE wide (
    batch_id VARCHAR, problem_id VARCHAR, sample_index INTEGER, seed UBIGINT, trajectory_id VARCHAR,
    prompt_ids INTEGER[], prompt_text VARCHAR, response_ids INTEGER[], completion VARCHAR, finish_reason VARCHAR,
    behaviour_logprob DOUBLE,
    PRIMARY KEY (batch_id, problem_id, sample_index, seed)
)
"""
INSERT_WIDE = """
INSERT INTO wide
SELECT $batch, problem_id, sample_index, seed, trajectory_id, prompt_ids, prompt_text, response_ids, completion,
       finish_reason, behaviour_logprob
FROM part ON CONFLICT DO NOTHING
"""


def completions(folder: Path, most_characters: int) -> list[str]:
    """Texts of the data folder, longest files first."""
    texts: list[str] = []
    size = 0
    for path in sorted(folder.glob("*.jsonl.gz"), key=lambda p: -p.stat().st_size):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["completion"]
                if text:
                    texts.append(text)
                    size += len(text)
                if size >= most_characters:
                    return texts
    return texts


def bpe(texts: list[str], vocabulary: int = 32_000) -> Tokenizer:
    """A byte-level BPE trained on the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def pieces(tokenizer: Tokenizer, texts: list[str], length: int) -> Iterator[tuple[np.ndarray, str]]:
    """(ids [length], text) cut from the texts one after the other, again and again from another place."""
    stream = np.concatenate([np.array(e.ids, np.int32) for e in tokenizer.encode_batch(texts)])
    start = 0
    while True:
        for first in range(start, len(stream) - length, length):
            ids = stream[first : first + length]
            yield ids, tokenizer.decode(ids.tolist())
        start = (start + 977) % length


def batch_of(round: int, rows: int) -> BatchRecord:
    """A batch of so many responses."""
    problems = tuple(f"prb_{index:032x}" for index in range(rows // SAMPLES))
    return BatchRecord(
        purpose="training",
        policy_id="pol_bench",
        weights_checksum="wts_bench",
        tokenizer_id="tok_bench",
        round=round,
        generation=0,
        engine="bench",
        sampling={"seed": 0},
        prompt_ids=tuple(trajectories.prompt_digest([index, index + 1]) for index in range(rows // SAMPLES)),
        problem_ids=problems,
        samples_per_prompt=SAMPLES,
    )


def part_of(batch: BatchRecord, payload: Iterator[tuple[np.ndarray, str]]) -> pa.Table:
    """The whole batch as one part."""
    rows: list[dict[str, Any]] = []
    batch_id = batch.batch_id
    for index, (problem, prompt) in enumerate(zip(batch.problem_ids, batch.prompt_ids, strict=True)):
        for sample in range(batch.samples_per_prompt):
            ids, completion = next(payload)
            rows.append(
                {
                    "trajectory_id": trajectories.trajectory_id(batch_id, problem, sample),
                    "problem_id": problem,
                    "sample_index": sample,
                    "prompt_id": prompt,
                    "prompt_ids": [index, index + 1],
                    "prompt_text": f"problem {index}",
                    "response_ids": ids,
                    "completion": completion,
                    "finish_reason": "stop",
                    "behaviour_logprob": -1.0,
                    "seed": index * SAMPLES + sample,
                }
            )
    return pa.Table.from_pylist(rows, schema=PART_SCHEMA)


def median_of(work: Callable[[int], Any], repeats: int = REPEATS) -> float:
    """Median seconds of ``work(repeat)``."""
    seconds = []
    for repeat in range(repeats):
        started = time.perf_counter()
        work(repeat)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def new_store(folder: Path) -> Store:
    """An empty store with one run."""
    store = Store(folder / "reval.duckdb")
    store.prepare()
    with store.write() as connection:
        runs.add(connection, RunRecord(RUN, "bench", {}, "cfg_bench", 0, "pol_bench", "ver_bench", {}))
    return store


def admit(store: Store, iteration: int, part: pa.Table) -> None:
    """Admit a part to the run's buffer."""
    entries = pa.table(
        {
            "position": pa.array(range(part.num_rows), pa.int32()),
            "trajectory_id": part.column("trajectory_id"),
            "gold_digest": pa.array(["gld"] * part.num_rows),
            "reward_used": pa.array([0.0] * part.num_rows),
        },
        schema=replay.ENTRY_SCHEMA,
    )
    with store.write() as connection:
        replay.admit(connection, RUN, iteration, "ver_bench", entries)


def wide_database(path: Path) -> None:
    """An empty wide table."""
    with duckdb.connect(path, config={"threads": 2}) as connection:
        connection.execute(WIDE)


def insert_wide(path: Path, batch_id: str, part: pa.Table) -> None:
    """The plain append: one transaction into the wide table."""
    with duckdb.connect(path, config={"threads": 2}) as connection:
        connection.register("part", part)
        connection.execute(INSERT_WIDE, {"batch": batch_id})


def drawn_payloads(store: Store, iteration: int, size: int, repeat: int) -> None:
    """What a learn stage reads: places, entries, token ids."""
    drawn = store.draw(RUN, iteration, size=size, seed=repeat, update=0, capacity=None)
    with store.read() as connection:
        assert len(trajectories.tokens(connection, [entry.trajectory_id for entry in drawn])) == size


def plain_sample(path: Path, size: int, repeat: int) -> None:
    """DuckDB's own reservoir over the wide table, ids and payload."""
    with duckdb.connect(path, read_only=True, config={"threads": 2}) as connection:
        sql = f"SELECT trajectory_id, prompt_ids, response_ids FROM wide USING SAMPLE reservoir({size} ROWS) REPEATABLE"
        found = connection.sql(f"{sql} ({repeat})").to_arrow_table()
        assert found.num_rows == size


def long_rows(folder: Path, payload: Iterator[tuple[np.ndarray, str]], report: Report, rows: int, length: int) -> None:
    """Append and draw rows of 8k tokens."""
    batches = [batch_of(round, rows) for round in range(REPEATS)]
    parts = [part_of(batch, payload) for batch in batches]
    size = parts[0].nbytes / 1e6
    store, wide = new_store(folder), folder / "wide.duckdb"
    wide_database(wide)

    def synced(repeat: int) -> None:
        with open(folder / "floor.arrow", "wb") as file:
            with pa.ipc.new_file(file, PART_SCHEMA) as writer:
                writer.write_table(parts[repeat])
            file.flush()
            os.fsync(file.fileno())

    what = f"append {rows:,} x {length:,} tokens with text ({size:.0f} MB)"
    ours = median_of(lambda repeat: store.append_batch(batches[repeat], parts[repeat]))
    plain = median_of(lambda repeat: insert_wide(wide, batches[repeat].batch_id, parts[repeat]))
    floor = median_of(synced)
    note = f"{size / ours:.0f} MB/s, plain {size / plain:.0f}, disk {size / floor:.0f}"
    report.row(what, ours, plain, floor, note)
    slices = max(1, round(parts[0].nbytes / SLICE_BYTES))
    report.row(f"one of its {slices} slices: as long as a reader waits", ours / slices, None, None)
    again = median_of(lambda repeat: store.append_batch(batches[repeat], parts[repeat]))
    report.row("append the same again (nothing is written)", again, plain, None)

    for iteration, part in enumerate(parts[:5]):
        admit(store, iteration, part)
    memory = np.random.default_rng(0).integers(0, 32_000, size=(rows, length), dtype=np.int32)
    ours = median_of(lambda repeat: drawn_payloads(store, 4, rows, repeat))
    plain = median_of(lambda repeat: plain_sample(wide, rows, repeat))
    floor = median_of(lambda repeat: [memory.copy()])
    report.row(f"draw {rows:,} of {5 * rows:,} such rows, ids and tokens", ours, plain, floor)


def opened_and_closed(store: Store) -> None:
    """The floor of a read: a connection and nothing else."""
    with store.read():
        pass


def many_rows(
    folder: Path, payload: Iterator[tuple[np.ndarray, str]], report: Report, sizes: list[int], draw: int
) -> None:
    """Costs as short rows grow to a million."""
    store, wide = new_store(folder), folder / "wide.duckdb"
    wide_database(wide)
    stored, iteration = 0, 0
    for size in sizes:
        while stored < size:
            batch = batch_of(iteration, min(size - stored, 50_000))
            part = part_of(batch, payload)
            store.append_batch(batch, part)
            insert_wide(wide, batch.batch_id, part)
            admit(store, iteration, part)
            stored, iteration = stored + part.num_rows, iteration + 1
        last = iteration - 1
        how = ReplayConfig(capacity=None)

        def choose(repeat: int, last: int = last, how: ReplayConfig = how) -> None:
            with store.read() as connection:
                replay.draw(connection, RUN, last, how, size=draw, seed=repeat, updates=[0])

        def places(repeat: int, last: int = last, how: ReplayConfig = how) -> None:
            with store.read() as connection:
                window = replay.window(connection, RUN, last, how)
            replay.strategy(how)(window, draw, replay.generator(repeat, last, 0), iteration=last)

        opened = median_of(lambda repeat: opened_and_closed(store))
        report.row(f"{stored:,} rows: choose {draw:,} places", median_of(places), None, opened)
        report.row(f"{stored:,} rows: choose and name {draw:,} entries", median_of(choose), None, 2 * opened)
        report.row(
            f"{stored:,} rows: choose and fetch {draw:,} with 64 tokens",
            median_of(lambda repeat, last=last: drawn_payloads(store, last, draw, repeat)),
            median_of(lambda repeat: plain_sample(wide, draw, repeat)),
            2 * opened,
        )
        report.row(
            f"{stored:,} rows: publish a snapshot without payloads",
            median_of(lambda repeat: store.snapshot(payloads=False)),
            median_of(lambda repeat: shutil.copyfile(store.path, folder / "copy.duckdb")),
            None,
            "plain: the file copied whole",
        )
        append_more(store, wide, payload, report, stored, draw)


def append_more(
    store: Store, wide: Path, payload: Iterator[tuple[np.ndarray, str]], report: Report, stored: int, size: int
) -> None:
    """Append a batch of short rows to a store of a given size."""
    fresh = [batch_of(1000 + stored + repeat, size) for repeat in range(REPEATS)]
    parts = [part_of(batch, payload) for batch in fresh]
    report.row(
        f"{stored:,} rows: append {size:,} more",
        median_of(lambda repeat: store.append_batch(fresh[repeat], parts[repeat])),
        median_of(lambda repeat: insert_wide(wide, fresh[repeat].batch_id, parts[repeat])),
        None,
    )


def bytes_per_token(folder: Path, payload: Iterator[tuple[np.ndarray, str]], rows: int, length: int) -> list[str]:
    """File bytes for each stored token, column by column and by compression, then of the whole store."""
    parts = [(batch, part_of(batch, payload)) for batch in (batch_of(round, rows) for round in range(3))]
    lines = ["| column | uncompressed | as DuckDB chooses | with one alone |", "|---|---|---|---|"]
    for column, alone in COLUMNS.items():
        sizes = {name: column_bytes(folder, column, name, [part for _, part in parts]) for name in ("auto", *alone)}
        plain, chosen = sizes.pop("uncompressed") / length, sizes.pop("auto") / length
        others = ", ".join(f"{name} {size / length:.2f}" for name, size in sizes.items())
        lines.append(f"| {column} | {plain:.2f} | {chosen:.2f} | {others} |")
    for text in (False, True):
        (folder / str(text)).mkdir()
        store = new_store(folder / str(text))
        empty = store.path.stat().st_size
        for batch, part in parts:
            blank = pa.array([""] * part.num_rows)
            place = part.schema.get_field_index("completion")
            store.append_batch(batch, part if text else part.set_column(place, PART_SCHEMA.field("completion"), blank))
        store.settle()
        size = (store.path.stat().st_size - empty) / (3 * rows * length)
        lines.append(f"| the whole store {'with' if text else 'without'} text, all tables | | {size:.2f} | |")
    return lines


COLUMNS = {
    "response_ids": ("uncompressed", "bitpacking", "rle"),
    "completion": ("uncompressed", "zstd", "fsst", "dict_fsst"),
    "trajectory_id": ("uncompressed", "zstd", "fsst", "dict_fsst"),
}
"""Columns of payloads, and the compressions that are tried on each alone."""


def column_bytes(folder: Path, column: str, compression: str, parts: list[pa.Table]) -> float:
    """File bytes for each row of a table that has one column."""
    path = folder / "column.duckdb"
    path.unlink(missing_ok=True)
    with duckdb.connect(path) as connection:
        connection.execute("CHECKPOINT")
        empty = path.stat().st_size
        connection.execute(f"SET force_compression = '{compression}'")
        connection.register("part", pa.concat_tables(parts))
        connection.execute(f"CREATE TABLE one AS SELECT {column} FROM part")
        connection.execute("CHECKPOINT")
        count = connection.execute("SELECT count(*) FROM one").fetchall()[0][0]
    return (path.stat().st_size - empty) / count


class Report:
    """Prints rows as they are measured, and keeps them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        print("| what | ours, s | plain, s | plain / ours | floor, s | |\n|---|---|---|---|---|---|")

    def row(self, what: str, ours: float, plain: float | None, floor: float | None, note: str = "") -> None:
        """One line of the table."""
        self.rows.append({"what": what, "ours_s": ours, "plain_s": plain, "floor_s": floor, "note": note})
        shown = [f"{ours:.3f}", f"{plain:.3f}" if plain else "", f"{plain / ours:.1f}" if plain else ""]
        print(f"| {what} | {' | '.join(shown)} | {f'{floor:.3f}' if floor else ''} | {note} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for a first look")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    data = Path(os.environ.get("REVAL_DATA", ROOT.parent / "shared" / "data")) / "completions"
    if not data.is_dir():
        sys.exit(f"There is no folder {data}: set REVAL_DATA to the folder that holds completions/.")
    rows, length, sizes = (256, 2048, [10_000]) if arguments.quick else (1024, 8192, [10_000, 100_000, 1_000_000])
    texts = completions(data, 20_000_000)
    tokenizer = bpe(texts)
    long, short = pieces(tokenizer, texts, length), pieces(tokenizer, texts, 64)
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("long", "many", "bytes"):
            (root / name).mkdir(parents=True)
        long_rows(root / "long", long, report, rows, length)
        many_rows(root / "many", short, report, sizes, min(1024, sizes[0]))
        print("\nFile bytes for each stored token:\n")
        sizes_found = bytes_per_token(root / "bytes", long, rows, length)
        print("\n".join(sizes_found))
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": report.rows, "bytes": sizes_found}, indent=2))


if __name__ == "__main__":
    main()
