"""ReVal: off-policy, value-based reinforcement learning for language models, as a library.

The rooms and the directions between them are described in ``docs/architecture.md``. This package imports
neither Prefect nor MLflow and can be used from a notebook.
"""

__version__ = "0.1.0"
