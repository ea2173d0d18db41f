"""Experiments: algorithms x settings x seeds, what they are made of, and the statistics of what came out."""
