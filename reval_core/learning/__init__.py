"""Learning: from verified trajectories to the next policy.

objective      the mathematics: residuals and losses as pure tensor functions
objectives     the named objectives, what each needs, and how to add your own
policy_gradient  GRPO and Dr. GRPO likewise
scoring        log-probabilities and root values of trajectories under a model
batch          trajectories to padded tensors, and their split into micro-batches
reference      scores under the reference, on the learner's own path
learner        gradient accumulation, AdamW, the optimizer's state
calibration    the self-test that a policy equal to its reference has residual 0
"""
