"""Which lane is in use? A Markov recurrent network learns which waveforms have an irregular burst.

    python examples/waveforms.py [PICTURE.png] [--waveforms N] [--epochs N]

Trains `MarkovLSTM` on generated waveforms and prints its accuracy on others. For a waveform of each class it draws the
signal, the lanes' probabilities q_z(t), the lane z(t) that did the step, and every lane's share of the class's steps.
Nothing in training says what a lane should stand for. We tried six seeds. With five of them, including this one, one
lane takes over after the burst ("there was a burst"); the burst itself never gets a lane. With tau fixed at 1, that
happened with two seeds of four.
"""

import math
from pathlib import Path

import torch
from cyclopts import App
from matplotlib.figure import Figure
from torch.nn import functional as F

from arraylstm import MarkovLSTM, console
from arraylstm.plot import draw_lane_use, draw_lanes, lane_use

CLASSES = ("periodic", "periodic with a burst")
SAMPLES, FRAME = 120, 4  # the input of a step is FRAME samples
LANES, HIDDEN = 3, 8
BATCH = 32
WARM, COLD = 2.0, 0.2  # tau: lanes are mixed at first, and almost one-hot at the end

app = App(name="waveforms")


@app.default
def main(picture: Path = Path("waveforms.png"), /, *, waveforms: int = 1024, epochs: int = 10):
    """Train on generated waveforms and draw which lane is in use.

    Args:
        picture: the file to write.
        waveforms: how many to train on.
        epochs: passes over them.
    """
    torch.manual_seed(1)
    x, y, _ = generate(waveforms)
    held_out, classes, bursts = generate(400)
    model = MarkovLSTM(FRAME, HIDDEN, len(CLASSES), k_cells=LANES)
    with torch.no_grad():
        forget = model.cell_0.b_4gates.view(4, LANES * HIDDEN)[2]
        forget += 1  # before training, the state then lasts longer than the waveform
    train(model, x, y, epochs)
    output, z, q_z, _, _ = predict(model, held_out)
    right = (output.argmax(1) == classes).float().mean()
    print(f"{right:.1%} of {len(classes)} held-out waveforms are classified correctly")
    report(q_z, classes, bursts)
    draw(held_out, classes, bursts, q_z, z).savefig(picture, dpi=100)
    print(f"wrote {picture}")


def generate(count):
    """Return waveforms (count, S, FRAME), their classes (count,) and which steps lie in a burst (count, S)."""
    t = torch.arange(SAMPLES)
    period, phase = torch.empty(count, 1).uniform_(16, 32), torch.rand(count, 1)
    wave = torch.sin(2 * math.pi * (t / period + phase)) + 0.1 * torch.randn(count, SAMPLES)
    classes = torch.arange(count) % 2
    start, width = torch.randint(16, SAMPLES - 56, (count, 1)), torch.randint(20, 41, (count, 1))
    burst = (classes.unsqueeze(1) == 1) & (t >= start) & (t < start + width)
    wave = torch.where(burst, torch.randn(count, SAMPLES), wave)
    return wave.unflatten(1, (-1, FRAME)), classes, burst.unflatten(1, (-1, FRAME)).any(2)


def train(model, x, y, epochs):
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(epochs):
        tau, total, right = WARM * (COLD / WARM) ** (epoch / max(1, epochs - 1)), 0.0, 0
        for rows in torch.randperm(len(x)).split(BATCH):
            output = model.train()(x[rows], tau)[0]
            loss = F.cross_entropy(output, y[rows])
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            total += loss.item() * len(rows)
            right += int((output.argmax(1) == y[rows]).sum())
        print(
            f"epoch {epoch + 1:2} of {epochs}   tau {tau:.2f}   loss {total / len(x):.3f}   {right / len(x):.1%} right"
        )


@torch.no_grad()
def predict(model, x):
    return model.eval()(x)


def report(q_z, classes, bursts):
    """Print the lanes' mean probabilities before, in and after the bursts."""
    seen, with_burst = bursts.cumsum(1) > 0, (classes == 1).unsqueeze(1)
    parts = {"periodic": ~with_burst & ~seen, "before": with_burst & ~seen, "in": bursts, "after": seen & ~bursts}
    for name, steps in parts.items():
        print(f"  {name:10}" + "".join(f"  lane {lane} {q:4.0%}" for lane, q in enumerate(q_z[steps].mean(0))))


def draw(x, classes, bursts, q_z, z):
    """Draw the first waveform of each class, and the shares of the lanes over all waveforms."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    rows = figure.subplots(4, 2, height_ratios=[3, 3, 1, 1.2], sharey="row")
    for label, (signal, probabilities, chosen, shares) in enumerate(rows.T):
        row = int((classes == label).nonzero()[0])
        signal.plot(torch.arange(SAMPLES) / FRAME - 0.5, x[row].flatten(), color="black", linewidth=1)
        signal.set(title=CLASSES[label], xlim=(-0.5, SAMPLES / FRAME - 0.5))
        draw_lanes(probabilities, q_z[row])
        draw_lanes(chosen, z[row])
        chosen.set(yticks=[], xlabel=f"step ({FRAME} samples each)")
        draw_lane_use(shares, lane_use(z[classes == label]))
        shares.set(xlim=(0, 1), xlabel=f"share of the steps of {(classes == label).sum()} waveforms")
        for axes in (signal, probabilities):
            axes.tick_params(labelbottom=False)
        if label == 1:
            first, last = bursts[row].nonzero()[[0, -1]].flatten().tolist()
            for axes in (signal, probabilities, chosen):
                axes.axvline(first - 0.5, color="crimson", linestyle="--")
                axes.axvline(last + 0.5, color="crimson", linestyle="--")
    for axes, name in zip(rows[:, 0], ("signal", "q_z(t)", "z(t)", "lane use"), strict=True):
        axes.set_ylabel(name)
    return figure


if __name__ == "__main__":
    console.run(app)
