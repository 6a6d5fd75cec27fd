"""How Sphinx builds the course's pages. tools/pages.py copies this folder beside the lessons and calls Sphinx there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import docstrings

project = html_title = "Diffusion Lessons"
author = "the Diffusion Lessons authors"
project_copyright = "the Diffusion Lessons authors, MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "**/README.md"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}      # the widgets' scripts would come from the web; tools/pages.py puts stills in their place
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 4
# Nothing may come from another host: tools/pages.py puts MathJax beside the pages. Its SVG output needs no fonts.
mathjax_path = "mathjax/tex-svg.js"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False      # it fetches the pages, which a browser forbids on pages from the disk
html_context = {"default_mode": "auto"}
html_theme_options = {
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-light",
    "pygments_dark_style": "a11y-dark",
}


def skip_member(app, what, name, obj, skip, options):
    """Leave out the fields of a NamedTuple, of which Python only says that they are fields."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else skip


def process_docstring(app, what, name, obj, options, lines):
    """Turn a docstring of the course into what Sphinx reads."""
    lines[:] = docstrings.to_rst("\n".join(lines)).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-skip-member", skip_member)
