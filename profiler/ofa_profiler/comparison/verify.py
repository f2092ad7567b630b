"""Search and measure until a network meets the limit on the device."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from ofa_nas.search import Found, Problem, Question
from ofa_nas.search.resolutions import in_words
from ofa_nas.spaces import Population, Space, parse_architecture
from ofa_profiler.campaign.campaign import Progress
from ofa_profiler.campaign.effort import EFFORTS
from ofa_profiler.campaign.profile import Profiler
from ofa_profiler.comparison.compare import Comparer
from ofa_profiler.comparison.statistics import ComparedNetwork
from ofa_profiler.connections import Connection
from ofa_profiler.priors import priors_of
from ofa_tables.errors import OfaError
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.table import TEST, LatencyTable

ATTEMPTS = 12
# From the second miss on, each miss lowers the target by this fraction: the search selects
# networks whose prediction is too low, and measurements vary.
STEP = 0.005
# Before a network with predicted blocks is measured whole, blocks of it and of similar networks are measured: at most
# this often, for this time in s. The search then continues.
REFINEMENTS = 3
REFINEMENT_S = 8.0
# A network that takes this many times as long as predicted is measured again: the device was probably disturbed.
DOUBTFUL = 2.0


@dataclass(frozen=True)
class Verified:
    """``found`` is the answer of the last search to ``problem``, and ``measured`` its network. ``misses`` are the
    networks before it, each with its predicted latency in ms.
    """

    problem: Problem
    found: Found
    measured: ComparedNetwork
    misses: tuple[tuple[float, ComparedNetwork], ...]


class NotFastEnough(OfaError):
    pass


def verify(
    table: LatencyTable,
    question: Question,
    find: Callable[[Problem], Found],
    connection: Connection,
    progress: Callable[[], AbstractContextManager[Progress]],
    say: Callable[[str], None],
) -> Verified:
    """Search and measure until both passes of a network meet the limit. Ctrl-C ends it; a network found by an
    interrupted search is not measured.

    Predicted blocks of the network that was found are measured before the network is, and the search is repeated.
    A network that takes more than DOUBTFUL times as long as predicted, twice, never calibrates the table.
    Each network that misses the limit calibrates the table before the next search. Raises NotFastEnough after ATTEMPTS,
    LimitUnreachable if the calibrated table predicts no feasible network.
    """
    (limit_ms,) = question.latency_ms
    space = question.space
    comparer = Comparer(table, space)
    misses: list[tuple[float, ComparedNetwork]] = []
    refinements = 0
    while len(misses) < ATTEMPTS:
        model = LatencyModel.calibrated(table, space)
        problem = _aimed(question.to_problem([model]), limit_ms, [network for _, network in misses])
        if not misses and not refinements:
            for line in in_words(problem.left_out):
                say(line)
        found = find(problem)
        if found.interrupted:
            raise KeyboardInterrupt
        network = found.best[0].population
        count = int(model.predicted_blocks(network)[0])
        if count and refinements < REFINEMENTS and not model.simulated:
            say(f"{count} blocks of the network that was found are only predicted; measuring them and similar ones")
            with progress() as shown:
                profiler = Profiler(table, space, EFFORTS["standard"], connection, shown, priors_of(table, (), say))
                profiler.measure_near(network, REFINEMENT_S)
            comparer = Comparer(table, space)
            comparer.calibrate()
            refinements += 1
            continue
        predicted_ms = float(model.predict(network)[0])
        with progress() as shown:
            measured = _measured(comparer, space, network, connection, shown)
            if reason := _doubt(measured, predicted_ms):
                say(f"{reason} ({measured.measured_ms:.4g} ms); measuring again")
                measured = _measured(comparer, space, network, connection, shown)
        if max(measured.passes_ms) > DOUBTFUL * predicted_ms:
            table.store.add_network(measured.key, space.name, measured.architecture, TEST)  # it must not calibrate
            raise NotFastEnough(
                f"the network that was found took {measured.measured_ms:.4g} ms, predicted {predicted_ms:.4g} ms: the "
                "table does not describe the device as it is now; keep the device idle, and run the command again, or "
                "calibrate the table with ofa-compare --calibrate 10"
            )
        comparer.calibrate()
        slower_ms = max(measured.passes_ms)
        if slower_ms <= limit_ms:
            return Verified(problem.within(limit_ms), found, measured, tuple(misses))
        misses.append((predicted_ms, measured))
        say(
            f"measured {slower_ms:.4g} ms in the slower pass, {slower_ms / limit_ms - 1:.1%} over the limit (predicted "
            f"{predicted_ms:.4g} ms); the table is recalibrated and the search continues"
        )
    raise NotFastEnough(
        f"{ATTEMPTS} networks in a row were measured to be over {limit_ms:g} ms, the last one at "
        f"{max(misses[-1][1].passes_ms):.4g} ms; they calibrate {table.path}: run the command again, or keep the "
        "device idle"
    )


def _doubt(measured: ComparedNetwork, predicted_ms: float) -> str:
    """Describe why a measurement is doubtful; empty if it is not."""
    if measured.disturbed:
        return "the device was disturbed during all trials"
    ratio = max(measured.passes_ms) / predicted_ms
    return f"the network took {ratio:.1f} times as long as predicted" if ratio > DOUBTFUL else ""


def _aimed(problem: Problem, limit_ms: float, missed: Sequence[ComparedNetwork]) -> Problem:
    """The problem with a lower limit after each miss but the first, below the current prediction of every network that
    missed.
    """
    aim_ms = limit_ms * (1 - STEP * max(0, len(missed) - 1))
    if missed:
        population = problem.space.encode([parse_architecture(network.architecture) for network in missed])
        aim_ms = min(aim_ms, float(np.nextafter(problem.metrics[0](population).min(), 0)))
    return problem.within(aim_ms)


def _measured(
    comparer: Comparer, space: Space, network: Population, connection: Connection, progress: Progress
) -> ComparedNetwork:
    (architecture,) = space.decode(network)
    measured, outcome = comparer.measure_anew(architecture, connection, progress)
    if measured is None:
        reasons = "; ".join(outcome.failures.values()) or "too few of its trials succeeded"
        raise NotFastEnough(f"what was found could not be measured: {reasons}")
    return measured
