import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from reval_core.errors import ConfigError
from reval_core.identity import canonical_json, digest, files_digest, sample_seed, short, text_digest, without
from reval_core.registry import resolve


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": [1, 2.5], "a": {"d": None, "c": "é"}}) == '{"a":{"c":"é","d":null},"b":[1,2.5]}'
    assert digest("x", {"a": 1, "b": 2}) == digest("x", {"b": 2, "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_numbers_that_are_not_finite_have_no_digest(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest("x", value)


def test_what_is_not_plain_data_has_no_digest() -> None:
    with pytest.raises(TypeError):
        digest("x", {"path": Path("a")})


def test_a_digest_is_sha256_of_the_canonical_text() -> None:
    # sha256 of the four characters {"a":1}, cut to 32 hexadecimal digits
    assert digest("pol", {"a": 1}) == "pol_015abd7f5cc57a2dd94b7590f04ad808"
    assert text_digest("x", "a\n") != text_digest("x", "a")
    assert short("pol_015abd7f5cc57a2d") == "pol_015abd7f"


def test_digests_are_the_same_in_another_process() -> None:
    program = (
        "from reval_core.identity import digest, sample_seed; import json;"
        "print(json.dumps([digest('x', {'b': 0.1, 'a': 'ü'}), sample_seed('k', 1, 'p', 2)]))"
    )
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == [digest("x", {"a": "ü", "b": 0.1}), sample_seed("k", 1, "p", 2)]


def test_half_a_surrogate_pair_has_a_digest() -> None:
    assert digest("x", "\ud800") != digest("x", "\udfff")


def test_files_are_named_by_name_and_content_alone(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_bytes(b"1")
        (tmp_path / folder / "b").write_bytes(b"2")
    os.utime(tmp_path / "two" / "a", (1, 1))
    name = files_digest("f", tmp_path / "one", ["a", "b"])
    assert files_digest("f", tmp_path / "two", ["b", "a"]) == name
    assert files_digest("f", tmp_path / "one", ["a"]) != name
    (tmp_path / "two" / "b").write_bytes(b"3")
    assert files_digest("f", tmp_path / "two", ["a", "b"]) != name


def test_sample_seeds_differ_by_everything_that_names_a_sample() -> None:
    seeds = [
        sample_seed(key, seed, problem, index)
        for key in ("bat_1", "bat_2")
        for seed in range(5)
        for problem in ("prb_1", "prb_2", "prb_12")
        for index in range(20)
    ]
    assert len(set(seeds)) == len(seeds) == 600
    assert all(0 <= seed < 2**64 for seed in seeds)
    bits = Counter(bit for seed in seeds for bit in range(64) if seed >> bit & 1)
    # each of the 64 bits is set in 300 of 600 seeds, give or take 5 standard deviations of 12.2
    assert all(239 < bits[bit] < 361 for bit in range(64))


def test_without_leaves_keys_out_of_a_copy() -> None:
    mapping = {"a": 1, "b": 2}
    assert without(mapping, "b", "c") == {"a": 1}
    assert mapping == {"a": 1, "b": 2}


# -- names of parts ---------------------------------------------------------------------------------------------------


def test_a_registered_name_comes_first() -> None:
    assert resolve("engine", "fast", {"fast": 1, "slow": 2}) == 1


def test_your_own_part_is_found_by_module_and_attribute() -> None:
    assert resolve("engine", "reval_core.identity:digest", {}) is digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".relative:engine", r"Unknown engine '\.relative:engine'"),
        ("fsat", r"Unknown engine 'fsat'\. Did you mean 'fast'\? Known: fast, slow"),
        ("zzz", r"Unknown engine 'zzz'\. Known: fast, slow; or give your own as 'package\.module:attribute'"),
        ("no_such_module_here:x", "cannot be imported .* PYTHONPATH"),
        ("reval_core.identity:nothing", "has no 'nothing'"),
        (":digest", "package.module:attribute"),
        ("reval_core.identity:", "package.module:attribute"),
    ],
)
def test_a_name_that_nothing_has_is_explained(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("engine", name, {"fast": 1, "slow": 2})
