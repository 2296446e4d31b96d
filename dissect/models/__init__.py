"""Session models, built from ints and floats: ``build("srgnn", items=1000, dim=100)``."""

from dissect.models.recipes import (
    ENCODERS,
    READOUTS,
    RECIPES,
    SCORERS,
    Recipe,
    build,
    encoder_options_of,
    options_of,
    recipe_of,
)
from dissect.models.session_model import SessionModel

__all__ = [
    "ENCODERS", "READOUTS", "RECIPES", "SCORERS", "Recipe", "SessionModel", "build", "encoder_options_of",
    "options_of", "recipe_of",
]  # fmt: skip
