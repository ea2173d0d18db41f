"""Policies: folders in Hugging Face layout, the built-in models, and finding a policy again by its id."""
