"""Photographs and boxes in, masks out: one command.

python -m mal.autolabel --images DIR --boxes IN.json --out OUT.json                      learn from these boxes, label
python -m mal.autolabel --images DIR --boxes IN.json --out OUT.json --labeler default    masks at once, nothing learned
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mal.check import Report, report
from mal.engine.commands import command
from mal.errors import ConfigError, MalError
from mal.label import FILES, add_options, finish
from mal.methods.mal.shipped import DEFAULT, labeler_path

STEPS = 400  # of 32 crops
PREVIEW = 12


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; 0 if every box has a mask, or is flagged with the reason why it has none."""
    return finish(lambda: _autolabel(_parser().parse_args(arguments)))


def _autolabel(options: argparse.Namespace) -> None:
    if options.review is None:
        options.review = options.format in FILES
    understood = report(options.boxes, options.images, skip=options.on_bad_image == "skip")
    print("\n".join(understood.lines), flush=True)
    _refuse(understood, options)
    options.steps = STEPS if options.steps is None else options.steps
    options.seed = options.seed or 0
    from mal.own.own_boxes import autolabel  # with torch, for which nobody need wait whose files are refused

    autolabel(options)


def _refuse(understood: Report, options: argparse.Namespace) -> None:
    """Stop here where the files cannot be labelled, or would be labelled wrongly.

    Raises:
        MalError.
    """
    if understood.stops:
        raise MalError("nothing was labelled; mend what would stop a run, as said above")
    if understood.misleads and not options.anyway:
        raise MalError("nothing was labelled; mend what misleads, as said above, or add --anyway")
    for name in ("steps", "seed", "store"):
        value = getattr(options, name)
        if options.labeler is not None and value is not None:
            raise ConfigError(f"--{name} {value} is for learning, and --labeler labels as it is; give one of them")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mal.autolabel",
        description="Give every box of a COCO file a mask: check the files, learn from the boxes, label them.",
        allow_abbrev=False,
    )
    add_options(parser)
    parser.set_defaults(preview=PREVIEW)
    learning = parser.add_argument_group("learning")
    learning.add_argument(
        "--labeler", type=labeler_path, metavar="FILE", help=f"learn nothing: label with this, or with `{DEFAULT}`"
    )
    learning.add_argument("--steps", type=int, metavar="N", help=f"how long to learn; default: {STEPS}")
    learning.add_argument("--seed", type=int, metavar="N", help="default: 0")
    learning.add_argument(
        "--store", type=Path, metavar="DIR", help="where what was learned is kept; default: OUT_autolabel"
    )
    parser.add_argument("--anyway", action="store_true", help="go on where the report says that something misleads")
    return parser


if __name__ == "__main__":
    sys.exit(main())
