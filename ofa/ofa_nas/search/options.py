"""The choices of a space as a multiple-choice problem: one option per slot, with a worth and a cost for each.

A *slot* has the positions and features that read the same genes, such as the kernel size and expand ratio of a block
and the depth of its stage. An *option* of a slot is one distinct combination of entries and features. Genes that only
one slot reads are private: its best option does not depend on the other slots. The other genes are shared, such as the
depth of a stage. Each choice of the shared genes allows a *set* of options. Sets are chosen by variable elimination.

Arrays have the options, sets or slots first and the networks last, so that numpy works on long rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ofa_nas.spaces.elimination import least_sums
from ofa_nas.spaces.gathers import Gather
from ofa_nas.spaces.reader import Reader
from ofa_nas.spaces.space import ABSENT, FloatArray, IntArray, Population, Space

IMPOSSIBLE = -1e30  # a score that is never chosen; finite, because it is multiplied by 0


@dataclass(frozen=True)
class _Slot:
    """Joint codes of ``rows``. ``sets`` are tuples of codes; ``set_of`` is the set that each shared code allows.

    ``like`` maps each joint code to the equal code that stands for it.
    """

    rows: tuple[int, ...]
    radices: tuple[int, ...]
    shared: tuple[int, ...]
    sets: tuple[tuple[int, ...], ...]
    set_of: IntArray
    like: dict[int, int]


class Options:
    """The options of ``space`` with the ``features`` of an accuracy model. Features of the resolution are left out."""

    def __init__(self, space: Space, features: Sequence[Gather]) -> None:
        self.space = space
        parts = [(position.genes, position.radices, position.entries, 0) for position in space.positions]
        parts += [(*gather, 1) for gather in features if len(space.radices) - 1 not in gather[0]]
        parts = [part for part in parts if part[0]]
        by_rows = {part[0]: [other for other in parts if other[0] == part[0]] for part in parts}
        slots = [
            _slot(space, rows, list(by_rows), [np.ravel(part[2]) for part in own]) for rows, own in by_rows.items()
        ]
        sets = [(at, codes) for at, slot in enumerate(slots) for codes in slot.sets]
        order = sorted(range(len(sets)), key=lambda at: len(sets[at][1]))
        place_of = {which: at for at, which in enumerate(order)}
        flat = [(sets[which][0], code) for which in order for code in sets[which][1]]
        self.slot_of = np.array([slot for slot, _ in flat])
        self.set_of_option = np.repeat(np.arange(len(order)), [len(sets[which][1]) for which in order])
        sizes = [len(sets[which][1]) for which in order]
        self.slot_of_set = np.array([sets[which][0] for which in order])
        self._blocks = _equal_runs(sizes)
        self._first_of = np.cumsum([0, *sizes[:-1]], dtype=np.int32)[:, None]
        self._place = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])[:, None]
        self._bits = (max(sizes) - 1).bit_length()
        firsts = np.cumsum([0, *(len(slot.sets) for slot in slots[:-1])])
        self._slots = slots
        self._set_of = [
            np.array([place_of[first + one] for one in slot.set_of]) for first, slot in zip(firsts, slots, strict=True)
        ]
        self.shared = sorted({row for slot in slots for row in slot.shared})
        radix_of = [tuple(int(space.radices[row]) for row in slot.shared) for slot in slots]
        at_of = [tuple(self.shared.index(row) for row in slot.shared) for slot in slots]
        self._set_reader = Reader(len(self.shared), list(zip(at_of, radix_of, self._set_of, strict=True)))
        self._sums_of_sets(len(order))
        values = [(at, value) for at, row in enumerate(self.shared) for value in range(int(space.radices[row]))]
        self.choices = np.array(values, dtype=int).reshape(-1, 2)  # (choices, 2): index into ``shared``, and value
        self.touched = np.array(
            [[self.shared[at] in slot.shared for slot in slots] for at in self.choices[:, 0]]
        )  # (choices, slots): whether the slot reads the gene
        if self._single is not None:
            self._single_choices = self._single[self.choices @ (self._most, 1)]
        tables = list(by_rows.values())
        self.entries, self.features = (
            _columns([[np.ravel(part[2])[code] for part in tables[slot] if part[3] == kind] for slot, code in flat])
            for kind in (0, 1)
        )
        option_at = {(slot, code, int(self.set_of_option[at])): at for at, (slot, code) in enumerate(flat)}
        self._reader = Reader(
            len(space.radices),
            [(slot.rows, slot.radices, self._option_of_codes(at, option_at)) for at, slot in enumerate(slots)],
        )
        self._private_rows, self._private_values = self._private(flat)

    def __len__(self) -> int:
        return len(self.slot_of)

    @property
    def slots(self) -> int:
        return len(self._slots)

    def chosen(self, population: Population) -> IntArray:
        """Return (slots, N): the option of each network."""
        return self._reader(population.genes)

    def summed(self, values: FloatArray, kind: IntArray) -> FloatArray:
        """Return (options, N) sums of ``values`` (N, entries or features + 1) over those of each option."""
        transposed = np.ascontiguousarray(values.T)
        total: FloatArray = transposed[kind[0]]
        for row in kind[1:]:
            total += transposed[row]
        return total

    def best(self, score: FloatArray) -> tuple[FloatArray, IntArray, IntArray]:
        """Return (N,) largest sums of scores (options, N), and their options (slots, N) and ``shared`` genes.

        The last bits of the scores are overwritten (``mark``).
        """
        best, options = self.best_in_sets(score)
        shared, total = self._best_shared(best)
        return total, picked(options, self._set_reader(shared)), shared

    def best_in_sets(self, score: FloatArray) -> tuple[FloatArray, IntArray]:
        """Return (sets, N) largest scores of the sets, and the options that have them. Overwrites as ``best`` does."""
        keys = mark(score, self._place, self._bits)
        parts = [keys[start : start + count * size].reshape(count, size, -1) for start, count, size in self._blocks]
        best = np.concatenate([part.max(axis=1) for part in parts])
        return best, self._first_of + marks(best, self._bits)

    def sets_at(self, shared: IntArray) -> IntArray:
        """Return (slots, N): the sets that shared genes (shared, N) allow."""
        return self._set_reader(shared)

    def added(self, shared: IntArray, of_sets: Sequence[FloatArray], own: Sequence[FloatArray]) -> list[FloatArray]:
        """Return what each of ``choices`` of one shared gene adds to some sums over the slots, each (choices, N).

        ``shared`` (shared, N) are the genes before. A slot whose set changes has its ``own`` values (slots, N) before,
        and those ``of_sets`` (sets, N) after. Choices that change no slot add IMPOSSIBLE to the first sum.
        """
        before, count = self.sets_at(shared), shared.shape[1]
        if self._single is not None:
            differs = before[self.slot_of_set] != np.arange(len(self.slot_of_set))[:, None]
            changes = self._single_choices @ differs.astype(np.float32)
            sums = [
                self._single_choices @ ((values - each[self.slot_of_set]) * differs)
                for values, each in zip(of_sets, own, strict=True)
            ]
        else:
            after = np.tile(shared, len(self.choices))
            gene, value = np.repeat(self.choices.T, count, axis=1)
            after[gene, np.arange(len(gene))] = value
            sets, tiled = self.sets_at(after), np.tile(np.arange(count), len(self.choices))
            differs = sets != before[:, tiled]
            changes = differs.sum(axis=0).reshape(-1, count)
            sums = [
                ((values[sets, tiled] - each[:, tiled]) * differs).sum(axis=0).reshape(-1, count)
                for values, each in zip(of_sets, own, strict=True)
            ]
        sums[0][changes == 0] = IMPOSSIBLE
        return sums

    def networks(self, chosen: IntArray, shared: IntArray, resolutions: IntArray) -> Population:
        """Return the networks with these options (slots, N), shared genes (shared, N), and resolution indices (N,)."""
        genes = np.zeros((len(self.space.radices) + 1, chosen.shape[1]), dtype=np.uint8)  # the last row is discarded
        genes[self.shared] = shared
        genes[-2] = resolutions
        for rows, values in zip(self._private_rows, self._private_values, strict=True):
            genes[rows] = values[chosen]
        return Population(genes[:-1])

    def parts(self) -> list[tuple[list[int], tuple[int, ...]]]:
        """Return (slots, shared genes) of the parts that can be chosen independently of each other."""
        parts: list[tuple[list[int], tuple[int, ...]]] = []
        for at, slot in enumerate(self._slots):
            touching = [part for part in parts if set(part[1]) & set(slot.shared)]
            rest = [part for part in parts if part not in touching]
            slots = sorted(sum((slots for slots, _ in touching), [at]))
            rows = sorted(set(slot.shared).union(*(rows for _, rows in touching)))
            parts = [*rest, (slots, tuple(rows))]
        return parts

    def sets_of(self, slots: Sequence[int], shared: Sequence[int]) -> Iterator[tuple[tuple[int, ...], list[IntArray]]]:
        """Yield each choice of the shared genes, and the options that it allows in each slot."""
        for choice in np.ndindex(*(int(self.space.radices[row]) for row in shared)):
            genes = np.zeros((len(self.shared), 1), dtype=np.uint8)
            genes[[self.shared.index(row) for row in shared], 0] = choice
            sets = self._set_reader(genes)[slots, 0]
            yield choice, [np.flatnonzero(self.set_of_option == one) for one in sets]

    def _best_shared(self, best: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return the best shared genes (shared, N) for the best scores (sets, N) of the sets, and (N,) sums."""
        if self._single is not None:
            sums = (self._single @ best + self._impossible).reshape(len(self.shared), self._most, best.shape[1])
            return sums.argmax(axis=1), self._alone @ best + sums.max(axis=1).sum(axis=0)
        grids: dict[tuple[int, ...], FloatArray] = {}
        for slot, of in zip(self._slots, self._set_of, strict=True):
            if slot.shared:
                grids[slot.shared] = grids.get(slot.shared, 0) - best[of]
        radices = self.space.radices
        least, shared = least_sums(
            [(rows, grid.T.reshape(best.shape[1], *radices[list(rows)])) for rows, grid in grids.items()]
        )
        return np.array([shared[row] for row in self.shared]), self._alone @ best - least

    def _sums_of_sets(self, sets: int) -> None:
        """Prepare the sums over sets for ``_best_shared``. They are simple if no slot has two shared genes."""
        self._alone = np.zeros(sets, dtype=np.float32)
        self._most = most = max([1, *(int(self.space.radices[row]) for row in self.shared)])
        single = np.zeros((len(self.shared), most, sets), dtype=np.float32)
        impossible = np.full((len(self.shared), most, 1), IMPOSSIBLE, dtype=np.float32)
        for slot, of in zip(self._slots, self._set_of, strict=True):
            if len(slot.shared) == 1:
                at = self.shared.index(slot.shared[0])
                single[at, np.arange(len(of)), of] += 1
                impossible[at, : len(of)] = 0
            elif not slot.shared:
                self._alone[of[0]] += 1
        is_single = all(len(slot.shared) < 2 for slot in self._slots)
        self._single = single.reshape(-1, sets) if is_single else None
        self._impossible = impossible.reshape(-1, 1)

    def _option_of_codes(self, at: int, option_at: dict[tuple[int, int, int], int]) -> IntArray:
        slot = self._slots[at]
        codes = np.array(list(np.ndindex(*slot.radices)))
        shared = np.zeros(len(codes), dtype=int)
        for row in slot.shared:
            shared = shared * int(self.space.radices[row]) + codes[:, slot.rows.index(row)]
        sets = self._set_of[at][shared]
        return np.array([option_at[at, slot.like[code], int(which)] for code, which in enumerate(sets)])

    def _private(self, flat: Sequence[tuple[int, int]]) -> tuple[list[IntArray], list[IntArray]]:
        """Return rows (slots,) of the first, second … private genes, and their values (options,)."""
        most, beyond = max(len(_private_of(slot)) for slot in self._slots), len(self.space.radices)
        rows, values = [], []
        for number in range(most):
            own = [(*_private_of(slot), *[beyond] * most)[number] for slot in self._slots]
            rows.append(np.array(own))
            values.append(np.array([self._gene(slot, code, own[slot]) for slot, code in flat], dtype=np.uint8))
        return rows, values

    def _gene(self, at: int, code: int, row: int) -> int:
        slot = self._slots[at]
        return int(np.unravel_index(code, slot.radices)[slot.rows.index(row)]) if row in slot.rows else 0


def _slot(space: Space, rows: tuple[int, ...], others: Sequence[tuple[int, ...]], tables: Sequence[IntArray]) -> _Slot:
    radices = tuple(int(space.radices[row]) for row in rows)
    shared = tuple(row for row in rows if sum(row in other for other in others) > 1)
    codes = np.array(list(np.ndindex(*radices)))
    signature = [tuple(int(table[code]) for table in tables) for code in range(len(codes))]
    sets: dict[tuple[int, ...], int] = {}
    set_of, like = [], {}
    for choice in np.ndindex(*(int(space.radices[row]) for row in shared)):
        inside = np.flatnonzero((codes[:, [rows.index(row) for row in shared]] == choice).all(axis=1))
        first: dict[tuple[int, ...], int] = {}
        for code in map(int, inside):
            first.setdefault(signature[code], code)
        alike = tuple(sorted(first))
        known = {tuple(sorted(signature[code] for code in own)): own for own in sets}
        own = known.get(alike) or tuple(first[each] for each in alike)
        set_of.append(sets.setdefault(own, len(sets)))
        stands = {signature[code]: code for code in own}
        like.update({int(code): stands[signature[code]] for code in inside})
    return _Slot(rows, radices, shared, tuple(sets), np.array(set_of), like)


def mark(values: FloatArray, marks: IntArray, bits: int) -> FloatArray:
    """Write int32 ``marks`` into the last ``bits`` of each value, in place.

    A maximum then says where it is. This takes a fraction of the time of ``argmax`` over the rows.
    """
    integer = np.dtype(f"i{values.itemsize}").type
    keys = values.view(integer)
    keys &= integer(-1 << bits)
    keys |= marks
    return values


def marks(values: FloatArray, bits: int) -> IntArray:
    """Return the marks of these values, as int32."""
    integer = np.dtype(f"i{values.itemsize}").type
    return (values.view(integer) & integer((1 << bits) - 1)).astype(np.int32, copy=False)


def picked(values: FloatArray, which: IntArray) -> FloatArray:
    """Return ``values[which[i, n], n]`` for values (options or sets, N) and which (slots, N)."""
    flat = which.astype(np.intp)
    flat *= values.shape[1]
    flat += np.arange(values.shape[1])
    taken: FloatArray = values.ravel().take(flat)
    return taken


def _private_of(slot: _Slot) -> tuple[int, ...]:
    return tuple(row for row in slot.rows if row not in slot.shared)


def _equal_runs(sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (first option, number of sets, size) of each run of equal sizes."""
    runs, start = [], 0
    for size, run in groupby(sizes):
        sets = len(list(run))
        runs.append((start, sets, size))
        start += sets * size
    return runs


def _columns(lists: Sequence[Sequence[int]]) -> IntArray:
    """Return (longest, options) with ABSENT where an option has fewer."""
    longest = max(1, max(map(len, lists)))
    return np.array([[*each, *[ABSENT] * (longest - len(each))] for each in lists]).T
