"""The command line; see the package's docstring."""

from __future__ import annotations

import argparse
from pathlib import Path

import pretraining


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(
        "python -m pretraining", description=pretraining.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("train", help="films -> weights and hashes; goes on where it was")
    step.add_argument("data", type=Path, help="Kermany et al. 2018: NORMAL and PNEUMONIA")
    step.add_argument("out", type=Path, help="folder to write into")
    step.add_argument("--leave-out", type=Path, help="table whose persons (path) are left out")
    step.add_argument("--epochs", type=int, help="instead of the recipe's, to try it out")
    step.add_argument("--device", default="cpu", help="a torch device")
    step = steps.add_parser("measure", help="how few labels a linear model on them needs")
    step.add_argument("data", type=Path, help="folder of covid4.csv, covid4 and adults256")
    step.add_argument("out", type=Path, help="folder to write measured.json into")
    step.add_argument("--weights", type=Path, required=True, help="of `train --leave-out`")
    step.add_argument("--lite0", type=Path, help="ImageNet weights of tf_efficientnet_lite0")
    step.add_argument("--draws", type=int, default=20)
    step = steps.add_parser("card", help="write the card out of what is in OUT")
    step.add_argument("out", type=Path, help="folder of `train`")
    step.add_argument("measured", type=Path, help="folder of `measure`")
    arguments = parser.parse_args()
    if arguments.step == "train":
        from pretraining.train import train

        train(
            arguments.data, arguments.out, arguments.leave_out, arguments.epochs, arguments.device
        )
    elif arguments.step == "measure":
        from pretraining.measure import measure

        measure(arguments.data, arguments.out, arguments.weights, arguments.lite0, arguments.draws)
    else:
        from pretraining.card import write_card

        write_card(arguments.out, arguments.measured)


if __name__ == "__main__":
    main()
