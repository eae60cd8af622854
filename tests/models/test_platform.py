"""The platform that a computation is traced for."""

import jax
import jax.numpy as jnp
import pytest

from step_jax.models import platform
from step_jax.models.conv import conv3d

PADDING = ((1, 1), (1, 1), (1, 1))


def primitives():
    shapes = (jnp.ones((1, 3, 4, 4, 2)), jnp.ones((3, 3, 3, 2, 5)))
    jaxpr = jax.make_jaxpr(lambda x, kernel: conv3d(x, kernel, padding=PADDING))(*shapes)
    return [str(equation.primitive) for equation in jaxpr.eqns]


def test_an_accelerator_gets_the_plain_convolution():
    with platform.assumed("gpu"):
        assert not platform.is_cpu()
        assert primitives() == ["conv_general_dilated"]
    assert platform.is_cpu()
    assert primitives() != ["conv_general_dilated"]


def test_what_was_assumed_ends_with_an_error_too():
    with pytest.raises(ZeroDivisionError), platform.assumed("tpu"):
        1 / 0  # noqa: B018
    assert platform.is_cpu()
