"""Mutations of a Python source: one small change each, on one line, which leaves it valid Python.

    comparison   < to <= and >=, <= to < and >, == to !=, in to not in, is to is not; and back
    arithmetic   + to -, * to /, // to *, % to *, ** to *; and back where that is listed
    logic        and to or, or to and; not x to x; True to False, False to True
    number       an integer n to n + 1, a float x to 2 x, 0.0 to 1.0
    call         min to max, any to all, floor to ceil; and back
    statement    a call, a raise or an augmented assignment that stands alone to pass

Annotations, docstrings, f-strings and TYPE_CHECKING blocks stay as they are.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),  # codespell:ignore notin
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
}
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
}
CALLS = {"min": "max", "any": "all", "floor": "ceil"}
CALLS |= {other: name for name, other in CALLS.items()}
Span = tuple[int, int]  # of characters


@dataclass(frozen=True)
class Mutation:
    """A change of ``old``, at the character ``start`` of a source, to ``new``.

    ``lines``: the first and the last line of the smallest statement around it (of a compound one,
    its header); ``at_import``: whether that statement runs when the module is imported.
    """

    start: int
    old: str
    new: str
    lines: Span
    at_import: bool

    def apply(self, source: str) -> str:
        """Return the mutated source."""
        return source[: self.start] + self.new + source[self.start + len(self.old) :]


def mutations(source: str) -> list[Mutation]:
    """Return all mutations of a module, in the order of the source."""
    found = _Finder(source)
    found.visit(ast.parse(source))
    return sorted(found.mutations, key=lambda each: (each.start, each.new))


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.source = source
        rows = source.splitlines(keepends=True)
        self.rows = [row.encode() for row in rows]
        self.starts = [0]
        for row in rows:
            self.starts.append(self.starts[-1] + len(row))
        self.lines, self.depth = (1, 1), 0
        self.mutations: list[Mutation] = []

    def offset(self, line: int, column: int) -> int:
        """Return the character at a position of ast, whose columns count bytes."""
        return self.starts[line - 1] + len(self.rows[line - 1][:column].decode())

    def span(self, node: ast.expr | ast.stmt) -> Span:
        end_line, end_column = node.end_lineno or 0, node.end_col_offset or 0
        return self.offset(node.lineno, node.col_offset), self.offset(end_line, end_column)

    def add(self, span: Span, new: str) -> None:
        old = self.source[slice(*span)]
        if old != new:
            self.mutations.append(Mutation(span[0], old, new, self.lines, self.depth == 0))

    def between(self, left: ast.expr, right: ast.expr, new: str) -> None:
        """Replace the operator between two operands, next to any parentheses and spaces."""
        start, end = self.span(left)[1], self.span(right)[0]
        text = self.source[start:end]
        operator = text.strip(" ()\n")
        if "#" in text or not operator:
            return
        start += text.index(operator)
        self.add((start, start + len(operator)), new)

    # ---- statements

    def visit(self, node: ast.AST) -> None:
        outer = self.lines
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            self.lines = (node.lineno, last)
            self.statement(node)
        super().visit(node)
        self.lines = outer

    def statement(self, node: ast.stmt) -> None:
        call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
        if call or isinstance(node, ast.Raise | ast.AugAssign):
            self.add(self.span(node), "pass")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self.depth += 1
        for each in node.body:
            self.visit(each)
        self.depth -= 1

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave f-strings alone: ast has no positions inside them before Python 3.12."""

    # ---- expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            for new in COMPARISONS[type(operator)]:
                self.between(left, right, new)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if new := ARITHMETIC.get(type(node.op)):
            self.between(node.left, node.right, new)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        new = "or" if isinstance(node.op, ast.And) else "and"
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            start, end = self.span(node)[0], self.span(node.operand)[0]
            self.add((start, end), "(" if self.source[start:end].endswith("(") else "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.add(self.span(node), str(not value))
        elif isinstance(value, int):
            self.add(self.span(node), str(value + 1))
        elif isinstance(value, float):
            self.add(self.span(node), repr(2 * value if value else 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in CALLS:
            self.add(self.span(node.func), CALLS[node.func.id])
        self.generic_visit(node)


def walk_valid(source: str) -> Iterator[Mutation]:
    """Yield the mutations whose result is Python."""
    for mutation in mutations(source):
        try:
            ast.parse(mutation.apply(source))
        except SyntaxError:
            continue
        yield mutation
