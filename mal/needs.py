"""What a run needs of its files, checked against their censuses before anything is computed."""

from mal.config import Config
from mal.data.census import crowd_sentence
from mal.data.joins import compare_categories
from mal.data.sources import Split
from mal.engine.findings import STOPS, number, some
from mal.errors import AnnotationError, ConfigError
from mal.metrics.federated import WAY_OUT

WITHOUT = "or set segmenter=none: masks are learned from boxes alone, and compared with the human ones there are"


def check_boxes(split: Split) -> None:
    """Refuse boxes that nothing can be made of.

    Raises:
        AnnotationError.
    """
    if split.census is not None:
        for finding in split.census.findings:
            if finding.level == STOPS:
                raise AnnotationError(f"{split.annotations}: {finding.text}")


def check_all_boxes(split: Split, *, labeler: str) -> None:
    """Refuse objects of points alone where a labeler needs their boxes.

    Raises:
        AnnotationError: how many.
    """
    if split.census is not None and split.census.boxless:
        raise AnnotationError(
            f"{split.annotations}: {split.census.boxless} of {number(split.census.annotations, 'annotation')} have a "
            f"point and no box, and labeler {labeler} needs boxes; give them, or choose a labeler that learns from "
            "points, such as labeler=disc"
        )


def check_masks(split: Split, *, purpose: str, way_out: str = WITHOUT) -> None:
    """Refuse a file that lacks some of its human masks, or whose masks are not what they should be.

    Args:
        purpose: what needs every mask, as the end of a sentence.

    Raises:
        AnnotationError: how many, and the first few.
    """
    census = split.census
    if census is None:
        return
    if census.broken:
        rest = f" ({census.broken} annotations have such a segmentation)" if census.broken > 1 else ""
        raise AnnotationError(f"{split.annotations}: {census.first_broken[0]}{rest}; {purpose}: correct it, {way_out}")
    if census.all_crowds:
        raise AnnotationError(f"{split.annotations}: {crowd_sentence(census)}; {purpose}")
    missing = census.unmasked + census.crowds_unmasked
    if missing:
        which = f": {some(census.first_unmasked)}" if census.first_unmasked else ", all of them crowds"
        raise AnnotationError(
            f"{split.annotations}: {missing} of {census.annotations} annotations have no mask{which}; {purpose}: draw "
            f"these masks, remove these annotations, {way_out}"
        )


def check_some_masks(split: Split, *, purpose: str) -> None:
    """Refuse a file without any human mask.

    Raises:
        AnnotationError.
    """
    if split.census is not None and not split.census.masks:
        raise AnnotationError(
            f"{split.annotations} holds boxes only: none of its {split.census.annotations} annotations has a mask, and "
            f"{purpose}; give the file with the masks (COCO calls it instances_*.json)"
        )


def check_real_masks(split: Split) -> None:
    """Refuse a file whose masks are all unusable by some mistake, so that no segmenter could be trained; one of boxes
    only is none.

    Raises:
        AnnotationError.
    """
    census = split.census
    if census is not None and not census.has_masks and (census.broken or census.all_crowds):
        check_masks(split, purpose="a segmenter needs its masks")


def check_scores(split: Split, config: Config) -> None:
    """Refuse validation images on which average precision cannot be measured.

    Raises:
        AnnotationError, ConfigError.
    """
    which, census = config.data.val_images, split.census
    check_selection(split, config)
    if census is None:
        return
    if config.segmenter.mask_head:
        check_masks(split, purpose="mask AP is measured on all of them")
    if census.bad_areas:
        raise AnnotationError(
            f"{split.annotations}: {census.first_bad_area[0]}; it must be a number of pixels >= 0, or be left out "
            f"({number(census.bad_areas, 'annotation')} in all): AP tells sizes by it"
        )
    if not census.selected[which]["objects"]:
        raise AnnotationError(
            f"{split.annotations}: {_images(which)} hold no object that is not a crowd: there is nothing to measure AP "
            f"on; {_select_more(which)}"
        )
    if config.data.format == "lvis" and census.lvis_problem is not None:
        raise AnnotationError(
            f"{split.annotations} lacks what LVIS's evaluation needs: {census.lvis_problem}; {WAY_OUT}"
        )


def check_selection(split: Split, config: Config) -> None:
    """Refuse a choice of validation images that leaves none.

    Raises:
        ConfigError.
    """
    which, drawn = config.data.val_images, config.data.shapes.val_images
    if split.census is not None:
        left, images = split.census.selected[which]["images"], split.census.images
    elif split.drawn is not None:
        left, images = {"all": drawn, "even": (drawn + 1) // 2, "odd": drawn // 2}[which], drawn
    else:
        return
    if left == 0:
        raise ConfigError(
            f"data.val_images={which} leaves none of the {number(images, 'validation image')} to measure on; set "
            "data.val_images=all, or give more images"
        )


def check_categories(train: Split, val: Split) -> None:
    """Refuse validation images whose categories are not those that a segmenter learns.

    Raises:
        AnnotationError: names the categories.
    """
    if train.census is None or val.census is None:
        return
    found = compare_categories(train.census.categories, val.census.categories)
    if found.renumbered:
        raise AnnotationError(
            f"the categories of {train.annotations} (the first) and {val.annotations} (the second) are numbered "
            f"differently: {some(found.renumbered)}; a segmenter would be measured on the wrong ones: give both files "
            "the same ids, or set data.class_agnostic=true or segmenter=none"
        )
    if found.lacking:
        raise AnnotationError(
            f"{val.annotations} lacks categories of {train.annotations}: {', '.join(map(str, found.lacking))}; give "
            "both splits the same list of categories, or set data.class_agnostic=true or segmenter=none"
        )


def compares(split: Split, config: Config) -> bool:
    """Whether a split has human masks that made ones can be compared with."""
    if split.census is None or not split.has_masks:
        return split.has_masks
    which = config.data.val_images if split.name == "val" else "all"
    return split.census.selected[which]["scored"] > 0


def notes(split: Split, config: Config) -> list[str]:
    """What a user must know about a split before a run."""
    census = split.census
    if census is None:
        return []
    said = [f"{split.annotations}: {finding.text}" for finding in census.findings if finding.level != STOPS]
    if census.crowd_masks and (census.all_crowds or census.crowd_masks > 0.1 * census.masks):
        said.append(f"{split.annotations}: {crowd_sentence(census)}")
    missing = census.unmasked + census.broken
    if missing and compares(split, config):
        broken = ""
        if census.broken:
            broken = f" (of {number(census.broken, 'segmentation')} no mask can be made: {census.first_broken[0]})"
        said.append(
            f"{split.annotations}: masks are compared with the {census.single} human ones there are; "
            f"{number(missing, 'box', 'boxes')} without one are labelled and not compared{broken}"
        )
    elif census.has_masks and not compares(split, config):
        said.append(
            f"{split.annotations}: {_images(config.data.val_images)} have no human mask to compare with: masks are "
            "made and not compared"
        )
    return said


def without_masks(split: Split) -> str:
    """Why a split counts as one without human masks."""
    census = split.census
    assert census is not None
    if census.repeats:
        return (
            f"{split.annotations} has boxes only: each of its {number(census.repeats, 'mask')} just repeats its box, "
            "and there is nothing to compare with"
        )
    if census.broken:
        return (
            f"{split.annotations} has no usable mask: {number(census.broken, 'segmentation')} cannot be read "
            f"({census.first_broken[0]}), and there is nothing to compare with"
        )
    if census.crowd_masks:
        return f"{split.annotations} has no masks of single objects to compare with"
    return f"{split.annotations} has boxes only: no masks to compare with"


def _images(which: str) -> str:
    return "its images" if which == "all" else f"its {which}-placed images (data.val_images={which})"


def _select_more(which: str) -> str:
    return "give a file with objects" if which == "all" else "set data.val_images=all, or give more images"
