"""The hyperparameters of one training."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from moa_ray.backbones import has_dropout


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training tile; every part can be switched off.

    orientations : of how many rotations and mirrors one is drawn, evenly: 8, or 1 for the tile as it is (true and false
        are read as these two)
    channel_jitter : factors of which each channel gets one, drawn evenly; an empty list switches it off
    blur : probability of a 3 x 3 mean filter
    noise_variance : variance of the Gaussian noise, in squared grey levels of the 0..255 scale
    noise : probability of Gaussian noise
    Source: Kensert et al. 2019, supplement.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    orientations: bool | Literal[1, 8] = True
    channel_jitter: tuple[float, ...] = (1.0, 1.0, 0.75, 1.25)
    blur: float = 0.5
    noise: float = 0.5
    noise_variance: float = 50.0

    def __post_init__(self) -> None:
        _to_floats(self)
        _require(self.orientations in (False, True, 8), "orientations must be 8 or 1, true or false", self.orientations)
        if not isinstance(self.orientations, bool):
            object.__setattr__(self, "orientations", self.orientations == 8)
        object.__setattr__(self, "channel_jitter", tuple(float(factor) for factor in self.channel_jitter))
        for name in ("blur", "noise"):
            _require(0 <= getattr(self, name) <= 1, f"{name} is a probability in [0, 1]", getattr(self, name))
        _require(self.noise_variance >= 0, "noise_variance must not be negative", self.noise_variance)
        _require(all(f >= 0 for f in self.channel_jitter), "channel_jitter must not be negative", self.channel_jitter)

    @property
    def changes_values(self) -> bool:
        """Whether anything but rotations and mirrors is on."""
        return bool(self.channel_jitter or self.blur or (self.noise and self.noise_variance))


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of one training: what a trial is made of, except its fold.

    backbone : a name of ``keras.applications``, or ``SmallCNN``
    weights : ``imagenet``, ``random`` (Glorot, which is Xavier), or a file of Keras weights of the backbone without top
    image_size : pixels, height = width of the network's input; ``native`` is the backbone's own
    input_scaling : ``backbone`` scales 0..255 as the backbone's pre-training did, ``none`` passes 0..255 on
    learning_rate : of the first epoch; ``schedule`` says how it goes on
    schedule : ``constant``; ``step`` divides by ten after each third of the epochs; ``cosine`` falls towards 0
    class_weights : ``balanced`` weighs a tile by n / (classes x count of its label), ``none`` by 1
    freeze : share of the backbone's layers, from the input on, that is not trained; ``all`` takes the pooled features
        once for every tile and orientation and trains on them, so that nothing else can happen to a tile
    precision : ``auto`` takes bfloat16 on a GPU, else float32
    seed : of a member of an ensemble, which the sweep gives; None draws by the sweep's seed alone
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    backbone: str = "ResNet50"
    weights: str = "imagenet"
    image_size: int | Literal["native"] = "native"
    input_scaling: Literal["backbone", "none"] = "backbone"
    epochs: int = 10
    batch_size: int = 32
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "step", "cosine"] = "constant"
    dropout: float = 0.0
    l2: float = 0.0
    class_weights: Literal["balanced", "none"] = "balanced"
    freeze: float | Literal["all"] = 0.0
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    augment: Augmentation = field(default_factory=Augmentation)
    seed: int | None = None

    def __post_init__(self) -> None:
        _to_floats(self)
        for name in ("epochs", "batch_size"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        _require(self.learning_rate > 0, "learning_rate must be above 0", self.learning_rate)
        for name in ("weight_decay", "l2"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        for name in ("dropout", "momentum"):
            _require(0 <= getattr(self, name) < 1, f"{name} must lie in [0, 1)", getattr(self, name))
        if self.freeze == "all":
            _require(self.weights != "random", "freeze: all needs weights to take features with", self.weights)
            _require(
                not self.augment.changes_values,
                "freeze: all takes a tile's features once, so augment may turn and mirror tiles but must not change "
                "their values: write recipe.augment: {channel_jitter: [], blur: 0, noise: 0}",
                {name: getattr(self.augment, name) for name in ("channel_jitter", "blur", "noise")},
            )
        else:
            object.__setattr__(self, "freeze", float(self.freeze))
            _require(0 <= float(self.freeze) <= 1, "freeze is a share in [0, 1], or all", self.freeze)
        _require(self.image_size == "native" or self.image_size >= 8, "image_size: at least 8", self.image_size)

    @property
    def candidate(self) -> str:
        """Name of the candidate: the backbone and a digest of all hyperparameters, the same on any machine."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return f"{self.backbone}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @property
    def ensemble(self) -> "Recipe":
        """What the members of an ensemble share: the recipe without its seed."""
        return replace(self, seed=None)

    @property
    def has_dropout(self) -> bool:
        """Whether a dropout layer is active in training: the head's, or one within the trained backbone."""
        return self.dropout > 0 or (self.freeze != "all" and has_dropout(self.backbone))

    @property
    def signature(self) -> tuple[Any, ...]:
        """What a compiled model depends on; all else, numbers above all, is assigned to it at the start of a trial."""
        optimizer = (self.optimizer, self.momentum > 0, self.weight_decay > 0)
        augment = (
            self.augment.orientations,
            len(self.augment.channel_jitter),
            self.augment.blur > 0,
            self.augment.noise > 0 and self.augment.noise_variance > 0,
        )
        # The table of features is a part of the model that is trained on it, and dropout most of what a head computes.
        features = (*self.features_key, self.dropout > 0) if self.freeze == "all" else ()
        scaling = (self.input_scaling, self.precision, self.freeze)
        return (self.backbone, self.image_size, self.batch_size, *optimizer, *scaling, *augment, *features)

    @property
    def features_key(self) -> tuple[Any, ...]:
        """What the features of a frozen backbone depend on; the last is the number of orientations."""
        orientations = 8 if self.augment.orientations else 1
        return (self.backbone, self.weights, self.image_size, self.input_scaling, self.precision, orientations)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON and YAML; without a seed of its own a recipe is named as before there were any."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.seed is None:
            del plain["seed"]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Recipe":
        """The recipe that `as_dict` wrote."""
        return cls(**{**plain, "augment": Augmentation(**plain["augment"])})


def _to_floats(instance: Any) -> None:
    """Equal numbers are one hyperparameter, whether they were written 0 or 0.0."""
    for item in dataclasses.fields(instance):
        if item.type is float:
            object.__setattr__(instance, item.name, float(getattr(instance, item.name)))


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{rule}, but got {value!r}")


NO_AUGMENTATION = Augmentation(orientations=False, channel_jitter=(), blur=0.0, noise=0.0)


def first_look(recipe: Recipe) -> Recipe:
    """The recipe that looks at the backbone of another before it is fine-tuned: a head on its frozen features.

    One recipe for all backbones, and a plain one: 30 epochs of Adam with a rate of 3e-3 that falls to nothing, batches
    of 128, tiles as they are, no penalty. Nothing of it is searched, so that no backbone has the better luck.
    """
    return Recipe(
        backbone=recipe.backbone,
        weights=recipe.weights,
        image_size=recipe.image_size,
        input_scaling=recipe.input_scaling,
        precision=recipe.precision,
        epochs=30,
        batch_size=128,
        optimizer="adam",
        learning_rate=3e-3,
        schedule="cosine",
        freeze="all",
        augment=NO_AUGMENTATION,
    )


def is_first_look(plain: Mapping[str, Any]) -> bool:
    """Whether hyperparameters, as `Recipe.as_dict` gives them, are those of a first look."""
    if plain.get("freeze") != "all":
        return False
    recipe = Recipe.from_dict(dict(plain))
    return recipe == first_look(recipe)
