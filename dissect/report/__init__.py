"""Figures and tables from run folders; nothing here trains."""
