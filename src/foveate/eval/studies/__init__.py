"""All studies, in the order in which the page of results shows them."""

from foveate.eval.studies.aircache import ALPHA, BUDGET, MERGE, SINGLE, SIZES, WINDOW
from foveate.eval.studies.auto import AUTO
from foveate.eval.studies.headline import HEADLINE
from foveate.eval.studies.lookm import ALPHAS, EXTREME
from foveate.eval.studies.mixkv import COMPONENTS, HOSTS

__all__ = ["STUDIES"]

STUDIES = (
    HEADLINE,
    AUTO,
    SIZES,
    HOSTS,
    ALPHA,
    MERGE,
    WINDOW,
    BUDGET,
    SINGLE,
    ALPHAS,
    EXTREME,
    COMPONENTS,
)
