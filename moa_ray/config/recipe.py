"""The hyperparameters of one training."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict

from moa_ray.config.backbones import BackboneName, has_dropout, native_size
from moa_ray.config.numbers import SECTION, BelowOne, Count, NotNegative, Probability, limits


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training tile; every part can be switched off.

    References
    ----------
    Kensert et al. 2019, supplement.
    """

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    orientations: bool | Literal[1, 8] = True
    """Of how many rotations and mirrors one is drawn, evenly: 8, or 1 for the tile as it is; true and false are read as
    these two."""
    channel_jitter: tuple[NotNegative, ...] = (1.0, 1.0, 0.75, 1.25)
    """Factors of which each channel gets one, drawn evenly; an empty list switches it off."""
    blur: Probability = 0.5
    """Probability of a 3 x 3 mean filter."""
    noise: Probability = 0.5
    """Probability of Gaussian noise."""
    noise_variance: NotNegative = 50.0
    """Variance of the Gaussian noise, in squared grey levels of the 0..255 scale."""

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

    Raises
    ------
    ValueError
        If a value lies outside its limits, or ``freeze: all`` is combined with what it excludes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    backbone: BackboneName = "ResNet50"
    """The network below the head: a name of `keras.applications`, or `SmallCNN`."""
    weights: str = "imagenet"
    """What the backbone starts from: `imagenet`, `random` (Glorot, which is Xavier), or a file of Keras weights of the
    backbone without top."""
    image_size: Annotated[int, limits(minimum=8)] | Literal["native"] = "native"
    """Height = width of the network's input, pixels; `native` is the backbone's own."""
    input_scaling: Literal["backbone", "none"] = "backbone"
    """`backbone` scales 0..255 as the backbone's pre-training did, `none` passes 0..255 on."""
    epochs: Count = 10
    """Passes over the training tiles."""
    batch_size: Count = 32
    """Tiles in each step of the optimizer."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Keras' optimizer of this name."""
    learning_rate: Annotated[float, limits(exclusiveMinimum=0)] = 1e-3
    """Learning rate of the first epoch; `schedule` says how it goes on."""
    momentum: BelowOne = 0.9
    """Momentum of `sgd`; the other optimizers do not read it."""
    weight_decay: NotNegative = 0.0
    """Share of each weight that a step takes away, times the learning rate (decoupled weight decay)."""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """Learning-rate schedule: `constant`; `step` divides by ten after each third of the epochs; `cosine` falls towards
    0."""
    dropout: BelowOne = 0.0
    """Rate of the dropout layer before the head."""
    l2: NotNegative = 0.0
    """Factor of the head's squared weights in the loss."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """`balanced` weighs a tile by n / (classes x count of its label), `none` by 1."""
    freeze: Probability | Literal["all"] = 0.0
    """Share of the backbone's layers, from the input on, that is not trained; `all` takes the pooled features once for
    every tile and orientation and trains a head on them, so that nothing else can happen to a tile."""
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    """Keras' dtype policy; `auto` takes bfloat16 on a GPU, else float32."""
    augment: Augmentation = field(default_factory=Augmentation)
    """What may happen to a training tile."""
    seed: int | None = None
    """Seed of a member of an ensemble, which the sweep gives; null draws by the sweep's seed alone."""

    def __post_init__(self) -> None:
        _to_floats(self)
        for name in ("epochs", "batch_size"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        _require(self.learning_rate > 0, "learning_rate must be above 0", self.learning_rate)
        for name in ("weight_decay", "l2"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        for name in ("dropout", "momentum"):
            _require(0 <= getattr(self, name) < 1, f"{name} must lie in [0, 1)", getattr(self, name))
        if self.is_linear_probe:
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

    @cached_property
    def candidate(self) -> str:
        """Name of the candidate: the backbone and a digest of all hyperparameters, the same on any machine."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return f"{self.backbone}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @property
    def ensemble(self) -> "Recipe":
        """What the members of an ensemble share: the recipe without its seed."""
        return replace(self, seed=None)

    @property
    def input_size(self) -> int:
        """Height and width of the network's input, pixels."""
        return native_size(self.backbone) if self.image_size == "native" else self.image_size

    @property
    def is_linear_probe(self) -> bool:
        """Whether a head alone is trained, on features that the frozen backbone gave before (``freeze: all``)."""
        return self.freeze == "all"

    @property
    def extractor(self) -> "Recipe":
        """The recipe of the frozen network that gives a linear probe its features, without augmentation."""
        return replace(self, freeze=1.0, augment=NO_AUGMENTATION)

    @property
    def has_dropout(self) -> bool:
        """Whether a dropout layer is active in training: the head's, or one within the trained backbone."""
        return self.dropout > 0 or (not self.is_linear_probe and has_dropout(self.backbone))

    @cached_property
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
        features = (*self.features_key, self.dropout > 0) if self.is_linear_probe else ()
        scaling = (self.input_scaling, self.precision, self.freeze)
        return (self.backbone, self.image_size, self.batch_size, *optimizer, *scaling, *augment, *features)

    @property
    def features_key(self) -> tuple[Any, ...]:
        """What the features of a frozen backbone depend on; the last is the number of orientations."""
        orientations = 8 if self.augment.orientations else 1
        return (self.backbone, self.weights, self.image_size, self.input_scaling, self.precision, orientations)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON and YAML.

        Returns
        -------
        dict
            Hyperparameter to value. Without a seed of its own a recipe has no key ``seed``, so that it is named as it
            was before members of ensembles had seeds.
        """
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.seed is None:
            del plain["seed"]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Recipe":
        """Read the recipe that `as_dict` wrote.

        Parameters
        ----------
        plain : dict
            Hyperparameter to plain value; ``seed`` may be absent.

        Returns
        -------
        Recipe
            The same recipe, with the same name.

        Raises
        ------
        ValueError
            If a value lies outside its limits.
        """
        return cls(**{**plain, "augment": Augmentation(**plain["augment"])})


def _to_floats(instance: Any) -> None:
    """Make equal numbers one hyperparameter, whether they were written 0 or 0.0."""
    for item in dataclasses.fields(instance):
        if getattr(item.type, "__origin__", item.type) is float:
            object.__setattr__(instance, item.name, float(getattr(instance, item.name)))


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{rule}, but got {value!r}")


NO_AUGMENTATION = Augmentation(orientations=False, channel_jitter=(), blur=0.0, noise=0.0)


def linear_probe_of(recipe: Recipe) -> Recipe:
    """Return the recipe of the standard linear probe of a backbone: a head trained on its frozen features.

    Parameters
    ----------
    recipe : Recipe
        A recipe of the backbone; weights, image size, input scaling and precision are taken from it.

    Returns
    -------
    Recipe
        With ``freeze: all``.

    Notes
    -----
    All backbones have the same probe, and a plain one: 30 epochs of Adam with a learning rate of 3e-3 that falls to 0,
    batches of 128, tiles as they are, no penalty. Nothing of it is searched, so that no backbone has the better luck.
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


def is_standard_probe(plain: Mapping[str, Any]) -> bool:
    """Tell whether hyperparameters are those of the standard linear probe.

    Parameters
    ----------
    plain : mapping
        Hyperparameters as `Recipe.as_dict` gives them.

    Returns
    -------
    bool
        True where they are what `linear_probe_of` makes of their backbone.
    """
    if plain.get("freeze") != "all":
        return False
    recipe = Recipe.from_dict(dict(plain))
    return recipe == linear_probe_of(recipe)
