"""Models: layers put together, trained, stored."""

from chainrule.models.functional import Functional
from chainrule.models.model import Model
from chainrule.models.saving import load_model
from chainrule.models.sequential import Sequential

__all__ = ["Functional", "Model", "Sequential", "load_model"]
