"""Doubts: reasons not to believe a number, from answers, contradictions and attacking again."""

from dkd_bench.doubts._doubt import Doubt, Doubts, doubt, doubt_interrupted, doubt_state

__all__ = ["Doubt", "Doubts", "doubt", "doubt_interrupted", "doubt_state"]
