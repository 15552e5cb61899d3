"""Compiled programs of XLA as text: which instructions run, how often, and what they are said to
take.

The TPU compiler writes `estimated_cycles` beside every fusion, copy and convolution: its own static
estimate, which ranks programs and is no measurement.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import NamedTuple

_COMPUTATION = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (.*)")
_OPCODE = re.compile(r"(?:^|\s)([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(r"(?:to_apply|calls|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "reduce-scatter",
    "ragged-all-to-all",
    "send",
    "recv",
)


class Instruction(NamedTuple):
    """One instruction of a computation.

    Attributes:
      name: in the text.
      opcode: such as "fusion".
      text: its line.
    """

    name: str
    opcode: str
    text: str

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate of one execution; None where there is none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.text)
        return int(found[1]) if found else None

    @property
    def op_name(self) -> str:
        """The JAX operation that it stems from, "" where the text has none."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""


class Executed(NamedTuple):
    """An instruction and how often the program executes it."""

    instruction: Instruction
    times: int


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled module.

    Attributes:
      computations: instructions by name of the computation.
      entry: name of the first computation.
    """

    computations: dict[str, list[Instruction]]
    entry: str

    @classmethod
    def parse(cls, text: str) -> "Program":
        """The program that `jax.stages.Compiled.as_text` returned."""
        computations: dict[str, list[Instruction]] = {}
        entry, current = "", None
        for line in text.splitlines():
            if current is None:
                found = _COMPUTATION.match(line)
                if found:
                    current = computations.setdefault(found[2], [])
                    entry = found[2] if found[1] else entry
            elif line.startswith("}"):
                current = None
            elif found := _INSTRUCTION.match(line):
                opcode = _OPCODE.search(found[2])
                current.append(Instruction(found[1], opcode[1] if opcode else "", line))
        return cls(computations, entry)

    def executed(self) -> list[Executed]:
        """Every instruction outside of fusions, with how often it is executed.

        Of the branches of a conditional all are counted: an upper bound.
        """
        return list(self._walk(self.entry, 1))

    def _walk(self, computation: str, times: int) -> Iterator[Executed]:
        for instruction in self.computations[computation]:
            yield Executed(instruction, times)
            if instruction.opcode == "while":
                yield from self._walk(_named(instruction, "body"), times * self.trips(instruction))
            elif instruction.opcode in ("call", "conditional"):
                called = _CALLED.findall(instruction.text)
                for branches in _BRANCHES.findall(instruction.text):
                    called += re.findall(r"%([\w.\-]+)", branches)
                for name in called:
                    yield from self._walk(name, times)

    def trips(self, loop: Instruction) -> int:
        """How often the body of a `while` runs: `known_trip_count`, or the bound of its counter.

        Raises:
          ValueError: the condition is no comparison of a counter with one constant.
        """
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.text)
        if known:
            return int(known[1])
        condition = self.computations[_named(loop, "condition")]
        bounds = [m[1] for i in condition if (m := re.search(r" constant\((\d+)\)", i.text))]
        if len(bounds) != 1 or "direction=LT" not in condition[-1].text:
            raise ValueError(f"the trip count of {loop.name} is not in the text")
        return int(bounds[0])

    def collectives(self) -> tuple[str, ...]:
        """Names of the opcodes that communicate between devices, sorted."""
        opcodes = {i.opcode for body in self.computations.values() for i in body}
        return tuple(sorted(op for op in opcodes if op.removesuffix("-start") in _COLLECTIVES))

    def product_operands(self) -> dict[str, int]:
        """Matrix products by the dtype of their operands, "bf16" or "f32": how many there are.

        Products whose operands differ are counted as "f32", the wider.
        """
        counts: dict[str, int] = {}
        for body in self.computations.values():
            dtypes = {i.name: i.text.partition(" = ")[2].partition("[")[0] for i in body}
            for i in body:
                if i.opcode in ("convolution", "dot"):
                    operands = re.search(rf" {i.opcode}\(([^)]*)\)", i.text)
                    assert operands is not None
                    names = re.findall(r"%([\w.\-]+)", operands[1])
                    kind = "bf16" if {dtypes[name] for name in names} == {"bf16"} else "f32"
                    counts[kind] = counts.get(kind, 0) + 1
        return counts


def _named(instruction: Instruction, role: str) -> str:
    found = re.search(rf"{role}=%([\w.\-]+)", instruction.text)
    assert found is not None
    return found[1]
