"""Runs the commands of tutorial.md in an empty folder and writes what they print under each of them.

    python docs/tutorial.py FOLDER

A block of commands is followed by `<!-- output -->` or `<!-- output: last 5 lines -->`, and that by the output. All
blocks run in one shell; the first command that fails ends it, and the page stays as it was.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().with_name("tutorial.md")
CHECKOUT = PAGE.parents[1]
BLOCK = re.compile(
    r"```bash\n(?P<commands>.*?)```\n\n"
    r"(?P<marker><!-- output(?:: last (?P<last>\d+) lines)? -->)\n(?:```text\n.*?```\n)?",
    re.DOTALL,
)
END = "=== end of block ==="


def main() -> int:
    """Returns 0 when every command has run, 1 when one has failed, 2 when the folder is not empty."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="empty, or not there yet")
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    page = PAGE.read_text(encoding="utf-8")
    script = "set -euo pipefail\n" + "".join(
        f"{match['commands']}echo\necho '{END}'\n" for match in BLOCK.finditer(page)
    )
    # A reader's shell has nothing of nnU-Net's exported.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(["bash"], input=script.encode(), cwd=folder, env=environment, **pipes, check=False)
    # Bytes: text mode would make a line of every state of a progress bar.
    output = done.stdout.decode("utf-8").replace(str(folder), "$PWD").replace(str(CHECKOUT), "$HOME/nnunetv2-lightm")
    outputs = output.split(f"{END}\n")
    if done.returncode:
        print(outputs[-1], file=sys.stderr)
        return 1
    PAGE.write_text(BLOCK.sub(lambda match: _with_output(match, outputs.pop(0)), page), encoding="utf-8")
    return 0


def _with_output(match: re.Match[str], output: str) -> str:
    # A progress bar rewrites its line: what stays is the text after the last carriage return.
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in output.split("\n")]
    lines = [line for line in lines if line]
    shown = lines[-int(match["last"]) :] if match["last"] else lines
    block = f"```bash\n{match['commands']}```\n\n{match['marker']}\n"
    return block + ("```text\n" + "\n".join(shown) + "\n```\n" if shown else "")


if __name__ == "__main__":
    sys.exit(main())
