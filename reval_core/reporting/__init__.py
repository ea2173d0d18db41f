"""What people look at: the figures of a run and its one-page HTML report."""
