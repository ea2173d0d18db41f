"""``reval export`` and ``reval import``: responses leave the store as files, and come in from files.

PyTorch and transformers are imported only where completions of another system have to be put into tokens.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa

from flows.asking import find_run, store_of
from flows.opening import counted, find_policy
from reval_core.config_files import load_config
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.store import Store, lineage
from reval_core.store.exchange import (
    LAYOUTS,
    PURPOSES,
    Exported,
    Selection,
    Tally,
    Tokeniser,
    export,
    import_completions,
    import_export,
    is_export,
)
from reval_core.store.exchange.foreign import SUFFIXES, check_fields
from reval_core.store.exchange.tally import no_step
from tasks.progress import Progress


def export_to(
    home: Home, dest: Path, layout: str, run: str | None, purpose: str, where: str | None, progress: Progress
) -> None:
    """Write responses of the store to a new folder and say how to read it.

    Raises:
        ConfigError: there is no such layout or purpose.
        StoreError: no such run, nothing selected, the folder exists, or it cannot be written.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"--format {layout!r} is none of {', '.join(LAYOUTS)}.")
    if purpose not in (*PURPOSES, "all"):
        raise ConfigError(f"--purpose {purpose!r} is none of {', '.join((*PURPOSES, 'all'))}.")
    store = store_of(home)
    selection = Selection(
        run_id=None if run is None else find_run(store, run),
        purposes=PURPOSES if purpose == "all" else (purpose,),
        where=where or "true",
    )
    done = export(store, dest, layout, selection, partial(progress.step, "exporting"))
    progress.say(_exported(done, dest))
    progress.say(f"read it: {read_with(layout, dest)}")


def read_with(layout: str, dest: Path) -> str:
    """How a program reads an export."""
    if layout == "hf":
        return f'datasets.load_dataset({json.dumps(str(dest), ensure_ascii=False)}, split="train")'
    quoted = str(dest).replace("'", "''")
    return f"SELECT * FROM read_parquet('{quoted}/**/*.parquet', hive_partitioning = true)"


def _exported(done: Exported, dest: Path) -> str:
    left_out = f"; {counted(done.without_tokens, 'response')} left out whose tokens were archived or dropped"
    return (
        f"{counted(done.rows, 'response')} written to {dest}: {counted(done.files, 'file')}, {_size(done.size)}"
        f"{left_out if done.without_tokens else ''}"
    )


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def import_from(
    home: Home,
    sources: Sequence[str],
    tokenizer: str | None,
    fields: Mapping[str, str],
    config: Path | None,
    progress: Progress,
) -> bool:
    """Take files into the store, made if there is none, and say what became of their rows.

    Returns:
        Whether each source gave something: false when one was refused as a whole.

    Raises:
        ConfigError: there is no such file, or completions come without a tokenizer to write them with.
    """
    check_fields(fields)
    found = {source: _files(source) for source in sources}
    exported = {path: _is_ours(path) for paths in found.values() for path in paths}
    tokeniser = None
    if not all(exported.values()):
        foreign = next(path for path, ours in exported.items() if not ours)
        tokeniser = _tokeniser(home, foreign, tokenizer, config, progress)
    store = Store(home.database)
    store.prepare()
    whole = True
    for source, paths in found.items():
        tally = Tally()
        for done, path in enumerate(paths, start=1):
            # of several files the files are counted, of one its rows
            step = partial(progress.step, f"importing {path.name}") if len(paths) == 1 else no_step
            if tokeniser is None or exported[path]:
                one = import_export(store, path, step)
            else:
                one = import_completions(store, path, tokeniser, fields, step)
            whole = whole and (one.new + one.known > 0 or not one.left_out)
            tally.add(one)
            if len(paths) > 1:
                progress.step(f"importing files of {source}", done, len(paths))
        for line in _told(source, len(paths), tally):
            progress.say(line)
    store.settle()
    return whole


def _told(source: str, files: int, tally: Tally) -> list[str]:
    """What became of a source's rows, in lines."""
    several = f" ({counted(files, 'file')})" if files > 1 else ""
    labels = f"; {counted(tally.labels, 'label')} kept as verdicts" if tally.labels else ""
    head = (
        f"{source}{several}: {counted(tally.read, 'row')} read, {tally.new:,} new, {tally.known:,} known, "
        f"{tally.left_out:,} refused{labels}"
    )
    return [head, *(f"  refused: {rows.count:,} {reason}, as {rows.example}" for reason, rows in tally.refused.items())]


def _files(source: str) -> list[Path]:
    """The files of a source: itself, those of a folder and its folders, or those of a glob."""
    path = Path(source).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES))
    else:
        found = [path] if path.is_file() else sorted(Path(name) for name in glob(str(path), recursive=True))
    wrong = [file for file in found if not file.name.endswith(SUFFIXES)]
    if wrong or not found:
        what = f"{wrong[0]} is no such file" if wrong else f"there is none at {path}"
        raise ConfigError(f"An import reads {', '.join(SUFFIXES)}; {what}.")
    return found


def _is_ours(path: Path) -> bool:
    if path.suffix != ".parquet":
        return False
    try:
        return is_export(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path} is not a readable Parquet file: {error}") from error


def _tokeniser(home: Home, source: Path, name: str | None, config: Path | None, progress: Progress) -> Tokeniser:
    if name is None:
        raise ConfigError(
            f"{source} holds completions of another system as text, and what is learned from are tokens. Name the "
            "tokenizer of the model that is to learn from them: --tokenizer POLICY, or a model folder. To query them "
            "only, --tokenizer builtin:bytes is enough."
        )
    with progress.waiting("loading the tokenizer"):
        tokenizer, tokenizer_id = _load(home, name)
    return Tokeniser(tokenizer, tokenizer_id, load_config(config).prompt if config is not None else None)


def _load(home: Home, name: str) -> tuple[Any, str]:
    """A tokenizer and its id: of a stored policy, of a model folder or hub id, or of a built-in model."""
    from flows.base_model import load_tokenizer_only
    from reval_core.config import ModelConfig
    from reval_core.policies.folder import tokenizer_id

    found = find_policy(home, name)
    if found.startswith("pol_"):
        found = str(_saved_folder(home, found))
    tokenizer = load_tokenizer_only(ModelConfig(path=found))
    if found.startswith("builtin:"):
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            name = tokenizer_id(Path(folder))
    else:
        name = tokenizer_id(Path(tokenizer.name_or_path))
    tokenizer.model_max_length = sys.maxsize  # no model reads this here, so there is nothing to warn of
    return tokenizer, name


def _saved_folder(home: Home, policy_id: str) -> Path:
    """The folder of a policy, else of the nearest ancestor that was saved; a lineage has one tokenizer."""
    ancestor: str | None = policy_id
    with store_of(home).read() as connection:
        while ancestor is not None:
            record = lineage.policy(connection, ancestor)
            if record.folder is not None and (home.root / record.folder).is_dir():
                return home.root / record.folder
            ancestor = record.parent_policy_id
    raise StoreError(f"Neither {policy_id} nor a policy it comes from lies in a folder here. Give a model folder.")
