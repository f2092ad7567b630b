"""Convert a matplotlib figure to inline SVG that uses the fonts and the light or dark colours of the page."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib.style
from markupsafe import Markup
from matplotlib.figure import Figure

# Figures are drawn in these placeholder colours; the page defines each for its light and dark scheme.
INK, MUTED, RULE, PAPER = "#010101", "#020202", "#030303", "#040404"
RAW, CALIBRATED, BASELINE, NOISE = "#050505", "#060606", "#070707", "#080808"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    RAW: "raw",
    CALIBRATED: "calibrated",
    BASELINE: "baseline",
    NOISE: "noise",
}

STYLE: Sequence[str | dict[str, Any]] = [
    "default",
    {
        "svg.fonttype": "none",
        "font.size": 10.5,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": RULE,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 10.5,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": RULE,
        "grid.linewidth": 0.5,
        "grid.alpha": 0.7,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "figure.constrained_layout.use": True,
        "figure.facecolor": "none",
    },
]

_FONT_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_REFERENCE = re.compile(r"#([^)]+)")
_DECIMALS = re.compile(r"(\.\d\d)\d+")


def inline(figure: Figure, name: str, label: str, hover: Mapping[str, Sequence[str]] | None = None) -> Markup:
    """Return ``<svg>`` without prolog, metadata, namespaces, and font families.

    ``name`` prefixes the ids, so that they are unique on the page. ``hover`` maps the gid of an artist to the titles of
    its points.
    """
    buffer = io.BytesIO()
    with matplotlib.style.context(STYLE):
        matplotlib.rcParams["svg.hashsalt"] = name
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata)
    root = ElementTree.fromstring(buffer.getvalue())
    _strip(root)
    for gid, titles in (hover or {}).items():
        _add_titles(root, gid, titles)
    _rename_ids(root, name)
    for element in root.iter():
        for attribute in ("style", "d", "x", "y", "transform"):
            if attribute in element.attrib:
                element.set(attribute, _plain(element.attrib[attribute]))
    root.attrib = {"class": "plot", "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _strip(root: ElementTree.Element) -> None:
    for parent in root.iter():
        parent.tag = parent.tag.rpartition("}")[2]
        parent.text, parent.tail = (parent.text or "").strip(), None
        parent.attrib = {key.rpartition("}")[2]: value for key, value in parent.attrib.items()}
        for child in list(parent):
            # A style element would apply to the whole page; the style sheet has the same rule for plots only.
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)


def _add_titles(root: ElementTree.Element, gid: str, titles: Sequence[str]) -> None:
    points = [use for group in root.iter("g") if group.get("id") == gid for use in group.iter("use")]
    if len(points) != len(titles):  # a point is outside the axes: no titles are better than wrong titles
        return
    for point, title in zip(points, titles, strict=True):
        ElementTree.SubElement(point, "title").text = title


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    used = set()
    for element in root.iter():
        for attribute in ("href", "clip-path"):
            if attribute in element.attrib:
                used.update(_REFERENCE.findall(element.attrib[attribute]))
                element.set(attribute, _REFERENCE.sub(rf"#{name}-\1", element.attrib[attribute]))
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            element.set("id", f"{name}-{identifier}")


def _plain(value: str) -> str:
    value = _DECIMALS.sub(r"\1", _FONT_FAMILY.sub("", value))
    for stand_in, variable in _VARIABLES.items():
        value = value.replace(stand_in, f"var(--{variable})")
    return value
