"""Pictures of lanes show the numbers they are given."""

import itertools
import sys

import pytest
import torch

from arraylstm import MarkovLSTM, plot_lanes

from ..devices import Chosen


@pytest.fixture
def weights():
    """Three sequences of six steps and four lanes."""
    return torch.randn(3, 6, 4, generator=torch.Generator(Chosen.device).manual_seed(2)).softmax(2)


def heights(axes, steps):
    """Read the areas' heights (steps, k) off the drawing, in the middle of every step."""
    columns = []
    for area in axes.collections:
        (path,) = area.get_paths()
        (polygon,) = path.to_polygons()
        columns.append([spans(polygon, step) for step in range(steps)])
    return torch.tensor(columns, dtype=torch.float64).t()


def spans(polygon, x):
    """Return how much of the vertical line at x lies within a polygon."""
    crossings = [
        y0 + (y1 - y0) * (x - x0) / (x1 - x0)
        for (x0, y0), (x1, y1) in itertools.pairwise(polygon)
        if min(x0, x1) <= x < max(x0, x1)
    ]
    return max(crossings) - min(crossings)


def widths(axes):
    return torch.tensor([bar.get_width() for bar in axes.patches], dtype=torch.float64)


def test_the_areas_are_the_rows_weights_and_the_bars_every_rows(weights):
    """Over time it draws the chosen row's weights up to its length, beside them the lanes' shares in all real steps."""
    lengths = [6, 4, 1]
    for row, length in enumerate(lengths):
        over_time, in_all = plot_lanes(weights, lengths, row).axes
        torch.testing.assert_close(heights(over_time, length), weights[row, :length].double(), check_stride=False)
        assert over_time.get_xlim() == (-0.5, length - 0.5)
        expected = sum(weights[n, :length].double().sum(0) for n, length in enumerate(lengths)) / 11
        torch.testing.assert_close(widths(in_all), expected)
        assert [text.get_text() for text in in_all.texts] == [f"{share:.0%}" for share in expected]


def test_one_sequence_needs_no_batch_axis(weights):
    """(S, k) is drawn as a batch of one."""
    one, many = plot_lanes(weights[1]), plot_lanes(weights[1:2])
    torch.testing.assert_close(heights(one.axes[0], 6), heights(many.axes[0], 6))
    torch.testing.assert_close(widths(one.axes[1]), widths(many.axes[1]))


def test_what_a_model_returns_is_drawn_as_it_is(tmp_path):
    """A model's q_z, gradient, lengths and all, becomes a PNG in one call, with no window behind it."""
    model, lengths = MarkovLSTM(3, 4, 2, k_cells=12), torch.tensor([5, 2])
    _, _, q_z, _, _ = model(torch.randn(2, 5, 3), 1.0, lengths)
    figure = plot_lanes(q_z, lengths)
    figure.savefig(tmp_path / "lanes.png")
    assert (tmp_path / "lanes.png").read_bytes().startswith(b"\x89PNG")
    assert figure.canvas.manager is None
    colours = {bar.get_facecolor() for bar in figure.axes[1].patches}
    assert len(colours) == 12


def test_weights_that_do_not_add_up_to_one_fit_the_axes(weights):
    """The axis reaches as high as the highest sum, so that weights of any size are seen whole."""
    axes = plot_lanes(3 * weights[:, :, :2]).axes[0]
    assert axes.get_ylim() == (0, pytest.approx(3 * weights[0, :, :2].double().sum(1).max().item()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(4),), r"weights must be \(batch, steps, lanes\) or \(steps, lanes\), got \[4\]"),
        ((torch.ones(2, 5, 3), [5]), r"lengths must be int64 \[2\], got torch.int64 \[1\]"),
        ((torch.ones(2, 5, 3), [5, 0], 1), "row 1 has no steps to draw"),
        ((torch.ones(2, 5, 3), None, 7), "row must be one of the 2 that weights has, counted from 0, got 7"),
        ((torch.ones(2, 5, 3), None, -1), "row must be one of the 2 .* got -1"),
        ((torch.ones(0, 5, 3),), "row must be one of the 0 .* got 0"),
        ((torch.zeros(2, 5, 3),), "weights must sum to more than 0, got 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    """Wrong shapes, and a row that is not there or has no steps, raise ValueError."""
    with pytest.raises(ValueError, match=message):
        plot_lanes(*arguments)


def test_where_matplotlib_is_absent_the_error_says_what_to_install(weights, monkeypatch):
    """arraylstm imports without matplotlib; drawing says which extra has it."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "arraylstm-serving\[plot\]"'):
        plot_lanes(weights)
