"""Fills the HTML templates beside this file. What is no markup of ours is escaped."""

from functools import cache
from importlib import resources
from typing import Any

import jinja2


def render(name: str, **values: Any) -> str:
    """The template with these values; UndefinedError where it needs one more."""
    of_page = {"style": text("page.css"), "theme": text("theme.js")}
    return _environment().get_template(name).render(**of_page, **values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("bigxfer", "report"),
        autoescape=True,
        # A misspelt name would else leave a gap on the page, in silence.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def text(name: str, package: str = "bigxfer.report") -> str:
    """The text of a file of a package."""
    # Not by a path: it works from a wheel too.
    return resources.files(package).joinpath(name).read_text("utf-8")
