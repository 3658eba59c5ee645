"""How Sphinx builds the pages: sphinx-build -W --keep-going -b html docs docs/_build/html."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path

from sphinx_gallery.sorting import ExplicitOrder

import skcxr

# ------------------------------------------------------------------------------------------
# project
# ------------------------------------------------------------------------------------------

project = "skcxr"
author = "The skcxr developers"
project_copyright = author
release = skcxr.__version__
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/**.ipynb", "auto_examples/*.py"]
templates_path = ["_templates"]
default_role = "code"
nitpicky = True
# what is not ours can be checked only where the network gives the other inventories
nitpick_ignore_regex = [("py:.*", r"(?!skcxr\b).*")]

# ------------------------------------------------------------------------------------------
# reference
# ------------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say types, shapes and ranges
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the template lists them
numpydoc_class_members_toctree = False


def _skip_requests(app, what, name, obj, skip, options):
    """Leave out scikit-learn's set_fit_request and its kind: the same on every estimator."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def _public_near(base):
    """Public names of the module of a class, and of the package that it is in."""
    package = base.__module__.rpartition(".")[0]
    return {
        name
        for module in (base.__module__, package)
        for name in getattr(sys.modules.get(module), "__all__", ())
    }


def _name_public_bases(app, name, obj, options, bases):
    """Link a base class to where it is imported from, not to the module that defines it."""
    for i, base in enumerate(bases):
        if getattr(base, "__name__", "") in skcxr.__all__:
            bases[i] = f":py:class:`~skcxr.{base.__name__}`"
        elif base.__module__.startswith("skcxr.") and base.__name__ not in _public_near(base):
            bases[i] = base.__bases__[0]  # what only our own classes share has no page


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", _skip_requests)
    app.connect("autodoc-process-bases", _name_public_bases)


# ------------------------------------------------------------------------------------------
# links to other projects
# ------------------------------------------------------------------------------------------


# an inventory without entries: where there is no network, links become plain text
_nothing = Path(__file__).parent / "_build" / "nothing.inv"
_nothing.parent.mkdir(exist_ok=True)
_head = "# Sphinx inventory version 2\n# Project: none\n# Version: 0\n"
_head += "# The remainder of this file is compressed using zlib.\n"
_nothing.write_bytes(_head.encode() + zlib.compress(b""))
# None is the project's own inventory; the second is taken where the first cannot be had
intersphinx_mapping = {
    name: (url, (None, str(_nothing)))
    for name, url in {
        "python": "https://docs.python.org/3",
        "numpy": "https://numpy.org/doc/stable",
        "scipy": "https://docs.scipy.org/doc/scipy",
        "sklearn": "https://scikit-learn.org/stable",
        "pandas": "https://pandas.pydata.org/docs",
        "torch": "https://docs.pytorch.org/docs/stable",
        "skorch": "https://skorch.readthedocs.io/en/stable",
        "matplotlib": "https://matplotlib.org/stable",
        "joblib": "https://joblib.readthedocs.io/en/stable",
    }.items()
}
intersphinx_timeout = 5
intersphinx_cache_limit = 0  # ask at every build: a build without network leaves nothing behind

# ------------------------------------------------------------------------------------------
# gallery
# ------------------------------------------------------------------------------------------

# examples run in this process: on a busy machine threads that spin while they wait cost minutes
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "backreferences_dir": "gen_modules/backreferences",
    "doc_module": ("skcxr",),
    "reference_url": {"skcxr": None},
    "within_subsection_order": ExplicitOrder(
        ["plot_first_classifier.py", "plot_split_by_patient.py", "*"]
    ),
    "image_scrapers": ("matplotlib",),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 0,
    "write_computation_times": False,
    "remove_config_comments": True,
}

# ------------------------------------------------------------------------------------------
# pages
# ------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "skcxr"
html_static_path = ["_static"]
html_css_files = ["skcxr.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {page: [] for page in ("getting_started", "faq", "contributing", "changelog")}
toc_object_entries_show_parents = "hide"
html_theme_options = {
    "logo": {"text": "skcxr"},
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "article_footer_items": ["research-only"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
