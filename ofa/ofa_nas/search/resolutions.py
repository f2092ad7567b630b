"""Find the resolutions that a search can use, and the reasons for leaving out others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ofa_nas.accuracy.model import AccuracyModel, require_resolutions
from ofa_tables.errors import UsageError
from ofa_tables.estimates.keys import some
from ofa_tables.model.latency_model import LatencyModel


@dataclass(frozen=True)
class LeftOut:
    """A resolution with entries in a table that is not searched.

    ``missing`` are the entries that a table lacks, or empty if the accuracy model does not support the resolution.
    """

    resolution_px: int
    reason: str
    missing: tuple[str, ...] = ()


def usable_resolutions(
    models: Iterable[LatencyModel], accuracy: AccuracyModel, wanted_px: Iterable[int] | None = None
) -> tuple[int, ...]:
    """Return the wanted resolutions, or all that every table has complete and the accuracy model supports.

    Raises EntriesMissing if a table lacks entries, and UsageError if the accuracy model does not support a resolution.
    """
    models = list(models)
    if wanted_px is not None:
        resolutions_px = tuple(wanted_px)
        for model in models:
            model.require(resolutions_px)
        require_resolutions(accuracy, resolutions_px)
        return resolutions_px
    of_each = [model.require(None) for model in models]
    measured = [px for px in of_each[0] if all(px in others for others in of_each)]
    if not measured:
        raise UsageError(
            "the tables have no resolution in common; "
            + ", ".join(f"{m.table.path} has {', '.join(map(str, px))}" for m, px in zip(models, of_each, strict=True))
        )
    common = tuple(px for px in measured if px in accuracy.resolutions_px)
    if not common:
        require_resolutions(accuracy, measured)
    return common


def left_out(models: Sequence[LatencyModel], accuracy: AccuracyModel) -> tuple[LeftOut, ...]:
    """Return the resolutions with entries in a table that are not usable."""
    begun = [{*model.resolutions_px, *_begun(model)} for model in models]
    tables = list(zip(models, begun, strict=True))
    return tuple(each for px in sorted(set().union(*begun)) for each in _obstacle(px, tables, accuracy))


def in_words(left: Sequence[LeftOut]) -> Iterator[str]:
    """Yield one line per reason."""
    for reason in dict.fromkeys(each.reason for each in left):
        at = [str(each.resolution_px) for each in left if each.reason == reason]
        yield f"{', '.join(at)} px {'is' if len(at) == 1 else 'are'} left out: {reason}"


def _obstacle(px: int, tables: Sequence[tuple[LatencyModel, set[int]]], accuracy: AccuracyModel) -> Iterator[LeftOut]:
    for model, begun in tables:
        missing = model.missing(px)
        if missing and px not in begun:
            yield LeftOut(px, f"{model.table.path} has no entries there", tuple(missing))
            return
        if missing:
            lacks = f"lacks {len(missing)} of its {len(model.space.keys(px))} entries ({some(missing)})"
            yield LeftOut(px, f"{model.table.path} {lacks}; {model.fix(px)}", tuple(missing))
            return
    if px not in accuracy.resolutions_px:
        yield LeftOut(px, f"{accuracy.name} does not support it")


def _begun(model: LatencyModel) -> Iterator[int]:
    """Yield the incomplete resolutions that have an entry that no more complete resolution explains."""
    space = model.space
    explained = {key for px in model.resolutions_px for key in space.keys(px)}
    lacking = {px: model.missing(px) for px in space.resolutions_px}
    for px in sorted(lacking, key=lambda px: len(lacking[px])):
        if lacking[px] and not explained.issuperset(set(space.keys(px)).difference(lacking[px])):
            yield px
            explained.update(space.keys(px))
