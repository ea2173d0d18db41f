"""One Prefect task for each stage, each short: take references, call reval_core, record, return a reference.

Prefect and MLflow live here and nowhere else. What never passes between tasks: tensors, models, texts, token lists.
"""
