"""Who owns the accelerators: JAX."""

import tensorflow as tf


def hide_accelerators():
    """Keeps TensorFlow off GPUs and TPUs; call it before TensorFlow's first operation.

    Otherwise it reserves nearly all of the GPU memory that JAX is going to need.
    """
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
