"""What a person writes to choose stored trajectories, as flows take it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows import asking
from reval_core.config import Config, RewardConfig
from reval_core.config_files import apply_override, load_config, parse_config
from reval_core.errors import ConfigError
from reval_core.home import Home
from reval_core.store import runs
from reval_core.store.selections import RUN, WINDOW


def with_selection(settings: Config, home: Home, trajectories: str, parameters: list[str]) -> Config:
    """The configuration with another selection; the first letters of a run's id stand for it.

    Raises:
        ConfigError: a parameter is not written as name=value, or the query has none of that name.
        StoreError: no run, or several, begin so.
    """
    chosen: dict[str, Any] = {"trajectories": whole_names(home, trajectories)}
    settings = parse_config(settings.model_dump(mode="json") | {"offline": chosen})
    assert settings.offline is not None
    if not parameters:
        return settings
    chosen["parameters"] = asking.parameters(home, settings.offline.trajectories, parameters)
    return parse_config(settings.model_dump(mode="json") | {"offline": chosen})


def whole_names(home: Home, what: str) -> str:
    """``window:quick`` and ``run:quick`` with the whole id of the run that begins so."""
    for kind in (WINDOW, RUN):
        if what.startswith(kind):
            return kind + asking.find_run(asking.store_of(home), what.removeprefix(kind))
    return what


def reward_of(home: Home, what: str, config: Path | None, overrides: Sequence[str]) -> RewardConfig:
    """The reward settings of a configuration file, else of the run whose responses are chosen, else the defaults.

    Raises:
        ConfigError: a file or a setting is not usable, or the run has one that this version does not know.
    """
    if config is not None:
        return load_config(config, list(overrides)).reward
    tree = _settings_of(home, what)
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree).reward


def _settings_of(home: Home, what: str) -> dict[str, Any]:
    kind, _, run_id = what.partition(":")
    if f"{kind}:" not in (WINDOW, RUN):
        return {"problems": [{"path": "builtin:arithmetic/train"}]}
    with asking.store_of(home).read() as connection:
        record = runs.find(connection, run_id)
    if record is None:
        raise ConfigError(f"There is no run {run_id} in this store.")
    return dict(record.config)
