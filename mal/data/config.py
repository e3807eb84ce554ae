"""Settings of the data: files, procedural images, and the crops that methods see."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from mal.bounds import choice, number


@dataclass
class SplitConfig:
    """One split's files. `annotations` and `images` are relative to `data.root` when that is set."""

    annotations: str | None = None
    images: str | None = None


@dataclass
class ValConfig(SplitConfig):
    """What is scored on; `parts` is relative to `data.root`, too."""

    parts: str | None = None  # COCO file of its objects' parts, for scores of key-points (mal/data/object_parts.py)


@dataclass
class LabelerTrainConfig(SplitConfig):
    """What the labeler learns from where that is another data set than the one it labels (Table 2's last rows)."""

    name: str | None = None  # of that data set; tables say labeler mal:NAME
    root: str | None = None  # null: data.root


@dataclass
class ShapesConfig:
    """The procedural datasets: which, how many images, their side in pixels, the seed."""

    kind: str = choice("shapes", ("shapes", "parts", "shapes12", "scenes"))
    train_images: int = number(400, 1, 1 << 24)
    val_images: int = number(100, 1, 1 << 24)
    size: int = number(256, 64, 4096)
    seed: int = 0


GROUNDS = ("class", "ignored")


@dataclass
class SemanticConfig:
    """How instances become class maps, for methods that learn those."""

    ground: str = choice(
        "ignored", GROUNDS
    )  # pixels that no object covers: a class of its own, the last, or unlabelled
    groups: bool = False  # categories merged to their supercategories


POINT_KINDS = ("inside", "box_centre", "centroid", "uniform", "quasi_centre")


@dataclass
class PointsConfig:
    """Where an object's point is, for methods that learn from points, if the file gives none of its own."""

    kind: str = choice("inside", POINT_KINDS)  # drawn_points.py


EXPRESSION_KINDS = ("file", "templates")


@dataclass
class ExpressionsConfig:
    """What is said of objects, for methods that learn from expressions."""

    # file: what the annotation file says of them | templates: made from boxes and categories (mal/data/templates.py)
    kind: str = choice("file", EXPRESSION_KINDS)


@dataclass
class DataConfig:
    name: str = MISSING
    # maps: folders of class maps, as mal/data/semantic.py reads them, for methods that end in such
    format: str = choice("coco", ("shapes", "coco", "lvis", "maps"))
    root: str | None = None
    train: SplitConfig = field(default_factory=SplitConfig)
    val: ValConfig = field(default_factory=ValConfig)
    test: SplitConfig = field(default_factory=SplitConfig)  # images without annotations, for COCO's server
    labeler_train: LabelerTrainConfig = field(default_factory=LabelerTrainConfig)  # unset: it learns from train
    val_images: str = choice("all", ("all", "even", "odd"))  # which sorted val image ids the scores are measured on
    on_bad_image: str = choice("error", ("error", "skip"))  # skip: reported by name and counted
    class_agnostic: bool = False  # phase 2 sees one class: for sets with too few images per class
    shapes: ShapesConfig = field(default_factory=ShapesConfig)
    points: PointsConfig = field(default_factory=PointsConfig)
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    expressions: ExpressionsConfig = field(default_factory=ExpressionsConfig)


EXPANSIONS = ("paper", "released")
BORDERS = ("wrap", "clip", "reflect", "constant")


@dataclass
class RoiConfig:
    size: int = number(MISSING, 16, 4096)  # side in pixels that a crop is resized to
    expansion: str = choice(MISSING, EXPANSIONS)
    theta: float = number(MISSING, 0, 10)
    label_expansion: float = number(MISSING, 0, 10)  # × half the box's size, each side
    border: str = choice(MISSING, BORDERS)
    flip: float = number(MISSING, 0, 1)
    min_side: float = number(MISSING, 0)  # a box is used only if w and h exceed this
    min_area: float = MISSING  # training only: w · h strictly between these
    max_area: float = MISSING
    # training: what beyond the border shows the box again counts as this
    repeats: str = choice("background", ("background", "foreground"))
