"""Data sets: folders of radiographs, and phantoms that the package draws itself."""

from skcxr.datasets._folder import load_cxr_folder
from skcxr.datasets._phantoms import make_cxr_phantoms

__all__ = ["load_cxr_folder", "make_cxr_phantoms"]
