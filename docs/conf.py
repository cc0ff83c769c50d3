"""How the documentation is built: Markdown pages, and the reference from the docstrings."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

# From the source and not from what is installed, which may be another version.
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
# Arguments of a class are described in its docstring, not in that of __init__.
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
