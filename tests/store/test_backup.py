"""Backups while somebody writes, the way back, and the copy that is made before a migration."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from store_example import FORK, RUN, batch_record, build, part_of

from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.store import Store, archive, backup, contents, copies, lineage, migrations, space, spool
from reval_core.store.backup import back_up, read_note, restore
from reval_core.store.files import Tally, write_text

SOURCE = Path(__file__).parents[2]


def quiet(what: str, done: int, total: int) -> None:
    """Shows no progress."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the example's database, two saved policies, one that is named but not there, and a waiting part."""
    root = tmp_path_factory.mktemp("built") / "root"
    store = build(root / "reval.duckdb").store
    for name in (f"pol_{RUN}_0", f"pol_{FORK}_2"):
        save(root / "policies" / name, name)
    save(root / "models" / "base", "base")
    with store.write() as connection:
        connection.execute("UPDATE store.attempts SET status = 'completed'")
        for name in (f"pol_{RUN}_0", f"pol_{FORK}_2", f"pol_{RUN}_1"):
            lineage.set_folder(connection, name, f"policies/{name}")
    store.settle()
    waiting = batch_record(9)
    spool.keep(root / "spool", waiting, part_of(waiting), run_id=RUN, attempt=1)
    for name in ("logs/run-a/attempt-1.jsonl", "reports/run-a/report.html"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("text")
    return root


def save(folder: Path, content: str) -> None:
    """Something like a policy's folder."""
    folder.mkdir(parents=True)
    (folder / "reval.json").write_text(json.dumps({"policy_id": content}))
    (folder / "model.safetensors").write_bytes(content.encode() * 100)


@pytest.fixture
def home(built: Path, tmp_path: Path) -> Home:
    """A copy of the root."""
    return Home(Path(shutil.copytree(built, tmp_path / "root")))


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every base table's rows, in an order of their own."""
    with duckdb.connect(path, read_only=True) as connection:
        return {
            name: connection.execute(f"SELECT * FROM store.{name} ORDER BY ALL").fetchall()
            for name in contents.tables(connection)
        }


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file, databases and locks left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".duckdb", ".lock", ".writing") and path.name != "backup.json"
    }


def test_a_backup_is_a_root_with_every_row_and_what_the_database_refers_to(home: Home, tmp_path: Path) -> None:
    done, tally = back_up(home, tmp_path / "backup", step=quiet)
    assert rows(tmp_path / "backup" / "reval.duckdb") == rows(home.database)
    copied = files(tmp_path / "backup")
    assert copied == {
        name: content for name, content in files(home.root).items() if not name.startswith(("logs", "reports"))
    }
    assert tally == Tally(copied=7, copied_bytes=sum(map(len, copied.values())))
    assert done.rows["trajectories"] == 18
    assert done.schema_version == max(migrations.available())
    assert done.folders == ["models/base", f"policies/pol_{RUN}_0", f"policies/pol_{FORK}_2"]
    assert done.gone == [f"policies/pol_{RUN}_1"]
    assert read_note(tmp_path / "backup") == done


def test_the_waiting_part_of_a_backup_is_taken_in_there_too(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup", step=quiet)
    store = Store(tmp_path / "backup" / "reval.duckdb")
    store.prepare()
    assert store.query("SELECT count(*) AS n FROM store.payloads").to_pylist() == [{"n": 22}]


def test_the_database_alone_or_everything(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "alone", extent="database", step=quiet)
    assert files(tmp_path / "alone") == {}
    assert rows(tmp_path / "alone" / "reval.duckdb") == rows(home.database)
    back_up(home, tmp_path / "all", extent="all", step=quiet)
    assert files(tmp_path / "all") == files(home.root)


def test_a_second_backup_copies_only_what_changed_and_drops_what_went(home: Home, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    back_up(home, dest, step=quiet)
    _, tally = back_up(home, dest, step=quiet)
    assert (tally.copied, tally.unchanged) == (0, 7)
    store = Store(home.database)
    store.prepare()  # takes the waiting part in
    changed, removed = home.policies / f"pol_{RUN}_0", home.policies / f"pol_{FORK}_2"
    (changed / "optimizer.safetensors").write_bytes(b"state")
    with store.write() as connection:
        lineage.set_folder(connection, removed.name, None)
    shutil.rmtree(removed)
    done, tally = back_up(home, dest, step=quiet)
    assert (tally.copied, tally.unchanged) == (3, 2)
    assert rows(dest / "reval.duckdb") == rows(home.database)
    assert not (dest / "policies" / removed.name).exists()
    assert list((dest / "spool").iterdir()) == []
    assert files(dest / "policies") == files(home.policies)
    assert read_note(dest) == done


def test_a_backup_that_is_cut_short_keeps_the_former_one_and_is_completed_by_the_next(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "backup"
    back_up(home, dest, step=quiet)
    before, note = rows(dest / "reval.duckdb"), read_note(dest)
    store = Store(home.database)
    store.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(backup, "copy_folder", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
        with pytest.raises(StoreError, match=r"backup .* cannot be made: No space left.*Free disk space"):
            back_up(home, dest, step=quiet)
    assert rows(dest / "reval.duckdb") == before
    assert read_note(dest) == note
    back_up(home, dest, step=quiet)
    assert rows(dest / "reval.duckdb") == rows(home.database)
    assert list(dest.rglob("*.tmp")) == []


def test_a_first_backup_that_is_cut_short_is_known_and_completed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "backup"
    with monkeypatch.context() as patch:
        patch.setattr(backup, "copy_folder", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            back_up(home, dest, step=quiet)
    assert read_note(dest) is None
    back_up(home, dest, step=quiet)
    assert rows(dest / "reval.duckdb") == rows(home.database)


def test_a_backup_waits_for_who_archives_and_is_refused_in_the_end(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "RETENTION_WAIT_S", 0.1)
    with archive.alone(Store(home.database)), pytest.raises(StoreError, match="Another process archives or prunes"):
        back_up(home, tmp_path / "backup", step=quiet)
    assert not (tmp_path / "backup" / "reval.duckdb").exists()
    back_up(home, tmp_path / "backup", step=quiet)


def test_a_small_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "new" / "a.json", "before")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_text(tmp_path / "new" / "a.json", "after")
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == {"a.json": "before"}


def test_a_policy_that_is_saved_anew_while_it_is_copied_comes_whole(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reval_core.store import files as module

    folder, copy = home.policies / f"pol_{RUN}_0", module._copy_file

    def saved_meanwhile(source: Path, to: Path) -> None:
        copy(source, to)
        if source == folder / "model.safetensors" and not (folder / "second").exists():
            shutil.rmtree(folder)
            save(folder, "learned again")
            (folder / "second").write_text("")

    monkeypatch.setattr(module, "_copy_file", saved_meanwhile)
    back_up(home, tmp_path / "backup", step=quiet)
    assert files(tmp_path / "backup" / "policies" / folder.name) == files(folder)


@pytest.mark.parametrize(
    ("name", "prepared", "words"),
    [
        ("root/inside", None, "lies in the root"),
        ("root", None, "lies in the root"),
        ("full", "notes.txt", "not empty and is no backup"),
        ("another", "reval.duckdb", "root of another store"),
    ],
)
def test_a_folder_that_is_something_else_is_refused(
    home: Home, tmp_path: Path, name: str, prepared: str | None, words: str
) -> None:
    if prepared:
        (tmp_path / name).mkdir()
        (tmp_path / name / prepared).write_text("mine")
    with pytest.raises(StoreError, match=words):
        back_up(home, tmp_path / name, step=quiet)
    assert prepared is None or (tmp_path / name / prepared).read_text() == "mine"


def test_a_backup_in_which_work_went_on_is_not_overwritten(home: Home, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    back_up(home, dest, step=quiet)
    store, batch = Store(dest / "reval.duckdb"), batch_record(30)
    store.append_batch(batch, part_of(batch))
    with pytest.raises(StoreError, match="Somebody has written to the backup"):
        back_up(home, dest, step=quiet)
    store.settle()
    with pytest.raises(StoreError, match=f"work went on in it: it has batch {batch.batch_id}"):
        back_up(home, dest, step=quiet)


def test_a_backup_of_another_store_is_not_overwritten(home: Home, tmp_path: Path) -> None:
    other = Store(tmp_path / "other" / "reval.duckdb")
    other.prepare()
    back_up(home, tmp_path / "backup", step=quiet)
    with pytest.raises(StoreError, match=r"backup of another store.* it has "):
        back_up(Home(other.path.parent), tmp_path / "backup", step=quiet)


WRITER = """
import sys, time
sys.path[:0] = sys.argv[1:3]
from store_example import batch_record, part_of
from reval_core.store import Store
store, round = Store(sys.argv[3], lock_wait_s=60), 100
while True:
    batch = batch_record(round)
    store.append_batch(batch, part_of(batch))
    round += 1
    time.sleep(0.03)  # a run computes between its commits
    if round == 103:
        print("writing", flush=True)
"""


@pytest.mark.long
def test_backups_are_whole_while_another_process_writes(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "SLICE_BYTES", 200)  # several slices, with commits between them
    command = [sys.executable, "-c", WRITER, str(SOURCE), str(Path(__file__).parent), str(home.database)]
    counts = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        for number in (1, 2):
            done, _ = back_up(home, tmp_path / f"backup {number}", step=quiet)
            counts.append(done.rows)
            wait_for_more(home.database, than=done.rows["trajectories"])
        assert writer.poll() is None
        writer.kill()
    live = contents_of(home.database)
    for number, count in enumerate(counts, start=1):
        copied = rows(tmp_path / f"backup {number}" / "reval.duckdb")
        assert {name: len(found) for name, found in copied.items()} == count
        assert (count["trajectories"] - 18) % 4 == 0  # a commit is in it whole or not at all
        ids = {row[0] for row in copied["trajectories"]}
        assert {row[0] for row in copied["payloads"]} == ids
        assert ids < live
    assert counts[0]["trajectories"] < counts[1]["trajectories"] < len(live)


def contents_of(path: Path) -> set[str]:
    """Ids of the stored trajectories."""
    return set(Store(path).query("SELECT trajectory_id FROM store.trajectories").column(0).to_pylist())


def wait_for_more(path: Path, *, than: int) -> None:
    """Until there are more trajectories."""
    deadline = time.monotonic() + 60
    while len(contents_of(path)) <= than:
        assert time.monotonic() < deadline, "nobody writes"
        time.sleep(0.02)


def test_a_part_that_is_taken_in_during_the_copy_is_in_the_backup(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = backup._copy_database

    def taken_in_after(*arguments: Any) -> Any:
        found = copy(*arguments)
        Store(home.database).prepare()
        return found

    monkeypatch.setattr(backup, "_copy_database", taken_in_after)
    back_up(home, tmp_path / "backup", step=quiet)
    assert list((home.root / "spool").iterdir()) == []
    Store(tmp_path / "backup" / "reval.duckdb").prepare()
    assert contents_of(tmp_path / "backup" / "reval.duckdb") == contents_of(home.database)


def test_archives_are_in_it_whether_they_come_or_go_during_the_copy(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, folder = backup._copy_database, home.root / "archive"
    folder.mkdir()
    (folder / "arc_brought_back.parquet").write_text("old")

    def moved_meanwhile(*arguments: Any) -> Any:
        (folder / "arc_new.parquet").write_text("new")
        found = copy(*arguments)
        (folder / "arc_brought_back.parquet").unlink()
        return found

    monkeypatch.setattr(backup, "_copy_database", moved_meanwhile)
    back_up(home, tmp_path / "backup", step=quiet)
    assert files(tmp_path / "backup" / "archive") == {"arc_brought_back.parquet": b"old", "arc_new.parquet": b"new"}


def test_a_restored_root_is_the_root(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup", extent="all", step=quiet)
    restored = Home(tmp_path / "elsewhere" / "root")
    done, _ = restore(tmp_path / "backup", restored, step=quiet)
    assert rows(restored.database) == rows(home.database)
    assert files(restored.root) == files(home.root)
    assert done.rows == {name: len(found) for name, found in rows(home.database).items()}


def test_a_root_is_restored_from_a_database_file_or_a_snapshot_with_payloads(home: Home, tmp_path: Path) -> None:
    store = Store(home.database)
    bare = shutil.copy(home.database, tmp_path / "bare.duckdb")
    restore(bare, Home(tmp_path / "one"), step=quiet)
    restore(store.snapshot(payloads=True).path, Home(tmp_path / "two"), step=quiet)
    for name in ("one", "two"):
        assert rows(tmp_path / name / "reval.duckdb") == rows(home.database)
        Store(tmp_path / name / "reval.duckdb").prepare()
    with pytest.raises(StoreError, match="snapshot without tokens and texts"):
        restore(store.snapshot(payloads=False).path, Home(tmp_path / "three"), step=quiet)
    assert not (tmp_path / "three").exists()


def test_nothing_is_overwritten_by_a_restore(home: Home, built: Path, tmp_path: Path) -> None:
    before = files(home.root)
    with pytest.raises(StoreError, match=rf"not empty.*mv {home.root} {home.root}\.before"):
        restore(built, home, step=quiet)
    assert files(home.root) == before
    with pytest.raises(StoreError, match="There is no backup"):
        restore(tmp_path / "nothing", Home(tmp_path / "new"), step=quiet)


def test_a_restore_that_is_cut_short_is_begun_again(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored = Home(tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(backup, "copy_folder", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            restore(home.root, restored, step=quiet)
    with pytest.raises(StoreError, match="was cut short, and would overwrite what is done in it now"):
        Store(restored.database).prepare()
    assert not restored.database.exists()
    assert not restored.database.exists()
    restore(home.root, restored, step=quiet)
    assert rows(restored.database) == rows(home.database)
    assert list(restored.root.glob("*unfinished*")) == []


def test_a_database_of_a_newer_version_is_refused(home: Home, tmp_path: Path) -> None:
    with Store(home.database).write() as connection:
        connection.execute("INSERT INTO store.schema_migrations VALUES (99, '099_later', 'x', now()::TIMESTAMP)")
    with pytest.raises(StoreError, match=rf"schema version 99.*up to {max(migrations.available())}"):
        back_up(home, tmp_path / "backup", step=quiet)
    assert not (tmp_path / "backup" / "reval.duckdb").exists()


# Before a migration ---------------------------------------------------------------------------------------------------


@pytest.fixture
def first_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The example's rows in a database that the first migration alone has made."""
    shipped = migrations.available()
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "available", lambda: {1: shipped[1]})
        patch.setattr(migrations, "_views", lambda: "SELECT 1;")
        store = Store(tmp_path / "reval.duckdb", lock_wait_s=0.2)
        store.prepare()
        batch = batch_record()
        with store.write() as connection:
            connection.execute("INSERT INTO store.events VALUES ('r', 1, NULL, 'kind', 'message', now()::TIMESTAMP)")
        store.append_batch(batch, part_of(batch))
    return store


def kept(store: Store) -> list[Path]:
    return sorted((store.path.parent / "backups").glob("*"))


def test_a_migration_copies_the_database_first(first_version: Store, caplog: pytest.LogCaptureFixture) -> None:
    before = rows(first_version.path)
    (first_version.path.parent / "backups").mkdir()
    (first_version.path.parent / "backups" / "reval-v1-killed.tmp").write_text("half a copy")
    first_version.prepare()
    (copy,) = kept(first_version)
    assert re.fullmatch(r"reval-v1-\d{8}T\d{6}\.duckdb", copy.name)
    assert str(copy) in caplog.text
    assert rows(copy) == before
    assert contents.check(copy, {name: len(found) for name, found in before.items()}) == 1
    after = rows(first_version.path)
    assert [row[0] for row in after["schema_migrations"]] == [0, *sorted(migrations.available())]
    assert after["payloads"] == before["payloads"]
    first_version.prepare()
    assert kept(first_version) == [copy]


def test_the_copy_goes_through_the_same_migrations(first_version: Store, tmp_path: Path) -> None:
    first_version.prepare()
    restored = Home(tmp_path / "back")
    restore(kept(first_version)[0], restored, step=quiet)
    Store(restored.database).prepare()
    ours, again = rows(first_version.path), rows(restored.database)
    for found in (ours, again):
        found["schema_migrations"] = [row[:3] for row in found["schema_migrations"]]  # without the time
    assert again == ours


def test_a_new_database_or_new_views_need_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "reval.duckdb")
    store.prepare()
    text = migrations._views() + "\nCREATE OR REPLACE VIEW one_more AS SELECT 1 AS a;"
    monkeypatch.setattr(migrations, "_views", lambda: text)
    store.prepare()
    assert store.query("SELECT a FROM one_more").num_rows == 1
    assert kept(store) == []


def test_without_room_for_the_copy_nothing_is_migrated(first_version: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before, usage = rows(first_version.path), space.shutil.disk_usage(first_version.path.parent)

    def cannot(*_: Any) -> None:
        raise OSError("not here")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "ioctl", cannot)  # no sharing of blocks
        patch.setattr(space.shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(StoreError, match=r"before its migration would need about .* 1 kB free"):
            first_version.prepare()
    assert rows(first_version.path) == before
    assert kept(first_version) == []
    first_version.prepare()
    assert len(kept(first_version)) == 1


def test_nobody_can_write_between_the_copy_and_the_migration(
    first_version: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing the file that was read must not give up DuckDB's lock on it."""
    program = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('CREATE TABLE foreign_one (a INTEGER)')"
    refused: list[str] = []

    def check(path: Path, expected: dict[str, int]) -> int:
        command = [sys.executable, "-c", program, str(first_version.path)]
        refused.append(subprocess.run(command, capture_output=True, text=True, check=False).stderr)
        return 1

    monkeypatch.setattr(backup.contents, "check", check)
    first_version.prepare()
    assert "Could not set lock" in refused[0]


def test_a_copy_that_is_not_whole_stops_the_migration(first_version: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    copy: Callable[..., None] = backup.copy_open

    def short(file: Any, to: Path, what: str) -> None:
        copy(file, to, what)
        os.truncate(to, to.stat().st_size // 2)

    monkeypatch.setattr(backup, "copy_open", short)
    with pytest.raises(StoreError, match=r"The copy .* cannot be read"):
        first_version.prepare()
    assert kept(first_version) == []
    with first_version.read() as connection:
        assert migrations.schema_version(connection) == 1
