"""Colours of classes: told apart by most readers, colour-blind ones included, and on any video."""

from __future__ import annotations

import numpy as np

WHITE = np.array([255, 255, 255], np.uint8)
BLACK = np.array([0, 0, 0], np.uint8)

# M. Okabe and K. Ito, "Color Universal Design", 2008, without black; the strongest first.
_OKABE_ITO = np.array(
    [
        [230, 159, 0],  # orange
        [86, 180, 233],  # sky blue
        [213, 94, 0],  # vermillion
        [0, 158, 115],  # bluish green
        [240, 228, 66],  # yellow
        [204, 121, 167],  # reddish purple
        [0, 114, 178],  # blue
    ],
    np.uint8,
)
_TOWARDS = ((WHITE, 0.0), (WHITE, 0.5), (BLACK, 0.45))  # as they are, then tints, then shades


def class_colors(num_classes: int) -> np.ndarray:
    """RGB uint8 [num_classes, 3]: 7 hues, then their tints and shades; from 21 on they repeat.

    More cannot be told apart at a glance, so whoever draws has to write the name too.
    """
    palette = np.concatenate([_mix(_OKABE_ITO, goal, share) for goal, share in _TOWARDS])
    return palette[np.arange(num_classes) % len(palette)]


def text_color(background: np.ndarray) -> np.ndarray:
    """Black or white, whichever has the higher contrast (WCAG 2) on an RGB uint8 [3] background."""
    luminance = _luminance(background)
    white_contrast = 1.05 / (luminance + 0.05)
    black_contrast = (luminance + 0.05) / 0.05
    return WHITE if white_contrast > black_contrast else BLACK


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """WCAG 2 contrast of two RGB uint8 colours, 1 to 21."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def _mix(colors: np.ndarray, goal: np.ndarray, share: float) -> np.ndarray:
    return np.round(colors * (1 - share) + goal * share).astype(np.uint8)


def _luminance(color: np.ndarray) -> float:
    """Relative luminance in [0, 1] of an sRGB colour (IEC 61966-2-1)."""
    value = np.asarray(color) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
