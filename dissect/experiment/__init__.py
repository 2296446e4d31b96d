"""Experiments: spec -> data -> model -> wrap -> train -> evaluate -> record."""
