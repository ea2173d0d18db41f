"""Payloads that leave the database and come back: nothing is lost on the way, wherever it ends."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_example import (
    BASE,
    FORK,
    RUN,
    Example,
    batch_record,
    names,
    part_of,
)

from reval_core.errors import StoreError
from reval_core.store import Store, archive, outside, payloads, selections, trajectories
from reval_core.store.archive import Moved
from reval_core.store.exchange import PURPOSES, Selection, export
from reval_core.store.outside import Choice, Saved

# The example: RUN admits 4, 3 and 4 responses in its rounds, FORK shares the first two and admits 4 of its own. Windows
# hold 8, so both reach from round 2 back to the last response of round 0. Response 3 of round 1 was left out by both.
LEARNED = ("pol_run-a_0", "pol_run-a_1", "pol_run-a_2", "pol_run-b_2")
ALL = Saved(frozenset(LEARNED), frozenset(LEARNED))
NONE = Saved(frozenset(), frozenset())


@pytest.fixture
def house(example: Example, tmp_path: Path) -> Example:
    """The example in a root of the test's own."""
    path = tmp_path / "root" / "reval.duckdb"
    path.parent.mkdir()
    shutil.copyfile(example.store.path, path)
    return Example(Store(path), example.rounds, example.fork_round, example.evaluation)


def found(store: Store, saved: Saved = ALL, **choice: Any) -> pa.Table:
    with store.read() as connection:
        return outside.outside(connection, saved, Choice(**choice))


def ids(table: pa.Table) -> set[str]:
    return set(table.column("trajectory_id").to_pylist())


def stored(store: Store) -> dict[str, tuple[list[int], str]]:
    """What the database has, by trajectory."""
    rows = store.query_live("SELECT * FROM store.payloads").to_pylist()
    assert len(rows) == len({row["trajectory_id"] for row in rows})
    return {row["trajectory_id"]: (row["response_ids"], row["completion"]) for row in rows}


def anywhere(store: Store) -> dict[str, tuple[list[int], str]]:
    """What the pipeline reads of every trajectory, wherever it lies."""
    with store.read() as connection:
        every = [row[0] for row in connection.execute("SELECT trajectory_id FROM store.trajectories").fetchall()]
        batches = [row[0] for row in connection.execute("SELECT batch_id FROM store.batches").fetchall()]
        tokens = trajectories.tokens(connection, every)
        texts = {n: text for b in batches for n, _, text in trajectories.completions(connection, b)}
    return {name: (tokens[name].response_ids.tolist(), texts[name]) for name in every}


def files(store: Store) -> list[Path]:
    return sorted((store.path.parent / archive.FOLDER).glob("*"))


def left_over(house: Example) -> set[str]:
    """What no run needs when every policy is saved."""
    return {*names(house.rounds[0])[:3], names(house.rounds[1])[3]}


# -- archiving --------------------------------------------------------------------------------------------------------


def test_archived_payloads_are_read_as_before(house: Example) -> None:
    before, whole = stored(house.store), anywhere(house.store)
    assert before == whole
    done = archive.archive(house.store, found(house.store))
    assert (done.payloads, done.tokens, done.files) == (4, 2 + 3 + 4 + 3, 1)
    (file,) = files(house.store)
    assert file.stat().st_size == done.file_bytes
    assert set(stored(house.store)) == set(before) - left_over(house)
    assert anywhere(house.store) == whole
    assert found(house.store).filter(pa.compute.is_null(found(house.store).column("archive_id"))).num_rows == 0


def test_an_export_has_archived_responses_too(house: Example, tmp_path: Path) -> None:
    def exported(dest: str) -> list[dict[str, Any]]:
        done = export(house.store, tmp_path / dest, "parquet", Selection(purposes=PURPOSES))
        assert (done.rows, done.without_tokens) == (18, 0)
        with duckdb.connect() as connection:
            query = (
                f"FROM read_parquet('{tmp_path / dest}/**/*.parquet', hive_partitioning = true) ORDER BY trajectory_id"
            )
            return connection.sql(query).to_arrow_table().to_pylist()

    before = exported("before")
    archive.archive(house.store, found(house.store))
    assert exported("after") == before


def test_texts_of_chosen_responses_come_from_archives(house: Example) -> None:
    every = list(stored(house.store))
    with house.store.read() as connection:
        before = selections.completions(connection, every)
    archive.archive(house.store, found(house.store))
    with house.store.read() as connection:
        assert selections.completions(connection, every) == before


def test_an_archive_is_a_parquet_file_with_the_columns_of_payloads(house: Example) -> None:
    before = stored(house.store)
    archive.archive(house.store, found(house.store))
    (file,) = files(house.store)
    table = pq.read_table(file)
    assert table.schema.equals(payloads.SCHEMA)
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
    rows = {row["trajectory_id"]: (row["response_ids"], row["completion"]) for row in table.to_pylist()}
    assert rows == {name: before[name] for name in left_over(house)}
    (row,) = house.store.query_live("SELECT path, payloads, bytes FROM store.archives").to_pylist()
    assert row == {"path": f"archive/{file.name}", "payloads": 4, "bytes": file.stat().st_size}


def test_everything_else_that_is_known_of_them_stays(house: Example) -> None:
    def known() -> list[Any]:
        sql = "SELECT * EXCLUDE (completion, payload) FROM trajectories ORDER BY trajectory_id"
        rest = ("verdicts", "replay", "update_members", "rounds", "evaluations", "runs")
        return [house.store.query_live(q).to_pylist() for q in (sql, *(f"FROM {v} ORDER BY ALL" for v in rest))]

    before = known()
    archive.archive(house.store, found(house.store, evaluations=True))
    assert known() == before
    archive.drop(house.store, ALL, Choice())
    assert known() == before


def test_the_views_say_where_a_payload_is(house: Example) -> None:
    archive.archive(house.store, found(house.store, after_rounds=2))
    archive.drop(house.store, ALL, Choice(evaluations=True, after_rounds=3))
    sql = "SELECT trajectory_id, payload, completion IS NULL AS empty FROM trajectories"
    told = {row["trajectory_id"]: (row["payload"], row["empty"]) for row in house.store.query_live(sql).to_pylist()}
    archived, dropped = names(house.rounds[0])[:3], names(house.evaluation)[:2]
    for name, place in told.items():
        where = "archived" if name in archived else "dropped" if name in dropped else "stored"
        assert place == (where, where != "stored")
    sql = "SELECT DISTINCT payload, response_ids IS NULL AS empty FROM tokens ORDER BY payload"
    places = [{"payload": p, "empty": p != "stored"} for p in ("archived", "dropped", "stored")]
    assert house.store.query_live(sql).to_pylist() == places
    sql = (
        "SELECT count(*) AS n FROM run_trajectories WHERE payload = 'archived' AND completion IS NULL AND run_id = $run"
    )
    assert house.store.query_live(sql, run=FORK).to_pylist() == [{"n": 3}]
    # what docs/retention.md shows
    sql = f"""
        SELECT t.trajectory_id, a.completion FROM trajectories AS t
        JOIN read_parquet('{house.store.path.parent}/archive/*.parquet') AS a USING (trajectory_id)
    """
    assert house.store.query_live(sql).num_rows == 3


def test_a_root_that_is_copied_elsewhere_finds_its_archives(house: Example, tmp_path: Path) -> None:
    whole = anywhere(house.store)
    archive.archive(house.store, found(house.store))
    moved = Path(shutil.copytree(house.store.path.parent, tmp_path / "elsewhere"))
    shutil.rmtree(house.store.path.parent)
    assert anywhere(Store(moved / "reval.duckdb")) == whole


def test_a_snapshot_beside_the_database_finds_them_too(house: Example) -> None:
    archive.archive(house.store, found(house.store))
    snapshot = house.store.snapshot()
    with duckdb.connect(snapshot.path, read_only=True) as connection:
        assert set(trajectories.tokens(connection, sorted(left_over(house)))) == left_over(house)


def test_appending_an_archived_response_again_changes_nothing(house: Example) -> None:
    archive.archive(house.store, found(house.store))
    before = stored(house.store)
    first = house.rounds[0]
    house.store.append_batch(first, part_of(first), run_id=RUN, attempt=2)
    assert stored(house.store) == before


def test_large_archives_are_written_in_slices_of_their_own(house: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "SLICE_BYTES", 6 * archive.TOKEN_BYTES)  # lengths 2, 3, 4 and 3: two, one, one
    seen: list[tuple[int, int]] = []
    whole = anywhere(house.store)
    assert archive.archive(house.store, found(house.store), lambda n, total: seen.append((n, total))).files == 3
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert anywhere(house.store) == whole
    assert archive.bring_back(house.store).payloads == 4
    assert files(house.store) == []


def test_nothing_to_archive_is_no_file(house: Example) -> None:
    assert archive.archive(house.store, found(house.store, after_rounds=9)) == Moved()
    assert files(house.store) == []


def test_another_process_that_archives_is_waited_for_and_named(house: Example) -> None:
    with archive.alone(house.store):
        refused = pytest.raises(StoreError, match="Another process archives")
        with refused, archive.alone(house.store, 0.05):
            pass


# -- and back ---------------------------------------------------------------------------------------------------------


def test_what_is_brought_back_is_as_if_it_had_never_left(house: Example) -> None:
    before = stored(house.store)
    archive.archive(house.store, found(house.store, evaluations=True))
    done = archive.bring_back(house.store)
    assert (done.payloads, done.files) == (6, 1)
    assert stored(house.store) == before
    assert files(house.store) == []
    for table in ("archives", "archived_payloads"):
        assert house.store.query_live(f"FROM store.{table}").num_rows == 0
    assert archive.bring_back(house.store) == Moved()
    assert archive.archive(house.store, found(house.store)).payloads == 4


def test_one_runs_payloads_come_back_and_the_others_stay_in_the_file(house: Example) -> None:
    whole = anywhere(house.store)
    archive.archive(house.store, found(house.store, evaluations=True))
    assert archive.bring_back(house.store, FORK).payloads == 4  # its ancestor's rounds are its own
    assert len(files(house.store)) == 1
    assert anywhere(house.store) == whole
    assert archive.bring_back(house.store).payloads == 2
    assert files(house.store) == []


# -- dropping ---------------------------------------------------------------------------------------------------------


def test_what_is_dropped_is_gone_and_recorded(house: Example) -> None:
    before = stored(house.store)
    assert archive.drop(house.store, ALL, Choice()).payloads == 4
    assert stored(house.store) == {name: p for name, p in before.items() if name not in left_over(house)}
    rows = house.store.query_live("SELECT trajectory_id, archive_id FROM store.archived_payloads").to_pylist()
    assert {(row["trajectory_id"], row["archive_id"]) for row in rows} == {(name, None) for name in left_over(house)}
    with house.store.read() as connection:
        with pytest.raises(StoreError, match=r"4 trajectories .* dropped for good, the first is trj_.* on 20"):
            trajectories.tokens(connection, sorted(left_over(house)))
        with pytest.raises(StoreError, match=r"3 trajectories .* dropped for good"):
            trajectories.completions(connection, house.rounds[0].batch_id)
        assert len(trajectories.completions(connection, house.rounds[2].batch_id)) == 4
    assert found(house.store).num_rows == 0
    assert archive.drop(house.store, ALL, Choice()) == Moved()


def test_nothing_that_a_recovery_needs_is_dropped(house: Example) -> None:
    before = stored(house.store)
    archive.drop(house.store, NONE, Choice())
    assert set(before) - set(stored(house.store)) == {names(house.rounds[1])[3]}


def test_a_whole_archive_is_dropped_with_its_file_and_a_part_of_one_stays(house: Example) -> None:
    archive.archive(house.store, found(house.store, evaluations=True))
    assert archive.drop(house.store, ALL, Choice()) == Moved()  # the file has evaluations, which nobody asked for
    assert len(files(house.store)) == 1
    done = archive.drop(house.store, ALL, Choice(evaluations=True))
    assert (done.payloads, done.files) == (6, 1)
    assert files(house.store) == []
    assert house.store.query_live("FROM store.archives").num_rows == 0


def test_policies_that_cannot_be_learned_again_are_told(house: Example) -> None:
    def lost() -> set[str]:
        with house.store.read() as connection:
            return archive.lost(connection, house.store.path.parent)

    archive.archive(house.store, found(house.store))
    assert lost() == set()
    (file,) = files(house.store)
    file.rename(file.with_suffix(".away"))
    # round 0 is in the updates of all rounds, and BASE sampled it
    assert lost() == {BASE, *LEARNED}
    file.with_suffix(".away").rename(file)
    archive.drop(house.store, ALL, Choice(run_id=RUN))
    assert lost() == {BASE, *LEARNED}


# -- faults -----------------------------------------------------------------------------------------------------------


def test_an_archive_that_is_gone_or_damaged_is_named(house: Example) -> None:
    archive.archive(house.store, found(house.store))
    (file,) = files(house.store)
    content = file.read_bytes()
    wanted = sorted(left_over(house))

    def refused(message: str) -> None:
        with house.store.read() as connection, pytest.raises(StoreError, match=message):
            trajectories.tokens(connection, wanted)
        with pytest.raises(StoreError, match=file.name):
            archive.bring_back(house.store)
        assert ids(archived(house.store)) == left_over(house)

    file.unlink()
    refused(f"files are gone, the first is .*{file.name}")
    file.write_bytes(content[:-20])
    refused("cannot be read")
    pq.write_table(pq.ParquetFile(pa.BufferReader(content)).read().slice(1), file)
    refused(f"1 of 4 archived trajectories are not in their files .*{file.name}")


def archived(store: Store) -> pa.Table:
    with store.read() as connection:
        return archive.archived_payloads(connection)


def test_a_file_is_on_the_disk_before_its_rows_leave(house: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def told(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return work(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(os, "fsync", told("fsync", os.fsync))
    monkeypatch.setattr(Path, "rename", told("rename", Path.rename))
    monkeypatch.setattr(archive, "_record", told("record", archive._record))
    archive.archive(house.store, found(house.store))
    assert seen == ["fsync", "rename", "fsync", "record"]  # the file, its name, the folder


class Killed(Exception):
    """Stands for a kill."""


def killed(*args: Any, **kwargs: Any) -> None:
    raise Killed


@pytest.mark.parametrize("step", ["write", "rename", "fsync_folder", "_record"])
def test_a_kill_before_the_transaction_leaves_everything_in_the_database(
    step: str, house: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(house.store)
    with monkeypatch.context() as patch:
        patch.setattr(*(Path, "rename") if step == "rename" else (archive, step), killed)
        with pytest.raises(Killed):
            archive.archive(house.store, found(house.store))
    assert stored(house.store) == anywhere(house.store) == before
    assert (
        archive.archive(house.store, found(house.store, after_rounds=2)).payloads == 3
    )  # another slice than the first
    assert anywhere(house.store) == before
    assert len(files(house.store)) == 1  # what the killed attempt left is swept


@pytest.mark.parametrize("step", ["remove_moved", "add_moved", "add_archive"])
def test_a_kill_within_the_transaction_takes_it_back(
    step: str, house: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(house.store)
    with monkeypatch.context() as patch:
        patch.setattr(archive.sql, "rows", killed_after(step, archive.sql.rows))
        with pytest.raises(Killed):
            archive.archive(house.store, found(house.store))
    assert stored(house.store) == anywhere(house.store) == before
    assert house.store.query_live("FROM store.archived_payloads").num_rows == 0
    archive.archive(house.store, found(house.store))
    assert anywhere(house.store) == before


def killed_after(step: str, rows: Callable[..., Any]) -> Callable[..., Any]:
    """``sql.rows`` that ends once it has run a statement of that name."""

    def wrapped(connection: Any, area: str, name: str, *args: Any, **kwargs: Any) -> Any:
        result = rows(connection, area, name, *args, **kwargs)
        if name == step:
            raise Killed
        return result

    return wrapped


@pytest.mark.parametrize("step", ["bring_back", "forget_archived", "remove_archive"])
def test_a_kill_while_they_come_back_leaves_them_in_the_file(
    step: str, house: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = anywhere(house.store)
    archive.archive(house.store, found(house.store))
    with monkeypatch.context() as patch:
        patch.setattr(archive.sql, "rows", killed_after(step, archive.sql.rows))
        with pytest.raises(Killed):
            archive.bring_back(house.store)
    assert anywhere(house.store) == whole
    assert archive.bring_back(house.store).payloads == 4
    assert stored(house.store) == whole


@pytest.mark.parametrize("work", ["bring_back", "drop"])
def test_a_kill_before_the_file_is_removed_leaves_one_that_is_swept(
    work: str, house: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.archive(house.store, found(house.store))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            archive.bring_back(house.store) if work == "bring_back" else archive.drop(house.store, ALL, Choice())
    assert len(files(house.store)) == 1
    archive.sweep(house.store)
    assert files(house.store) == []


def test_a_file_of_which_nobody_knows_stays_when_it_has_what_the_database_lacks(
    house: Example, caplog: pytest.LogCaptureFixture
) -> None:
    archive.archive(house.store, found(house.store))
    (file,) = files(house.store)
    strange = file.with_name("arc_strange.parquet")
    pq.write_table(payloads.SCHEMA.empty_table(), file.with_name("arc_empty.parquet"))
    pq.write_table(pa.Table.from_pylist([{"trajectory_id": "trj_x"}], schema=payloads.SCHEMA), strange)
    file.with_name("arc_half.tmp").write_bytes(b"half")
    file.with_name("arc_no.parquet").write_bytes(b"no parquet")
    archive.sweep(house.store)
    assert {path.name for path in files(house.store)} == {file.name, strange.name, "arc_no.parquet"}
    assert "has what it lacks" in caplog.text and "cannot be read" in caplog.text


def test_a_file_that_is_not_what_the_database_has_takes_nothing_from_it(
    house: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, before = archive.write, stored(house.store)

    def wrongly(path: Path, table: pa.Table) -> None:
        rows = table.to_pylist()
        rows[0]["response_ids"][-1] += 1
        write(path, pa.Table.from_pylist(rows, schema=payloads.SCHEMA))

    monkeypatch.setattr(archive, "write", wrongly)
    with pytest.raises(StoreError, match="has 4 payloads, of which 3 are as in the database; 4 were to be moved"):
        archive.archive(house.store, found(house.store))
    assert stored(house.store) == before


def test_a_full_disk_ends_it_with_what_was_moved_before(house: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "SLICE_BYTES", 1)
    whole, written, write_table = anywhere(house.store), [], pq.write_table

    def full(table: pa.Table, file: Any, **settings: Any) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(table.num_rows)
        write_table(table, file, **settings)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StoreError, match=r"cannot be written: .*No space left.* Its rows stay in the database"):
        archive.archive(house.store, found(house.store))
    assert len(files(house.store)) == 2
    assert [path.suffix for path in files(house.store)] == [".parquet"] * 2
    assert anywhere(house.store) == whole
    assert len(stored(house.store)) == len(whole) - 2


def test_a_slice_for_which_there_is_no_room_is_not_begun(house: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(house.store.path.parent)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match=r"An archive of 4 responses would need about .* 10 B free"):
        archive.archive(house.store, found(house.store))
    assert files(house.store) == []


def test_a_run_goes_on_while_it_is_archived(house: Example) -> None:
    asked = found(house.store)
    going_on = batch_record(3, policy_id="pol_run-a_2")
    house.store.append_batch(going_on, part_of(going_on), run_id=RUN, attempt=1)
    archive.archive(house.store, asked)
    assert set(names(going_on)) <= set(stored(house.store))
