import jax
import numpy as np
import pytest

from step_jax.compilation_cache import keep_programs
from step_jax.errors import InputError
from step_jax.startup import Startup

KEYS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def settings(monkeypatch):
    """JAX's settings, put back afterwards."""
    from jax.experimental.compilation_cache import compilation_cache

    monkeypatch.delenv(KEYS[1].upper(), raising=False)
    before = {key: getattr(jax.config, key) for key in KEYS}
    compilation_cache.reset_cache()
    yield
    for key, value in before.items():
        jax.config.update(key, value)
    compilation_cache.reset_cache()


def test_small_programs_come_from_the_cache(settings, tmp_path):
    keep_programs(tmp_path / "new" / "cache")

    def programs_of_a_start():
        startup = Startup()
        jax.jit(lambda value: value * 3 + 19)(np.zeros(3)).block_until_ready()
        startup.end()
        return startup.programs, startup.from_cache

    first, nothing = programs_of_a_start()
    assert first >= 1
    assert nothing == 0
    jax.clear_caches()
    again, from_cache = programs_of_a_start()
    assert (again, from_cache) == (first, first)


def test_the_environment_has_the_last_word(settings, tmp_path, monkeypatch):
    monkeypatch.setenv(KEYS[1].upper(), "7")
    jax.config.update(KEYS[1], 7.0)
    keep_programs(tmp_path)
    assert getattr(jax.config, KEYS[1]) == 7


def test_no_folder_changes_nothing(settings):
    before = [getattr(jax.config, key) for key in KEYS]
    keep_programs(None)
    keep_programs("")
    assert [getattr(jax.config, key) for key in KEYS] == before


def test_a_folder_that_cannot_be_made(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--compilation_cache .*file/cache: cannot be made \("):
        keep_programs(tmp_path / "file" / "cache")


def test_a_folder_in_an_object_store(settings, bucket):
    keep_programs(f"{bucket}/programs")
    assert jax.config.jax_compilation_cache_dir == f"{bucket}/programs"
    with pytest.raises(InputError, match=r"--compilation_cache gs://other/programs: there is no"):
        keep_programs("gs://other/programs")
