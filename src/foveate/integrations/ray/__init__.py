"""Many machines by Ray: rows of a data set answered in batches, and the server with replicas."""

from foveate.integrations.ray.batches import BatchGenerator
from foveate.integrations.ray.serving import app, deployment

__all__ = ["BatchGenerator", "app", "deployment"]
