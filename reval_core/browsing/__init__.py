"""Trajectories in a browser: what was asked, said and judged, and what each token is worth to a policy."""

from reval_core.browsing.site import application

__all__ = ["application"]
