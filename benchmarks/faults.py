"""The store under fire, in large numbers: kills, two writers, faults at every system call, a full disk, a held file.

    python benchmarks/faults.py                       # all of it: about an hour on two cores
    python benchmarks/faults.py --only kills --kills 50 --json result.json

Every part counts breaches: acknowledged rows, stages or snapshots that are lost, rows that are doubled or changed,
payloads without trajectory, committed stages whose batch is not whole, stages written by a lease that was refused,
stores that do not open, files that a start should have taken in, errors that come as a traceback. All must be 0.
"calls" needs strace, "disk" needs to mount a file system; where that is not possible the part says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from reval_core.errors import StoreError  # noqa: E402
from reval_core.store import Store, spool  # noqa: E402
from reval_core.store.store import SLICE_BYTES  # noqa: E402
from tests.soak.faults import Found, Soak, compare, kill_one, kill_one_of_two  # noqa: E402
from tests.soak.full_disk import small_disk, sweep  # noqa: E402
from tests.soak.injected import FAULTS, at_every_call  # noqa: E402
from tests.soak.writer import batch_of, part_of  # noqa: E402

SMALL_SLICE = 400_000
"""In the place of SLICE_BYTES where many kills are wanted: all ways to append, in less time."""
FREE = (0, 4_000, 40_000, 100_000, 260_000, 300_000, 520_000, 700_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000)
"""Free bytes at which each step is tried."""

Result = dict[str, Any]


def breaches(found: Found) -> str:
    """``none``, or what was found."""
    return ", ".join(f"{count} {name}" for name, count in asdict(found).items() if count) or "none"


def table(counted: Mapping[Any, int], head: str) -> None:
    """Where the faults fell."""
    print(f"\n| {head} | times |\n|---|---|")
    for name, count in sorted(counted.items(), key=lambda item: (-item[1], str(item[0]))):
        print(f"| {name if isinstance(name, str) else ': '.join(name)} | {count} |")


def soaked(what: str, soak: Soak, started: float) -> Result:
    """Print a series of kills."""
    took = time.monotonic() - started
    print(f"\n{what}: {soak.kills} in {took:,.0f} s; breaches: {breaches(soak.found)}.", end=" ")
    print(f"{soak.batches} committed batches compared at the end, {soak.refused} commits of zombies refused.")
    table(soak.phases, "where")
    for text in sorted(set(soak.told)):
        print(f"  {text}")
    return {
        "kills": soak.kills,
        "seconds": took,
        "found": asdict(soak.found),
        "phases": dict(soak.phases),
        "refused": soak.refused,
    }


def kills(folder: Path, given: argparse.Namespace) -> Result:
    """One writer, killed and started again."""
    started = time.monotonic()
    small = kill_one(folder / "small", kills=given.kills, seed=given.seed, slice_bytes=SMALL_SLICE)
    result = {"small slices": soaked(f"kills, slices of {SMALL_SLICE / 1e6:g} MB", small, started)}
    started = time.monotonic()
    count = max(1, given.kills // 10)
    real = kill_one(
        folder / "real", kills=count, seed=given.seed, slice_bytes=SLICE_BYTES, kills_each=count, mean_s=6.0
    )
    result["real slices"] = soaked(f"kills, slices of {SLICE_BYTES / 1e6:g} MB", real, started)
    return result


def pairs(folder: Path, given: argparse.Namespace) -> Result:
    """Two writers, one of which is killed."""
    started, total = time.monotonic(), Soak()
    for series in range(max(1, given.kills // 20)):
        soak = kill_one_of_two(folder / str(series), kills=5, seed=given.seed + series, slice_bytes=SMALL_SLICE)
        total.kills += soak.kills
        total.phases += soak.phases
        total.batches += soak.batches
        total.refused += soak.refused
        total.told += soak.told
        total.found.add(soak.found)
    return soaked("kills of one of two writers", total, started)


def calls(folder: Path, given: argparse.Namespace) -> Result:
    """A fault at every system call that writes."""
    if shutil.which("strace") is None:
        print("\ncalls: left out, there is no strace here.")
        return {}
    result = {}
    for fault in FAULTS:
        started = time.monotonic()
        soak = at_every_call(folder, fault, every=given.every)
        result[fault] = soaked(f"at every system call: {fault}", soak, started)
    return result


def disk(folder: Path, given: argparse.Namespace) -> Result:
    """Every step on a disk that is full but for some bytes."""
    try:
        with small_disk(folder, 96) as mounted:
            result = sweep(mounted, FREE)
    except PermissionError as error:
        print(f"\ndisk: left out, {error}.")
        return {}
    tried = sum(result.outcomes.values())
    print(f"\nfull disk: {tried} steps; breaches: {breaches(result.found)}; errors without the cause: {result.unsaid}.")
    table(result.outcomes, "step: what became of it")
    return {"tried": tried, "found": asdict(result.found), "unsaid": result.unsaid, "told": result.told}


HOLDER = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
print("held", flush=True)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:  # one query after the other, the connection is never closed
    connection.execute("SELECT count(*) FROM range(30000) a, range(3000) b WHERE a.range <= b.range").fetchall()
"""
ASKING = """
import sys, time
from reval_core.store import Store
# of the size that takes as long as is wanted
rows, store, began = 20_000, Store(sys.argv[1]), time.monotonic()
while time.monotonic() - began < float(sys.argv[2]):
    answer = store.ask("SELECT count(*) AS n FROM range($rows) a, range($rows) b WHERE a.range <= b.range", rows=rows)
    rows *= 2
print()
print("moved" if answer.snapshot is not None else "live", round(time.monotonic() - began))
"""


def holders(folder: Path, given: argparse.Namespace) -> Result:
    """Programs that have the file open for a minute."""
    store = Store(folder / "reval.duckdb", lock_wait_s=600)
    store.prepare()
    ledger: list[dict[str, Any]] = []

    def append(to: Store) -> float:
        number, began = len(ledger), time.monotonic()
        ledger.append({"did": "append", "owner": "held", "number": number})
        to.append_batch(batch_of("held", number), part_of("held", number, SMALL_SLICE))
        return time.monotonic() - began

    append(store)
    with _program(HOLDER, store.path, given.hold_s) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = ""
        try:
            append(Store(store.path, lock_wait_s=5))
        except StoreError as error:
            said = str(error)
        kept = len(spool.kept(store.spool))
        waited = append(store)
    named = f"process {holder.pid}" in said
    print(f"\nheld for {given.hold_s:g} s by a plain connection: a writer that waits 5 s names it ({named}) and keeps")
    print(f"{kept} part beside the database; one that waits 600 s waited {waited:.1f} s and went on.")
    waits = []
    with _program(ASKING, store.path, given.hold_s) as asking:
        while asking.poll() is None:
            waits.append(append(store))
            time.sleep(0.5)
        shown = asking.communicate()[0].splitlines()[-1]
    found = compare(store.path, [ledger], SMALL_SLICE, [])
    print(f"queries of up to a minute through our own doors ({shown} s): {len(waits)} appends beside them, the slowest")
    print(
        f"took {max(waits):.2f} s, the middle one {sorted(waits)[len(waits) // 2]:.2f} s; breaches: {breaches(found)}."
    )
    return {"named": named, "kept": kept, "waited": waited, "slowest append": max(waits), "found": asdict(found)}


def _program(text: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


PARTS: dict[str, Callable[[Path, argparse.Namespace], Result]] = {
    "kills": kills,
    "pairs": pairs,
    "calls": calls,
    "disk": disk,
    "holders": holders,
}


def main() -> None:
    """Run the parts and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    parser.add_argument("--kills", type=int, default=200, help="of one writer; a tenth and a quarter of them elsewhere")
    parser.add_argument("--every", type=int, default=1, help="2: a fault at every second system call")
    parser.add_argument("--hold-s", type=float, default=60.0, help="seconds for which the file is held")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results here")
    given = parser.parse_args()
    results, total = {}, Counter[str]()
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / name
            if name != "disk":
                place.mkdir()
            results[name] = PARTS[name](place, given)
        sys.stdout.flush()
    if given.json:
        given.json.write_text(json.dumps(results, indent=2))
    for result in _all_found(results):
        total.update(result)
    sys.exit("breaches were found" if any(total.values()) else 0)


def _all_found(tree: Any) -> list[dict[str, int]]:
    if not isinstance(tree, dict):
        return []
    return [tree["found"]] if "found" in tree else [found for value in tree.values() for found in _all_found(value)]


if __name__ == "__main__":
    main()
