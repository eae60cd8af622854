"""The optical flows that OpenCV computes: DIS in every build, TV-L1 where contrib is installed."""

from __future__ import annotations

import cv2
import numpy as np

from step_jax.errors import InputError

DIS_PRESETS = ("ultrafast", "fast", "medium")


class OpenCVFlow:
    """`flow(first, second)`: grey uint8 [B, H, W] twice -> float32 [B, H, W, 2] in pixels."""

    def __init__(self, algorithm: cv2.DenseOpticalFlow):
        self._algorithm = algorithm

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        # No flow is handed in, because OpenCV would take it as the start.
        pairs = zip(first, second, strict=True)
        try:
            return np.stack([self._algorithm.calc(*pair, None) for pair in pairs])
        except cv2.error as error:
            raise InputError(
                f"OpenCV cannot compute the flow of frames of {first.shape[2]}x{first.shape[1]} "
                f"pixels: {error.err}"
            ) from error

    def parameters(self) -> dict[str, float]:
        """What the algorithm's getters say, by their names."""
        names = [name for name in dir(self._algorithm) if name.startswith("get")]
        names.remove("getDefaultName")
        values = {name[3:]: getattr(self._algorithm, name)() for name in names}
        return {name: round(v, 6) if isinstance(v, float) else v for name, v in values.items()}


def dis(preset: str = "medium") -> OpenCVFlow:
    """Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016."""
    if preset not in DIS_PRESETS:
        raise InputError(
            f"DIS preset {preset!r}: unknown; expected one of {', '.join(DIS_PRESETS)}"
        )
    number = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}")
    return OpenCVFlow(cv2.DISOpticalFlow_create(number))


def tvl1() -> OpenCVFlow:
    """Zach et al., A Duality Based Approach for Realtime TV-L1 Optical Flow, DAGM 2007."""
    module = getattr(cv2, "optflow", None)
    for name in ("DualTVL1OpticalFlow_create", "createOptFlow_DualTVL1"):
        if create := getattr(module, name, None):
            return OpenCVFlow(create())
    raise InputError(
        f"--method tvl1: the installed OpenCV ({cv2.__version__}) is without TV-L1; run `pip "
        "uninstall opencv-python-headless` and then `pip install opencv-contrib-python-headless` "
        "(only one OpenCV package can live in an environment), or take dis or brox"
    )
