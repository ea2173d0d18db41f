"""What `reval serve` has up for a root, as its file says: so that a run of a terminal shows up in the same UI."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from reval_core.home import Home
from reval_core.process import ProcessIdentity
from reval_core.store.files import write_text

FILE = "serving.json"


@dataclass(frozen=True)
class Served:
    """What is up, and where."""

    api: str
    ui: str
    mlflow: str | None
    """None where runs are tracked by a server of one's own."""
    process: ProcessIdentity


def served_at(home: Home) -> Served | None:
    """What is up for this root; None where `reval serve` is not at work."""
    try:
        kept = json.loads((home.root / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    served = Served(**kept | {"process": ProcessIdentity(**kept["process"])})
    return served if served.process.is_alive() else None


def announce(home: Home, served: Served) -> None:
    """Write the file."""
    write_text(home.root / FILE, json.dumps(asdict(served), indent=1))


def withdraw(home: Home) -> None:
    """Remove it."""
    (home.root / FILE).unlink(missing_ok=True)
