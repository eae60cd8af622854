"""The table of convolutions, on one small layer."""

import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import arithmetic, convolution
from benchmarks.convolution import Layer


def test_layers_are_counted_as_the_plain_convolution_is():
    layer = Layer("strided", 2, (4, 6, 7), 3, 5, (1, 2, 1), (1, 2, 1))
    x = jax.ShapeDtypeStruct((2, 4, 6, 7, 3), np.float32)
    kernel = jax.ShapeDtypeStruct((1, 2, 1, 3, 5), np.float32)

    def convolve(x, kernel):
        return convolution.conv3d(x, kernel, strides=layer.strides, padding=layer.padding)

    assert 1e9 * layer.gflop == pytest.approx(arithmetic.plain_flops(convolve, x, kernel))


def test_the_stem_pads_like_the_released_model():
    assert convolution.LAYERS[0].padding == ((2, 3),) * 3


def test_shares_are_of_the_arithmetic_at_the_matrix_rate():
    row = {"layer": "a", "calls": 1, "gflop": 3.0}
    row["ours"] = {"forward_ms": 10.0, "with_backward_ms": 60.0}
    assert convolution.line(row, ["ours"], 600e9).split()[-3:] == ["50%", "60.0", "25%"]
    assert convolution.totals([row, row | {"calls": 2}], "ours") == (30.0, 180.0)


def test_the_command_times_both_formulations(monkeypatch, tmp_path, capsys):
    output = tmp_path / "convolution.json"
    monkeypatch.setattr(
        convolution, "LAYERS", (Layer("a", 1, (2, 4, 4), 2, 3), Layer("b", 1, (1,) * 3, 1, 1))
    )
    monkeypatch.setattr(arithmetic, "_SHAPES", ((8, 8, 8),))
    monkeypatch.setattr(
        sys, "argv", ["convolution", "--repeats", "1", "--layers", "a", "--output", str(output)]
    )
    convolution.main()
    printed = capsys.readouterr().out
    (row,) = json.loads(output.read_text())["layers"]
    assert row["layer"] == "a"
    for name in ("ours", "plain"):
        assert row[name]["with_backward_ms"] > 0
        assert f"{name}, all calls" in printed
