"""A saved policy as a model folder in Hugging Face layout, for other programs: an adapter is merged into its base."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from reval_core.errors import PolicyError
from reval_core.learning.adapters import peft
from reval_core.policies.folder import (
    ADAPTER_CONFIG,
    MANIFEST,
    OPTIMIZER,
    OPTIMIZER_SHARDS,
    base_policy_id,
    let_read,
    load_adapter,
    load_model,
    read_manifest,
    tokenizer_files,
)


def export_policy(folder: Path, base: Path, dest: Path, card: str | None = None) -> None:
    """Write the policy's weights, float32, with its tokenizer; without optimizer state or manifest.

    Args:
        folder: a policy that ReVal saved.
        base: folder of the base model, read only where the policy is an adapter.
        dest: must not be there yet; written aside and renamed.
        card: text of its README.md; None: there is none.

    Raises:
        PolicyError: it is there, the folder is no saved policy, or the adapter stands over another base.
    """
    if dest.exists():
        raise PolicyError(f"{dest} is there already; give another name.")
    manifest = read_manifest(folder)
    if manifest is None:
        raise PolicyError(f"{folder} is no policy that ReVal saved: it has no {MANIFEST}.")
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=dest.parent) as beside:
        aside = Path(beside) / dest.name
        if (folder / ADAPTER_CONFIG).exists():
            _write_merged(folder, manifest.policy_id, base, aside)
        else:
            shutil.copytree(folder, aside, ignore=shutil.ignore_patterns(MANIFEST, OPTIMIZER, OPTIMIZER_SHARDS))
        let_read(aside, "config.json")
        if card is not None:
            (aside / "README.md").write_text(card, encoding="utf-8")
        aside.rename(dest)


def _write_merged(folder: Path, policy_id: str, base: Path, aside: Path) -> None:
    model = load_model(base)
    load_adapter(folder, policy_id, model.requires_grad_(False), base_policy_id(base))  # holds it against its manifest
    # in float32, not in the bfloat16 in which the base may have computed
    merged = peft().PeftModel.from_pretrained(model, folder).merge_and_unload(safe_merge=True)
    merged.save_pretrained(aside)
    for name in tokenizer_files(folder):
        shutil.copyfile(folder / name, aside / name)
