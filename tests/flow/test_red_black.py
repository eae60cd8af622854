import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.flow.red_black import LinearSystem, solve


def random_system(height, width, *, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, height, width)
    x, y = rng.normal(size=(2, *shape))
    right, down = rng.uniform(0.1, 2, (2, *shape))
    right[:, :, -1] = down[:, -1] = 0
    b_u, b_v = rng.normal(size=(2, *shape))
    system = LinearSystem(right, down, x * x, x * y, y * y, b_u, b_v)
    return LinearSystem(*(jnp.asarray(field, jnp.float32) for field in system))


def dense(system, image):
    """The matrix [2 H W, 2 H W] and the right side, pixel by pixel from the definition."""
    fields = [np.asarray(field[image], float) for field in system]
    right, down, a_uu, a_uv, a_vv, b_u, b_v = fields
    height, width = right.shape
    matrix, b = np.zeros((2 * right.size,) * 2), np.zeros(2 * right.size)

    def number(i, j, component):
        return 2 * (i * width + j) + component

    for i, j in np.ndindex(height, width):
        u, v = number(i, j, 0), number(i, j, 1)
        matrix[u, u], matrix[v, v] = matrix[u, u] + a_uu[i, j], matrix[v, v] + a_vv[i, j]
        matrix[u, v] = matrix[v, u] = a_uv[i, j]
        b[u], b[v] = b_u[i, j], b_v[i, j]
        for weights, di, dj in ((right, 0, 1), (down, 1, 0)):
            if i + di < height and j + dj < width:
                for component in (0, 1):
                    here, there = number(i, j, component), number(i + di, j + dj, component)
                    matrix[here, here] += weights[i, j]
                    matrix[there, there] += weights[i, j]
                    matrix[here, there] = matrix[there, here] = -weights[i, j]
    return matrix, b


def zero(system):
    return jnp.zeros((*system.right.shape, 2))


@pytest.mark.parametrize("size", [(12, 12), (5, 7), (4, 9), (2, 2)])
def test_converges_to_the_dense_solution(size):
    system = random_system(*size)
    solution = np.asarray(
        jax.jit(solve, static_argnames="sweeps")(system, zero(system), sweeps=600)
    )
    for image in range(2):
        expected = np.linalg.solve(*dense(system, image)).reshape(*size, 2)
        np.testing.assert_allclose(solution[image], expected, atol=2e-4)


def test_a_sweep_is_that_of_loops_over_pixels():
    """Both components of a pixel at once, red before black, over-relaxed by 1.9."""
    system = random_system(4, 5, batch=1)
    matrix, b = dense(system, 0)
    expected = np.random.default_rng(3).normal(size=(4, 5, 2)).astype(np.float32)
    start = jnp.asarray(expected[None])
    flat = expected.astype(float).reshape(-1)
    for colour in (0, 1):
        for i, j in np.ndindex(4, 5):
            if (i + j) % 2 == colour:
                own = slice(2 * (i * 5 + j), 2 * (i * 5 + j) + 2)
                residual = b[own] - matrix[own] @ flat
                flat[own] += 1.9 * np.linalg.solve(matrix[own, own], residual)
    found = np.asarray(solve(system, start, sweeps=1))[0]
    np.testing.assert_allclose(found, flat.reshape(4, 5, 2), rtol=1e-4, atol=1e-5)


def test_every_sweep_lowers_the_quadratic_energy_and_in_the_end_the_residual():
    system = random_system(12, 12, batch=1)
    matrix, b = dense(system, 0)
    energies, residuals, flow = [], [], zero(system)
    sweep = jax.jit(lambda flow: solve(system, flow, sweeps=1))
    for _ in range(20):
        w = np.asarray(flow[0], float).reshape(-1)
        energies.append(w @ matrix @ w / 2 - b @ w)
        residuals.append(np.linalg.norm(b - matrix @ w))
        flow = sweep(flow)
    assert (np.diff(energies) < 0).all()
    assert residuals[-1] < residuals[0] / 3
