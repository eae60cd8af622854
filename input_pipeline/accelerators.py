"""Who owns the accelerators: JAX."""

import os


def hide_accelerators():
    """Keeps TensorFlow off GPUs and TPUs; call it before TensorFlow's first operation.

    Otherwise it reserves nearly all of the GPU memory that JAX is going to need. Called before
    TensorFlow is imported, it also keeps its start-up messages off the terminal.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # after the variable, which is read on import

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
