import math
from pathlib import Path
from typing import Any

import pytest

from reval_core import yaml_text
from reval_core.config import Config, flatten
from reval_core.config_files import apply_override, known_keys, load_config, parse_config
from reval_core.errors import ConfigError
from reval_core.home import expand
from reval_core.identity import canonical_json

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
CANARY = "canary-3f9c1d"


def tree(**sections: Any) -> dict[str, Any]:
    """A raw configuration that is usable; sections are put over it."""
    return {"problems": [{"path": "builtin:arithmetic/train"}], **sections}


def refusal(raw: dict[str, Any]) -> list[str]:
    """The lines of the error, without its heading."""
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)
    heading, *lines = str(caught.value).splitlines()
    assert heading == "configuration is not usable:"
    return [line.removeprefix("  - ") for line in lines]


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (tree(modle={}), "unknown key 'modle': did you mean 'model'?"),
        (tree(optimizer={"lrr": 1}), "unknown key 'optimizer.lrr': did you mean 'optimizer.lr'?"),
        (
            tree(objective={"updates": {"offpolicy": 1}}),
            "unknown key 'objective.updates.offpolicy': did you mean 'objective.updates.off_policy'?",
        ),
        # the right word in the wrong section
        (tree(objective={"lr": 1}), "unknown key 'objective.lr': did you mean 'optimizer.lr'?"),
        (
            {"problems": [{"path": "a.jsonl"}, {"path": "b.jsonl", "wieght": 2}]},
            "unknown key 'problems.1.wieght': did you mean 'problems.weight'?",
        ),
        (tree(zzzzzzzz=1), "unknown key 'zzzzzzzz'"),
    ],
)
def test_an_unknown_key_is_refused_and_names_the_nearest(raw: dict[str, Any], line: str) -> None:
    assert refusal(raw) == [line]


def test_every_wrong_key_and_value_gets_its_own_line() -> None:
    lines = refusal(tree(optimizer={"lr": -1, "lrr": 1}, run={"seed": "many"}))
    assert len(lines) == 3
    assert any(line.startswith("optimizer.lr: ") and line.endswith("(given: -1)") for line in lines)
    assert any(line.startswith("run.seed: ") and "'many'" in line for line in lines)


def test_a_run_needs_problems() -> None:
    assert refusal({}) == refusal({"problems": []})
    (line,) = refusal({"problems": []})
    assert line.startswith("problems")
    assert "at least one" in line


def test_known_keys_name_sections_fields_and_items() -> None:
    keys = known_keys()
    assert {"problems.path", "objective.updates.off_policy", "rollouts.engine.use", "run"} <= set(keys)
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("value", [math.inf, math.nan, ".inf"])
def test_numbers_are_finite(value: object) -> None:
    (line,) = refusal(tree(optimizer={"lr": value if isinstance(value, float) else float("inf")}))
    assert line.startswith("optimizer.lr: ")


@pytest.mark.parametrize("betas", [[1.0, 0.999], [0.9, 1.0], [-0.1, 0.999]])
def test_moments_decay(betas: list[float]) -> None:
    (line,) = refusal(tree(optimizer={"betas": betas}))
    assert line == f"optimizer.betas: each lies from 0 to below 1, where a moment would never decay; given {betas}"


@pytest.mark.parametrize(
    "sections",
    [{"model": {"token_env": "hf_AbCdEf"}}, {"rollouts": {"engine": {"servers": {"api_key_env": "sk-abcdef"}}}}],
)
def test_a_secret_in_the_place_of_its_variables_name_is_refused_and_not_repeated(sections: dict[str, Any]) -> None:
    (line,) = refusal(tree(**sections))
    assert "expected the name of an environment variable" in line
    assert "bCdEf" not in line
    assert "abcdef" not in line


def test_what_is_merged_in_may_be_set_anew() -> None:
    text = "one: &one {lr: 1e-3, eps: 1e-8}\nother: {<<: *one, lr: 1e-4}\n"
    assert yaml_text.read(text)["other"] == {"lr": 1e-4, "eps": 1e-8}


def test_a_configuration_cannot_be_changed_afterwards() -> None:
    config = parse_config(tree())
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 3


# -- combinations -----------------------------------------------------------------------------------------------------


def test_centred_rewards_need_a_group() -> None:
    reward = {"transform": "centred"}
    (line,) = refusal(tree(reward=reward, rollouts={"rollouts_per_prompt": 1}))
    assert "rollouts_per_prompt = 1" in line
    assert parse_config(tree(reward=reward, rollouts={"rollouts_per_prompt": 2})).reward.transform == "centred"


@pytest.mark.parametrize("at_use", [{"baseline": "problem"}, {"baseline": "round"}, {"successes": 2}])
def test_rewards_are_centred_once(at_use: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="'centred' has subtracted the group's mean for good"):
        parse_config(tree(reward={"transform": "centred"}, replay=at_use))
    assert parse_config(tree(replay=at_use)).reward.transform == "binary"


def test_the_window_holds_at_least_one_batch() -> None:
    rollouts = {"prompts_per_iteration": 4, "rollouts_per_prompt": 8}
    (line,) = refusal(tree(rollouts=rollouts, replay={"capacity": 31}))
    assert "replay.capacity is 31" in line
    assert "one batch of 32" in line
    assert parse_config(tree(rollouts=rollouts, replay={"capacity": 32})).batch_size == 32
    on_policy_only = {"updates": {"on_policy": 1, "off_policy": 0}}
    assert parse_config(tree(rollouts=rollouts, replay={"capacity": 1}, objective=on_policy_only)).batch_size == 32


def test_a_round_has_an_update() -> None:
    (line,) = refusal(tree(objective={"updates": {"on_policy": 0, "off_policy": 0}}))
    assert "nothing would be learned" in line


# -- files and overrides ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_parse(path: Path) -> None:
    config = load_config(path)
    assert config.config_id.startswith("cfg_")
    assert canonical_json(config.identity())


def test_configurations_are_shipped() -> None:
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


def test_a_missing_file_says_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "small.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no configuration file none\.yaml\. In configs/: small\.yaml"):
        load_config("none.yaml")
    with pytest.raises(ConfigError, match="configs is a folder"):
        load_config("configs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not YAML"),
        ("- 1\n", "no mapping"),
        ("", "no mapping"),
        ("run: {seed: 1}\noptimizer: {lr: 1e-3}\nrun: {name: a}\n", "found the key 'run' twice(.|\n)*line 3"),
        ("optimizer: {lr: 1e-3, lr: 1e-4}\n", "found the key 'lr' twice"),
        ("run: {name: caf\xe9}\n", "not UTF-8 text"),
        ("objective:\n  beta: 0.1\n  beta: 0.2\n", "found the key 'beta' twice"),
        ("run: {iterations: " + "9" * 5000 + "}", "not YAML"),
        ("[" * 3000, "not YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_overrides_set_values_sections_and_list_items(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("problems:\n  - path: a.jsonl\n  - path: b.jsonl\noptimizer: {lr: 1e-3}\n")
    config = load_config(
        path,
        [
            "problems.1.path=c.jsonl",
            "problems.0.fields.question=problem",
            "optimizer.lr=1e-6",
            "optimizer.eps=5E-9",
            "rollouts.engine.args.depth=2",
            "evaluation.benchmarks=[aime24, math500]",
            "prompt.suffix= = and on",
            "run.seed=7",
        ],
    )
    assert [source.path for source in config.problems] == ["a.jsonl", "c.jsonl"]
    assert config.problems[0].fields == {"question": "problem"}
    assert (config.optimizer.lr, config.optimizer.eps) == (1e-6, 5e-9)
    assert config.rollouts.engine.args == {"depth": 2}
    assert config.evaluation.benchmarks == ("aime24", "math500")
    assert config.prompt.suffix == "= and on"  # YAML takes the blanks before a value away
    assert config.run.seed == 7


def test_numbers_without_a_dot_are_numbers_and_quoted_ones_are_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "problems: [{path: a.jsonl}]\noptimizer: {lr: 1e-6}\n"
        'model: {path: org/model, revision: "12345e67"}\nrollouts: {engine: {args: {x: [2e3, "2e3"]}}}\n'
    )
    config = load_config(path, ["reward.args.tag='1e3'"])
    assert config.optimizer.lr == 1e-6
    assert config.model.revision == "12345e67"
    assert config.rollouts.engine.args == {"x": [2000.0, "2e3"]}
    assert config.reward.args == {"tag": "1e3"}
    path.write_text(config.to_yaml())  # and as it is written out it is read back
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.seed", "key.path=value"),
        ("=3", "key.path=value"),
        ("run.seed.x=3", "'x' lies inside a value"),
        ("run.seed.x.y=3", "'x' lies inside a value"),
        ("problems.4.path=a", "'4'"),
        ("problems.4=a", "'4'"),
        ("prompt.suffix=x", "'prompt' is empty in the file"),
        ("run.name=[1", "not YAML"),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(override: str, message: str) -> None:
    raw = {"run": {"seed": 1}, "problems": [{"path": "a"}], "prompt": None}
    with pytest.raises(ConfigError, match=message):
        apply_override(raw, override)


def test_an_override_with_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("problems:\n  - path: a.jsonl\n")
    with pytest.raises(ConfigError, match=r"'rollouts\.max_new_token': did you mean 'rollouts\.max_new_tokens'"):
        load_config(path, ["rollouts.max_new_token=3"])


# -- identity ---------------------------------------------------------------------------------------------------------

NEUTRAL = [
    "run.name=other",
    "run.iterations=99",
    "reward.workers=7",
    "reward.timeout_s=9",
    "reward.memory_gb=9",
    "reward.max_failure_share=0.5",
    "model.device=cuda:1",
    "model.token_env=MY_TOKEN",
    "rollouts.engine.max_batch_sequences=3",
    "rollouts.engine.max_batch_tokens=3000",
    "evaluation.every=3",
    "evaluation.benchmarks=[aime24]",
    "evaluation.samples_per_problem=2",
    "checkpoint.every=3",
    "store.flush_seconds=1",
    "tracking.experiment=mine",
    "tracking.system_metrics=false",
]
DECISIVE = [
    "run.seed=1",
    "model.path=other",
    "model.revision=abc",
    "model.dtype=bfloat16",
    "model.threads=2",
    "prompt.suffix=x",
    "prompt.stop=[x]",
    "problems.0.path=other.jsonl",
    "problems.0.weight=2",
    "problems.0.filter=level = 5",
    "rollouts.rollouts_per_prompt=4",
    "rollouts.temperature=0.5",
    "rollouts.engine.use=vllm",
    "rollouts.engine.args.x=1",
    "reward.transform=signed",
    "reward.extraction=lenient",
    "replay.capacity=9999",
    "replay.baseline=problem",
    "replay.baseline_share=0.5",
    "replay.successes=4",
    "objective.beta=0.5",
    "objective.updates.off_policy=3",
    "objective.reference_reset_every=3",
    "optimizer.lr=1",
    "optimizer.betas=[0.9, 0.95]",
    "optimizer.use=adamw_8bit",
    "model.lora.rank=8",
]


def changed(override: str) -> Config:
    raw = tree()
    apply_override(raw, override)
    config = parse_config(raw)
    assert config != parse_config(tree())
    return config


@pytest.mark.parametrize("override", NEUTRAL)
def test_identity_leaves_out_how_a_run_is_carried_out(override: str) -> None:
    assert changed(override).config_id == parse_config(tree()).config_id


@pytest.mark.parametrize("override", DECISIVE)
def test_identity_takes_in_what_decides_what_is_learned(override: str) -> None:
    assert changed(override).config_id != parse_config(tree()).config_id


def test_identity_names_no_section_that_is_neutral_as_a_whole() -> None:
    identity = parse_config(tree()).identity()
    assert {"evaluation", "checkpoint", "store", "tracking"}.isdisjoint(identity)
    assert identity["run"] == {"seed": 0}
    assert identity["problems"] == [
        {
            "path": "builtin:arithmetic/train",
            "fields": {},
            "filter": None,
            "weight": 1.0,
            "limit": None,
            "split": "train",
        }
    ]


def test_fields_that_came_later_leave_the_names_of_runs_as_they_were() -> None:
    written = tree(
        model={"lora": None},
        optimizer={"use": "adamw"},
        replay={"baseline": "none", "baseline_share": 1.0, "successes": 0},
    )
    assert parse_config(tree()).config_id == parse_config(written).config_id == "cfg_4eb12b01baed1abf16ad23fd0dc82c40"
    assert "lora" not in parse_config(tree()).identity()["model"]


def test_written_defaults_and_whole_numbers_do_not_change_identity() -> None:
    written = tree(optimizer={"lr": 1e-6, "clip_norm": 1}, rollouts={"temperature": 1})
    assert parse_config(written).config_id == parse_config(tree()).config_id


def test_the_resolved_yaml_is_the_same_configuration(tmp_path: Path) -> None:
    raw = tree(
        prompt={"suffix": "\nLet's think: \\boxed{} ü 漢", "stop": ["?", "1"], "template_args": {"thinking": False}},
        optimizer={"lr": 1e-6, "betas": [0.9, 0.95]},
        reward={"args": {"text": "true", "none": None}},
        evaluation={"benchmarks": ["aime24"]},
    )
    raw["problems"].append({"path": "${REVAL_DATA}/math500.jsonl", "filter": "level = '5'", "weight": 0.5})
    config = parse_config(raw)
    path = tmp_path / "resolved.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert again.config_id == config.config_id


def test_flat_keys_are_dotted_and_numbered() -> None:
    flat = parse_config(tree()).flat()
    assert flat["problems.0.path"] == "builtin:arithmetic/train"
    assert flat["objective.updates.off_policy"] == 1
    assert flat["problems.0.fields"] == {}
    assert flatten({"a": [{"b": 1}, {"b": 2}], "c": [3]}) == {"a.0.b": 1, "a.1.b": 2, "c": [3]}


# -- the environment stays outside ------------------------------------------------------------------------------------


def test_variables_are_kept_as_written_and_their_values_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REVAL_DATA", "HF_TOKEN", "MY_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    raw = tree(model={"path": "${REVAL_DATA}/base", "token_env": "MY_TOKEN"})
    raw["problems"].append({"path": "${REVAL_DATA}/a.jsonl"})
    config = parse_config(raw)
    assert config.problems[1].path == "${REVAL_DATA}/a.jsonl"
    assert "${REVAL_DATA}/base" in config.to_yaml()
    for shown in (config.to_yaml(), str(config.identity()), str(config.flat()), repr(config)):
        assert CANARY not in shown


def test_identity_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {"problems": [{"path": "${REVAL_DATA}/a.jsonl"}]}
    monkeypatch.setenv("REVAL_DATA", "/here")
    here = parse_config(raw).config_id
    monkeypatch.setenv("REVAL_DATA", "/there")
    assert parse_config(raw).config_id == here


def test_paths_are_expanded_where_they_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVAL_DATA", "/data")
    monkeypatch.setenv("HOME", "/home/someone")
    assert expand("${REVAL_DATA}/a.jsonl") == Path("/data/a.jsonl")
    assert expand("~/b.jsonl") == Path("/home/someone/b.jsonl")
    assert expand("plain/$HOME.jsonl") == Path("plain/$HOME.jsonl")


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVAL_NOWHERE", raising=False)
    monkeypatch.setenv("REVAL_DATA", "/data")
    with pytest.raises(ConfigError, match="export REVAL_NOWHERE=<folder> first"):
        expand("${REVAL_DATA}/${REVAL_NOWHERE}/a.jsonl")


@pytest.mark.parametrize("window", [{"capacity": 8}, {"capacity": 15}, {"capacity": 1, "unit": "rounds"}])
def test_a_window_that_leaves_nothing_to_draw_is_refused(window: dict[str, Any]) -> None:
    rollouts = {"prompts_per_iteration": 4, "rollouts_per_prompt": 2}
    parse_config(tree(rollouts=rollouts, replay=window))
    with pytest.raises(ConfigError, match="excludes_fresh leaves out the batch of 8"):
        parse_config(tree(rollouts=rollouts, replay=window | {"excludes_fresh": True}))
    parse_config(tree(rollouts=rollouts, replay={"capacity": 16, "excludes_fresh": True}))
    parse_config(tree(rollouts=rollouts, replay={"capacity": None, "excludes_fresh": True}))


def test_a_tracking_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match="write an address with its scheme"):
        parse_config(tree(tracking={"uri": "foo"}))


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes("run: {name: café}".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"c\.yaml is not UTF-8 text"):
        load_config(tmp_path / "c.yaml")


def test_what_a_mapping_merges_may_be_overridden() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, x: 4}\nd: *b\n"
    assert yaml_text.read(text) == {
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 4, "y": 3}, "d": {"x": 1, "y": 3}
    }  # fmt: skip
