"""Who owns the accelerators: JAX."""

import os

from step_jax.video.stderr import held_stderr


def hide_accelerators():
    """Keeps TensorFlow off GPUs and TPUs; call it before TensorFlow's first operation.

    Otherwise it reserves nearly all of the GPU memory that JAX is going to need. Called before
    TensorFlow is imported, it also keeps its remarks off the terminal; those of the import itself
    come before it looks at its own variable.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # JAX sets 1 where nobody chose
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    with held_stderr() as held:
        import tensorflow as tf

        for kind in ("GPU", "TPU"):
            tf.config.set_visible_devices([], kind)
        held.drop = ""
