"""From plain numbers to pictures: pure functions that return matplotlib figures, and their bytes."""

from dkd_bench.plots._curves import AccuracyCurve, Curve, CurvePoint, accuracy_curve, curves_figure
from dkd_bench.plots._examples import ExampleImage, answer_word, examples_figure
from dkd_bench.plots._latents import LatentsData, latents_figure
from dkd_bench.plots._save import PICTURE_FORMATS, PictureFormat, figure_bytes
from dkd_bench.plots._sweep import SweepFigureData, sweep_figure
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
    "examples_figure",
    "figure_bytes",
    "latents_figure",
    "sweep_figure",
    "transfer_figure",
]
