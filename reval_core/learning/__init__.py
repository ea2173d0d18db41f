"""Learning: from verified trajectories to the next policy.

objective      the mathematics: residuals and losses as pure tensor functions
objectives     the named objectives, what each needs, and how to add your own
policy_gradient  GRPO and Dr. GRPO likewise
scoring        log-probabilities and root values of trajectories under a model
batch          trajectories to padded tensors, and their split into micro-batches
layout         where a micro-batch's sequences stand: padded rows, or one packed row
attention      attention inside each sequence of a packed row
head           the LM head without its logits (head_kernels: its passes over memory on CUDA)
precision      bfloat16 compute on float32 weights and sums
activations    what the backward pass computes again, and with which kernels
reference      scores under the reference, on the learner's own path
learner        gradient accumulation, AdamW, the optimizer's state
sharding       the learner over several ranks (shards: their files; example_file: what they learn from)
calibration    the self-test that a policy equal to its reference has residual 0
"""
