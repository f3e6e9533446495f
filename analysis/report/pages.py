"""How does a template become a page? The only module that knows jinja2.

Whatever users named is escaped, and a value that a template lacks is an error.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_LOADER = PackageLoader("analysis.report", "page")
_ENVIRONMENT = Environment(
    loader=_LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def rendered(template: str, **values: Any) -> str:
    """A page from the folder ``page``."""
    return _ENVIRONMENT.get_template(template).render(**values)


def source_of(name: str) -> Markup:
    """A file of that folder as it is."""
    return Markup(_LOADER.get_source(_ENVIRONMENT, name)[0])
