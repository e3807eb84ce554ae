"""Values that JSON does not have, NaN and the infinities, found and named before hours of work meet them at the end."""

from typing import Any

DEEPEST = 100  # lists and objects inside each other; writing a file back recurses into them
_CHECKED = {"id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd"}  # elsewhere, by range


class TooDeep(Exception):
    """Lists and objects lie more than `DEEPEST` deep inside each other."""


def not_finite_place(coco: dict[str, Any], *, everywhere: bool) -> str | None:
    """Where the first NaN or infinity of a COCO file is, in words; None where there is none.

    Args:
        everywhere: look at boxes and masks too. They are most of a file, and `annotation_checks` knows their ranges.

    Raises:
        TooDeep: a value that was looked at is nested too deeply.
    """
    for kind, entries in coco.items():
        for entry in entries if isinstance(entries, list) else [entries]:
            if not everywhere and kind == "annotations" and entry.keys() <= _CHECKED:
                continue
            looked_at = entry
            if not everywhere and kind == "annotations":
                looked_at = {key: value for key, value in entry.items() if key not in _CHECKED}
            keys = _keys_to_not_finite(looked_at, 0)
            if keys is not None:
                name = f"entry {entry['id']} of {kind}" if isinstance(entry, dict) and "id" in entry else kind
                return f"{name} holds NaN or an infinity" + (f" in {'.'.join(keys)}" if keys else "")
    return None


def _keys_to_not_finite(value: Any, depth: int) -> list[str] | None:
    if isinstance(value, float):
        return None if abs(value) < float("inf") else []
    if not isinstance(value, dict | list):
        return None
    if depth > DEEPEST:
        raise TooDeep
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        found = _keys_to_not_finite(part, depth + 1)
        if found is not None:
            return [str(key), *found]
    return None
