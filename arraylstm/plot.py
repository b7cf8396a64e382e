"""Pictures of lanes: when each was used, and how much in all. Needs the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arraylstm.cells.base import clear_past
from arraylstm.checks import lengths_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_lanes(weights: Tensor, lengths: Tensor | Sequence[int] | None = None, row: int = 0) -> Figure:
    """Draw one sequence's lane weights over time, and how much every lane is used in all sequences.

    Args:
        weights: (B, S, k), or (S, k) for one sequence: each lane's share of each step, at least 0; for example the
            q_z of `MarkovLSTM`.
        lengths: (B,) int64 or a list, how many of the S steps each row takes; None means all.
        row: the sequence to draw over time.

    Returns:
        A matplotlib figure without a window: `savefig` writes it, a notebook shows it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: weights or lengths has another shape, the row does not exist or has no steps, or all weights are 0.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plot_lanes needs matplotlib: pip install "arraylstm-serving[plot]"') from error
    if weights.dim() not in (2, 3):
        raise ValueError(f"weights must be (batch, steps, lanes) or (steps, lanes), got {list(weights.shape)}")
    series = weights if weights.dim() == 3 else weights.unsqueeze(0)
    taken = _lengths(series, lengths)
    if not 0 <= row < series.size(0):
        raise ValueError(f"row must be one of the {series.size(0)} that weights has, counted from 0, got {row}")
    if taken[row] == 0:
        raise ValueError(f"row {row} has no steps to draw")
    use = lane_use(series, lengths)
    figure = Figure(figsize=(10, 3), layout="constrained")
    over_time, in_all = figure.subplots(1, 2, width_ratios=[4, 1])
    draw_lanes(over_time, series[row, : taken[row]])
    over_time.set(xlabel="step", ylabel="lane weight", title=f"row {row} of {series.size(0)}")
    draw_lane_use(in_all, use)
    in_all.set(title="lane use, all rows")
    return figure


def draw_lanes(axes: Axes, weights: Tensor) -> None:
    """Draw the lane weights (S, k) on matplotlib axes as stacked areas, the first lane lowest."""
    weights = weights.detach().cpu().double()
    edges = torch.arange(weights.size(0) + 1, device=weights.device) - 0.5
    areas = torch.cat([weights, weights[-1:]]).t()  # each step is as wide as the others, the last one too
    axes.stackplot(edges.numpy(), areas.numpy(), step="post", colors=_colours(weights.size(1)))
    axes.set(xlim=(-0.5, weights.size(0) - 0.5), ylim=(0, max(1e-9, float(weights.sum(1).max()))))


def draw_lane_use(axes: Axes, use: Tensor) -> None:
    """Draw the lanes' shares (k,) on matplotlib axes as named bars, which serve as a legend."""
    shares = use.detach().cpu().tolist()
    bars = axes.barh([f"lane {lane}" for lane in range(len(shares))], shares, color=_colours(len(shares)))
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3)
    axes.set(xlim=(0, 1.3 * max(shares)), xticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def lane_use(weights: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
    """Return each lane's share (k,) of all the weight in (B, S, k), without the steps past lengths.

    Raises:
        ValueError: lengths has another shape, or the weights sum to 0 or NaN.
    """
    totals = clear_past(weights.detach().double(), _lengths(weights, lengths)).sum((0, 1))
    if not totals.sum() > 0:
        raise ValueError(f"weights must sum to more than 0, got {totals.sum():g}")
    return totals / totals.sum()


def _lengths(weights: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
    """Return the lengths (B,) of the rows of (B, S, k)."""
    if lengths is None:
        return torch.full([weights.size(0)], weights.size(1), device=weights.device)
    return lengths_beside(weights, lengths if isinstance(lengths, Tensor) else list(lengths))


def _colours(k: int) -> list[tuple[float, float, float, float]]:
    """Return a colour for every lane, distinct in grey and to the colour-blind too."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.1 + 0.8 * lane / max(k - 1, 1)) for lane in range(k)]
