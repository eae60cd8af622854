"""The first operation that makes what is not finite, in functions where it is known."""

import re

import jax
import jax.numpy as jnp
import pytest

from step_jax import losses
from step_jax.nonfinite import Origin, find_origin

X = jnp.array([0.0, 1.0, 2.0])


def test_all_is_finite():
    """Though infinities come up on the way, which a mask takes out again."""
    assert find_origin(lambda x: jnp.where(x > 0, jnp.log(x), 0.0).sum(), X) is None


def test_the_operation_that_overflows_not_the_one_that_makes_a_nan_of_it():
    def function(x):
        large = jnp.exp(100 * x)
        return (large - large).sum()

    found = find_origin(function, X)
    assert (found.value, found.what) == ("inf", "exp")


def test_a_nan_counts_before_an_infinity():
    found = find_origin(lambda x, y: x * y["b"], jnp.inf, {"b": jnp.array([1.0, jnp.nan])})
    assert found == Origin("nan", "1/b")
    assert str(found) == "nan in 1/b"


def test_the_first_output_that_is_not_finite():
    found = find_origin(lambda x: {"a": x, "b": 1 / x, "c": jnp.log(x)}, X)
    assert found.what == "div"


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda function: function])
def test_a_gradient_of_a_finite_value(wrap):
    """0 times the infinite slope of the root at 0: the mask saves the value alone."""
    function = wrap(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0))
    assert find_origin(lambda x: function(x).sum(), X) is None
    found = find_origin(jax.grad(lambda x: function(x).sum()), X)
    assert (found.value, found.what) == ("inf", "div")


def test_functions_with_a_gradient_of_their_own():
    found = find_origin(lambda x: jax.nn.relu(jnp.log(x - 1)).sum(), X)
    assert (found.value, found.what) == ("nan", "log")


def test_where_in_this_package():
    def loss(deltas):
        with jax.named_scope("heads_0"):
            return losses.box_loss(deltas, -deltas, jnp.ones(1))[0]

    large = jnp.full((1, 4), jnp.finfo(jnp.float32).max)
    line = r"inf from sub of heads_0 at step_jax/losses.py:\d+ \(box_loss\)"
    assert re.fullmatch(line, str(find_origin(loss, large)))
    assert re.fullmatch(line, str(find_origin(jax.value_and_grad(loss), large)))
