"""One Prefect task for each stage, each short: take references, call reval_core, record, return a reference.

Prefect and MLflow live in tasks/; flows/ takes the decorator `flow` from Prefect and nothing else, reval_core/ neither.
What never passes between tasks: tensors, models, texts, token lists.
"""
