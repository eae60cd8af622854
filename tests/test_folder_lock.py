import pytest

from step_jax.errors import InputError
from step_jax.folder_lock import locked_folder


def test_a_second_run_is_kept_out_until_the_first_has_ended(tmp_path):
    folder = tmp_path / "made" / "here"
    with locked_folder(folder):
        with (
            pytest.raises(InputError, match="here: another run is writing there"),
            locked_folder(folder),
        ):
            pytest.fail("two runs in one folder")
        assert list(folder.iterdir())
    assert not list(folder.iterdir())
    with locked_folder(folder):
        pass


def test_the_lock_goes_with_a_run_that_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked_folder(tmp_path):
        raise KeyboardInterrupt
    with locked_folder(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="file/out: cannot be written"),
        locked_folder(tmp_path / "file" / "out"),
    ):
        pass
