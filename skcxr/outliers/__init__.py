"""A gate for what is no upright chest radiograph."""

from skcxr.outliers._gate import OutlierGate

__all__ = ["OutlierGate"]
