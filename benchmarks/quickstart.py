"""The quickstart for several seeds, each in a root of its own: does it learn, and how long does it take?

    python benchmarks/quickstart.py                 # seeds 0, 1, 2
    python benchmarks/quickstart.py --seeds 0 1 2 3 4 --json result.json

Prints avg@4 on 256 held-out problems before and after with 95 % intervals over problems, accuracy on training problems,
the share of right answers reached by right steps, and wall seconds of the whole command (base model made by the first
run and shared, as in ordinary use). Ends with exit code 1 where a seed misses the bar: avg@4 on the held-out problems
between 0.20 and 0.40 before, at least 0.90 after.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BAR = "arithmetic avg@4"
ROWS = (BAR, "arithmetic-train avg@4", "arithmetic right_by_right_steps")
BEFORE = (0.20, 0.40)
"""The base model has the skill and seldom uses it: lower there is nothing to reinforce, higher little to learn."""
AFTER = 0.90


def run(seed: int, home: Path, overrides: list[str]) -> tuple[dict, float]:
    """One quickstart in a process of its own; its outcome and wall seconds."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "train", "configs/quickstart.yaml", "--json"]
    command += ["--set", f"run.seed={seed}"]
    for override in overrides:
        command += ["--set", override]
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"REVAL_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"seed {seed} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout[done.stdout.index("{") :]), time.perf_counter() - started


def misses(summary: dict[str, tuple[str, str]]) -> list[str]:
    """What a run's summary, row to (before, after) such as ``0.266 [0.238, 0.293]``, misses of the bar."""
    if BAR not in summary or not all(summary[BAR]):
        return [f"there is no {BAR} before and after"]
    before, after = (float(cell.split()[0]) for cell in summary[BAR])
    low, high = BEFORE
    found = []
    if not low <= before <= high:
        found.append(f"{BAR} is {before:.3f} before, the bar is {low:.2f} to {high:.2f}")
    if not after >= AFTER:
        found.append(f"{BAR} is {after:.3f} after, the bar is at least {AFTER:.2f}")
    return found


def main() -> None:
    """Run the seeds, print the table, and hold each seed against the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="as of reval train")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        print("| seed | " + " | ".join(f"{row}, before | after" for row in ROWS) + " | seconds |")
        print("|---" * (2 * len(ROWS) + 2) + "|")
        for seed in arguments.seeds:
            home = Path(folder) / f"seed-{seed}"
            if models.exists():
                shutil.copytree(models, home / "models")
            outcome, seconds = run(seed, home, arguments.overrides)
            if not models.exists():
                shutil.copytree(home / "models", models)
            summary = {label: (before, after) for label, before, after in outcome["summary"]}
            cells = [value for row in ROWS for value in summary.get(row, ("", ""))]
            print(f"| {seed} | " + " | ".join(cells) + f" | {seconds:.0f} |", flush=True)
            results.append(
                {
                    "seed": seed,
                    "seconds": seconds,
                    "summary": summary,
                    "run_id": outcome["run_id"],
                    "misses": misses(summary),
                }
            )
    print(f"\nmedian seconds {statistics.median(result['seconds'] for result in results):.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    missed = [f"seed {result['seed']}: {line}" for result in results for line in result["misses"]]
    if missed:
        sys.exit("\n".join(["the bar is missed", *missed]))
    print(f"the bar is met by {len(results)} of {len(results)} seeds")


if __name__ == "__main__":
    main()
