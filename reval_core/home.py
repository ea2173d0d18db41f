"""Where everything lies: one root, REVAL_HOME. Paths in the store are relative to it, so a copied root goes on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from reval_core.errors import VariableNotSet

FOLDER = ".reval"


@dataclass(frozen=True)
class Home:
    """The root and what lies under it."""

    root: Path

    @property
    def database(self) -> Path:
        """The DuckDB store."""
        return self.root / "reval.duckdb"

    @property
    def models(self) -> Path:
        """Built-in base models, kept for the next run."""
        return self.root / "models"

    @property
    def policies(self) -> Path:
        """Saved policies in Hugging Face layout, with optimizer state where one was saved."""
        return self.root / "policies"

    @property
    def reports(self) -> Path:
        """HTML reports, one folder a run."""
        return self.root / "reports"

    @property
    def logs(self) -> Path:
        """Log files as JSON lines, one an attempt."""
        return self.root / "logs"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking store: a SQLite file."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's artifacts."""
        return self.root / "mlartifacts"

    @property
    def prefect(self) -> Path:
        """Prefect's own files: its SQLite database and small JSON results."""
        return self.root / "prefect"


def find_home() -> Home:
    """REVAL_HOME, else the nearest ``.reval`` folder upwards from here, else ``.reval`` here."""
    named = os.environ.get("REVAL_HOME")
    if named:
        return Home(Path(named).expanduser().resolve())
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER / "reval.duckdb").exists():
            return Home(folder / FOLDER)
    return Home(here / FOLDER)


def expand(path: str) -> Path:
    """A path with ``~`` and ``${NAME}`` replaced from the environment.

    Raises:
        VariableNotSet: a named variable is not set.
    """
    missing = [name for name in re.findall(r"\$\{(\w+)\}", path) if name not in os.environ]
    if missing:
        raise VariableNotSet(f"{path!r} uses ${{{missing[0]}}}, which is not set: export {missing[0]}=<folder> first.")
    return Path(re.sub(r"\$\{(\w+)\}", lambda match: os.environ[match[1]], path)).expanduser()
