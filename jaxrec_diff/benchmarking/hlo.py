"""What a compiled program does, counted in the text of its optimised HLO.

XLA's own cost analysis counts the body of a loop once. Here a loop's body counts as often as the
loop is known to turn (`known_trip_count`), loops inside loops multiplied. Each branch of a
conditional counts as if it were taken equally often.

>>> text = '''HloModule twice
... %b (p: f32[]) -> f32[] {
...   %p = f32[] parameter(0)
...   ROOT %double = f32[] add(%p, %p)
... }
... %c (p: f32[]) -> pred[] {
...   %p = f32[] parameter(0)
...   ROOT %yes = pred[] constant(true)
... }
... ENTRY %main (x: f32[]) -> f32[] {
...   %x = f32[] parameter(0)
...   ROOT %l = f32[] while(%x), condition=%c, body=%b, config={"known_trip_count":{"n":"2"}}
... }'''
>>> found = count(text)
>>> found.operations, found.executed, found.bytes
(1, 2.0, 24.0)
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
# They name parts of what is there, or nothing at all, and cost nothing.
_FREE = frozenset(
    "after-all bitcast bitcast-convert constant domain get-dimension-size get-tuple-element "
    "opt-barrier parameter partition-id replica-id tuple".split()
)
_HOST = frozenset("infeed outfeed recv recv-done send send-done".split())
_CALLBACK = re.compile(r"custom_call_target=\"([^\"]*(?:callback|python)[^\"]*)\"", re.IGNORECASE)
_WINDOWS = frozenset(("dynamic-slice", "gather", "slice"))  # read what they give, not all they have
_IN_PLACE = {"dynamic-update-slice": 1, "scatter": 2}  # which operand is written into the first
_TRIPS = re.compile(r"\"known_trip_count\":\{\"n\":\"(\d+)\"")
_SHAPE = re.compile(r"([a-z]+)(\d*)[a-z\d]*\[([\d,<=]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAMED = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    opcode: str
    size: int  # bytes of the result
    operands: tuple[str, ...]
    text: str  # operands and attributes
    root: bool


class Module(NamedTuple):
    """A program by the names of its computations, each a list of instructions by their names."""

    computations: dict[str, dict[str, Instruction]]
    entry: str


class Counts(NamedTuple):
    """What one run of a program does, on one device."""

    bytes: float  # read and written by its operations, a fusion being one
    operations: int  # in its text, without those inside fusions and without what costs nothing
    fusions: int  # of these
    executed: float  # operations as often as they run
    unknown_loops: int  # loops that were counted with `unknown` turns
    host_in_loops: tuple[str, ...]  # what waits for the host inside a loop


class _Visit(NamedTuple):
    computation: dict[str, Instruction]
    instruction: Instruction
    times: float
    looped: bool


def count(text: str, unknown: int = 1) -> Counts:
    """Counts a program.

    Args:
      text: `compiled.as_text()`.
      unknown: turns of a loop that XLA does not know the number of.
    """
    module = parse(text)
    total, executed, unknown_loops = 0.0, 0.0, 0
    seen: dict[tuple[int, str], str] = {}
    host: list[str] = []
    for computation, one, times, looped in _visits(module, module.entry, 1.0, False, unknown):
        if one.opcode == "while":
            unknown_loops += _TRIPS.search(one.text) is None
            continue
        if one.opcode in ("call", "conditional") or one.opcode in _FREE:
            continue
        seen[id(computation), one.name] = one.opcode
        executed += times
        total += times * _moved(module, computation, one)
        callback = _CALLBACK.search(one.text) if one.opcode == "custom-call" else None
        if looped and (one.opcode in _HOST or callback):
            host.append(callback.group(1) if callback else one.opcode)
    fusions = sum(opcode == "fusion" for opcode in seen.values())
    return Counts(total, len(seen), fusions, executed, unknown_loops, tuple(host))


def collectives(text: str, unknown: int = 1) -> dict[str, float]:
    """Bytes that each kind of collective gives a device in one run of a program.

    Args:
      text: `compiled.as_text()`.
      unknown: turns of a loop that XLA does not know the number of.

    >>> found = collectives('''HloModule one
    ... ENTRY %main (x: f32[4]) -> f32[2,4] {
    ...   %x = f32[4] parameter(0)
    ...   %sum = f32[4] all-reduce(%x), to_apply=%add
    ...   ROOT %rows = f32[2,4] all-gather(%sum), dimensions={0}
    ... }''')
    >>> found
    {'all-reduce': 16.0, 'all-gather': 32.0}
    """
    module, found = parse(text), dict[str, float]()
    for _, one, times, _ in _visits(module, module.entry, 1.0, False, unknown):
        kind = one.opcode.removesuffix("-done")  # what has a start ends in its result
        if kind in _COLLECTIVES:
            found[kind] = found.get(kind, 0.0) + times * one.size
    return found


def parse(text: str) -> Module:
    """Reads the text of a module.

    Raises:
      ValueError: if it has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, here = "", None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            here = computations.setdefault(header.group(2), {})
            entry = header.group(2) if header.group(1) else entry
        elif here is not None and " = " in line:
            one = _instruction(line.strip())
            here[one.name] = one
    if not entry:
        raise ValueError("this text is no HLO module: it has no ENTRY computation")
    return Module(computations, entry)


def _instruction(line: str) -> Instruction:
    left, _, right = re.sub(r"/\*.*?\*/", "", line).partition(" = ")
    end = _closing(right, 0) if right.startswith("(") else right.index(" ")
    shape, rest = right[:end], right[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    return Instruction(
        name=left.removeprefix("ROOT ").removeprefix("%"),
        opcode=rest[:opening],
        size=_size(shape),
        operands=tuple(_NAMED.findall(rest[opening:closing])),
        text=rest[opening:],
        root=left.startswith("ROOT "),
    )


def _closing(text: str, opening: int) -> int:
    """The place behind the bracket that closes the one at `opening`."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)


def _size(shape: str) -> int:
    """Bytes of a shape or a tuple of them; s4 counts as a byte.

    >>> _size("(s32[], f32[4,8]{1,0}, pred[3], bf16[2])")
    139
    """
    total = 0
    for kind, width, dims in _SHAPE.findall(shape):
        count = 1
        for dim in filter(None, dims.split(",")):
            count *= int(dim.removeprefix("<="))
        bits = 0 if kind == "token" else int(width or 8)
        total += count * max(bits // 8, bits > 0)
    return total


def _visits(
    module: Module, name: str, times: float, looped: bool, unknown: int
) -> Iterator[_Visit]:
    """Every instruction outside fusions, and how often it runs."""
    computation = module.computations[name]
    for one in computation.values():
        yield _Visit(computation, one, times, looped)
        for inner, turns in _inside(one, unknown):
            loops = looped or one.opcode == "while"
            yield from _visits(module, inner, times * turns, loops, unknown)


def _inside(one: Instruction, unknown: int) -> list[tuple[str, float]]:
    """Computations that an instruction runs as such, and how often."""
    if one.opcode == "while":
        trips = _TRIPS.search(one.text)
        turns = int(trips.group(1)) if trips else unknown
        return [(_attribute(one, part), turns) for part in ("condition", "body")]
    if one.opcode == "call":
        return [(_attribute(one, "to_apply"), 1.0)]
    if one.opcode == "async-start":
        return [(_attribute(one, "calls"), 1.0)]
    if one.opcode == "conditional":
        listed = re.search(r"branch_computations=\{([^}]*)\}", one.text)
        pair = ("true_computation", "false_computation")
        names = _NAMED.findall(listed[1]) if listed else [_attribute(one, part) for part in pair]
        return [(each, 1.0 / len(names)) for each in names]
    return []


def _attribute(one: Instruction, name: str) -> str:
    found = re.search(rf"\b{name}=%?([\w.\-]+)", one.text)
    if found is None:
        raise ValueError(f"the {one.opcode} {one.name} names no {name}")
    return found.group(1)


def _moved(module: Module, computation: dict[str, Instruction], one: Instruction) -> float:
    """Bytes that an instruction reads and writes."""
    if one.opcode.endswith("-done") or one.opcode == "async-start":
        return 0.0  # counted where it starts, or inside
    if one.opcode == "fusion":
        return _fused(module.computations[_attribute(one, "calls")])
    sizes = [computation[operand].size for operand in one.operands if operand in computation]
    if one.opcode in _WINDOWS:
        return 2.0 * one.size + (sum(sizes[1:]) if one.opcode == "gather" else 0)
    if one.opcode in _IN_PLACE:
        return 2.0 * sizes[_IN_PLACE[one.opcode]]
    return float(one.size + sum(sizes))


def _fused(computation: dict[str, Instruction]) -> float:
    """Bytes of a fusion: what it reads of its parameters, and what it writes.

    A parameter that is only cut from counts by what is cut, and one that is only written into, by
    what is written.
    """
    users: dict[str, list[Instruction]] = {}
    for one in computation.values():
        for operand in one.operands:
            users.setdefault(operand, []).append(one)

    def used(name: str) -> Iterator[tuple[str, Instruction]]:
        for user in users.get(name, ()):
            if user.opcode == "bitcast":
                yield from used(user.name)
            else:
                yield name, user

    def read(parameter: Instruction) -> float:
        by = list(used(parameter.name))
        first = [user for name, user in by if user.operands[0] == name]
        if len(first) == len(by) and all(user.opcode in _WINDOWS for user in first):
            return sum(user.size for user in first)
        if len(first) == len(by) and all(user.opcode in _IN_PLACE for user in first):
            return 0.0
        return parameter.size

    def written(one: Instruction) -> float:
        if one.opcode == "tuple":
            return sum(written(computation[each]) for each in one.operands)
        if one.opcode == "bitcast":
            return written(computation[one.operands[0]])
        if one.opcode in _IN_PLACE:
            return computation[one.operands[_IN_PLACE[one.opcode]]].size
        return one.size

    parameters = [one for one in computation.values() if one.opcode == "parameter"]
    roots = [one for one in computation.values() if one.root]
    return float(sum(map(read, parameters)) + sum(map(written, roots)))
