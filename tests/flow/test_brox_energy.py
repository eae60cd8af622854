import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.flow import brox_energy
from step_jax.flow.brox_options import BroxOptions
from step_jax.flow.red_black import solve

OPTIONS = BroxOptions()


def frames(size=(1, 20, 26), seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[1], : size[2]]
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-1, 1, (8, 3))]
    image = 0.5 + 0.05 * np.sum(waves, axis=0)
    return (
        jnp.asarray(image[None], jnp.float32),
        jnp.asarray(np.roll(image, 1, 1)[None], jnp.float32),
    )


def test_derivative_of_a_cubic_is_exact_inside():
    x = np.arange(9, dtype=np.float32)
    image = jnp.asarray(np.tile(0.1 * x**3 - x, (1, 4, 1)))
    found = brox_energy.derivative(image, axis=2)
    np.testing.assert_allclose(
        found[0, :, 2:-2], np.tile(0.3 * x**2 - 1, (4, 1))[:, 2:-2], rtol=1e-5
    )
    np.testing.assert_allclose(brox_energy.derivative(image, axis=1), 0, atol=1e-6)


def test_warp_is_bilinear_and_knows_what_is_outside():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 5, 6, 3)).astype(np.float32)
    flow = rng.uniform(-2, 2, (2, 5, 6, 2)).astype(np.float32)
    found, valid = map(np.asarray, brox_energy.warp(jnp.asarray(image), jnp.asarray(flow)))
    for b, i, j in np.ndindex(2, 5, 6):
        x, y = j + flow[b, i, j, 0], i + flow[b, i, j, 1]
        assert valid[b, i, j] == (0 <= x <= 5 and 0 <= y <= 4)
        x, y = min(max(x, 0), 5), min(max(y, 0), 4)
        left, above = min(int(x), 4), min(int(y), 3)
        weights = np.outer([above + 1 - y, y - above], [left + 1 - x, x - left])
        cell = image[b, above : above + 2, left : left + 2]
        np.testing.assert_allclose(found[b, i, j], np.tensordot(weights, cell), atol=1e-5)


def loop_energy(c, increment, flow, options):
    """Term by term as in the paper."""
    c = type(c)(*(np.asarray(field[0], float) for field in c))
    height, width = c.z.shape
    total = 0.0
    for i, j in np.ndindex(height, width):
        u, v = map(float, increment[0, i, j])
        deviations = [
            c.z[i, j] + c.x[i, j] * u + c.y[i, j] * v,
            c.xz[i, j] + c.xx[i, j] * u + c.xy[i, j] * v,
            c.yz[i, j] + c.xy[i, j] * u + c.yy[i, j] * v,
        ]
        weighted = deviations[0] ** 2 + options.gamma * (deviations[1] ** 2 + deviations[2] ** 2)
        total += c.valid[i, j] * np.sqrt(weighted + 1e-6)
        variation = 0.0
        for di, dj in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            if 0 <= i + di < height and 0 <= j + dj < width:
                difference = np.asarray(flow[0, i + di, j + dj] - flow[0, i, j], float)
                variation += (difference**2).sum() / 2
        total += options.alpha * np.sqrt(variation + 1e-6)
    return total


def test_energy_is_that_of_loops():
    first, second = frames()
    flow = jnp.asarray(np.random.default_rng(1).normal(size=(1, 20, 26, 2)), jnp.float32)
    constancy = brox_energy.linearise(first, second, flow)
    increment = 0.3 * flow[:, ::-1]
    found = brox_energy.energy(constancy, increment, flow + increment, OPTIONS)
    expected = loop_energy(constancy, increment, flow + increment, OPTIONS)
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)


def test_the_linear_system_is_the_derivative_of_the_energy():
    """At the flow where its weights were taken: residual = - gradient."""
    first, second = frames()
    rng = np.random.default_rng(1)
    start = jnp.asarray(rng.normal(size=(1, 20, 26, 2)), jnp.float32)
    flow = start + jnp.asarray(0.1 * rng.normal(size=(1, 20, 26, 2)), jnp.float32)
    constancy = brox_energy.linearise(first, second, start)

    def total(flow):
        return brox_energy.energy(constancy, flow - start, flow, OPTIONS).sum()

    system = brox_energy.linear_system(constancy, start, flow, OPTIONS)
    np.testing.assert_allclose(residual(system, flow), -jax.grad(total)(flow), atol=2e-3)


def residual(system, flow):
    u, v = flow[..., 0], flow[..., 1]
    data = (
        system.b_u - system.a_uu * u - system.a_uv * v,
        system.b_v - system.a_uv * u - system.a_vv * v,
    )
    result = np.array(jnp.stack(data, axis=-1))
    right = np.asarray(system.right)[:, :, :-1, None] * np.diff(flow, axis=2)
    down = np.asarray(system.down)[:, :-1, :, None] * np.diff(flow, axis=1)
    result[:, :, :-1] += right
    result[:, :, 1:] -= right
    result[:, :-1] += down
    result[:, 1:] -= down
    return result


def test_every_renewal_of_the_weights_lowers_the_energy():
    """Each system bounds the robust energy from above and touches it where it was made."""
    first, second = frames()
    start = jnp.zeros((1, 20, 26, 2))
    constancy = brox_energy.linearise(first, second, start)

    @jax.jit
    def renew(flow):
        system = brox_energy.linear_system(constancy, start, flow, OPTIONS)
        energy = brox_energy.energy(constancy, flow - start, flow, OPTIONS)[0]
        return solve(system, flow, sweeps=10), energy

    energies, flow = [], start
    for _ in range(20):
        flow, energy = renew(flow)
        energies.append(float(energy))
    assert (np.diff(energies) < 1e-5 * energies[0]).all()
    assert energies[-1] < 0.6 * energies[0]
