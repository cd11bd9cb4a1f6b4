"""Loop nests as machine code: hoisted by loop level, vectorised along the last axis, with a scalar tail."""

from chainrule.engines.native.nests.loops import emit_nest
from chainrule.engines.native.nests.sharing import Likeness, likeness
from chainrule.engines.native.nests.sizes import size_value

__all__ = ["Likeness", "emit_nest", "likeness", "size_value"]
