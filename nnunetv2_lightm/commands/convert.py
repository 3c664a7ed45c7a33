"""``nnUNetv2_lightm convert``: hands over to the converter of a data set."""

from __future__ import annotations

import argparse
from importlib import import_module

from .suggest import did_you_mean

PROGRAM = "nnUNetv2_lightm convert"
CONVERTERS = {
    "lits": ("Dataset801_LiTS", "LiTS: CT, liver and tumour; the challenge's files or MSD Task03_Liver"),
    "montgomery-shenzhen": ("Dataset802_MontgomeryShenzhen", "Montgomery & Shenzhen: chest X-ray, lung"),
}


def main(argv: list[str]) -> int:
    """Run the converter that the first argument names, with the other arguments."""
    width = max(map(len, CONVERTERS)) + 2
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [-h] DATASET ...",
        description="Convert a public data set into nnU-Net's raw format, under nnUNet_raw.",
        epilog="data sets:\n"
        + "\n".join(f"  {name:<{width}}{summary}" for name, (_, summary) in CONVERTERS.items())
        + f"\n\n`{PROGRAM} DATASET --help` lists a converter's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.dataset not in CONVERTERS:
        parser.error(f"no converter {arguments.dataset!r}{did_you_mean(arguments.dataset, CONVERTERS)}")
    converter = import_module(f"nnunetv2_lightm.dataset_conversion.{CONVERTERS[arguments.dataset][0]}")
    return converter.main(arguments.arguments)
