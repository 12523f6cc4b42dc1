"""A table of segments and its audio become an encoder tuned on each meeting."""

__all__: list[str] = []
