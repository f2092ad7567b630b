"""Output of ``ofa-search``, as text and as JSON."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.markup import escape

from ofa_nas.accuracy import MACS, Mlp
from ofa_nas.cli import answer
from ofa_nas.references import MeasuredReference
from ofa_nas.search import Evaluated, Found, Problem
from ofa_nas.spaces import Population, Space
from ofa_profiler.commands.display import columns, print_wide
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.words import counted

NEAREST = 2  # number of reference networks to print with one result


def summarise(problem: Problem, found: Found, method: str, seed: int) -> dict[str, Any]:
    """Return the object that ``--json`` prints."""
    how: dict[str, Any] = {
        "evaluated": found.evaluated,
        "seconds": round(found.seconds, 3),
        "method": method,
        "seed": seed,
        "proven": found.proven,
        "calibrated": is_calibrated(problem),
        "ranked_by": problem.accuracy.name if problem.accuracy.is_accuracy else MACS,
        "simulated": problem.simulated,
    }
    if problem.left_out:
        how["left_out"] = [asdict(each) for each in problem.left_out]
    limits = found.limits or problem.limits[:1] * len(found.best)
    networks = [_network(problem.within(limit), best) for limit, best in zip(limits, found.best, strict=True)]
    for network, bound in zip(networks, found.bounds, strict=False):
        network["bound"] = bound
    if is_one(found):
        return {**networks[0], **how}
    named = [{"name": name, **network} for name, network in zip(names(found), networks, strict=True)]
    if found.is_front:
        return {"front": named, **how}
    results = zip(found.limits, named, strict=True)
    summary: dict[str, Any] = {"results": [{"max_latency_ms": limit, **network, **how} for limit, network in results]}
    if found.unmet:
        summary["unmet"] = [{"max_latency_ms": limit, "reason": reason} for limit, reason in found.unmet.items()]
    return summary


def _network(problem: Problem, network: Evaluated) -> dict[str, Any]:
    (architecture,) = problem.space.decode(network.population)
    described: dict[str, Any] = {
        "architecture": architecture.to_json(),
        "predicted_latency_ms": float(problem.predicted_ms(network.population)[0]),
        "simulated": problem.simulated,
        "predicted_accuracy": _accuracy(network) if problem.accuracy.is_accuracy else None,
        "macs_m": float(problem.space.macs(network.population)[0]) / 1e6,
        "parameters_m": float(problem.space.parameters(network.population)[0]) / 1e6,
    }
    if len(problem.metrics) > 1 or not problem.metrics[0].exact:
        described["limited"] = [
            {"on": metric.name, "unit": metric.unit, "figure": float(price), "limit": limit}
            for metric, price, limit in zip(problem.metrics, network.prices[:, 0], _limits(problem), strict=True)
        ]
    return described


def names(found: Found) -> list[str]:
    """Name each network by its limit, or in a front by its latency. Equal names are numbered."""
    figures_ms, digits = (found.limits, 6) if found.limits else ([best.prices[0, 0] for best in found.best], 4)
    named: dict[float, str] = {}
    alike: Counter[str] = Counter()
    for figure_ms in dict.fromkeys(figures_ms):
        short = f"{figure_ms:.{digits}g}ms"
        alike[short] += 1
        named[figure_ms] = short if alike[short] == 1 else f"{short}-{alike[short]}"
    return [named[figure_ms] for figure_ms in figures_ms]


def print_answer(problem: Problem, found: Found, method: str) -> None:
    if is_one(found):
        print_found(problem, found, method)
    else:
        print_several(problem, found, method)


def is_one(found: Found) -> bool:
    """Return whether the search was for a single network."""
    return len(found.limits) + len(found.unmet) == 1


def print_found(problem: Problem, found: Found, method: str) -> None:
    space, network = problem.space, found.best[0].population
    px = space.resolutions_px[network.genes[-1, 0]]
    answer.print(f"[bold]{space.name} at {px} px[/]: {_effort(found, method)}\n")
    listing = columns("stage", "blocks", *space.choice_names)
    for column in listing.columns[2:]:
        column.justify = "left"
    for stage, blocks in blocks_by_stage(space, network).items():
        choices = (escape(" ".join(map(str, each))) for each in zip(*blocks, strict=True))
        listing.add_row(escape(stage), str(len(blocks)), *choices)
    print_wide(listing)
    answer.print()
    for label, text in described(problem, found.best[0]):
        answer.print(f"{label:<11} {text}", markup=False)
    for bound in found.bounds:
        answer.print(f"{'bound':<11} {_bounded(problem, found.best[0], bound)}", markup=False)


def print_several(problem: Problem, found: Found, method: str) -> None:
    """Print one line per network."""
    answer.print(f"[bold]{problem.space.name}[/]: {_effort(found, method)}\n")
    space, scores = problem.space, problem.accuracy.is_accuracy
    figures = [f"{metric.name}, {metric.unit}" for metric in problem.metrics]
    listing = columns(
        "name",
        "px",
        "blocks",
        *figures,
        *(["accuracy"] if scores else []),
        "MACs, M",
        "parameters, M",
    )
    for name, network in zip(names(found), found.best, strict=True):
        population = network.population
        listing.add_row(
            name,
            str(space.resolutions_px[population.genes[-1, 0]]),
            str(sum(map(len, blocks_by_stage(space, population).values()))),
            *(f"{price:.4g}" for price in network.prices[:, 0]),
            *([f"{_accuracy(network):.2%}"] if scores else []),
            f"{space.macs(population)[0] / 1e6:.1f}",
            f"{space.parameters(population)[0] / 1e6:.2f}",
        )
    print_wide(listing)
    answer.print()
    for metric in problem.metrics:
        if metric.model:
            answer.print(f"{metric.name:<11} {_basis(metric.model)}", markup=False)
    answer.print(f"{'accuracy':<11} {_ranking(problem)}", markup=False)


def print_measured(limit_ms: float, measured: dict[str, Any]) -> None:
    one, two = measured["passes_ms"]
    answer.print(f"[bold]measured    {one:.4g} and {two:.4g} of {limit_ms:g} ms[/], in two passes")


def print_references(
    references: Sequence[MeasuredReference], problem: Problem, best: Evaluated, measured: dict[str, Any]
) -> None:
    """Print the user's model files, and the published networks with the nearest latencies, fastest first."""
    this_ms, this = float(problem.predicted_ms(best.population)[0]), "this one's prediction"
    if measured:
        this_ms, this = measured["measured_latency_ms"], "this one, measured"
    elif not is_calibrated(problem):
        this = "this one's uncalibrated prediction"
    published = [one for one in references if not one.is_file]
    nearest = sorted(published, key=lambda one: abs(math.log(one.latency_ms / this_ms)))[:NEAREST]
    for one in sorted([*nearest, *(one for one in references if one.is_file)], key=lambda one: one.latency_ms):
        longer = one.latency_ms / this_ms - 1
        answer.print(
            f"{'your model' if one.is_file else 'reference':<11} {one.name}{_about(one)}: {one.latency_ms:.4g} ms "
            f"measured here, {abs(longer):.0%} {'more' if longer > 0 else 'less'} than {this}",
            markup=False,
        )


def reference_facts(one: MeasuredReference) -> dict[str, Any]:
    """Return a reference network as JSON."""
    return {"name": one.name, "latency_ms": one.latency_ms, "top1": one.top1, "macs": one.macs, "is_file": one.is_file}


def _about(one: MeasuredReference) -> str:
    """Return the accuracy and the resolution of a reference network, if known."""
    facts = []
    if one.top1 is not None:
        facts.append(f"{one.top1:.1%}{', as you state' if one.is_file else ' on ImageNet'}")
    facts += [f"{one.resolution_px} px"] if one.resolution_px else []
    return f" ({', '.join(facts)})" if facts else ""


def is_calibrated(problem: Problem) -> bool:
    """Return whether all tables are calibrated."""
    return all(metric.model.calibration is not None for metric in problem.metrics if metric.model)


def described(problem: Problem, best: Evaluated) -> Iterator[tuple[str, str]]:
    """Yield (label, text) for the costs and the accuracy of a network."""
    space, network = problem.space, best.population
    for metric, price, limit in zip(problem.metrics, best.prices[:, 0], _limits(problem), strict=True):
        within = "" if limit is None else f" of {limit:g}"
        basis = f", {_basis(metric.model)}" if metric.model else ""
        yield metric.name, f"{price:.4g}{within} {metric.unit}{basis}"
    predicted = max(int(metric.model.predicted_blocks(network)[0]) for metric in problem.metrics if metric.model)
    if predicted:
        yield "", f"{counted(predicted, 'block')} not measured but predicted from the others"
    scored = f"{_accuracy(best):.2%}, " if problem.accuracy.is_accuracy else ""
    yield "accuracy", f"{scored}{_ranking(problem)}{_members(problem, network)}"
    limited = {metric.name for metric in problem.metrics}
    for name, count in (("MACs", space.macs(network)), ("parameters", space.parameters(network))):
        if name not in limited:
            yield name, f"{count[0] / 1e6:.4g} M"


def _limits(problem: Problem) -> list[float | None]:
    """Return the limit of each metric, or None if it has no limit."""
    return [None] * problem.free + list(problem.limits[problem.free :])


def _effort(found: Found, method: str) -> str:
    """Describe the search: networks tried, method, time, and whether the result is proven optimal."""
    tried = f"{counted(found.evaluated, 'network')} tried by {escape(method)} in {found.seconds:.1f} s"
    if found.proven:
        return f"proven optimum; the limits allow only the {tried}"
    return f"best of {tried}"


def _basis(latency: LatencyModel) -> str:
    if latency.simulated:
        return "computed from the engine of a target, not measured on a device"
    if latency.calibration is None:
        model = "raw sum of the blocks" if latency.is_sum else "uncalibrated model of launches and GPU"
        return (
            f"{model}, which can be far off; calibrate the table with ofa-compare "
            f"--table {latency.table.path} --space {latency.space.name} --calibrate 10, then search again"
        )
    return f"calibrated with {counted(latency.calibration.networks, 'network')}"


def _bounded(problem: Problem, best: Evaluated, bound: float | None) -> str:
    """Describe how much better than ``best`` a network within the limits can be."""
    if bound is None:
        return "unknown; a better network may exist"
    more = max(0.0, bound - float(best.accuracy[0]))
    if problem.accuracy.is_accuracy:
        return f"no network within the limits has a predicted accuracy more than {more:.4f} higher"
    return f"no network within the limits has more than {more / float(best.accuracy[0]):.4%} more MACs"


def _ranking(problem: Problem) -> str:
    if problem.accuracy.is_accuracy:
        return f"predicted by {problem.accuracy.name}"
    return "not predicted; networks are ranked by MACs; use --accuracy FILE to rank by accuracy"


def _accuracy(network: Evaluated) -> float:
    """Return the predicted accuracy of one network, at most 1: the model's last layer is linear and can exceed it."""
    return min(1.0, float(network.accuracy[0]))


def _members(problem: Problem, network: Population) -> str:
    """Describe the range of an ensemble's predictions, a lower bound of its error."""
    model = problem.accuracy
    if not isinstance(model, Mlp) or len(model.members) < 2:
        return ""
    words = np.clip(model.by_member(network), 0.0, 1.0)
    return f", members predict {words.min():.2%} to {words.max():.2%}; ofa-export --data measures it"


def blocks_by_stage(space: Space, network: Population) -> dict[str, list[tuple[Any, ...]]]:
    """Return the choices of each block of one network, by stage. Fixed blocks are left out."""
    genes = network.genes[:, 0]
    found: dict[str, list[tuple[Any, ...]]] = {}
    for position in space.positions:
        if not position.genes:
            continue
        code = int(np.ravel_multi_index([genes[row] for row in position.genes], position.radices))
        block = space.choices_of(position, code)
        if block:
            found.setdefault(space.stages[position.stage], []).append(block)
    return found
