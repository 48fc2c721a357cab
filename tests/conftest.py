"""Options shared by the tiers: the same tests with small rounds here, with large ones in deploy/soak."""

from __future__ import annotations

import signal

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun with & by a shell: what tests start must hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds", type=int, default=0, help="rounds of the survival tests (0: each test's own small number)"
    )
    parser.addoption("--seed", type=int, default=1, help="seed of the survival tests")
