"""What gorae makes of every key that a project uses: honoured, honoured in its own way, ignored, warned of or refused,
each with its reason.

The verdicts are the table's (table.py); this walks a canonical tree beside it. `gorae check` shows all findings, `up`
stops at a refused one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.compose.errors import Report
from orchestrator.compose.keys import ROOT, Branch, Rule, Verdict
from orchestrator.compose.nodes import Mark, Node, spelled


class Finding(NamedTuple):
    """`key`: its path in the project. `value`: of a scalar whose value decided. `mark`: where it is written."""

    verdict: Verdict
    key: str
    value: str
    mark: Mark
    why: str


def findings(root: Node) -> Iterator[Finding]:
    """One for each key that is no mere container of others; the keys below a judged one are judged with it."""
    return _below(root, ROOT, "")


def _below(node: Node, branch: Branch, path: str) -> Iterator[Finding]:
    if isinstance(node.value, dict):
        any_name = branch.children.get("*")
        for key, child in node.value.items():
            inner = branch.children.get(key, any_name)
            if inner is not None:
                yield from _one(child, inner, f"{path}.{key}" if path else key, key if inner is any_name else "")
    elif isinstance(node.value, list) and "[]" in branch.children:
        for index, child in enumerate(node.value):
            yield from _below(child, branch.children["[]"], f"{path}[{index}]")


def _one(node: Node, branch: Branch, path: str, named: str) -> Iterator[Finding]:
    """`named`: the key, if it is a name that a person chose, of which there is nothing to tell in itself; or ""."""
    rule = branch.rule
    judged = rule.verdict != "supported" and not _spared(node, rule, named)
    if judged:
        by_value = bool(rule.but) and not named
        value, mark = (spelled(node.value), node.at) if by_value else ("", node.key_at)
        yield Finding(rule.verdict, path, value, mark, rule.why)
    if judged and rule.verdict != "differs":
        return
    plain = rule.shape and all(child.rule.verdict == "supported" for child in branch.children.values())
    below = [] if plain else list(_below(node, branch, path))
    yield from below
    if not below and not named and not judged:
        yield Finding("supported", path, "", node.key_at, "")


def _spared(node: Node, rule: Rule, named: str) -> bool:
    if named:
        return named in rule.but
    return spelled(node.value) in rule.but or node.value in (None, [], {})


def judge(root: Node, report: Report) -> None:
    """Reports what is refused as problems, and warns of what is warned of."""
    for finding in findings(root):
        if finding.verdict == "refused":
            report.problem(finding.mark, sentence(finding))
        elif finding.verdict == "warned":
            report.warn(finding.mark, sentence(finding))


def sentence(finding: Finding) -> str:
    """What `up` says of a finding that is refused, or warned of."""
    if finding.verdict == "warned":
        return f"{finding.key} is ignored: {finding.why}"
    value = f": {finding.value[:40]!r}" if finding.value else ""
    return f"cannot use {finding.key}{value}: {finding.why}"
