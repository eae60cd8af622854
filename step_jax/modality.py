"""What a detector reads of a video: its frames, their optical flow, or both (Section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from step_jax.errors import InputError

MODALITIES = ("rgb", "flow", "early")
IMAGE_CHANNELS = 3  # of a frame, and of a flow image: x, y, magnitude


@dataclass(frozen=True)
class Modality:
    """The channels of a clip, in this order: RGB of the frame, then the flow images that it reads.

    name: "rgb" the frame alone, "flow" flow images alone, "early" both (early fusion).
    flow_frames: F; frame f reads the flow images f, f + 1, ..., f + F - 1, where those beyond the
        video's end are its last one. Without flow it means nothing.
    """

    name: str = "rgb"
    flow_frames: int = 5

    def __post_init__(self):
        if self.name not in MODALITIES:
            raise InputError(
                f"data.modality is {self.name!r}; expected one of {', '.join(MODALITIES)}"
            )
        if self.flow_frames < 1:
            raise InputError(f"data.flow_frames is {self.flow_frames}; expected 1 or more")

    @property
    def has_rgb(self) -> bool:
        return self.name != "flow"

    @property
    def has_flow(self) -> bool:
        return self.name != "rgb"

    @property
    def lookahead(self) -> int:
        """How many frames after its own the last flow image of a frame is."""
        return self.flow_frames - 1 if self.has_flow else 0

    @property
    def channels(self) -> int:
        """3, 3 F or 3 + 3 F."""
        return IMAGE_CHANNELS * (self.has_rgb + self.flow_frames * self.has_flow)

    def check_channels(self, channels: int, *, rgb: bool) -> None:
        """Raises InputError for a backbone of other channels, or without the same first three.

        rgb: whether its first three channels are RGB.
        """
        if channels != self.channels:
            flow = f" with data.flow_frames {self.flow_frames}" if self.has_flow else ""
            raise InputError(
                f"data.modality {self.name!r}{flow} gives clips of {self.channels} channels, the "
                f"backbone reads {channels}: set model.backbone_options.channels to "
                f"{self.channels}, with a backbone that has it, or choose another modality"
            )
        if rgb != self.has_rgb:
            raise InputError(
                f"data.modality is {self.name!r}, model.backbone_options.rgb is {rgb}: "
                f"set it to {self.has_rgb}"
            )


RGB = Modality()
