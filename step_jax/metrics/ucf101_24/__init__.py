"""The paper's UCF101-24 table from files on disk, without JAX or a model: frame- and video-mAP.

`python -m step_jax.metrics.ucf101_24` evaluates a table, `... .link` makes tubes of one.
docs/evaluation.md tells the protocol.
"""
