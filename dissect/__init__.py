"""Dissect session-based recommenders: which parts of a model does its accuracy need?"""

__version__ = "0.1.0"
