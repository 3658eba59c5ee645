"""Patients from the headers of DICOM files, as salted hashes."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable

from skcxr._exceptions import ImageReadError, InputError
from skcxr._optional import import_optional
from skcxr._patients import patient_from_name
from skcxr.images import dicom_patient, is_dicom

__all__ = ["patient_from_dicom"]


def patient_from_dicom(
    *, salt: str | bytes | None = None
) -> Callable[[str | os.PathLike[str]], str | None]:
    """Make a rule that reads the patient from the header of a DICOM file, as a salted hash.

    Give it as ``groups`` to :func:`skcxr.load_cxr_folder`. Images of one patient get one hash;
    the id itself appears nowhere.

    Parameters
    ----------
    salt : str, bytes or None, default=None
        What the hashes are made with. None draws a salt that is forgotten with the rule, so that
        the hashes of two rules cannot be joined. Keep a salt of your own secret: who has it can
        try out the ids that a hospital may have given.

    Returns
    -------
    rule : callable
        A function of a path that returns "p" and 16 hexadecimal digits: the first 64 bits of
        HMAC-SHA256 of the issuer of the patient id and the id. None where a DICOM file has no
        patient id or cannot be read. For any other file it returns what its name tells, as
        :func:`skcxr.load_cxr_folder` does by itself.

    Raises
    ------
    InputError
        If `salt` is empty, or of another type.

    See Also
    --------
    skcxr.load_cxr_folder : Load a folder of images.

    Notes
    -----
    The names of files and folders are kept as they are. Where they hold ids or names, rename the
    files first.

    Two hashes of different ids are the same with a probability of 1 in 10**19.

    Examples
    --------
    >>> from skcxr.datasets import patient_from_dicom
    >>> rule = patient_from_dicom(salt="kept in a safe")
    >>> rule("person10_bacteria_43.jpeg")
    'person10_bacteria'
    """
    import_optional("pydicom", "dicom")
    if salt is not None and (not isinstance(salt, str | bytes) or not salt):
        raise InputError(
            f"salt must be None, or a str or bytes that is not empty; got a {type(salt).__name__}"
            + (" that is empty" if isinstance(salt, str | bytes) else "")
        )
    key = secrets.token_bytes(32) if salt is None else salt
    secret = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key

    def rule(path: str | os.PathLike[str]) -> str | None:
        if not is_dicom(path):
            return patient_from_name(path)
        try:
            patient = dicom_patient(path)
        except ImageReadError:
            return None
        if patient is None:
            return None
        return "p" + hmac.new(secret, patient, hashlib.sha256).hexdigest()[:16]

    return rule
