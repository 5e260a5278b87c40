"""The sweep file: YAML to a checked, frozen `Sweep`. Every message names its path in the file.

This is the one border for text: nothing behind it parses YAML, and nothing before it is trusted.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationError,
    model_validator,
)

from moa_ray import complaints, stores
from moa_ray.backbones import BACKBONES
from moa_ray.conformal import Conformal
from moa_ray.images import Preparation
from moa_ray.recipe import Recipe, first_look
from moa_ray.screens.synthetic import Painting
from moa_ray.screens.translocation import Translocation
from moa_ray.space import Choice, Space
from moa_ray.stores import Uri


def _place(given: Any) -> Path | Uri:
    if not isinstance(given, str | Path | Uri):
        raise ValueError(f"must be a path or a URI, but got {given!r}")
    return stores.place(given) if isinstance(given, str) else given


def _within(place: Path | Uri) -> Path | Uri:
    if isinstance(place, Uri) and "/" not in place.path:
        raise ValueError(f"a folder in the bucket must stand there, as in {place / 'runs'}, but got {place}")
    return place


def _folder(given: Any) -> Path:
    place = _place(given)
    if isinstance(place, Uri):
        raise ValueError(f"must be a folder of this machine, but got {place}; what is kept there is used in place")
    return place


Place = Annotated[Path | Uri, PlainValidator(_place), PlainSerializer(str)]
Folder = Annotated[Path, PlainValidator(_folder), PlainSerializer(str)]
Channels = Annotated[tuple[str | None, ...], Field(min_length=1, max_length=3)]
Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


def _whole_above_one(amount: float) -> float:
    """Ray hands out parts of one thing, or whole things."""
    if amount > 1 and amount != int(amount):
        raise ValueError(f"above 1 it must be a whole number, but got {amount:g}")
    return amount


Gpus = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
Amount = Annotated[float, Field(gt=0), AfterValidator(_whole_above_one)]


class Section(BaseModel):
    """A part of the sweep file: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Bbbc021(Section):
    """A folder in BBBC021's own layout: the two CSV tables and the plates' folders or zip files."""

    name: Literal["bbbc021"]
    root: Place
    channels: Channels = ("Actin", "Tubulin", "DAPI")


class Bbbc014(Section):
    """The plate of BBBC014: two images a well, in folders or in the zip file downloaded.

    painting : a plate of painted cells, made at the root when it is not there yet; null reads the real one
    """

    name: Literal["bbbc014"]
    root: Place
    channels: Channels = (None, "FITC", "DAPI")
    painting: Translocation | None = None

    @model_validator(mode="after")
    def _is_painted_here(self) -> "Bbbc014":
        if self.painting is not None:
            _folder(self.root)
        return self


class Table(Section):
    """Any screen that one table of fields describes.

    fields : CSV or parquet file, relative to the root
    columns : ``Metadata_*`` name to the file's column
    images : channel name to the file's column of image paths, relative to the root
    control : the compound that marks the untreated wells
    """

    name: Literal["table"]
    root: Place
    fields: Name
    columns: dict[str, str]
    images: dict[str, str]
    control: str | None = None
    channels: Channels | None = None


class Synthetic(Section):
    """A screen of painted cells in BBBC021's layout, made at the root when it is not there yet."""

    name: Literal["synthetic"]
    root: Folder
    channels: Channels = ("Actin", "Tubulin", "DAPI")
    painting: Painting = Field(default_factory=Painting)


class Folds(Section):
    """What is held out: one column, or several of which training shares no value with the held-out group.

    hold_out : see `folds.make_folds`; ``label`` holds out whole labels, see `moa_ray.unknowns`
    search : the folds that a search may look at: one held-out group for each label, all, or a list of groups; the
        others confirm. A grid has no such part: it trains every fold.
    """

    hold_out: str | Annotated[tuple[str, ...], Field(min_length=1)] = "compound"
    search: Literal["one_per_label", "all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "one_per_label"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns held out, the first of which makes the groups."""
        return (self.hold_out,) if isinstance(self.hold_out, str) else self.hold_out


class Validation(Section):
    """The part of the training wells that is watched, not learnt from: whole wells, spread over treatments."""

    by: Literal["well"] = "well"
    share: Share = 0.15


class Screening(Section):
    """A first look: a head on frozen features of each backbone, before any is fine-tuned; see `moa_ray.screening`.

    keep : so many backbones go on, those whose heads have the lowest log-loss; null drops none. In a grid the look sees
        the folds that the others are judged on, in a search the search folds alone
    """

    keep: Annotated[int, Field(ge=1)] | None = None


def _screening(plain: Any) -> Any:
    """True and false say it too."""
    if not isinstance(plain, bool | dict | Screening | None):
        raise ValueError(f"true, false or {{keep: 2}} must stand here, but got {plain!r}")
    return ({} if plain else None) if isinstance(plain, bool) else plain


class Grid(Section):
    """Every combination of the space's lists, on every fold.

    screen_with_frozen : true, or ``{keep: 2}``; false switches it off
    """

    mode: Literal["grid"] = "grid"
    screen_with_frozen: Annotated[Screening | None, BeforeValidator(_screening)] = None
    space: dict[str, Any] = Field(default_factory=dict)


class Asha(Section):
    """Stops a trial early that is worse, at the same epoch, than others of the same fold (Li et al. 2020).

    grace_epochs : no trial is stopped before
    reduction_factor : of the trials seen, the best 1 / reduction_factor go on; looked at again each factor of epochs
    folds : a candidate may be stopped on its first so many folds. More are more chances to lose a good one: in
        tests/benchmarks/search.py four cost more in regret than they save in epochs
    """

    grace_epochs: Annotated[int, Field(ge=1)] = 3
    reduction_factor: Annotated[float, Field(gt=1)] = 2
    folds: Annotated[int, Field(ge=1)] = 1


class Race(Section):
    """Which candidates get more folds; see `moa_ray.race`.

    first_folds : folds that every candidate gets
    reduction_factor : a rung has so many times the folds of the one before; the best 1 / reduction_factor reach it
    keep : at least so many go on
    """

    first_folds: Annotated[int, Field(ge=1)] = 4
    reduction_factor: Annotated[float, Field(gt=1)] = 3
    keep: Annotated[int, Field(ge=1)] = 2


class Optuna(Section):
    """A search within the space: Optuna proposes candidates, folds race, ASHA stops epochs.

    candidates : recipes that are proposed in all
    objective : of the held-out treatments of a fold; a candidate's is the mean over folds
    sampler : grid takes each combination of a space without ranges once, in random order
    first : hyperparameters of recipes to try first; what they leave open is proposed
    confirm : runners-up that are trained on the folds the search did not see, besides the winner
    asha, race : null switches it off; without a race every candidate gets all search folds
    screen_with_frozen : as in a grid
    """

    mode: Literal["optuna"]
    candidates: Annotated[int, Field(ge=1)] = 40
    objective: Literal["treatment_log_loss", "treatment_accuracy"] = "treatment_log_loss"
    sampler: Literal["tpe", "random", "grid", "cmaes"] = "tpe"
    space: dict[str, Any]
    first: tuple[dict[str, Any], ...] = ()
    confirm: Annotated[int, Field(ge=0)] = 0
    asha: Asha | None = Field(default_factory=Asha)
    race: Race | None = Field(default_factory=Race)
    screen_with_frozen: Annotated[Screening | None, BeforeValidator(_screening)] = None


class Predict(Section):
    """How often the held-out tiles are predicted besides, to see how sure a network is; null does not.

    mc_dropout : samples, each by a network thinned by its dropout layers; see `moa_ray.mc_dropout`
    laplace : samples, each by a head drawn around the trained one, where ``freeze: all``; see `moa_ray.laplace`
    """

    mc_dropout: Annotated[int, Field(ge=2)] | None = None
    laplace: Annotated[int, Field(ge=2)] | None = None

    @property
    def samples(self) -> dict[str, int]:
        """How many samples are wanted, by method."""
        wanted = {"mc_dropout": self.mc_dropout, "laplace": self.laplace}
        return {method: count for method, count in wanted.items() if count is not None}


class OwnResources(Section):
    """What the trials of one backbone get in place of what all get; null leaves it."""

    gpus: Gpus | Literal["auto"] | None = None
    cpus: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    custom: dict[str, Amount] | None = None
    accelerator_type: Name | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> "OwnResources":
        _require_custom(self.custom or {})
        return self


class Resources(Section):
    """What each trial gets; ``auto``: one GPU where the cluster has any or may add some, else CPUs alone.

    custom : further resources of Ray's and amounts, as nodes were given them: ``{big: 1}``
    accelerator_type : the kind of GPU a node must have, by Ray's name for it: ``A100``
    by_backbone : backbone to what its trials get in place of that
    concurrent : trials at once at most; null means as many as the cluster can hold. Where an autoscaler adds nodes, it
        is asked for some more trials than run: four at first, then for as many again
    patience : minutes to wait where no node can hold a trial but one may come: an autoscaler's, or a lost one
    retries : how often a trial that crashed is tried again
    tiles_on_device : share of a trial's part of its GPU's memory that tiles may take, to be looked up there; where they
        need more, and on CPUs, they stream from the memory map
    """

    gpus: Gpus | Literal["auto"] = "auto"
    cpus: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    custom: dict[str, Amount] = Field(default_factory=dict)
    accelerator_type: Name | None = None
    by_backbone: dict[str, OwnResources] = Field(default_factory=dict)
    concurrent: Annotated[int, Field(ge=1)] | None = None
    patience: Annotated[float, Field(ge=0)] = 30.0
    retries: Annotated[int, Field(ge=0)] = 2
    tiles_on_device: Annotated[float, Field(ge=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _is_sound(self) -> "Resources":
        _require_custom(self.custom)
        unknown = next((name for name in self.by_backbone if name not in BACKBONES), None)
        if unknown is not None:
            raise ValueError(f"by_backbone: unknown backbone {unknown!r}{complaints.nearest(unknown, BACKBONES)}")
        return self


def _require_custom(custom: dict[str, float]) -> None:
    for name in custom:
        if name.lower() in ("cpu", "cpus", "gpu", "gpus") or "memory" in name:
            raise ValueError(f"custom: {name!r} is no custom resource; cpus and gpus stand beside custom")


class Tracking(Section):
    """Where MLflow records; a null uri means SQLite in OUT."""

    uri: str | None = None
    experiment: Name | None = None


def _mode(search: Any) -> Any:
    return search.get("mode", "grid") if isinstance(search, dict) else getattr(search, "mode", None)


class Sweep(Section):
    """One sweep file, checked, with every default filled in.

    seeds : of the members of an ensemble, which share the held-out fold and the validation wells: a grid trains every
        recipe with each, a search every candidate with the first and the winner with all; null trains by `seed` alone
    evaluate_every : the held-out tiles are predicted after each so many epochs, and the last, to draw how accuracy goes
        on; nothing is stopped or chosen by it. null predicts them after the last epoch alone
    reference : published results that the report lays the sweep's beside; see `moa_ray.published`
    conformal : which sets of labels the report gives for each treatment; see `moa_ray.conformal`. null gives none
    """

    study: Name
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    out: Annotated[Place, AfterValidator(_within)]
    screen: Annotated[Bbbc021 | Bbbc014 | Table | Synthetic, Field(discriminator="name")]
    images: Preparation = Field(default_factory=Preparation)
    tiles: Folder | None = None
    folds: Folds = Field(default_factory=Folds)
    validation: Validation | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)
    search: Annotated[Annotated[Grid, Tag("grid")] | Annotated[Optuna, Tag("optuna")], Discriminator(_mode)] = Field(
        default_factory=Grid
    )
    aggregate: Literal["median", "mean"] = "median"
    evaluate_every: Annotated[int, Field(ge=1)] | None = None
    predict: Predict = Field(default_factory=Predict)
    resources: Resources = Field(default_factory=Resources)
    tracking: Tracking = Field(default_factory=Tracking)
    reference: Literal["kensert2019"] | None = None
    conformal: Conformal | None = Field(default_factory=Conformal)

    @model_validator(mode="before")
    @classmethod
    def _asha_watches(cls, plain: Any) -> Any:
        """Where epochs are compared and nothing else is said, some wells are watched."""
        search = plain.get("search") if isinstance(plain, dict) else None
        if isinstance(search, dict) and search.get("mode") == "optuna" and search.get("asha", {}) is not None:
            return {"validation": {}, **plain}
        return plain

    @model_validator(mode="after")
    def _is_sound(self) -> "Sweep":
        space = self.space
        space.frozen()
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each must stand once, but got {list(self.seeds)}")
        if self.predict.mc_dropout is not None:
            space.require_dropout()
        if self.predict.laplace is not None:
            space.require_frozen()
        if self.keep is not None and "backbone" in space.entries and space.entries["backbone"].when:
            raise ValueError(
                "search.space.backbone.when: backbones that search.screen_with_frozen.keep may drop take no condition"
            )
        if isinstance(self.search, Grid):
            if space.ranged:
                raise ValueError(
                    f"search.space.{space.ranged[0]}: a grid takes lists; for a range set search.mode: optuna"
                )
            space.grid()
            return self
        if self.search.sampler == "grid" and space.ranged:
            raise ValueError(f"search.space.{space.ranged[0]}: sampler grid takes lists; take tpe, random or cmaes")
        if self.search.asha and not self.validation:
            raise ValueError("search.asha: it compares validation wells, but validation is null; leave out one of them")
        for number, known in enumerate(self.search.first):
            space.require_within(known, f"search.first.{number}")
        return self

    @property
    def space(self) -> Space:
        """What is searched, and what is fixed beside it."""
        return Space.read(self.recipe, self.search.space, self.seeds or (None,))

    @property
    def recipes(self) -> list[Recipe]:
        """Every recipe of a grid, in the file's order, with each seed; of a search one for each tile size, weights and
        backbone.
        """
        return self.space.grid() if isinstance(self.search, Grid) else self.space.representatives()

    @property
    def backbones(self) -> list[str]:
        """Those that are trained."""
        return list(dict.fromkeys(recipe.backbone for recipe in self.recipes))

    @property
    def frozen(self) -> list[Recipe]:
        """One recipe for each set of frozen features that is trained on."""
        return self.space.frozen()

    @property
    def looks(self) -> list[Recipe]:
        """The first looks that are wanted, one for each backbone, weights and image size; none at random weights."""
        if not self.search.screen_with_frozen:
            return []
        known: dict[tuple[Any, ...], Recipe] = {}
        for recipe in self.recipes:
            known.setdefault((recipe.backbone, recipe.weights, recipe.image_size), recipe)
        return [first_look(recipe) for recipe in known.values() if recipe.weights != "random"]

    @property
    def keep(self) -> int | None:
        """How many backbones the first look lets go on; None where it drops none."""
        return self.search.screen_with_frozen.keep if self.search.screen_with_frozen else None

    def without(self, backbones: Collection[str]) -> "Sweep":
        """The same sweep without the recipes of some backbones."""
        entry = self.space.entries.get("backbone")
        if not backbones or not isinstance(entry, Choice):
            return self
        space = {**self.search.space, "backbone": [name for name in entry.choices if name not in backbones]}
        search = self.search.model_copy(update={"space": space})
        if isinstance(search, Optuna):
            first = tuple(known for known in search.first if known.get("backbone") not in backbones)
            search = search.model_copy(update={"first": first})
        return self.model_copy(update={"search": search})

    @property
    def is_painted(self) -> bool:
        """Whether the images are drawn by a program."""
        return isinstance(self.screen, Synthetic) or (
            isinstance(self.screen, Bbbc014) and self.screen.painting is not None
        )

    @property
    def tile_folder(self) -> Path:
        """The folder of tile stores: beside OUT unless the file says otherwise, so that sweeps share them.

        Of an OUT in an object store it is beside this machine's copy.
        """
        return self.tiles or stores.folder(self.out).parent / "tiles"

    def as_yaml(self) -> str:
        """The sweep as it was run, every default filled in."""
        plain = self.model_dump(mode="json")
        defaults = Recipe().as_dict()
        filled = {**defaults, **self.recipe, "augment": {**defaults["augment"], **self.recipe.get("augment", {})}}
        searched = self.search.space.keys() - self.recipe.keys()
        plain["recipe"] = {key: value for key, value in filled.items() if key not in searched}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def load(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, set the values that ``KEY=VALUE`` overrides name by dotted path, and check it whole.

    Relative paths in the file are relative to the working directory, as in the command that names the file.

    Raises ValueError with one line for each thing wrong, each naming its path in the file.
    """
    return check(_read(path), str(path), overrides)


def check(plain: Any, name: str, overrides: Sequence[str] = ()) -> Sweep:
    """Check a sweep given as plain values; `name` stands before each message."""
    if not isinstance(plain, dict):
        raise ValueError(f"{name}: a mapping of keys must stand at the top, but got {type(plain).__name__}")
    for override in overrides:
        _set(plain, override)
    try:
        return Sweep.model_validate(plain)
    except ValidationError as error:
        raise ValueError("\n".join(f"{name}: {line}" for line in complaints.lines(error, Sweep))) from None


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such sweep file; see sweeps/ for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _set(plain: dict[str, Any], override: str) -> None:
    """Set one value by its dotted path, e.g. ``search.space.backbone=[ResNet50]``."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ValueError(f"{override!r}: an override reads KEY=VALUE, e.g. recipe.epochs=5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{override!r}: the value is not YAML: {' '.join(str(error).split())}") from None
    *parents, last = key.split(".")
    node = plain
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise ValueError(f"{override!r}: {parent} holds a value, not keys")
    node[last] = value
