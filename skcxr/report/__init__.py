"""One evaluation in one object and one page."""

__all__: list[str] = []
