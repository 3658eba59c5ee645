"""Data sets: folders, tables, public collections, and phantoms that the package draws itself."""

from skcxr.datasets._agreements import load_chexpert, load_nih_chestxray14
from skcxr.datasets._challenges import load_rsna_pneumonia, load_vindr_cxr
from skcxr.datasets._dicom_patients import patient_from_dicom
from skcxr.datasets._folder import load_cxr_folder
from skcxr.datasets._medmnist import fetch_chestmnist, fetch_pneumoniamnist
from skcxr.datasets._padchest import load_padchest
from skcxr.datasets._phantoms import make_cxr_phantoms
from skcxr.datasets._public import fetch_covid19_image_data, fetch_kermany
from skcxr.datasets._table import load_cxr_table

__all__ = [
    "fetch_chestmnist",
    "fetch_covid19_image_data",
    "fetch_kermany",
    "fetch_pneumoniamnist",
    "load_chexpert",
    "load_cxr_folder",
    "load_cxr_table",
    "load_nih_chestxray14",
    "load_padchest",
    "load_rsna_pneumonia",
    "load_vindr_cxr",
    "make_cxr_phantoms",
    "patient_from_dicom",
]
