"""Which rows stand beside each other on the page and in its picture, and what they are called."""

from __future__ import annotations

from benchmarks.claims.matrix import FULL, PLAIN

TABLE_1A = {f"table1a_s{steps}": f"S = {steps}" for steps in (1, 2, 3, 4)}
TABLE_1B = {
    FULL: "RGB",
    "table1b_flow": "flow",
    "late": "late",
    "table1b_early": "early",
    "hybrid": "hybrid",
}
FIGURE_5 = {
    PLAIN: "K = 6",
    "fig5_k30": "K = 30",
    "fig5_mean": "mean box",
    "fig5_extrapolate": "extrapolation",
    FULL: "anticipation",
}
FIGURE_5_BESIDE = {
    "fig5_k6_of_18": "K = 6, read in windows of 18",
    "fig5_anticipate_gamma": "anticipation, gamma = lambda",
}
FIGURE_5_STRIDES = {
    FULL: "anticipation, every 5 frames",
    "fig5_k30_stride25": "K = 30, every 25 frames",
    "fig5_k30": "K = 30, every 5 frames",
    "fig5_anticipate_stride1": "anticipation, every frame",
    "fig5_k30_stride1": "K = 30, every frame",
}
SECTION_42 = {
    FULL: "all",
    "without_scene_context": "no context",
    "without_hard_sampling": "no hard sampling",
    "without_rising_thresholds": "one threshold, .35",
}
SECTION_42_M34 = {
    "fig6b_m34": "K = 6, M = 34",
    "m34_without_hard_sampling": "K = 6, M = 34, no hard sampling",
}
PROPOSALS = {4: "fig6b_m4", 11: PLAIN, 34: "fig6b_m34", 109: "fig6b_m109"}  # M -> row
