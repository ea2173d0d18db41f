"""Parts that could not be committed, kept beside the database as Arrow files and taken in at the next start.

A file is written aside, fsynced and renamed, so that what lies in the folder is whole.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from reval_core.store.trajectories import PART_SCHEMA, BatchRecord


class Damaged(Exception):
    """A kept file that holds no part."""


def keep(folder: Path, batch: BatchRecord, part: pa.Table, *, run_id: str | None, attempt: int | None) -> Path:
    """Write a part as an Arrow file and return its path.

    Raises:
        OSError: the disk takes nothing more; no half file is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = json.dumps({"batch": asdict(batch), "run_id": run_id, "attempt": attempt})
    name = f"{batch.batch_id}-{uuid.uuid4().hex[:12]}"
    aside, final = folder / f"{name}.tmp", folder / f"{name}.arrow"
    try:
        with open(aside, "wb") as file:
            with pa.ipc.new_file(file, PART_SCHEMA.with_metadata({"reval": note})) as writer:
                writer.write_table(part)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(final)
    finally:
        aside.unlink(missing_ok=True)
    for renamed_in in (folder, folder.parent):  # the folder itself may be new
        fsync_folder(renamed_in)
    return final


def kept(folder: Path) -> list[Path]:
    """The whole files that wait, oldest name first."""
    return sorted(folder.glob("*.arrow")) if folder.is_dir() else []


def read(path: Path) -> tuple[BatchRecord, pa.Table, str | None, int | None]:
    """A kept part with the batch, run and attempt it belongs to.

    Raises:
        Damaged: the file is no such part. That it cannot be opened at all is an `OSError`.
    """
    data = path.read_bytes()
    try:
        table = pa.ipc.open_file(data).read_all()
        note = json.loads(table.schema.metadata[b"reval"])
        batch = {**note["batch"], "prompt_ids": tuple(note["batch"]["prompt_ids"])}
        batch["problem_ids"] = tuple(batch["problem_ids"])
        return BatchRecord(**batch), table.replace_schema_metadata(None), note["run_id"], note["attempt"]
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"it holds no part: {error}") from error


def fsync_folder(folder: Path) -> None:
    """Make a rename inside the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
