"""Audits: does a map depend on the model and on the data, or would any model have drawn it? None is written yet."""

__all__: list[str] = []
