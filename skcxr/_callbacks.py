"""scikit-learn's callbacks, where it has them (1.9 and later)."""

from __future__ import annotations

__all__ = ["CALLBACKS", "CallbackSupportMixin"]

try:
    from sklearn.callback import CallbackSupportMixin

    CALLBACKS = True
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""

    CALLBACKS = False
