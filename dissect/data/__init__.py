"""Session data: what a data set is, how it is read, where it is found. Nothing here knows a model."""

from dissect.data.sessions import Dataset, Examples, Sessions, expand, split_validation, subset
from dissect.data.sources import load

__all__ = ["Dataset", "Examples", "Sessions", "expand", "load", "split_validation", "subset"]
