"""A gate for what is no chest radiograph."""

from __future__ import annotations

__all__: list[str] = []
