"""The library on a GPU in bfloat16: sampling, scoring, calibration, updates, and a policy learned again."""

from __future__ import annotations

import copy
import json
import socket
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import two_gpus
from safetensors.torch import load_file

from reval_core.config import LoraConfig, ObjectiveConfig, OptimizerConfig
from reval_core.learning import attention, head
from reval_core.learning.activations import checkpoint_activations, use_kernels
from reval_core.learning.adapters import adapted, adapter_numbers, adapter_tensors
from reval_core.learning.batch import TrainingExample, micro_batches
from reval_core.learning.calibration import calibrate
from reval_core.learning.learner import Learner
from reval_core.learning.precision import on_device, round_weights, to_host
from reval_core.learning.reference import reference_scores
from reval_core.learning.shards import MODEL, STATE, whole_tensors
from reval_core.policies.folder import weights_checksum
from reval_core.rollouts import SampleRequest, SamplingSettings
from reval_core.rollouts.transformers_engine import TransformersEngine

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

MAX_TOKENS = 8192
SETTINGS = SamplingSettings(max_new_tokens=256, temperature=1.0, top_p=1.0, top_k=0, stop_ids=(1,))


@pytest.fixture(scope="module")
def model():
    return two_gpus.random_model()


@pytest.fixture(scope="module")
def samples(model):
    rng = np.random.default_rng(0)
    engine = TransformersEngine(compute_dtype="bfloat16", max_batch_sequences=64)
    engine.load("pol_base", model)
    prompts = [tuple(rng.integers(2, 32_000, size=int(size)).tolist()) for size in rng.integers(8, 64, size=16)]
    requests = [
        SampleRequest(f"problem-{index}", sample, 1000 * index + sample, prompt)
        for index, prompt in enumerate(prompts)
        for sample in range(4)
    ]
    return list(engine.sample(requests, SETTINGS))


def examples(samples, model, rewards):
    plain = [
        TrainingExample(
            trajectory_id=f"{sample.request.problem_id}/{sample.request.sample_index}",
            group_id=sample.request.problem_id,
            prompt_ids=np.array(sample.request.prompt_ids, np.int32),
            response_ids=np.array(sample.token_ids, np.int32),
            reward=reward,
        )
        for sample, reward in zip(samples, rewards, strict=True)
    ]
    logprob, root = reference_scores(model, plain, max_tokens=MAX_TOKENS, compute_dtype="bfloat16")
    return [
        TrainingExample(**{**vars(example), "ref_logprob": float(a), "ref_root_value": float(b)})
        for example, a, b in zip(plain, logprob, root, strict=True)
    ]


def test_engine_and_learner_agree_on_log_probs(model, samples):
    scored = examples(samples, model, [0.0] * len(samples))
    difference = np.array([e.ref_logprob - s.logprob for e, s in zip(scored, samples, strict=True)])
    length = np.array([len(s.token_ids) for s in samples])
    assert np.all(np.abs(difference) <= 0.25 * np.sqrt(length))
    assert abs(difference.mean()) < 1.0


def test_packed_sequences_are_scored_as_padded_ones(model, samples):
    plain = [replace(example, ref_logprob=None) for example in examples(samples, model, [0.0] * len(samples))]
    length = np.array([len(example.response_ids) for example in plain])
    for dtype, limit in (("float32", 2e-4), ("bfloat16", 0.05)):
        padded, packed = (
            reference_scores(model, plain, max_tokens=MAX_TOKENS, packed=packed, compute_dtype=dtype)
            for packed in (False, True)
        )
        for one, other in zip(padded, packed, strict=True):
            assert np.all(np.abs(one - other) <= limit * np.sqrt(length))


@pytest.mark.parametrize("packing", [False, True])
def test_the_gradient_is_the_same_for_any_split(model, samples, packing):
    scored = examples(samples, model, [float(index % 2) for index in range(len(samples))])

    def gradient(max_tokens, dtype):
        settings = OptimizerConfig(max_tokens_per_micro_batch=max_tokens, packing=packing)
        learner = Learner(model, ObjectiveConfig(beta=0.01), settings, compute_dtype=dtype)
        learner.zero_grad()
        learner.accumulate(scored)
        found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        learner.zero_grad()
        return found

    for dtype, limit in (("float32", 1e-5), ("bfloat16", 0.02)):
        whole, split = gradient(10**6, dtype), gradient(1000, dtype)
        assert (whole - split).norm() / whole.norm() <= limit


def test_the_host_waits_for_no_micro_batch(model, samples):
    """An update waits as often with many micro-batches as with few."""
    scored = examples(samples, model, [float(index % 2) for index in range(len(samples))])
    waits, batches = [], []
    for max_tokens in (10**6, 1000):
        settings = OptimizerConfig(max_tokens_per_micro_batch=max_tokens, packing=True)
        learner = Learner(model, ObjectiveConfig(beta=0.01), settings, compute_dtype="bfloat16")
        batches.append(len(micro_batches(scored, max_tokens, packed=True)))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                learner.accumulate(scored)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        learner.zero_grad()
        waits.append(sum("synchroniz" in str(warning.message) for warning in caught))
    assert batches[0] == 1 < batches[1]
    assert waits[0] == waits[1] <= 8, waits


@pytest.mark.parametrize("packing", [False, True])
def test_a_rounded_reference_on_the_host_scores_as_the_policy_does_to_the_bit(model, samples, packing):
    plain = examples(samples, model, [0.0] * len(samples))
    settings = {"max_tokens": MAX_TOKENS, "packed": packing, "compute_dtype": "bfloat16"}
    expected = reference_scores(model, plain, **settings)
    reference = copy.deepcopy(model).requires_grad_(False)
    round_weights(reference)
    to_host(reference)
    assert {parameter.device.type for parameter in reference.parameters()} == {"cpu"}
    with on_device(reference, "cuda") as there:
        found = reference_scores(there, plain, **settings)
    assert {parameter.device.type for parameter in reference.parameters()} == {"cpu"}
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("recomputed", [False, "gates", "mlp", True])
def test_ligers_kernels_are_near_torchs_and_calibrated_exactly(model, samples, recomputed):
    pytest.importorskip("liger_kernel")
    plain = examples(samples, model, [float(index % 2) for index in range(len(samples))])
    length = np.array([len(example.response_ids) for example in plain])
    fused = copy.deepcopy(model)
    use_kernels(fused, "liger")
    assert type(model.model.norm)(4).forward.__func__ is not fused.model.norm.forward.__func__  # only this one model
    checkpoint_activations(fused, recomputed, "liger")
    objective = ObjectiveConfig(beta=0.01)
    optimizer = OptimizerConfig(max_tokens_per_micro_batch=MAX_TOKENS, packing=True)
    report = calibrate(fused, plain, objective, optimizer, compute_dtype="bfloat16")
    assert report.same_layout == 0.0
    gradients = []
    for some in (model, fused):
        learner = Learner(some, objective, optimizer, compute_dtype="bfloat16")
        learner.zero_grad()
        found = learner.accumulate(plain)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in some.parameters()]))
        learner.zero_grad()
        assert np.all(np.abs(found.log_ratio) <= 0.05 * np.sqrt(length))
    assert (gradients[1] - gradients[0]).norm() / gradients[0].norm() <= 0.02
    model.eval()


def test_long_sequences_are_attended_one_by_one_as_short_ones_together(monkeypatch):
    torch.manual_seed(0)
    lengths = (700, 1024, 3)
    query, key, value = (torch.randn(1, heads, sum(lengths), 64, device="cuda").bfloat16() for heads in (8, 2, 2))
    boundaries = torch.tensor([0, 700, 1724, 1727], dtype=torch.int32, device="cuda")
    exact, found = [], {0: [], 10**9: []}
    for long, results in found.items():
        monkeypatch.setattr(attention, "LONG", long)
        inputs = [values.clone().requires_grad_() for values in (query, key, value)]
        out, _ = attention.packed_attention(None, *inputs, None, boundaries=boundaries, lengths=lengths)
        results += [out, *torch.autograd.grad(out.float().square().sum(), inputs)]
    inputs = [values.float().requires_grad_() for values in (query, key, value)]
    out, _ = attention.packed_attention(None, *inputs, None, boundaries=boundaries, lengths=lengths)
    exact += [out, *torch.autograd.grad(out.square().sum(), inputs)]
    for results in found.values():
        for one, other in zip(results, exact, strict=True):
            assert (one.float() - other).norm() / other.norm() < 0.01


def test_the_gradient_is_the_same_one_by_one(model, samples, monkeypatch):
    scored = examples(samples, model, [float(index % 2) for index in range(len(samples))])
    gradients = []
    for long in (0, 10**9):
        monkeypatch.setattr(attention, "LONG", long)
        settings = OptimizerConfig(max_tokens_per_micro_batch=MAX_TOKENS, packing=True)
        learner = Learner(model, ObjectiveConfig(beta=0.01), settings, compute_dtype="bfloat16")
        learner.zero_grad()
        learner.accumulate(scored)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        learner.zero_grad()
    assert (gradients[1] - gradients[0]).norm() / gradients[0].norm() <= 0.02


def test_memory_of_the_head_is_flat_in_vocabulary():
    peaks = []
    for vocabulary in (2**16, 2**18):
        rows, weight = (torch.randn(n, 64, device="cuda", dtype=torch.bfloat16) for n in (2**14, vocabulary))
        rows.requires_grad_()
        weight.requires_grad_()
        labels = torch.randint(vocabulary, (2**14,), device="cuda")
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        label, value = head.label_logits(rows, weight, None, labels)
        (label.sum() + value.sum()).backward()
        peaks.append(
            torch.cuda.max_memory_allocated() - before - 3 * weight.nbytes
        )  # its gradient, float32 and bfloat16
    assert peaks[1] <= 1.05 * peaks[0]
    assert peaks[1] <= 2.5 * 4 * head.LOGITS_PER_CHUNK  # all logits are 16 chunks here


@pytest.mark.parametrize("packing", [False, True])
def test_calibration_is_exact_and_no_reward_moves_nothing(model, samples, packing):
    objective = ObjectiveConfig(beta=0.01)
    optimizer = OptimizerConfig(lr=1e-4, max_tokens_per_micro_batch=MAX_TOKENS, packing=packing)
    scored = examples(samples, model, [0.0] * len(samples))
    report = calibrate(model, scored, objective, optimizer, compute_dtype="bfloat16")
    assert report.same_layout == 0.0
    logprob, root = reference_scores(model, scored, max_tokens=MAX_TOKENS, packed=packing, compute_dtype="bfloat16")
    scored = [
        replace(e, ref_logprob=float(a), ref_root_value=float(b)) for e, a, b in zip(scored, logprob, root, strict=True)
    ]
    before = weights_checksum(model)
    learner = Learner(model, objective, optimizer, compute_dtype="bfloat16")
    found = learner.update(scored)
    assert (found.loss, found.grad_norm) == (0.0, 0.0)
    assert weights_checksum(model) == before


def test_updates_raise_the_rewarded_responses(model, samples):
    objective, optimizer = ObjectiveConfig(beta=0.01), OptimizerConfig(lr=1e-3, max_tokens_per_micro_batch=MAX_TOKENS)
    rewards = [float(index % 2) for index in range(len(samples))]
    scored = examples(samples, model, rewards)
    learner = Learner(copy.deepcopy(model), objective, optimizer, compute_dtype="bfloat16")
    reports = [learner.update(scored) for _ in range(10)]
    assert reports[-1].loss < 0.7 * reports[0].loss
    gained = reports[-1].log_ratio + reports[-1].root_gap
    rewarded = np.array(rewards) > 0
    assert gained[rewarded].mean() > gained[~rewarded].mean()
    assert not reports[-1].skipped


def test_a_saved_state_goes_on(model, samples):
    scored = examples(samples, model, [float(index % 2) for index in range(len(samples))])
    settings = OptimizerConfig(lr=1e-3, max_tokens_per_micro_batch=MAX_TOKENS, packing=True)
    learner = Learner(copy.deepcopy(model), ObjectiveConfig(beta=0.01), settings, compute_dtype="bfloat16")
    learner.update(scored)
    other = Learner(copy.deepcopy(learner.model), ObjectiveConfig(beta=0.01), settings, compute_dtype="bfloat16")
    other.load_state_tensors(learner.state_tensors())
    losses = [some.update(scored).loss for some in (learner, other, learner, other)]
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(losses[3], rel=0.01)


@pytest.fixture
def frozen(model):
    """The model as adapters stand over it: rounded, not to be learned."""
    base = copy.deepcopy(model)
    round_weights(base)
    return base.requires_grad_(False)


def test_an_adapter_learns_over_a_rounded_base_and_starts_exactly_at_it(frozen, samples):
    pytest.importorskip("peft")
    lora = LoraConfig(rank=8, alpha=16)
    objective = ObjectiveConfig(beta=0.01)
    optimizer = OptimizerConfig(lr=1e-2, max_tokens_per_micro_batch=MAX_TOKENS, packing=True)
    plain = examples(samples, frozen, [float(index % 2) for index in range(len(samples))])
    scores = reference_scores(frozen, plain, max_tokens=MAX_TOKENS, packed=True, compute_dtype="bfloat16")
    scored = [replace(e, ref_logprob=float(a), ref_root_value=float(b)) for e, a, b in zip(plain, *scores, strict=True)]
    policy = adapted(frozen, lora)
    checkpoint_activations(policy, "mlp")
    report = calibrate(frozen, scored, objective, optimizer, policy=policy, compute_dtype="bfloat16")
    assert (report.same_layout, report.stored) == (0.0, 0.0)
    before = weights_checksum(frozen)
    learner = Learner(policy, objective, optimizer, compute_dtype="bfloat16")
    learner.accumulate(scored)  # libraries have their workspaces afterwards
    learner.zero_grad()
    held = torch.cuda.memory_allocated()
    reports = [learner.update(scored) for _ in range(10)]
    assert reports[-1].loss < reports[0].loss
    assert weights_checksum(frozen) == before
    numbers = adapter_numbers(frozen, lora)
    assert torch.cuda.memory_allocated() - held <= 1.5 * 8 * numbers  # two moments, no gradients, no copies
    snapshot = adapted(frozen, lora, adapter_tensors(policy), frozen=True)
    settings = {"max_tokens": MAX_TOKENS, "packed": True, "compute_dtype": "bfloat16"}
    now, then = (reference_scores(some, plain, **settings) for some in (policy, snapshot))
    np.testing.assert_array_equal(now, then)


def test_liger_kernels_take_adapters(frozen, samples):
    pytest.importorskip("peft")
    pytest.importorskip("liger_kernel")
    plain = examples(samples, frozen, [0.0] * len(samples))
    settings = {"max_tokens": MAX_TOKENS, "packed": True, "compute_dtype": "bfloat16"}
    wanted = reference_scores(adapted(frozen, LoraConfig()), plain, **settings)
    use_kernels(frozen, "liger")
    policy = adapted(frozen, LoraConfig())
    checkpoint_activations(policy, "gates", "liger")
    found = reference_scores(policy, plain, **settings)
    length = np.array([len(example.response_ids) for example in plain])
    for one, other in zip(found, wanted, strict=True):
        assert np.all(np.abs(one - other) <= 0.05 * np.sqrt(length))
    np.testing.assert_array_equal(reference_scores(frozen, plain, **settings), found)


@pytest.mark.parametrize("use", ["adamw_8bit", "adamw_paged"])
def test_a_lean_optimizer_learns_and_goes_on_from_its_saved_state(model, samples, use):
    pytest.importorskip("bitsandbytes")
    scored = examples(samples, model, [float(index % 2) for index in range(len(samples))])
    settings = OptimizerConfig(use=use, lr=1e-3, max_tokens_per_micro_batch=MAX_TOKENS)
    learner = Learner(copy.deepcopy(model), ObjectiveConfig(beta=0.01), settings, compute_dtype="bfloat16")
    learner.update(scored)
    state = learner.state_tensors()
    other = Learner(copy.deepcopy(learner.model), ObjectiveConfig(beta=0.01), settings, compute_dtype="bfloat16")
    other.load_state_tensors(state)
    again = other.state_tensors()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    losses = [some.update(scored).loss for some in (learner, other, learner, other)]
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(losses[3], rel=0.01)
    if use == "adamw_8bit":
        moments = sum(value.nbytes for name, value in state.items() if ".state" in name)
        assert moments <= 2.1 * sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs on this machine")
def test_two_gpus_learn_what_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--node-rank", "0"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), two_gpus.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    for name in two_gpus.CASES:
        near = 1e-4 if name == "float32" else 2e-2
        learner = two_gpus.learner_of(name, ranks=False)
        for one, two in zip(two_gpus.learned(learner), first[name], strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=near)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=near)
        state, parts = learner.state_tensors(), whole_tensors(tmp_path / name / "optimizer", STATE)
        assert state.keys() == parts.keys()
        written = whole_tensors(tmp_path / name, MODEL)
        for key, value in load_file(tmp_path / f"{name}.safetensors").items():
            assert torch.equal(written[key], value)
            moved = (value - learner.model.get_parameter(key).detach().cpu()).abs().max()
            assert moved <= 3 * two_gpus.UPDATES * 1e-4  # steps in other directions
