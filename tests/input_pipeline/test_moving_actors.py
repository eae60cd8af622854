"""The rendered benchmark: what each action is, that boxes are what was drawn, that it is frozen."""

import dataclasses
import json

import numpy as np
import pytest

from input_pipeline.moving_actors import VERSION, actors, dataset, motions, render, scenes, scripts
from step_jax.annotations import read_native
from step_jax.errors import InputError
from step_jax.video import read_frames

SEEDS = range(12)


def act(label, seed, height=0.4):
    return motions.act(np.random.default_rng(seed), label, height=height)


def smooth(path, width=11):
    """A path without its gait: the moving average over about a wobble's period."""
    kernel = np.full(width, 1 / width)
    return np.stack([np.convolve(axis, kernel, mode="valid") for axis in path.T], axis=1)


def script_of(index, *, split="train", seed=0, size=96):
    return scripts.write_script(seed=seed, split=split, index=index, size=size)


# --- motions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", motions.CLASSES)
def test_actions_last_50_to_90_frames_and_need_no_more_room_than_the_frame_has(label):
    for height in (0.3, 0.45, 0.6):
        for seed in SEEDS:
            motion = act(label, seed, height)
            assert motions.MIN_FRAMES <= len(motion) <= motions.MAX_FRAMES
            reach = np.ptp(motion.offset, axis=0) * height
            assert reach[0] <= 1
            assert reach[1] <= 0.75


def test_a_walk_keeps_its_direction():
    for seed in SEEDS:
        step = np.diff(smooth(act("walk", seed).offset), axis=0)
        assert (step[:, 0] > 0).all() or (step[:, 0] < 0).all()
        assert np.abs(act("walk", seed).offset[:, 1]).max() < 0.08


def test_pacing_turns_back_every_12_to_15_frames_on_average():
    for seed in SEEDS:
        x = smooth(act("pace", seed).offset, 5)[:, 0]
        turns = [
            i
            for i in range(8, len(x) - 8)
            if x[i] in (x[i - 8 : i + 9].max(), x[i - 8 : i + 9].min())
        ]
        assert 10 <= np.diff(turns).mean() <= 17


def test_circles_turn_either_way_once_in_26_to_34_frames():
    ways = set()
    for seed in SEEDS:
        path = smooth(act("circle", seed).offset, 7)
        path = path - (path.max(axis=0) + path.min(axis=0)) / 2
        angle = np.unwrap(np.arctan2(path[:, 1], path[:, 0]))
        period = 2 * np.pi * (len(angle) - 1) / (angle[-1] - angle[0])
        assert 22 <= abs(period) <= 40
        ways.add(np.sign(period))
    assert ways == {-1, 1}


def test_a_zigzag_walks_on_while_it_swings_up_and_down():
    for seed in SEEDS:
        path = act("zigzag", seed).offset
        progress = np.diff(smooth(path)[:, 0])
        assert (progress > 0).all() or (progress < 0).all()
        assert 0.2 <= np.ptp(path[:, 1]) <= 0.65


def test_a_hop_leaves_the_ground_and_comes_back_to_it():
    for seed in SEEDS:
        up = -act("hop_red", seed).offset[:, 1]
        assert up.min() == 0
        assert 0.2 <= up.max() <= 0.45
        flights = np.count_nonzero(np.diff((up > 0).astype(int)) == 1)
        assert 12 <= len(up) / flights <= 17


def test_spinners_turn_in_place():
    for seed in SEEDS:
        spin = act("spin_red", seed)
        assert np.abs(spin.offset).max() < 0.02
        assert 14 <= 2 * np.pi * len(spin) / np.ptp(spin.yaw) <= 23


@pytest.mark.parametrize("motion", ["hop", "spin"])
def test_classes_of_two_walls_move_alike(motion):
    for seed in SEEDS:
        red, blue = act(f"{motion}_red", seed), act(f"{motion}_blue", seed)
        for name in red.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(red, name), getattr(blue, name))


@pytest.mark.parametrize("label", motions.TRANSLATING)
def test_the_body_faces_where_it_goes(label):
    for seed in SEEDS:
        motion = act(label, seed)
        velocity = np.gradient(smooth(motion.offset, 7), axis=0)[:, 0]
        facing = np.cos(motion.yaw[3:-3])
        fast = np.abs(velocity) > 0.6 * np.abs(velocity).max()
        assert np.mean(np.sign(facing[fast]) == np.sign(velocity[fast])) > 0.95


def test_padding_holds_the_first_and_the_last_frame():
    motion = act("walk", 0)
    padded = motion.pad(3, 2)
    assert len(padded) == len(motion) + 5
    np.testing.assert_array_equal(padded.offset[:4], motion.offset[[0, 0, 0, 0]])
    np.testing.assert_array_equal(padded.legs[-3:], motion.legs[[-1, -1, -1]])


# --- figures --------------------------------------------------------------------------------------


def drawn(feet=(40.0, 80.0), height=50.0, *, yaw=np.pi / 2, clothes=None):
    motion = motions.stand(np.random.default_rng(1), 1, yaw=yaw)
    clothes = clothes or actors.dress(np.random.default_rng(0))
    return actors.draw(clothes, motion, 0, feet=np.array(feet), height=height)


def test_a_standing_figure_is_as_tall_as_asked_and_stands_on_its_feet():
    sprite = drawn()
    rows = np.flatnonzero(sprite.alpha.max(axis=1) >= render.DRAWN) + sprite.top
    assert rows[-1] + 1 == pytest.approx(80, abs=2)
    assert rows[-1] + 1 - rows[0] == pytest.approx(50, abs=2)


def test_a_figure_moved_by_a_pixel_is_the_same_and_by_half_a_pixel_is_not():
    sprite, moved, half = drawn(), drawn((41.0, 80.0)), drawn((40.5, 80.0))
    assert moved.left == sprite.left + 1
    np.testing.assert_array_equal(moved.alpha, sprite.alpha)
    assert (half.alpha != sprite.alpha).any()


def test_colours_never_exceed_their_coverage():
    sprite = drawn()
    assert (sprite.rgb.max(axis=-1) <= sprite.alpha).all()


def test_turning_narrows_the_body_and_shows_its_back():
    red, blue = (255, 0, 0), (0, 0, 255)
    dress = dataclasses.replace(
        actors.dress(np.random.default_rng(0)), front=red, back=blue, bands=(),
        skin=(9, 9, 9), hair=(9, 9, 9), sleeve=(9, 9, 9), trousers=(9, 9, 9), shoes=(9, 9, 9),
    )  # fmt: skip
    towards, away, aside = (drawn(yaw=yaw, clothes=dress) for yaw in (np.pi / 2, -np.pi / 2, 0))
    reds, blues = (
        [np.count_nonzero(s.rgb[..., c] > 128) for s in (towards, away, aside)] for c in (0, 2)
    )
    assert reds[0] > 0
    assert reds[1] == 0
    assert 0 < reds[2] < reds[0]
    assert blues[1] > 0
    assert blues[0] == 0
    assert 0 < blues[2] < blues[1]
    widths = [np.count_nonzero(s.alpha.max(axis=0)) for s in (towards, aside)]
    assert widths[1] < 0.8 * widths[0]


# --- scenes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", scenes.SCENES)
def test_every_scene_is_textured(scene):
    world = scenes.paint(np.random.default_rng(0), scene, "red", size=64)
    assert world.shape == (96, 96, 3)
    assert world.dtype == np.uint8
    patches = world[:96, :96].reshape(12, 8, 12, 8, 3).std(axis=(1, 3)).mean(axis=-1)
    assert np.median(patches) > 3


def test_the_camera_drifts_slowly_and_never_leaves_the_world():
    for seed in range(50):
        shift = scenes.pan(np.random.default_rng(seed), 120, size=96)
        assert np.abs(np.diff(shift, axis=0)).max() <= 0.75
        assert np.abs(shift).max() <= 96 * scenes.MARGIN


def test_the_view_is_a_window_of_the_world():
    world = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    view = scenes.look(world, np.array([3.0, -2.0]), size=64)
    np.testing.assert_array_equal(view, world[14:78, 19:83])


# --- scripts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [0, 3])
def test_every_block_of_videos_holds_every_class_equally_often(block):
    counts = np.zeros(len(motions.CLASSES), int)
    for place in range(scripts.BLOCK):
        labels = scripts.cast(seed=5, split="test", index=block * scripts.BLOCK + place)
        assert 1 <= len(labels) <= 2
        np.add.at(counts, labels, 1)
    assert (counts == 3).all()


def test_a_script_depends_on_its_key_alone():
    script, again = script_of(7), script_of(7)
    np.testing.assert_array_equal(script.world, again.world)
    for role, same in zip(script.roles, again.roles, strict=True):
        np.testing.assert_array_equal(role.feet, same.feet)
        assert role.clothes == same.clothes
    for other in (script_of(7, seed=1), script_of(7, split="test"), script_of(8)):
        assert not np.array_equal(script.world, other.world)


def test_actions_start_and_end_inside_the_video_and_mostly_inside_the_frame():
    for index in range(24):
        script = script_of(index)
        assert scripts.MIN_VIDEO_FRAMES <= script.num_frames <= scripts.MAX_VIDEO_FRAMES
        for role in script.roles:
            if role.label is None:
                continue
            start, stop = role.acting
            assert start > 0
            assert stop < script.num_frames
            x, y = role.feet[start:stop].T
            assert x.min() >= 0.1 * role.height
            assert x.max() <= 96 - 0.1 * role.height
            assert y.min() >= 0.9 * role.height
            assert y.max() <= 96 + 0.1 * role.height


def test_idle_actors_hardly_move_while_they_idle():
    script = script_of(next(i for i in range(20) if len(script_of(i).roles) == 3))
    world = [role.feet + script.shift for role in script.roles]
    for role, feet in zip(script.roles, world, strict=True):
        until = max(1, role.acting[0] - scripts.TURN_FRAMES)
        before = feet if role.label is None else feet[:until]
        assert np.ptp(before, axis=0).max() < 0.05 * role.height


def test_actions_of_a_wall_are_in_front_of_it_and_others_of_any():
    walls = {name: set() for name in motions.CLASSES}
    for index in range(64):
        script = script_of(index)
        for role in script.roles:
            if role.label is not None:
                walls[motions.CLASSES[role.label]].add(script.wall)
    for name, seen in walls.items():
        _, asked = motions.split_label(name)
        assert seen == ({asked} if asked else {"red", "blue"}), name


@pytest.mark.parametrize("wall", scenes.WALLS)
def test_the_camera_sees_the_wall(wall):
    """Wherever it drifts, and that it ends."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        world = scenes.paint(rng, "grass", wall, size=96)
        for shift in scenes.pan(rng, 120, size=96)[::40]:
            view = scenes.look(world, shift, size=96).astype(float)
            near = np.abs(view - scenes.WALLS[wall]).max(axis=-1) < 15
            assert near[:5].mean() > 0.9, (seed, shift)
            assert near[30:].mean() < 0.4, (seed, shift)


# --- rendering ------------------------------------------------------------------------------------


def alone(script, number, world):
    """The frames of a script with one role only, on an even world."""
    roles = (script.roles[number],)
    even = np.full_like(script.world, world)
    return [
        frame for frame, _ in render.render(dataclasses.replace(script, world=even, roles=roles))
    ]


def test_boxes_are_the_extents_of_what_was_drawn():
    """What differs between a figure on black and on white is not covered by it."""
    script = script_of(7)
    rendered = list(render.render(script))
    black, white = (np.array(alone(script, 0, value), int) for value in (0, 255))
    covered = 255 - (white - black).mean(axis=-1)
    for t in range(0, script.num_frames, 5):
        rows, columns = np.nonzero(covered[t] >= render.DRAWN - 0.5)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(rendered[t][1][0].box, box, atol=1)


def test_an_actor_behind_another_is_not_annotated_where_it_is_hidden():
    script = script_of(2)
    (role,) = [role for role in script.roles if role.label is not None]
    front = dataclasses.replace(role, label=0)
    script = dataclasses.replace(script, roles=(dataclasses.replace(role, label=1), front))
    sightings = [seen for _, seen in render.render(script)]
    assert all(behind.visible == 0 and before.box == behind.box for behind, before in sightings)
    (tube,) = render.tubes(script, sightings)
    assert tube.labels == (0,)


def test_an_actor_outside_the_frame_is_not_annotated():
    script = script_of(2)
    role = next(role for role in script.roles if role.label is not None)
    feet = role.feet.copy()
    gone = slice(role.acting[0] + 10, role.acting[0] + 20)
    feet[gone] += 1000
    script = dataclasses.replace(script, roles=(dataclasses.replace(role, feet=feet),))
    (tube,) = render.tubes(script, [seen for _, seen in render.render(script)])
    assert not set(tube.frames) & set(range(gone.start, gone.stop))
    assert {gone.start - 1, gone.stop} <= set(tube.frames.tolist())


# --- the folder -----------------------------------------------------------------------------------

SMALL = {"seed": 3, "size": 48, "workers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six training videos (the fifth is WebM) and one test video."""
    folder = tmp_path_factory.mktemp("actors")
    assert dataset.build(folder, counts={"train": 6, "test": 1}, **SMALL) == 7
    return folder


def test_the_folder_holds_videos_that_match_their_annotations(folder):
    annotations = read_native(folder / "annotations.json")
    assert annotations.classes == motions.CLASSES
    assert [len(annotations.split(split)) for split in ("train", "test")] == [6, 1]
    assert {annotations.video_path(video).suffix for video in annotations.videos} == {
        ".avi",
        ".webm",
    }
    for video in annotations.videos[-3:]:
        frames = [frame for _, frame in read_frames(annotations.video_path(video))]
        assert len(frames) == video.num_frames
        assert frames[0].shape == (48, 48, 3)
        index = int(video.id[-4:])
        exact, _ = next(render.render(script_of(index, split=video.split, seed=3, size=48)))
        assert np.abs(frames[0].astype(int) - exact).mean() < 12  # lossy, but this video


def test_boxes_lie_in_the_frame(folder):
    tubes = [
        tube for video in read_native(folder / "annotations.json").videos for tube in video.tubes
    ]
    assert len(tubes) >= 7
    for tube in tubes:
        assert tube.boxes.min() >= 0
        assert tube.boxes.max() <= 48
        assert (tube.boxes[:, 2:] - tube.boxes[:, :2]).min() >= 4


def test_a_second_run_changes_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert dataset.build(folder, counts={"train": 6, "test": 1}, **SMALL) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_interrupted_run_is_continued_and_workers_do_not_matter(folder, tmp_path):
    whole = (folder / "annotations.json").read_text()
    dataset.build(tmp_path, counts={"train": 3, "test": 0}, **SMALL)
    (tmp_path / "videos" / "train_0001.avi").unlink()
    assert dataset.build(tmp_path, counts={"train": 6, "test": 1}, **{**SMALL, "workers": 2}) == 5
    assert (tmp_path / "annotations.json").read_text() == whole
    for name in ("train_0001.avi", "test_0000.avi"):
        assert (tmp_path / "videos" / name).read_bytes() == (folder / "videos" / name).read_bytes()


@pytest.mark.parametrize(("key", "value"), [("seed", 4), ("size", 56)])
def test_another_benchmark_in_the_folder_is_an_error(folder, key, value):
    with pytest.raises(InputError, match=r"manifest\.json.*choose another --output"):
        dataset.build(folder, counts={"train": 1}, **{**SMALL, key: value})


def test_another_version_in_the_folder_is_an_error(folder, tmp_path):
    manifest = json.loads((folder / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "version": 0}))
    with pytest.raises(InputError, match="'version': 0"):
        dataset.open_folder(tmp_path, seed=3, size=48)


def test_a_folder_with_something_else_in_it_is_an_error(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError, match="not empty"):
        dataset.build(tmp_path, counts={"train": 1}, **SMALL)


def test_version_2_is_frozen():
    """If this fails, the benchmark has changed: raise VERSION and all of its results."""
    script = script_of(4, split="test")
    rendered = list(render.render(script))
    first, second = render.tubes(script, [seen for _, seen in rendered])
    assert (VERSION, script.scene, script.wall, len(rendered)) == (2, "court", "blue", 108)
    assert (first.labels, first.frames[0], len(first.frames)) == ((1,), 31, 64)
    assert (second.labels, second.frames[0], len(second.frames)) == ((1,), 34, 50)
    np.testing.assert_allclose(first.boxes[20], [58, 18, 88, 79], atol=1)
    mean = rendered[50][0].mean(axis=(0, 1))
    np.testing.assert_allclose(mean, [142.26, 114.33, 123.63], atol=0.1)
