"""The look shared by every figure; it lives in `dissect.report.style`, so that the package draws alike."""

from dissect.report.style import GRID, INK, MUTED, PARTS, RC, of_part

__all__ = ["GRID", "INK", "MUTED", "PARTS", "RC", "of_part"]
