"""Who may import whom, and who reads the configuration, read from the syntax trees."""

import ast
import inspect
import pathlib
import sys

import pytest

from configs import common
from input_pipeline.augment import Augment
from step_jax.loss_options import LossOptions
from step_jax.models.factory import build_detector

ROOT = pathlib.Path(__file__).parents[1]
TENSORFLOW = ("tensorflow", "tensorflow_datasets")


def imports_of(path, *, nested=True):
    """Names of all modules that a file imports; `nested`, also inside functions."""
    names, tree = set(), ast.parse(path.read_text())
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(*folders):
    paths = []
    for folder in folders:
        path = ROOT / folder
        paths += [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
    assert paths
    return paths


def within(name, *packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


# A program, as train.py is one, though it lies in the package.
PROGRAM = ROOT / "step_jax/convert/__main__.py"

RULES = [
    (("step_jax", "benchmarks"), TENSORFLOW),
    (("step_jax",), ("input_pipeline", "configs", "benchmarks", "train", "evaluate", "detect")),
    (("step_jax", "input_pipeline", "configs"), ("programs",)),
    (("input_pipeline",), ("jax", "flax", "optax", "orbax", "configs")),
    (("step_jax/annotations", "step_jax/video"), ("jax", "flax", "step_jax.models")),
    (("step_jax/metrics", "step_jax/nms.py", "step_jax/detections.py"), ("jax", "flax")),
    (("step_jax/windows.py", "step_jax/modality.py"), ("jax", "flax")),
    (
        ("step_jax/linking.py", "step_jax/online_linking.py", "step_jax/trimming.py"),
        ("jax", "flax"),
    ),
    (("step_jax/tube_table.py", "step_jax/tubelet_table.py"), ("jax", "flax")),
    (("step_jax/fusion.py", "step_jax/ava_table.py"), ("jax", "flax")),
    (("step_jax/clip_detections.py", "step_jax/boxes.py", "step_jax/tubes.py"), ("jax", "flax")),
    (("step_jax", "input_pipeline", "detect.py"), ("ml_collections",)),
    (("detect.py",), ("input_pipeline", *TENSORFLOW)),
]


@pytest.mark.parametrize(("folders", "forbidden"), RULES)
def test_layers(folders, forbidden):
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(*folders)
        for name in imports_of(path)
        if within(name, *forbidden) and not (path == PROGRAM and within(name, "configs"))
    }
    assert not found


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("configs", ("configs", "ml_collections")),
        (
            "step_jax/annotations",
            # pyarrow: text of 17 M rows is read by a parser, not by a loop.
            (
                *("step_jax.annotations", "step_jax.errors", "step_jax.replacing"),
                *("step_jax.files", "pyarrow"),
            ),
        ),
        (
            "step_jax/video",
            ("step_jax.video", "step_jax.errors", "step_jax.replacing", "step_jax.utf8_paths"),
        ),
    ],
)
def test_these_import_nothing_else_of_ours_or_of_others(folder, allowed):
    common = ("__future__", "numpy", "cv2", *sys.stdlib_module_names)
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(folder)
        for name in imports_of(path)
        if name != "step_jax" and not within(name, *allowed, *common)
    }
    assert not found


def our_modules():
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files("step_jax", "input_pipeline", "configs", "benchmarks", "detect.py")
    }


def test_tensorflow_is_not_reached_in_a_roundabout_way():
    """Neither by the modules that these import, nor by the packages that those lie in."""
    modules = our_modules()
    starts = [name for name in modules if within(name, "step_jax", "benchmarks", "detect")]
    came_from = dict.fromkeys(starts)
    for name in starts:  # which grows
        if name not in modules:
            continue
        parents = {name.rpartition(".")[0]} - {""}
        for other in imports_of(modules[name], nested=False) | parents:
            if other not in came_from:
                came_from[other] = name
                starts.append(other)
    reached = [name for name in came_from if within(name, *TENSORFLOW)]
    assert not reached, [(name, came_from[name]) for name in reached]
    assert "jax" in came_from  # the search works


def test_no_import_cycles():
    modules = our_modules()
    graph = {
        name: {other for other in imports_of(path) if other in modules and other != name}
        for name, path in modules.items()
    }
    # A package's __init__ that gathers its modules is not a cycle.
    for name in graph:
        graph[name] = {other for other in graph[name] if not name.startswith(other + ".")}
    while graph:
        free = [name for name, needs in graph.items() if not needs & graph.keys()]
        assert free, f"import cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in free}


def test_pytorch_is_needed_for_its_files_alone():
    """And imported when one is read, not before."""
    users = [path for path in files("step_jax", "train.py") if "torch" in imports_of(path)]
    assert [path.name for path in users] == ["torch_files.py"]
    assert "torch" not in imports_of(users[0], nested=False)


# --- the configuration ----------------------------------------------------------------------------

PROGRAMS = (
    "train.py",
    "evaluate.py",
    "programs/evaluation_config.py",
    "programs/training_config.py",
)
# Sections that are passed on as a whole, and what takes them: it refuses keys that it has not.
PASSED_ON = {
    "model": build_detector,
    "loss": LossOptions,
    "augment": Augment,
}


def attributes_and_texts(*names):
    """Everything that follows a dot and every text, in some files."""
    nodes = [node for name in names for node in ast.walk(ast.parse((ROOT / name).read_text()))]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {node.value for node in nodes if isinstance(node, ast.Constant)}


def test_every_key_of_the_configuration_is_read():
    read = attributes_and_texts(*PROGRAMS)
    config = common.get_config()
    unread = {
        f"{section}.{key}"
        for section, values in config.items()
        if section not in PASSED_ON and hasattr(values, "keys")
        for key in values
        if key not in read
    }
    assert not unread
    assert set(config) <= read


@pytest.mark.parametrize("section", PASSED_ON)
def test_sections_fit_what_takes_them(section):
    parameters = set(inspect.signature(PASSED_ON[section]).parameters)
    assert set(common.get_config()[section]) <= parameters - {"num_classes"}
    source = "".join((ROOT / name).read_text() for name in PROGRAMS)
    assert f"**config.{section}.to_dict()" in source


@pytest.mark.parametrize("name", [*PROGRAMS, "configs/common.py", "configs/moving_actors.py"])
def test_no_key_is_read_with_a_default(name):
    """A locked ConfigDict answers .get("typo", 3) with 3."""
    called = [
        node.func.attr
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    assert "get" not in called
    assert "getattr" not in (ROOT / name).read_text()
