"""Figures of runs and sweeps, a module each; gathering the data and drawing it are separate functions.

Of each figure a function gathers plain numbers, and a pure one makes a matplotlib figure of them. ``draw`` makes all
pictures of runs and writes them where the leaderboard links them; ``figure_bytes`` makes a file of any figure.
"""

from dkd_bench.plots._curves import AccuracyCurve, Curve, CurvePoint, accuracy_curve, curves_figure, run_curves
from dkd_bench.plots._draw import draw
from dkd_bench.plots._examples import ExampleImage, answer_word, examples_figure
from dkd_bench.plots._latents import LatentsData, latents_figure
from dkd_bench.plots._save import PICTURE_FORMATS, PictureFormat, figure_bytes
from dkd_bench.plots._sweep import SweepFigureData, gather_sweep, sweep_figure, sweep_picture
from dkd_bench.plots._transfer import TransferData, transfer_figure

__all__ = [
    "PICTURE_FORMATS",
    "AccuracyCurve",
    "Curve",
    "CurvePoint",
    "ExampleImage",
    "LatentsData",
    "PictureFormat",
    "SweepFigureData",
    "TransferData",
    "accuracy_curve",
    "answer_word",
    "curves_figure",
    "draw",
    "examples_figure",
    "figure_bytes",
    "gather_sweep",
    "latents_figure",
    "run_curves",
    "sweep_figure",
    "sweep_picture",
    "transfer_figure",
]
