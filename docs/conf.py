"""The configuration of Sphinx: Markdown pages, and the reference from the docstrings."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

# The version in the source, because another version may be installed.
_setup = ConfigParser()
_setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")

project = "rxdispatch"
author = "rxdispatch contributors"
copyright = "rxdispatch contributors"
version = release = _setup["metadata"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"rxdispatch {release}"

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
# The docstring of a class describes its arguments, so that of __init__ is left out.
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
