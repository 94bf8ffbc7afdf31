"""From a template and what it shows to HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

_HERE = Path(__file__).with_name("template")


def render(context: dict[str, Any], name: str = "page.html.j2", folder: Path | None = None) -> str:
    """The HTML of a page; a value that the template wants and the context lacks is an error.

    Args:
        context: what the template shows.
        name: of the template.
        folder: where it is; what it includes may be here. None: here.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_HERE] if folder is None else [folder, _HERE]),
        autoescape=jinja2.select_autoescape(("html", "j2")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(context)
