"""Data sets: folders and tables of radiographs, and phantoms that the package draws itself."""

from skcxr.datasets._folder import load_cxr_folder
from skcxr.datasets._phantoms import make_cxr_phantoms
from skcxr.datasets._table import load_cxr_table

__all__ = ["load_cxr_folder", "load_cxr_table", "make_cxr_phantoms"]
