"""What port-forward reads of a command line; tests/host/test_forward.py has the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.errors import UserError
from orchestrator.cli.verbs.port_forward import ports

NUMBER = st.integers(1, 65535)


@given(local=st.one_of(st.just(0), NUMBER), remote=NUMBER)
def test_ports(local: int, remote: int) -> None:
    assert ports(f"{local}:{remote}") == (local, remote)
    assert ports(f":{remote}") == (0, remote)
    assert ports(str(remote)) == (remote, remote)


@pytest.mark.parametrize(
    "word", ["", ":", "80:", "x", "0", "80:0", "65536", "65536:80", "80:65536", "1:2:3", "-1", "８０"]
)
def test_what_is_no_port(word: str) -> None:
    with pytest.raises(UserError) as caught:
        ports(word)
    assert caught.value.code == "usage"
    assert f"the port {word}" in caught.value.message


@given(word=st.text(max_size=12))
def test_any_text_is_read_or_refused(word: str) -> None:
    try:
        local, remote = ports(word)
    except UserError:
        return
    assert 0 <= local <= 65535 and 1 <= remote <= 65535
