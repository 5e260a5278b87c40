"""The backbones by name: all of ``keras.applications``, and a small network for CPUs. Importing this loads no Keras."""

from typing import Annotated

from pydantic import AfterValidator, Field
from typing_extensions import TypeAliasType

from moa_ray.config import messages

# Name: (native image size in pixels, the module of keras.applications that knows its input scaling).
BACKBONES: dict[str, tuple[int, str | None]] = {
    "SmallCNN": (64, None),
    "ConvNeXtBase": (224, "convnext"),
    "ConvNeXtLarge": (224, "convnext"),
    "ConvNeXtSmall": (224, "convnext"),
    "ConvNeXtTiny": (224, "convnext"),
    "ConvNeXtXLarge": (224, "convnext"),
    "DenseNet121": (224, "densenet"),
    "DenseNet169": (224, "densenet"),
    "DenseNet201": (224, "densenet"),
    "EfficientNetB0": (224, "efficientnet"),
    "EfficientNetB1": (240, "efficientnet"),
    "EfficientNetB2": (260, "efficientnet"),
    "EfficientNetB3": (300, "efficientnet"),
    "EfficientNetB4": (380, "efficientnet"),
    "EfficientNetB5": (456, "efficientnet"),
    "EfficientNetB6": (528, "efficientnet"),
    "EfficientNetB7": (600, "efficientnet"),
    "EfficientNetV2B0": (224, "efficientnet_v2"),
    "EfficientNetV2B1": (240, "efficientnet_v2"),
    "EfficientNetV2B2": (260, "efficientnet_v2"),
    "EfficientNetV2B3": (300, "efficientnet_v2"),
    "EfficientNetV2L": (480, "efficientnet_v2"),
    "EfficientNetV2M": (480, "efficientnet_v2"),
    "EfficientNetV2S": (384, "efficientnet_v2"),
    "InceptionResNetV2": (299, "inception_resnet_v2"),
    "InceptionV3": (299, "inception_v3"),
    "MobileNet": (224, "mobilenet"),
    "MobileNetV2": (224, "mobilenet_v2"),
    "MobileNetV3Large": (224, "mobilenet_v3"),
    "MobileNetV3Small": (224, "mobilenet_v3"),
    "NASNetLarge": (331, "nasnet"),
    "NASNetMobile": (224, "nasnet"),
    "ResNet101": (224, "resnet"),
    "ResNet101V2": (224, "resnet_v2"),
    "ResNet152": (224, "resnet"),
    "ResNet152V2": (224, "resnet_v2"),
    "ResNet50": (224, "resnet"),
    "ResNet50V2": (224, "resnet_v2"),
    "VGG16": (224, "vgg16"),
    "VGG19": (224, "vgg19"),
    "Xception": (299, "xception"),
}


def _require_known(name: str) -> str:
    """Raise ValueError with the nearest name for an unknown backbone."""
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}{messages.nearest(name, BACKBONES)}")
    return name


BackboneName = TypeAliasType(
    "BackboneName",
    Annotated[str, AfterValidator(_require_known), Field(json_schema_extra={"enum": list(BACKBONES)})],
)


def is_by_backbone(value: object) -> bool:
    """Tell whether a value of a sweep file is given by backbone, ``{ResNet50: ..., VGG16: ...}``.

    Parameters
    ----------
    value : object
        What stands in the file.

    Returns
    -------
    bool
        True for a mapping with at least one key, all keys being backbones.
    """
    return isinstance(value, dict) and bool(value) and all(name in BACKBONES for name in value)


def has_dropout(backbone: str) -> bool:
    """Tell whether there are dropout layers below the top, at Keras' default rates: only EfficientNets have them.

    Parameters
    ----------
    backbone : str
        Name of the backbone.

    Returns
    -------
    bool
        True where a backbone that is trained drops activations by itself.
    """
    return backbone.startswith("EfficientNet")


def native_size(backbone: str) -> int:
    """Return the image size that a backbone was designed for.

    Parameters
    ----------
    backbone : str
        Name of the backbone.

    Returns
    -------
    int
        Height = width, pixels.

    Raises
    ------
    KeyError
        If the backbone is unknown.
    """
    return BACKBONES[backbone][0]
