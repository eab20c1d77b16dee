"""Doubts: reasons not to believe a number, from answers, contradictions and attacking again."""
