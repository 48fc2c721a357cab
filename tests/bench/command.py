"""What every measurement is as a program: --quick, the figures as a table, and --json FILE."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def command(
    about: str | None, quick: str, measure: Callable[[bool], dict[str, Any]], tell: Callable[[dict[str, Any]], str]
) -> int:
    """`about`: for --help. `quick`: what --quick leaves out; `measure` is given whether it was asked for."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    result = measure(arguments.quick)
    print(tell(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0
