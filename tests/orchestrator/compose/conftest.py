"""Properties here are about results: a busy machine must not fail them by the clock. And the corpus's summary line."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.support.corpus import OUTCOMES, summary

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash.setdefault(OUTCOMES, [])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    yield  # what pytest itself has to say, which may be long
    outcomes = config.stash.get(OUTCOMES, [])
    if outcomes:
        terminalreporter.write_line(summary(outcomes))
