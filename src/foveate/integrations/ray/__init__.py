"""Many machines by Ray: rows of a data set answered in batches, and the server with replicas."""

from foveate.integrations.ray.batches import BatchGenerator

__all__ = ["BatchGenerator"]
