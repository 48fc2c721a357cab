"""All files of a project → one tree in canonical form, paths absolute: every file is read, interpolated, given what it
includes (14-include.md), checked, given what it extends (05-services.md, extends), and merged over those before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

from orchestrator.compose import paths, validate
from orchestrator.compose.errors import Report
from orchestrator.compose.files import absolute, add_variables, bytes_of, shown
from orchestrator.compose.interpolate import interpolate
from orchestrator.compose.merge import cleared, lost_mounts, merge, merge_included, merge_service
from orchestrator.compose.nodes import BAD, Mark, Node, fields, items, text, weight
from orchestrator.compose.read import read

MAX_FILES = 200  # of one project, each as often as it is included
MAX_CHAIN = 50  # files that include each other, or services that extend each other, in a row
_SERVICE_COST = 512  # of the budget; ten thousand services take a second
SECTIONS = ("services", "volumes", "networks", "secrets", "configs", "models")


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a file's relative paths begin, and the variables it sees. `above`: the files that include this one.
    `others`: the services of the files it extends from."""

    folder: Path
    variables: Mapping[str, str]
    above: tuple[Path, ...] = ()
    others: dict[Path, dict[str, Node]] = field(default_factory=dict)


class Assembly:
    """One load. `cwd`: where the person is, for naming files. Keeps what was read, as files may be asked for again."""

    def __init__(self, cwd: Path, report: Report) -> None:
        self._cwd = cwd
        self._report = report
        self._documents: dict[Path, list[Node]] = {}
        self._left = MAX_FILES

    def documents(self, path: Path, at: Node | None = None) -> list[Node]:
        """Of one file; several in one file merge like several files. `at`: what names it, if a file does."""
        if path not in self._documents:
            name = shown(path, self._cwd)
            data = bytes_of(path, name, self._report, at)
            nodes = read(data, name, self._report) if data is not None else []
            self._documents[path] = nodes
        return self._documents[path]

    def project(self, files: Sequence[Path], scope: Scope, at: Node | None = None) -> Node:
        """The merged tree of several files, the later ones over the earlier. `at`: as for documents()."""
        start = Mark(shown(files[0], self._cwd), 1, 1)
        root = Node({}, start, start)
        for path in files:
            self._spend(path)
            for document in self.documents(path, at):
                root = self._add(root, document, path, scope)
        validate.complete(root, self._report)
        return paths.resolved(root, scope.folder, scope.variables.get("HOME"), self._report)

    def _spend(self, path: Path) -> None:
        self._left -= 1
        if self._left < 0:
            self._report.stop(Mark(shown(path, self._cwd), 1, 1), f"cannot read more than {MAX_FILES} files")

    def _add(self, root: Node, document: Node, path: Path, scope: Scope) -> Node:
        self._report.spend(weight(root) + weight(document), document)
        node = validate.validate(self._interpolated(document, scope), self._report)
        root = cleared(root, node)
        lost_mounts(node, self._lost)
        for entry in items(fields(node).get("include")):
            node = self._include(entry, node, path, scope)
        services = fields(node).get("services")
        if services is not None and isinstance(services.value, dict):
            self._report.spend(len(services.value) * _SERVICE_COST, services)
            extended = dict(services.value)
            for name in services.value:
                self._extend(name, extended, path, scope, ())
            node = node.with_value({**fields(node), "services": services.with_value(extended)})
        self._report.tell_extended(node)
        return merge(root, node)

    def _interpolated(self, document: Node, scope: Scope) -> Node:
        return interpolate(document, scope.variables.get, self._report) if self._report.interpolated else document

    def _lost(self, mount: Node, target: str) -> None:
        self._report.warn(mount, f"this mount is lost: a later one has the same target {target}")

    def _include(self, entry: Node, node: Node, path: Path, scope: Scope) -> Node:
        """`node` over what the entry includes: what both have is merged, the file's own word counts."""
        long = fields(entry)
        named = items(long["path"]) if "path" in long else [entry]
        files = [absolute(Path(name), scope.folder) for item in named if (name := text(item))]
        if not files or len(files) != len(named):
            self._report.problem(entry, "cannot include this: `path` is missing", "include: [FILE]")
            return node
        above = (*scope.above, path)
        if files[0] in above:
            chain = " → ".join(shown(file, self._cwd) for file in (*above[above.index(files[0]) :], files[0]))
            self._report.stop(entry, f"cannot include {shown(files[0], self._cwd)}: it includes itself: {chain}")
        if len(above) > MAX_CHAIN:
            message = f"cannot include {shown(files[0], self._cwd)}: more than {MAX_CHAIN} files include each other"
            self._report.stop(entry, message)
        written = text(long.get("project_directory"))
        folder = absolute(Path(written), scope.folder) if written else files[0].parent
        variables = dict(scope.variables)
        own = [absolute(Path(text(item) or ""), scope.folder) for item in items(long.get("env_file"))]
        add_variables(own or [folder / ".env"], variables, self._cwd, self._report, required=bool(own), at=entry)
        tree = self.project(files, Scope(folder, variables, above), entry)
        self._report.spend(weight(tree), entry)
        tree = paths.environment_of(tree, variables)
        known = {key: child for key, child in fields(tree).items() if key in SECTIONS}
        return merge_included(node.with_value(known), node)

    def _extend(
        self, name: str, services: dict[str, Node], path: Path, scope: Scope, trail: tuple[tuple[Path, str], ...]
    ) -> Node:
        """services[name] over what it extends, and so kept there. Where that was reported, its image is BAD."""
        node = services[name]
        extends = fields(node).get("extends")
        if extends is None or extends.value is BAD:
            return node
        if (path, name) in trail:
            chain = " → ".join(service for _, service in (*trail, (path, name)))
            self._report.stop(extends, f"cannot extend {name}: the services extend each other: {chain}")
        trail = (*trail, (path, name))
        if len(trail) > MAX_CHAIN:
            self._report.stop(extends, f"cannot extend {name}: more than {MAX_CHAIN} services extend each other")
        own = node.with_value({key: child for key, child in fields(node).items() if key != "extends"})
        base = self._base(name, extends, services, path, scope, trail)
        if base is None:
            own = own.with_value({"image": extends.with_value(BAD), **fields(own)})  # it may be the base's to give
        if base is not None:
            self._report.spend(weight(base), extends)
        services[name] = merge_service(base, own) if base is not None and base.value is not None else own
        return services[name]

    def _base(
        self,
        name: str,
        extends: Node,
        services: dict[str, Node],
        path: Path,
        scope: Scope,
        trail: tuple[tuple[Path, str], ...],
    ) -> Node | None:
        wanted = text(extends) or text(fields(extends).get("service"))
        file = text(fields(extends).get("file"))
        if not wanted:
            self._report.problem(extends, f"cannot extend {name}: `service` is missing", "extends: {service: NAME}")
            return None
        where = path
        if file:
            where = absolute(Path(file), scope.folder)
            scope = replace(scope, folder=where.parent)
            if where not in scope.others:
                scope.others[where] = self._raw_services(where, scope, extends)
            services = scope.others[where]
        if wanted not in services:
            at = "" if where == path else f" in {shown(where, self._cwd)}"
            if not file or self._documents.get(where):
                meant = validate.guess(validate.near(wanted, [one for one in services if one != name or file]))
                message = f"cannot extend {wanted} in {name}: there is no service {wanted}{at}{meant}"
                self._report.problem(extends, message)
            return None
        base = self._extend(wanted, services, where, scope, trail)
        return paths.service(base, scope.folder, scope.variables.get("HOME"), self._report) if file else base

    def _raw_services(self, path: Path, scope: Scope, at: Node) -> dict[str, Node]:
        self._spend(path)
        parts: dict[str, list[Node]] = {}
        for document in self.documents(path, at):
            self._report.spend(weight(document), document)
            node = fields(self._interpolated(document, scope)).get("services")
            for name, service in fields(node).items():
                parts.setdefault(name, []).append(service)
        return _Unchecked(parts, self._report)


class _Unchecked(dict[str, Node]):
    """The services of another file, each checked when it is first asked for: those that nothing extends never are."""

    def __init__(self, parts: Mapping[str, list[Node]], report: Report) -> None:
        super().__init__()
        self._parts = parts
        self._report = report

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __missing__(self, name: str) -> Node:
        self[name] = reduce(merge_service, [validate.service(part, name, self._report) for part in self._parts[name]])
        return self[name]
