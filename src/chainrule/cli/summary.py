"""``chainrule summary``: the layers of a saved model or a named network."""

from __future__ import annotations

import argparse
import json

from chainrule.cli.chosen import chosen_model
from chainrule.cli.layout import known_columns
from chainrule.cli.output import say
from chainrule.models.summary import summary_of

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Print the table of layers, or the same as one JSON object.

    Raises:
        ChainruleError: there is no such model or network, or the network does not fit the shape.
    """
    model = chosen_model(arguments).model
    if arguments.json:
        say(json.dumps(summary_of(model).to_json(), indent=2))
    else:
        say(summary_of(model).text(known_columns()))
    return 0
