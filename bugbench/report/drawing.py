"""Inline SVG for the page: curves, staircases and the critical-difference diagram. Colours are the page's classes."""

import math
from collections.abc import Iterable, Mapping, Sequence

from bugbench.comparison import Ranks, critical_difference, not_told_apart
from bugbench.report.axis import powers, round_numbers, texts
from bugbench.survival import Survival
from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 400, 190
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 26, 34
LAST_POWER = 307.0  # of ten, that a float holds
LARGEST = 1e300  # beyond this a value is as good as infinite: differences would be
TICK_ROOM = 12  # right of a number in the middle of its mark, less than this is too little
LABELS, LABEL_ROW = 170, 13  # room for names right of the staircases, and the height of one
LOG_FROM = 50.0  # values that span more than this, and are all positive, are shown on a logarithmic scale


class Panel:
    """Axes that points are put into; y grows upwards."""

    def __init__(
        self,
        title: str,
        x_label: str,
        points: Iterable[tuple[float, float]],
        size: tuple[int, int],
        right: int = RIGHT,
    ) -> None:
        self.width, self.height = size
        self.edge = self.width - right  # where the axes end
        known = [(x, y) for x, y in points if math.isfinite(x) and abs(y) < LARGEST]
        xs, ys = [x for x, _ in known] or [0.0], [y for _, y in known] or [0.0]
        self.log = min(ys) > 0 and max(ys) > LOG_FROM * min(ys)
        self.x_low, self.x_high = min(xs), max(max(xs), min(xs) + 1)
        low, high = self._scaled(min(ys)), self._scaled(max(ys))
        margin = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
        self.low, self.high = low - margin, high + margin
        self.parts = [
            f'<text class="title" x="{LEFT}" y="14">{escape(title)}{" (log scale)" if self.log else ""}</text>',
            f'<text class="label" x="{self.edge}" y="{self.height - 4}" text-anchor="end">{escape(x_label)}</text>',
        ]
        if self.log:
            marks = powers(10 ** max(self.low, -LAST_POWER), 10 ** min(self.high, LAST_POWER))
        else:
            marks = round_numbers(self.low, self.high)
        for mark, text in zip(marks, texts(marks), strict=True):
            y = self.y(mark)
            self.parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{self.edge}"/>')
            self.parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        for mark in round_numbers(self.x_low, self.x_high, whole=True):
            x, bottom = self.x(mark), self.height - BOTTOM + 14
            anchor = "end" if x > self.edge - TICK_ROOM else "middle"
            self.parts.append(f'<text class="tick" x="{x:.0f}" y="{bottom}" text-anchor="{anchor}">{mark:.0f}</text>')

    def _scaled(self, y: float) -> float:
        return math.log10(y) if self.log else y

    def _height_of(self, scaled: float) -> float:
        inner = self.height - TOP - BOTTOM
        return TOP + inner * (1 - (scaled - self.low) / (self.high - self.low))

    def x(self, x: float) -> float:
        return LEFT + (self.edge - LEFT) * (x - self.x_low) / (self.x_high - self.x_low)

    def y(self, y: float) -> float:
        return self._height_of(self._scaled(y))

    def line(self, points: Points, name: str, kind: str) -> None:
        """Draw a line, with a gap where a value is not finite; one point alone is a dot."""
        pieces: list[list[str]] = [[]]
        for x, y in points:
            if abs(y) < LARGEST:
                pieces[-1].append(f"{self.x(x):.0f} {self.y(y):.1f}")
            elif pieces[-1]:
                pieces.append([])
        path = "".join("M" + "L".join(piece if len(piece) > 1 else piece * 2) for piece in pieces if piece)
        if path:
            self.parts.append(f'<path class="line {kind}" d="{path}"><title>{escape(name)}</title></path>')

    def level(self, value: float, name: str, kind: str) -> None:
        y = self.y(value)
        self.parts.append(
            f'<path class="line hidden {kind}" d="M{LEFT} {y:.1f}H{self.edge}"><title>{escape(name)}</title></path>'
        )

    def moment(self, x: float, name: str) -> None:
        if self.x_low <= x <= self.x_high:
            bottom = self.height - BOTTOM
            self.parts.append(
                f'<path class="moment" d="M{self.x(x):.0f} {TOP}V{bottom}"><title>{escape(name)}</title></path>'
            )

    def svg(self, label: str) -> Markup:
        return _svg(self.width, self.height, label, self.parts)


def _svg(width: float, height: float, label: str, parts: Iterable[str]) -> Markup:
    body = "".join(parts)
    return Markup(
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img" '
        f'aria-label="{escape(label)}">{body}</svg>'
    )


def curves(
    title: str, x_label: str, twin: Points, bug: Points, levels: Mapping[str, float | None], moment: float | None = None
) -> Markup:
    """Draw a run against its healthy twin.

    Args:
        title: of the panel.
        x_label: what is counted from left to right.
        twin: the points of the healthy run; a value that is not finite leaves a gap.
        bug: those of the other.
        levels: values of the hidden test, by "twin" and "bug"; None where there is none.
        moment: the onset, if it is to be marked.
    """
    shown = {kind: value for kind, value in levels.items() if value is not None and abs(value) < LARGEST}
    panel = Panel(title, x_label, [*twin, *bug, *((math.nan, 0.0),)], (WIDTH, HEIGHT))
    if shown:
        edges = [x for x, _ in [*twin, *bug]] or [0.0]
        panel = Panel(title, x_label, [*twin, *bug, *((edges[0], value) for value in shown.values())], (WIDTH, HEIGHT))
    if moment is not None:
        panel.moment(moment, f"onset: step {moment:.0f}")
    for kind, value in shown.items():
        panel.level(value, f"{_name(kind)}, hidden test: {value:.4g}", kind)
    panel.line(twin, _name("twin"), "twin")
    panel.line(bug, _name("bug"), "bug")
    return panel.svg(f"{title}: the run beside its healthy twin")


def _name(kind: str) -> str:
    return "healthy twin" if kind == "twin" else "this run"


def staircases(survival: Mapping[str, Survival], horizon: float, chosen: Sequence[str]) -> Markup:
    """Draw the share of cases still without an alarm over the steps since the onset; ``chosen`` stand out.

    Every curve carries its name, which the page shows of those that stand out: a filter may choose others.
    """
    corners = [(0, 0.0), (max(horizon, 1), 1.0)]
    panel = Panel("Cases without an alarm", "steps since the onset", corners, (900, 340), LABELS)
    drawn: dict[str, list[tuple[float, float]]] = {}
    for name, curve in survival.items():
        points, height = [(0.0, 1.0)], 1.0
        for time, share in zip(curve.times, curve.shares, strict=True):
            if time <= horizon:
                points += [(float(time), height), (float(time), float(share))]
                height = float(share)
        points.append((min(curve.end, horizon), height))
        drawn[name] = [(panel.x(x), panel.y(y)) for x, y in points]
    ends = {name: points[-1][1] for name, points in drawn.items()}
    labels = ends | _spread({name: ends[name] for name in chosen})
    for name in [*(n for n in survival if n not in chosen), *chosen]:
        kind = f"stair chosen c{list(chosen).index(name)}" if name in chosen else "stair"
        steps = "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(drawn[name]))
        panel.parts.append(
            f'<g class="{kind}" data-detector="{escape(name)}" data-end="{ends[name]:.1f}">'
            f'<path class="line" d="{steps}"><title>{escape(name)}</title></path>'
            f'<text x="{panel.edge + 8}" y="{labels[name] + 4:.1f}">{escape(name)}</text></g>'
        )
    return panel.svg("Share of cases without an alarm, by steps since the onset")


def _spread(heights: Mapping[str, float]) -> dict[str, float]:
    """Return the heights of labels, each where it was or as far below as keeps it a row from the one above."""
    placed, last = {}, -math.inf
    for name in sorted(heights, key=lambda name: heights[name]):
        last = placed[name] = max(heights[name], last + LABEL_ROW)
    return placed


def critical_difference_diagram(names: Sequence[str], ranks: Ranks, level: float = 0.05) -> Markup:
    """Draw mean ranks on a line, and bars that join those which are not told apart (Demsar 2006, section 3.2.4)."""
    difference = critical_difference(len(names), ranks.blocks, level)
    placed = sorted(zip(ranks.mean, names, strict=True))
    low, high = math.floor(placed[0][0]), math.ceil(placed[-1][0] + 1e-9)
    high = max(high, low + 1)
    width, edge, row = 900, 230, 16
    groups = not_told_apart([rank for rank, _ in placed], difference)
    top = 64
    half = (len(placed) + 1) // 2
    start = top + 12 + 7 * len(groups)
    height = start + row * half + 16

    def x(rank: float) -> float:
        return edge + (width - 2 * edge) * (rank - low) / (high - low)

    parts = [f'<path class="axis" d="M{x(low):.1f} {top}H{x(high):.1f}"/>']
    words = f"critical difference {difference:.2f}"
    if difference <= high - low:
        parts.append(f'<path class="measure" d="M{x(low):.1f} 18v8m0 -4H{x(low + difference):.1f}m0 -4v8"/>')
    else:
        words += ", wider than this scale"
    parts.append(f'<text class="label" x="{x(low):.0f}" y="13">{words}</text>')
    for tick in round_numbers(low, high, 12, whole=True):
        parts.append(f'<path class="axis" d="M{x(tick):.1f} {top - 5}v5"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{top - 9}" text-anchor="middle">{tick:.0f}</text>')
    for number, (first, last) in enumerate(groups):
        y = top + 8 + 7 * number
        parts.append(f'<path class="join" d="M{x(placed[first][0]) - 3:.1f} {y}H{x(placed[last][0]) + 3:.1f}"/>')
    for place, (rank, name) in enumerate(placed):
        left = place < half
        y = start + row * (place if left else len(placed) - 1 - place) + 8
        end, anchor = (edge - 16, "end") if left else (width - edge + 16, "start")
        parts.append(f'<path class="lead" d="M{x(rank):.1f} {top}V{y}H{end}"/>')
        text = end - 4 if left else end + 4
        parts.append(
            f'<text class="name" x="{text}" y="{y + 4}" text-anchor="{anchor}">{escape(name)} {rank:.2f}</text>'
        )
    return _svg(width, height, "Critical-difference diagram of mean ranks", parts)
