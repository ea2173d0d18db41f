"""What is recomputed in the backward pass: the same gradient to the bit, from less memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from reval_core.errors import ConfigError
from reval_core.learning.activations import Checkpointing, checkpoint_activations, use_kernels
from reval_core.learning.batch import TrainingExample
from reval_core.learning.reference import score_examples, scoring_mode, set_learning_mode

MakeModel = Callable[..., nn.Module]
Examples = list[TrainingExample]


def _run(model: nn.Module, examples: Examples, dtype: str) -> tuple[Tensor, Tensor, int]:
    """Log-probs, gradient, and bytes that the forward pass kept."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    set_learning_mode(model)
    with scoring_mode(model, dtype, packed=True):
        weights |= {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _, scores = score_examples(model, examples, gradient=True, packed=True)
        size = sum(kept.values())
        scores.logprob.square().sum().backward()
    return scores.logprob.detach(), torch.cat([p.grad.flatten() for p in model.parameters()]), size


@pytest.mark.filterwarnings("ignore:.*activation_checkpointing:FutureWarning")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_step_keeps_less_and_changes_no_bit(make_model: MakeModel, examples: Examples, dtype: str) -> None:
    expected, gradient, size = _run(make_model(), examples, dtype)
    steps: tuple[Checkpointing, ...] = ("gates", "mlp", True)
    for what in steps:
        model = make_model()
        checkpoint_activations(model, what)
        checkpoint_activations(model, what)  # a learner made anew on the same model
        found, found_gradient, found_size = _run(model, examples, dtype)
        assert torch.equal(found, expected)
        assert torch.equal(found_gradient, gradient)
        assert found_size < 0.95 * size
        size = found_size


def test_what_a_model_does_not_have_cannot_be_recomputed(make_model: MakeModel) -> None:
    sizes = {"vocab_size": 19, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes))
    with pytest.raises(ConfigError, match="'gates', and layers of GPT2LMHeadModel have no such MLPs"):
        checkpoint_activations(model, "gates")
    checkpoint_activations(model, "mlp")
    model = make_model()
    del model.model.layers
    with pytest.raises(ConfigError, match="Set it to true or false"):
        checkpoint_activations(model, "mlp")


def test_missing_kernels_say_what_to_install(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(make_model(), "torch")
    monkeypatch.setitem(__import__("sys").modules, "liger_kernel", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[gpu\]'"):
        use_kernels(make_model(), "liger")
