"""SCOPE: which tokens may go, and in which order."""

from foveate.scope.modality import All, Visual, VisualFirst

__all__ = ["All", "Visual", "VisualFirst"]
