from __future__ import annotations

from dkd_paper.record import Block, Entry, Estimate, Reproduction, Row, Trend
from dkd_paper.report import render_reproduction


def measured(value, *, ci95=None, spread=None, n=100):
    return Estimate(value=value, ci95=ci95, n=n, by_seed=(value,), spread=spread)


def reproduction(*blocks, seeds=(0,)):
    return Reproduction(
        target="table2",
        title="Table 2",
        dataset="digits",
        paper_dataset="MNIST",
        seeds=seeds,
        command="dkd-bench reproduce table2",
        blocks=blocks,
        trends=(Trend(claim="Up.", verdict="contradicted", evidence="in 0 of 1 comparisons"),),
        notes=("A note.",),
        sources=(),
    )


def block(unit, *entries):
    columns = ("a", "b")[: len(entries)]
    return Block(title="Numbers", unit=unit, columns=columns, rows=(Row(label="x", entries=entries),))


def test_ours_first_then_the_authors():
    text = render_reproduction(
        reproduction(block("percent", Entry(measured=measured(0.5, ci95=(0.4, 0.6)), paper=0.9661)))
    )

    assert "| x | 50.0 [40.0, 60.0] (96.6) | 100 |" in text
    assert "In parentheses: the authors' numbers for MNIST, not measured here." in text


def test_counts_are_out_of_ten_thousand_with_their_spread():
    entry = Entry(measured=measured(0.0123, spread=0.0021, n=10_000), paper=0.0015)

    text = render_reproduction(reproduction(block("per 10,000", entry), seeds=(0, 1)))

    assert "| x | 123 ± 21 (15) | 10,000 |" in text
    assert "±: standard deviation over the seeds" in text
    assert "seeds 0, 1" in text


def test_what_was_not_measured_has_a_dash_and_no_interval_of_its_own():
    entries = Entry(measured=None, paper=0.25), Entry(measured=measured(29.7), paper=None)

    text = render_reproduction(reproduction(block("margin", *entries)))

    assert "| x | - (0.25) | 29.7 | 100 |" in text
    assert "Wilson" not in text


def test_verdicts_are_printed_whichever_way_they_fall():
    assert "- **contradicted**: Up. (in 0 of 1 comparisons)" in render_reproduction(reproduction())
