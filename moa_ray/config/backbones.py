"""The backbones by name: all of ``keras.applications``, and a small network for CPUs. Importing this loads no Keras."""

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


def has_dropout(backbone: str) -> bool:
    """Whether there are dropout layers below the top, as only EfficientNets have them (Keras' default rates)."""
    return backbone.startswith("EfficientNet")


def native_size(backbone: str) -> int:
    """The image size, in pixels, that a backbone was designed for. Raises KeyError for an unknown one."""
    return BACKBONES[backbone][0]
