import pytest

from configs import ucf101_24
from step_jax.errors import InputError
from step_jax.inference import abstract_predictor, describe
from step_jax.modality import RGB, Modality
from step_jax.models.factory import build_detector, check_modality


@pytest.mark.parametrize(
    ("modality", "channels", "lookahead"),
    [
        (Modality(), 3, 0),
        (Modality("rgb", 9), 3, 0),
        (Modality("flow"), 15, 4),
        (Modality("flow", 1), 3, 0),
        (Modality("early"), 18, 4),
        (Modality("early", 2), 9, 1),
    ],
)
def test_channels(modality, channels, lookahead):
    assert (modality.channels, modality.lookahead) == (channels, lookahead)


def test_wrong_values_are_named():
    with pytest.raises(InputError, match=r"data\.modality is 'late'; expected .* rgb, flow, early"):
        Modality("late")
    with pytest.raises(InputError, match=r"data\.flow_frames is 0; expected 1 or more"):
        Modality("flow", 0)


def detector(backbone, **options):
    model = ucf101_24.get_config("rgb").model.to_dict()
    model |= {"backbone": backbone, "backbone_options": options, "clip_frames": 4}
    return build_detector(num_classes=2, **model)


@pytest.mark.parametrize("name", ["rgb", "flow", "early"])
def test_presets_fit_their_backbone(name):
    config = ucf101_24.get_config(name)
    modality = Modality(config.data.modality, config.data.flow_frames)
    check_modality(build_detector(num_classes=24, **config.model.to_dict()), modality)
    check_modality(detector("i3d", channels=modality.channels), modality)


@pytest.mark.parametrize(
    ("backbone", "options", "modality", "message"),
    [
        (
            "tiny",
            {},
            Modality("early"),
            "'early' with data.flow_frames 5 gives .* 18 channels.* 3:",
        ),
        ("vgg16", {}, Modality("flow"), "gives clips of 15 channels, the backbone reads 3: set"),
        ("vgg16", {"channels": 18}, RGB, "'rgb' gives clips of 3 channels, the backbone reads 18"),
        ("vgg16", {"channels": 15}, Modality("flow"), r"options\.rgb is True: set it to False"),
        ("vgg16", {"channels": 3}, Modality("flow", 1), r"options\.rgb is True: set it to False"),
    ],
)
def test_what_does_not_fit_is_refused(backbone, options, modality, message):
    with pytest.raises(InputError, match=message):
        check_modality(detector(backbone, **options), modality)


# --- what a checkpoint says -----------------------------------------------------------------------


def described(name, **more):
    config = ucf101_24.get_config(name)
    return describe(
        model=config.model.to_dict() | {"extension_plan": (False,)},
        classes=("a", "b"),
        image_size=32,
        fps=25.0,
        proposals=11,
        **more,
    )


def test_a_predictor_knows_what_it_reads():
    told = described("early", modality=Modality("early", 5), flow="brox", flow_side=240)
    predictor = abstract_predictor(told)
    assert (predictor.modality, predictor.channels) == (Modality("early"), 18)
    assert (predictor.flow, predictor.flow_side) == ("brox", 240)


def test_a_description_without_a_modality_is_of_rgb():
    told = described("rgb", modality=RGB)
    assert not {"modality", "flow_frames", "flow"} & told.keys()
    predictor = abstract_predictor(told)
    assert (predictor.modality, predictor.channels, predictor.flow) == (RGB, 3, "")
