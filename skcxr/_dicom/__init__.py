"""What pydicom knows: an open DICOM file -> a gray array of known depth.

    header (chosen elements only) -> frame -> modality -> window -> inversion -> padding

Names, ids and dates are not among the elements that are read, but by `patient_key` for hashing. No
message of pydicom's or of a decoder goes on from here: they quote values. What they raise becomes
words of our own, without a chained exception; what they warn of and log is dropped.
"""

from skcxr._dicom._decode import decode_dicom, describe_dicom, patient_key
from skcxr._dicom._header import looks_like_dicom

__all__ = ["decode_dicom", "describe_dicom", "looks_like_dicom", "patient_key"]
