"""Atten-Mixer as a leaf package: torch and the standard library only."""
