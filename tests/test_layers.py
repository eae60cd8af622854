"""Who may import whom, read from the syntax trees."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TENSORFLOW = ("tensorflow", "tensorflow_datasets")


def imports_of(path):
    """Names of all modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


RULES = [
    (("step_jax", "benchmarks"), TENSORFLOW),
    (("step_jax",), ("input_pipeline", "configs", "benchmarks", "train", "evaluate", "detect")),
    (("input_pipeline",), ("jax", "flax", "optax", "orbax", "configs")),
    (("step_jax/annotations", "step_jax/video"), ("jax", "flax", "step_jax.models")),
    (("step_jax/metrics", "step_jax/nms.py", "step_jax/detections.py"), ("jax", "flax")),
    (("step_jax/clip_detections.py", "step_jax/boxes.py", "step_jax/tubes.py"), ("jax", "flax")),
    (("configs",), ("jax", "flax", "step_jax", "input_pipeline", *TENSORFLOW)),
    (("detect.py",), ("input_pipeline", *TENSORFLOW)),
]


@pytest.mark.parametrize(("folders", "forbidden"), RULES)
def test_layers(folders, forbidden):
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(*folders)
        for name in imports_of(path)
        if within(name, *forbidden)
    }
    assert not found


def test_no_import_cycles():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files("step_jax", "input_pipeline", "configs", "benchmarks")
    }
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
