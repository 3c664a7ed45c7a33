"""The command line ``nnUNetv2_lightm``: lists the commands and runs the one that is called.

A command is a module with ``main(argv) -> exit code``, imported only when it is called: ``--help`` and ``doctor`` work
also where torch or nnunetv2 is broken.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from .commands.names import print_any_text, refusal_of_command_line
from .commands.suggest import did_you_mean
from .escaping import escape_terminal

PROGRAM = "nnUNetv2_lightm"
COMMANDS = {
    "doctor": (
        "commands.doctor.command",
        "check whether training can start, and print the fix if not",
    ),
    "backends": ("commands.backends", "list the scan backends, with the reason if one cannot run"),
    "complexity": ("commands.complexity", "count parameters and MACs, as the paper did and in full"),
    "convert": ("commands.convert", "convert a public data set into nnU-Net's raw format"),
    "plan": ("commands.plan", "write a plans file that names LightMUNet, for the stock trainer too"),
    "demo": (
        "commands.demo.command",
        "train and evaluate on generated phantoms, from conversion to a table of scores",
    ),
    "evaluate": (
        "commands.evaluate",
        "compute DSC, mIoU, HD95 and NSD per class, for one method or two compared",
    ),
    "benchmark": (
        "commands.benchmark",
        "train, predict and evaluate several trainers under equal conditions, and report",
    ),
    "benchmark-report": (
        "commands.benchmark_report",
        "write report.md and report.html about one or several comparisons",
    ),
    "export": (
        "commands.export",
        "write a trained model into one file, which predicts without PyTorch and nnU-Net, or as ONNX",
    ),
    "import-released": (
        "commands.import_released",
        "turn a checkpoint of the authors' fork into a model folder for stock nnU-Net",
    ),
}
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns its exit code: 0 done, 1 failed, 2 wrongly called, 130 interrupted."""
    print_any_text()
    if (refusal := refusal_of_command_line(sys.argv[1:] if argv is None else argv)) is not None:
        return _fail(f"{PROGRAM}: {refusal}")
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command not in COMMANDS:
        parser.error(f"no command {arguments.command!r}{did_you_mean(arguments.command, COMMANDS)}")
    name = f"{PROGRAM} {arguments.command}"
    try:
        return import_module(f"nnunetv2_lightm.{COMMANDS[arguments.command][0]}").main(arguments.arguments)
    except (ImportError, SyntaxError, NameError) as error:  # a truncated file is not valid Python, or ends in a name
        return _fail(f"{name}: a library is missing or broken: {error}. {_advice(arguments.command)}.")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `... | head` has read enough. Python flushes once more when it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{name}: {error}")


def _advice(command: str) -> str:
    if command != "doctor":
        return f"Run `{PROGRAM} doctor`"
    from .installation import reinstall_command

    return f"Install this package again: {reinstall_command()}"


def _fail(message: str) -> int:
    print(escape_terminal(message), file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [-h] [--version] COMMAND ...",
        description="LightM-UNet for stock nnU-Net v2.",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:<{width}}{summary}" for name, (_, summary) in COMMANDS.items()),
                "",
                f"`{PROGRAM} COMMAND --help` lists a command's options. nnU-Net's own commands train and predict:",
                "  nnUNetv2_train DATASET CONFIGURATION FOLD -tr nnUNetTrainerLightMUNet",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


class _PrintVersion(argparse.Action):
    def __call__(self, parser, *_):
        from . import __version__

        print(f"nnunetv2-lightm {__version__}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
