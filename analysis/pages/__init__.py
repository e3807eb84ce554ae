"""HTML pages from templates: every text is escaped where it is inserted, styles and scripts stand in the page."""

from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """A template with its values filled in.

    Args:
        template: path below analysis/: `report/report.html`.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    loader = PackageLoader("analysis", ".")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}  # of tojson: in the order of the data
    environment.globals["source"] = lambda name: loader.get_source(environment, name)[0]
    environment.filters["base64"] = _base64
    return environment


def _base64(path: Path) -> str:
    """A file's content, to stand in a data: address."""
    return b64encode(path.read_bytes()).decode()
