"""Search methods by name. Other packages add methods through the entry point group ``ofa_nas.search``."""

from ofa_nas.search.annealing import annealing
from ofa_nas.search.constraints import (
    Metric,
    energy_metric,
    latency_metric,
    macs_metric,
    memory_metric,
    parameters_metric,
    upper_metric,
)
from ofa_nas.search.evaluation_cache import Evaluated, EvaluationCache
from ofa_nas.search.exhaustive import exhaustive
from ofa_nas.search.once_for_all import once_for_all
from ofa_nas.search.problem import Budget, Problem
from ofa_nas.search.random_search import random_search
from ofa_nas.search.resolutions import LeftOut, usable_resolutions
from ofa_nas.search.run import Method, Progress, Run
from ofa_nas.search.search import Found, search, search_front
from ofa_nas.search.setup import Question
from ofa_tables import plugins

__all__ = [
    "METHODS",
    "Budget",
    "Evaluated",
    "EvaluationCache",
    "Found",
    "LeftOut",
    "Method",
    "Metric",
    "Problem",
    "Progress",
    "Question",
    "Run",
    "energy_metric",
    "find_method",
    "latency_metric",
    "macs_metric",
    "memory_metric",
    "parameters_metric",
    "search",
    "search_front",
    "upper_metric",
    "usable_resolutions",
]

METHODS: dict[str, Method] = {
    "annealing": annealing,
    "evolution": once_for_all,
    "ofa": once_for_all,
    "exhaustive": exhaustive,
    "random": random_search,
}


def find_method(name: str) -> Method:
    """Return the method with this name. Raises UnknownName, which lists the closest names."""
    method: Method = plugins.find("search method", "ofa_nas.search", name, METHODS)
    return method
