"""The board for people: which runs, who stands where, by attack, and what the words mean."""

from __future__ import annotations

from dkd_bench.leaderboard._board import AttackScore, Board, Group, Row, RunSummary, Status, ThreatModelScore
from dkd_bench.leaderboard._external import render_published
from dkd_bench.leaderboard._rejects import render_rejects
from dkd_bench.leaderboard._table import NOTHING, margins, one_line, percent, percent_interval, table
from dkd_bench.records import SeparationRecord

_DIGITS_SHOWN = 12
_NORMS = {"linf": "Linf", "l2": "L2", "l0": "L0"}
_STATUS: dict[Status, str] = {"ok": NOTHING, "error": "error", "not_run": "not run"}
_RULE_MARKS = {"boosted": "*"}
"""As in the paper: DKD* is DKD judged by the boosted vote."""
_MEANS = {"standalone": "members"}
"""Threat models of which the paper reports the mean, and over what."""
_THREAT_MODELS = {
    "black-box": "examples made on a reference network of the adversary's own, trained on the same data.",
    "standalone": "examples made on one member alone; per image the worst over the members.",
    "aggregated": "the members' examples summed into one direction; per image the worst over magnitudes.",
    "joint": "examples made on the differentiable whole; per image the worst over surrogates.",
}
_TRUSTED = "joint"
_ALONE = ("whole",)
"""The surrogate of a single network that hides nothing: itself."""
_TRUST = (
    "Black-box, standalone and aggregated examples are made without sight of the whole defence, and flatter "
    f"ensembles; the {_TRUSTED} column is the one to trust."
)


def render_markdown(board: Board) -> str:
    """Return the board as Markdown: the runs, for each group a ranking and its details, and a legend."""
    several_runs = len(board.runs) > 1
    several_grounds = len({_ground(group) for group in board.groups}) > 1
    parts = [
        "# Adversarial robustness leaderboard",
        "\n".join(_run_line(run, labelled=several_runs) for run in board.runs),
    ]
    for group in board.groups:
        parts.extend(_group(group, labelled=several_runs, grounded=several_grounds))
    parts.extend(("## Legend", "\n".join(f"- {line}" for line in _legend(board))))
    parts.append(render_published(board.published))
    return "\n\n".join(part for part in parts if part) + "\n"


def _run_line(run: RunSummary, *, labelled: bool) -> str:
    label = f"**{one_line(run.label)}**: " if labelled else ""
    trained = "" if run.training_seed is None else f", training seed {run.training_seed}"
    return (
        f"- {label}{one_line(run.dataset)}, {run.n} images (data {run.dataset_digest[:_DIGITS_SHOWN]}, "
        f"indices {run.indices_digest[:_DIGITS_SHOWN]}), suite {run.suite_fingerprint[:_DIGITS_SHOWN]}, "
        f"seed {run.seed}{trained}, recipe {one_line(run.recipe)}, on {one_line(run.device)}: "
        + ("complete" if run.complete else "**INCOMPLETE**")
    )


def _ground(group: Group) -> tuple[str, ...]:
    return group.dataset, group.dataset_digest, group.indices_digest, group.suite_fingerprint


def _group(group: Group, *, labelled: bool, grounded: bool) -> list[str]:
    ground = f"{one_line(group.dataset)}, n = {group.n}"
    if grounded:
        _, data, indices, suite = (text[:_DIGITS_SHOWN] for text in _ground(group))
        ground += f", data {data}, indices {indices}, suite {suite}"
    if group.environment is not None:
        ground += f", computed with {one_line(group.environment)}"
    notes = [note for note in (_note(row, labelled=labelled) for row in group.rows) if note]
    listed = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1))
    if group.eps is None:
        heading = f"{_NORMS[group.norm]}, no budget"
        return [
            f"## {heading}",
            f"{ground}. Not ranked.",
            _unbudgeted_table(group, labelled=labelled),
            listed,
        ]
    heading = f"{_NORMS[group.norm]}, eps = {group.eps:g}"
    ranking = _ranking_table(group, labelled=labelled)
    details = _details_table(group, labelled=labelled)
    parts = [f"## {heading}", ground, ranking, listed, f"### {heading}, by attack", details]
    if group.seed_spreads:
        parts.extend((f"### {heading}, over training seeds", _seeds_table(group)))
    rejects = render_rejects(group, labelled=labelled)
    return [*parts, f"### {heading}, what detectors reject", rejects] if rejects else parts


def _who(row: Row, *, labelled: bool) -> list[str]:
    name = row.defense + _RULE_MARKS.get(row.decision, "")
    return [row.run if labelled else "", name, row.decision]


def _note(row: Row, *, labelled: bool) -> str:
    """Return what a reader must know before believing a row; empty if there is nothing."""
    parts = []
    if row.flags:
        parts.append(f"{row.trust}, {'; '.join(f'{flag.name} ({flag.detail})' for flag in row.flags)}")
    if row.missing is not None:
        parts.append(f"incomplete, {row.missing}")
    if not parts:
        return ""
    run, name, decision = _who(row, labelled=labelled)
    where = f", {run}" if run else ""
    return one_line(f"{name} ({decision}{where}): {'; '.join(parts)}")


def _ranking_table(group: Group, *, labelled: bool) -> str:
    header = ["#", "run", "defence", "rule", "clean", *group.threat_models]
    header += ["worst of all", "to the first", "failed", "abstained", "LSS", "note"]
    counts_rejects = any(row.abstains or row.abstained for row in group.rows)
    measures_latents = any(row.separation is not None for row in group.rows)
    lines = []
    notes = 0
    for row in group.rows:
        noted = bool(row.flags) or row.missing is not None
        notes += noted
        lines.append(
            [
                _count(row.rank),
                *_who(row, labelled=labelled),
                percent(row.clean),
                *_by_threat_model(group, row),
                percent_interval(row.worst),
                _behind(row),
                _count(row.failed_majorities),
                _count(row.abstained) if counts_rejects else "",
                _separation(row.separation) if measures_latents else "",
                str(notes) if noted else "",
            ]
        )
    return table(header, lines, left=4)


def _behind(row: Row) -> str:
    """Return the difference to the first row, in points."""
    if row.behind is None:
        return ""
    low, high = row.behind.ci95
    return f"{100 * row.behind.value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _seeds_table(group: Group) -> str:
    header = ["defence", "rule", "seeds", "mean", "sd", "lowest", "highest"]
    lines = [
        [
            spread.defense + _RULE_MARKS.get(spread.decision, ""),
            spread.decision,
            str(len(spread.training_seeds)),
            percent(spread.mean),
            percent(spread.standard_deviation),
            percent(spread.lowest),
            percent(spread.highest),
        ]
        for spread in group.seed_spreads
    ]
    return table(header, lines, left=2)


def _separation(found: SeparationRecord | None) -> str:
    raw, scale_free = margins(found)
    return raw if found is None or found.margin is None else f"{raw} ({scale_free})"


def _count(number: int | None) -> str:
    return NOTHING if number is None else str(number)


def _by_threat_model(group: Group, row: Row) -> list[str]:
    scores = {score.threat_model: score for score in row.threat_models}
    return [
        percent(score.worst) if score.worst is not None else _STATUS[score.status]
        for score in (scores[name] for name in group.threat_models)
    ]


def _details_table(group: Group, *, labelled: bool) -> str:
    header = ["run", "defence", "rule", "examples", "worst", *group.attacks, "passes"]
    lines = []
    for row in group.rows:
        who = _who(row, labelled=labelled)
        blank = [""] * (len(group.attacks) + 1)
        lines.append([*who, "none (clean)", percent_interval(row.clean), *blank])
        for score in row.threat_models:
            lines.extend([*who, *line] for line in _details(group, score))
    return table(header, lines, left=4)


def _details(group: Group, score: ThreatModelScore) -> list[list[str]]:
    """Return the line of a threat model, and a second one with means where those are reported."""
    attacks = {attack.attack: attack for attack in score.attacks}
    worst = percent_interval(score.worst) if score.worst is not None else _STATUS[score.status]
    numbers = [_accuracy(attacks.get(name)) for name in group.attacks]
    passes = sum(attack.forward_passes for attack in score.attacks) / group.n
    lines = [[score.threat_model, worst, *numbers, f"{passes:,.0f}"]]
    means = [attacks[name].mean_over_candidates if name in attacks else None for name in group.attacks]
    if score.threat_model in _MEANS and any(mean is not None for mean in means):
        shown = ["" if mean is None else percent(mean) for mean in means]
        lines.append([_mean_of(score), "", *shown, ""])
    return lines


def _accuracy(attack: AttackScore | None) -> str:
    if attack is None:
        return ""
    return _STATUS[attack.status] if attack.robust is None else percent(attack.robust)


def _unbudgeted_table(group: Group, *, labelled: bool) -> str:
    header = ["run", "defence", "rule", "examples", "attack", "clean", "accuracy", "wrong", "median norm"]
    lines = []
    for row in group.rows:
        who = _who(row, labelled=labelled)
        for score in row.threat_models:
            for attack in score.attacks:
                lines.append([*who, score.threat_model, attack.attack, percent(row.clean), *_reach(attack)])
                if score.threat_model in _MEANS and attack.mean_over_candidates is not None:
                    mean = percent(attack.mean_over_candidates)
                    lines.append([*who, _mean_of(score), attack.attack, "", mean, "", ""])
    return table(header, lines, left=5)


def _reach(attack: AttackScore) -> list[str]:
    """Return accuracy, images lost and the median norm that it took."""
    if attack.robust is None:
        return [_STATUS[attack.status], NOTHING, NOTHING]
    if attack.fooling_norms is None:
        return [percent_interval(attack.robust), "0", NOTHING]
    norms = attack.fooling_norms
    return [percent_interval(attack.robust), str(norms.n), f"{norms.median:.3g}"]


def _mean_of(score: ThreatModelScore) -> str:
    return f"- mean of {_MEANS[score.threat_model]}"


def _legend(board: Board) -> list[str]:
    """Return one line for each word that the board uses."""
    rows = [row for group in board.groups for row in group.rows]
    shown = {name: text for name, text in _THREAT_MODELS.items() if _uses(board, name)}
    lines = [f"{name}: {one_line(title)}." for name, title in sorted({(row.defense, row.title) for row in rows})]
    lines += [
        "Numbers are percent of all n images asked for, an image that is wrong when clean being lost; "
        "brackets hold the 95 % Wilson interval.",
        "rule: how the members' votes become one label; the mark * is for the boosted vote.",
        *(f"{name}: {text}" for name, text in shown.items()),
    ]
    if _TRUSTED in shown and len(shown) > 1:
        lines.append(_TRUST)
    if any(group.eps is not None for group in board.groups):
        lines += _legend_of_ranking(board)
    if any(group.eps is None for group in board.groups):
        lines.append(
            "no budget: minimum-norm examples go as far as they need, so the accuracy says how they transfer, "
            "not how robust a defence is; wrong: images lost that were right when clean; median norm: of "
            "the changes that did it."
        )
    lines += sorted({_adversary(row) for row in rows if row.surrogates and (row.abstains or row.surrogates != _ALONE)})
    if any(row.clean_rejected is not None for row in rows):
        lines.append(
            "accepted: accuracy on images that are not rejected; under attack, of those right when clean. "
            "AUC: area under a detector's ROC curve, its images against clean ones; 50 is chance."
        )
    lines += _legend_of_environments(board)
    if any(row.randomized for row in rows):
        lines.append("randomised defences: the share of draws survived counts, per image the least over the attacks.")
    return lines


def _legend_of_environments(board: Board) -> list[str]:
    """Return what tells apart the environments of the runs; nothing where they were all computed alike."""
    told = {run.label: run.environment for run in board.runs}
    names = dict.fromkeys(name for environment in told.values() for name in environment)
    differ = [name for name in names if len({environment.get(name) for environment in told.values()}) > 1]
    if not differ:
        return []
    by_run = "; ".join(
        f"{one_line(label)} " + ", ".join(f"{name} {one_line(environment.get(name, 'unknown'))}" for name in differ)
        for label, environment in told.items()
    )
    return [
        f"Computed in several environments: {by_run}. The attacks are the same; trained weights, and images at the "
        "very boundary, need not be."
    ]


def _adversary(row: Row) -> str:
    """Return what the adversary who sees the whole defence attacked, and by what."""
    attacks = {
        attack.attack for score in row.threat_models if score.threat_model == _TRUSTED for attack in score.attacks
    }
    averaged = ", in expectation over its draws" if row.randomized else ""
    return f"joint on {row.defense}: {', '.join(row.surrogates)}{averaged}, by {', '.join(sorted(attacks))}."


def _uses(board: Board, threat_model: str) -> bool:
    return any(threat_model in group.threat_models for group in board.groups)


def _legend_of_ranking(board: Board) -> list[str]:
    lines = [
        "worst: an image counts only if it survived every attack; of all: under every threat model. "
        "The rank goes by it: one more than the number of rows that are surely better, so that rows which these images "
        "cannot tell apart share one.",
        "to the first: the difference to the first row in points, paired by image, with its 95 % interval (McNemar's "
        "exact test; Student's paired t for randomised defences).",
        "failed: images for which the worst that happened is a vote without majority, an error.",
        "A row without rank lacks an attack that others stood, or one failed: that is not survival.",
        "passes: images that the attacks evaluated, for each image asked for; lines may share crafts.",
    ]
    if any(row.flags for group in board.groups for row in group.rows):
        lines.append(
            "A row with a flag does not rank: suspicious, its number may flatter; invalid, it has none that counts. "
            "'dkd-bench explain' says what each flag means."
        )
    if any(group.seed_spreads for group in board.groups):
        lines.append(
            "over training seeds: the worst of all of one defence trained several times, rows with a flag left out; "
            "sd: between the seeds."
        )
    if any(row.separation is not None for group in board.groups for row in group.rows):
        lines.append(
            "LSS: how far apart the members' latents of the test set lie (Eq. 5, 6), as a raw margin, which grows with "
            "their scale, and in parentheses over their RMS radius."
        )
    lines += sorted(
        {
            f"LSS of {row.defense}: none, {one_line(row.separation.reason)}."
            for group in board.groups
            for row in group.rows
            if row.separation is not None and row.separation.reason is not None
        }
    )
    if any(row.abstains or row.abstained for group in board.groups for row in group.rows):
        lines.append(
            "abstained: images for which the worst that happened is a reject, counted as not fooled "
            "for defences that declare it."
        )
    return lines
