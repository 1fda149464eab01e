"""A solver as a table: small matrices, one for each call of the denoiser.

Almost every solver of the probability-flow equation is linear in what it has seen: positions x_i at
which the denoiser was called, its predictions m_i of the data, perhaps their derivatives, noise. So
a solver is written as a recording on a `Tape`,

    x = tape.start(half_log_snr)
    here = tape.evaluate(x, half_log_snr)      # one call of the denoiser
    x = 0.9 * here.position + 0.1 * here.data  # any linear combination
    program = tape.finish(x, half_log_snr)

which finds out what must be remembered from call to call and turns it into a `Program`: registers,
the first of which is the position, and for each call the matrix that maps registers and the new
prediction to the next registers. Predictions stay in the register that they came to, as moving them
costs as much as computing with them. One compiled scan executes all programs. Everything here is
float64 on the host; positions are at unit variance, alpha² + sigma² = 1.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from shoal.sampling.core.schedules import unit_scales

# Inputs of a row after the registers, in this order.
DATA, DERIVATIVE, NOISE, ONE = "data", "derivative", "noise", "one"
INPUTS = (DATA, DERIVATIVE, NOISE, ONE)


@dataclasses.dataclass(frozen=True)
class Atom:
    """What an expression is made of: something that came to be in one row."""

    kind: str
    row: int
    index: int = 0


# The number one, which every row has and none has to remember.
_ONE = Atom(ONE, -1)


@dataclasses.dataclass(frozen=True)
class Expression:
    """A linear combination of atoms, with scalars or arrays of the event's shape."""

    terms: dict[Atom, Any]

    def __add__(self, other: "Expression") -> "Expression":
        terms = dict(self.terms)
        for atom, factor in other.terms.items():
            terms[atom] = terms[atom] + factor if atom in terms else factor
        return Expression(terms)

    def __mul__(self, factor: Any) -> "Expression":
        return Expression({atom: old * factor for atom, old in self.terms.items()})

    # NumPy arrays would otherwise multiply entry by entry.
    __array_ufunc__ = None
    __rmul__ = __mul__

    def __neg__(self) -> "Expression":
        return self * -1.0

    def __sub__(self, other: "Expression") -> "Expression":
        return self + -other

    def __truediv__(self, factor: Any) -> "Expression":
        return self * (1 / factor)


def constant(value: Any) -> Expression:
    """Return what does not depend on the run: a scalar or an array of the event's shape."""
    return Expression({_ONE: value})


class Evaluation(NamedTuple):
    """A call of the denoiser: where, and what came out.

    Attributes
    ----------
    half_log_snr
        λ.
    position
        x at unit variance.
    data
        Predicted data.
    derivative
        Total derivative of ``data`` in λ along the flow; asks for it when used.
    """

    half_log_snr: float
    position: Expression
    data: Expression
    derivative: Expression

    @property
    def noise(self) -> Expression:
        """Predicted noise, (x - alpha m) / sigma."""
        alpha, sigma = unit_scales(self.half_log_snr)
        return (self.position - alpha * self.data) / sigma

    def form(self, name: str) -> Expression:
        """Return ``"data"`` or ``"noise"``."""
        return self.data if name == "data" else self.noise


class Program(NamedTuple):
    """A solver for one grid, ready to be executed.

    Attributes
    ----------
    half_log_snr
        λ of the N calls and of the result, ``(N + 1,)``.
    matrices
        ``(N, R, C, *shape)`` with R registers and C = R + number of inputs; ``shape`` is that of
        one sample where coefficients differ between its entries, else empty.
    inputs
        Which of ``"data", "derivative", "noise", "one"`` follow the registers.
    noise
        For each row the ends in λ and the decay η of the piece of Brownian motion that its noise
        is, ``(N, 3)``; NaN where it is a fresh draw or none.
    slots
        For each row the register that its prediction comes to, ``(N,)``; what was there is not
        used in that row any more. These registers are the last ones and do nothing else. Empty
        where no prediction is used after its own row.
    """

    half_log_snr: np.ndarray
    matrices: np.ndarray
    inputs: tuple[str, ...]
    noise: np.ndarray
    slots: np.ndarray


class Tape:
    """Records a solver, see the module's head."""

    def __init__(self) -> None:
        self._clock: list[float] = []
        self._noise: list[tuple[float, float, float]] = []
        self._draws_path: bool | None = None
        # What each row defines, in terms of what was there when it began and of its inputs.
        self._rows: list[dict[Atom, Expression]] = []

    @property
    def start(self) -> Expression:
        """Where the run starts; must be evaluated first."""
        return Expression({Atom("x", 0): 1.0})

    def evaluate(self, position: Expression, half_log_snr: float) -> Evaluation:
        """Call the denoiser at ``position``."""
        row = len(self._clock)
        here = Atom("x", row)
        if row:
            self._define(here, position)
        elif position.terms != self.start.terms:
            raise ValueError("the first call of the denoiser must be where the run starts")
        self._clock.append(float(half_log_snr))
        self._noise.append((np.nan, np.nan, np.nan))
        self._rows.append({})
        atoms = (here, Atom(DATA, row), Atom(DERIVATIVE, row))
        return Evaluation(float(half_log_snr), *(Expression({atom: 1.0}) for atom in atoms))

    def keep(self, expression: Expression, name: str = "kept") -> Expression:
        """Remember a combination as such: for what is built upon at every later call."""
        row = len(self._clock) - 1
        atom = Atom(name, row, sum(atom.kind == name for atom in self._rows[row]))
        self._define(atom, expression)
        return Expression({atom: 1.0})

    def _define(self, atom: Atom, expression: Expression) -> None:
        found = self._rows[-1]
        expanded = Expression({})
        for term, factor in expression.terms.items():
            expanded = expanded + found.get(term, Expression({term: 1.0})) * factor
        found[atom] = expanded

    def noise(self, start: float = np.nan, end: float = np.nan, decay: float = 1.0) -> Expression:
        """Return a standard normal: one for each row.

        With ``start`` and ``end`` in λ it is the increment of Brownian motion in exp(2 ``decay``
        λ) between them, over its standard deviation, and so the same path on every grid.
        """
        is_path = not np.isnan(start)
        if self._draws_path not in (None, is_path):
            raise ValueError("noise must be of one Brownian path in all rows, or fresh in all")
        self._draws_path = is_path
        if is_path:
            self._noise[-1] = (start, end, decay)
        return Expression({Atom(NOISE, len(self._clock) - 1): 1.0})

    def finish(self, position: Expression, half_log_snr: float) -> Program:
        """Return the program whose result is ``position``."""
        self._define(Atom("x", len(self._clock)), position)
        last_use: dict[Atom, int] = {}
        for row, definitions in enumerate(self._rows):
            for expression in definitions.values():
                last_use.update({atom: row for atom in expression.terms})
        used = {atom.kind for atom in last_use}
        last_use.pop(_ONE, None)
        inputs = tuple(name for name in INPUTS if name == DATA or name in used)
        live = _live(self._rows, last_use, inputs)
        registers = _registers(live)
        slots = _slots(last_use, len(self._rows), _count(registers))
        for row, found in enumerate(registers):
            found.update({atom: slots[atom.row] for atom in live[row] if atom.kind == DATA})
        matrices = _matrices(self._rows, live, registers, slots, inputs)
        clock = np.array([*self._clock, float(half_log_snr)])
        return Program(clock, matrices, inputs, np.array(self._noise), slots)


def _live(
    rows: list[dict[Atom, Expression]], last_use: dict[Atom, int], inputs: tuple[str, ...]
) -> list[list[Atom]]:
    """Return what is remembered when each row begins: the position, then newest first."""
    remembered: set[Atom] = set()
    found = [[Atom("x", 0)]]
    for row, definitions in enumerate(rows):
        came = {Atom("x", row), *definitions, *(Atom(name, row) for name in inputs)}
        remembered = {atom for atom in remembered | came if last_use.get(atom, -1) > row}
        position = Atom("x", row + 1)
        order = lambda atom: (atom.kind, -atom.row, atom.index)
        found.append([position, *sorted(remembered - {position}, key=order)])
    return found


def _registers(live: list[list[Atom]]) -> list[dict[Atom, int]]:
    """Give every kind but predictions as many registers as it needs: there, values shift."""
    kinds = sorted({atom.kind for atoms in live for atom in atoms[1:]} - {DATA})
    count = lambda atoms, kind: sum(atom.kind == kind for atom in atoms[1:])
    most = [max(count(atoms, kind) for atoms in live) for kind in kinds]
    first = dict(zip(kinds, 1 + np.cumsum([0, *most])[:-1], strict=True))
    found = []
    for atoms in live:
        registers = {atoms[0]: 0}
        for kind in kinds:
            same = [atom for atom in atoms[1:] if atom.kind == kind]
            registers.update({atom: int(first[kind]) + i for i, atom in enumerate(same)})
        found.append(registers)
    return found


def _count(registers: list[dict[Atom, int]]) -> int:
    return 1 + max(max(found.values()) for found in registers)


def _slots(last_use: dict[Atom, int], num_rows: int, first: int) -> np.ndarray:
    """Give every prediction a register, from ``first`` on, that none in use has; or none at all."""
    end = [last_use.get(Atom(DATA, row), row) for row in range(num_rows)]
    if all(last <= row for row, last in enumerate(end)):
        return np.zeros(0, int)
    taken_until: list[int] = []
    slots: list[int] = []
    for row, last in enumerate(end):
        free = [i for i, until in enumerate(taken_until) if until < row]
        slots.append(free[0] if free else len(taken_until))
        taken_until[slots[-1] : slots[-1] + 1] = [max(row, last)]
    return first + np.array(slots)


def _matrices(
    rows: list[dict[Atom, Expression]], live: list[list[Atom]], registers: list[dict[Atom, int]],
    slots: np.ndarray, inputs: tuple[str, ...],
) -> np.ndarray:  # fmt: skip
    """Write what every row does to the registers as matrices."""
    num_registers = max(_count(registers), 1 + max(slots, default=0))
    factors = [f for row in rows for e in row.values() for f in e.terms.values()]
    shape = np.broadcast_shapes(*(np.shape(factor) for factor in factors))
    matrices = np.zeros((len(rows), num_registers, num_registers + len(inputs), *shape))
    for row, definitions in enumerate(rows):
        column = dict(registers[row])
        for i, name in enumerate(inputs):
            column[_ONE if name == ONE else Atom(name, row)] = num_registers + i
        for atom in live[row + 1]:
            terms = definitions[atom].terms if atom in definitions else {atom: 1.0}
            for term, factor in terms.items():
                matrices[row, registers[row + 1][atom], column[term]] += factor
        for slot in set(slots.tolist()):
            matrices[row, slot, num_registers if slot == slots[row] else slot] = 1.0
    return matrices
