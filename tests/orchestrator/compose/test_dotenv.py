"""Files of variables (05-services.md, env_file format)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compose.dotenv import parse, parse_raw
from orchestrator.compose.errors import ComposeError, Report

KNOWN = {"S": "shell"}


def parsed(source: str) -> dict[str, str]:
    report = Report()
    found = parse(source, "f", KNOWN.get, report)
    report.finish()
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("A=plain # comment", {"A": "plain"}),
        ("A=plain# no comment", {"A": "plain# no comment"}),
        ("A=#x", {"A": "#x"}),
        ('A="dq # keep" # comment', {"A": "dq # keep"}),
        ("A='sq $X ${Y}'", {"A": "sq $X ${Y}"}),
        ('A="\\t tab \\" q \\\\ \\$S"', {"A": '\t tab " q \\ $S'}),
        ('A="\\x41 \\0101"', {"A": "\\x41 A"}),
        ("A='it\\'s \\n'", {"A": "it's \\n"}),
        ("export A=exported", {"A": "exported"}),
        ("export=1", {"export": "1"}),
        ("A: colon-style", {"A": "colon-style"}),
        ("A=", {"A": ""}),
        ('A="multi\nline"\nB=1', {"A": "multi\nline", "B": "1"}),
        ("A=a\nB=$A-x", {"A": "a", "B": "a-x"}),
        ("S=file\nB=$S", {"S": "file", "B": "shell"}),
        ("A=${N:-def}", {"A": "def"}),
        ("  A = spaced  ", {"A": "spaced"}),
        ("A=\\tliteral", {"A": "\\tliteral"}),
        ("A=pa$$x", {"A": "pa$x"}),
        ("S\nN\nB=1", {"S": "shell", "B": "1"}),
        ("S", {"S": "shell"}),
        ("# only\n\n  # comments\n", {}),
        ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A.B-C=1\n1D=2", {"A.B-C": "1", "1D": "2"}),
        ("A=1\nA=2", {"A": "2"}),
    ],
)
def test_parse(source: str, found: dict[str, str]) -> None:
    assert parsed(source) == found


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("A=1\n=2", "f:2:1: cannot read this line: NAME=value is expected"),
        ("A B=1", "f:1:1: cannot read this line: NAME=value is expected"),
        (
            'A=1\n\nB="open',
            'f:3:1: cannot set B: the text after " must end with "',
        ),
        ("A=${", "f:1:1: cannot set A: a ${ is not closed; for a plain dollar sign write $$"),
        ("A=${N:?say it}", "f:1:1: cannot set A: the variable N is not set (say it)"),
    ],
)
def test_refused(source: str, message: str) -> None:
    with pytest.raises(ComposeError) as caught:
        parsed(source)
    assert str(caught.value) == message


@pytest.mark.parametrize("source", ["A='x'y", 'A="x" y', "A='x' 'y' # c"])
def test_what_follows_a_quoted_text_has_no_effect(source: str) -> None:
    report = Report()
    assert parse(source, "f", KNOWN.get, report) == {"A": "x"}
    (warning,) = report.warnings
    assert warning.startswith(f"f:1:3: what follows {source[2]} in A has no effect: ")


def test_raw_takes_lines_letter_by_letter() -> None:
    source = 'A="q" $S # c\n# comment\n\n  B = x \nS\nN\n'
    report = Report()
    assert parse_raw(source, "f", KNOWN.get, report) == {"A": '"q" $S # c', "S": "shell"}
    assert [str(problem) for problem in report.problems] == [
        "f:4:1: cannot read this line: a name without spaces must come first"
    ]


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(source: str) -> None:
    for read in (parse, parse_raw):
        report = Report()
        found = read(source, "f", KNOWN.get, report)
        assert all(name and "\n" not in name for name in found)


@given(st.text(alphabet="AB=:'\"\\$#{} \n\t", max_size=60))
def test_any_lines_are_read_or_refused(source: str) -> None:
    report = Report()
    parse(source, "f", KNOWN.get, report)
    assert all(problem.message.startswith("cannot ") for problem in report.problems)


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(alphabet='ab #=$"\\\n', max_size=12)))
def test_single_quotes_keep_everything(variables: dict[str, str]) -> None:
    source = "".join(f"{name}='{value}'\n" for name, value in variables.items() if not value.endswith("\\"))
    assert parsed(source) == {name: value for name, value in variables.items() if not value.endswith("\\")}
