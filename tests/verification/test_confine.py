"""A grading process of mathematics computes and does nothing else; numbers are read without evaluating text."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CONFINED = """
import json, os, socket, subprocess, sys
from reval_core.verification import confine, symbolic
symbolic.warm_up()
before = symbolic.compare(r"\\log 27", r"3\\log 3")
confine.confine()
done = {}
for name, attempt in {
    "eval": lambda: eval("1+1"),
    "exec": lambda: exec("x = 1"),
    "socket": lambda: socket.socket(),
    "process": lambda: subprocess.run(["true"]),
    "system": lambda: os.system("true"),
    "write": lambda: open(sys.argv[1], "w"),
    "create": lambda: os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY),
    "secret": lambda: open("/etc/passwd"),
    "remove": lambda: os.remove(sys.argv[0]),
    "sympify": lambda: symbolic.sympy.sympify("__import__('os').getpid()"),
    "parse_expr": lambda: symbolic.sympy.parsing.parse_expr("2*x"),
}.items():
    try:
        attempt()
        done[name] = "done"
    except confine.Confined as error:
        done[name] = "refused"
print(json.dumps({"before": before, "after": symbolic.compare(r"\\log 27", r"3\\log 3"), "done": done,
                  "refusals": len(confine.refusals)}))
"""


@pytest.mark.slow
def test_a_confined_process_computes_and_does_nothing_else(tmp_path):
    target = tmp_path / "written"
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(target)], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout)
    assert found["before"] == found["after"] == [True, "math-verify: equal"]
    assert set(found["done"].values()) == {"refused"}, found["done"]
    assert found["refusals"] == len(found["done"])
    assert not target.exists()


READ = """
import json, sys
from reval_core.verification import symbolic
import sympy
texts = ["0", "7", "12345678901234567890", "1.50", ".5", "2.", "1e3", "2.5E-3"]
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event == "compile" else None)
print(json.dumps([str(sympy.srepr(sympy.Number(text))) for text in texts]), len(seen))
"""


@pytest.mark.slow
def test_numbers_are_read_as_sympy_reads_them_and_nothing_is_compiled():
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True, timeout=120)
    read, compiled = done.stdout.rsplit(maxsplit=1)
    assert compiled == "0"
    plain = subprocess.run(
        [sys.executable, "-c", READ.replace("from reval_core.verification import symbolic", "")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(read) == json.loads(plain.stdout.rsplit(maxsplit=1)[0])
