"""RobustBench's files: a row of ours as one, why a row is refused, and theirs beside a board."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dkd_bench.attacks.autoattack import AutoAttackSettings
from dkd_bench.errors import ConfigError, EvidenceError, StoreError, UnknownNameError
from dkd_bench.leaderboard._external import PublishedRow, eps_as_text, read_published, render_published
from dkd_bench.leaderboard._robustbench import parse_fields, render_robustbench
from dkd_bench.plugins.settings import settings_as_json
from dkd_bench.records import (
    CandidateRecord,
    CellRecord,
    DatasetRecord,
    FlagRecord,
    RunRecord,
    SeparationRecord,
)
from dkd_bench.records.rundir import LoadedRun

MakeCell = Callable[..., CellRecord]
MakeRun = Callable[..., RunRecord]

# Two rows of github.com/RobustBench/robustbench, as its release 1.1.1 prints them: in README.md, and in
# robustbench/leaderboard/template.py.
RICE = {
    "link": "https://arxiv.org/abs/2002.11569",
    "name": "Overfitting in adversarially robust deep learning",
    "authors": "Leslie Rice, Eric Wong, J. Zico Kolter",
    "additional_data": False,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "ICML 2020",
    "architecture": "WideResNet-34-20",
    "eps": "8/255",
    "clean_acc": "85.34",
    "reported": "58",
    "autoattack_acc": "53.42",
}
AUGUSTIN = {
    "link": "https://arxiv.org/abs/2003.09461",
    "name": "Adversarial Robustness on In- and Out-Distribution Improves Explainability",
    "authors": "Maximilian Augustin, Alexander Meinke, Matthias Hein",
    "additional_data": True,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "ECCV 2020",
    "architecture": "ResNet-50",
    "eps": "0.5",
    "clean_acc": "91.08",
    "reported": "73.27",
    "autoattack_acc": "72.91",
}
RICE_FIELDS = (
    "link=https://arxiv.org/abs/2002.11569",
    "name=Overfitting in adversarially robust deep learning",
    "authors=Leslie Rice, Eric Wong, J. Zico Kolter",
    "additional_data=false",
    "venue=ICML 2020",
    "architecture=WideResNet-34-20",
    "reported=58",
)
N = 10_000
EPS = 8 / 255
STANDARD = {
    "name": "autoattack",
    "parameters": settings_as_json(AutoAttackSettings()),
    "variant": ["apgd-ce", "apgd-t", "fab-t", "square"],
}


@pytest.fixture
def cell(make_cell: MakeCell) -> MakeCell:
    """Make AutoAttack's cell of a network as good as Rice's: 85.34 % clean, 53.42 % under attack."""

    def make(**changes: Any) -> CellRecord:
        values = {"defense": "at", "decision": "deployed", "dataset": "cifar10", "attack": "autoattack", "eps": EPS}
        return make_cell("r" * 5342 + "f" * 3192 + "c" * 1466, **(values | changes))

    return make


@pytest.fixture
def run(make_run: MakeRun, cell: MakeCell) -> MakeRun:
    """Make a run that RobustBench takes, but for ``changes``; ``defense`` changes the record of the defence."""

    def make(*cells: CellRecord, defense: dict[str, Any] | None = None, **changes: Any) -> RunRecord:
        dataset = DatasetRecord(name="cifar10", digest="d1" * 32, n=N, n_test=N, indices=tuple(range(N)))
        values = {"dataset": dataset, "suite": {"attacks": [STANDARD]}, "versions": {"dkd-bench": "0.1.0"}}
        made = make_run(cells or (cell(),), **(values | changes))
        if defense is None:
            return made
        defenses = {name: each.model_copy(update=defense) for name, each in made.manifest.defenses.items()}
        return made.model_copy(update={"manifest": made.manifest.model_copy(update={"defenses": defenses})})

    return make


def refusal(record: RunRecord, *, row: str | None = None, fields: tuple[str, ...] = RICE_FIELDS) -> str:
    with pytest.raises(ConfigError, match=r".") as caught:
        render_robustbench(record, row=row, fields=fields)
    return str(caught.value)


def test_a_row_is_the_file_that_robustbench_has(run: MakeRun) -> None:
    text = render_robustbench(run(), row=None, fields=RICE_FIELDS)
    found = json.loads(text)
    footnote = found.pop("footnote")
    assert found == RICE
    assert list(found) == list(RICE)
    assert footnote == f"Measured with dkd-bench 0.1.0, suite fingerprint {'f3' * 32}, n = 10000."
    assert text.endswith("}\n")


def test_what_is_written_reads_back(run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "Linf").mkdir()
    file = tmp_path / "Linf" / "Ours.json"
    file.write_text(render_robustbench(run(), row="at/deployed", fields=RICE_FIELDS), encoding="utf-8")
    (row,) = read_published(file)
    assert (row.source, row.threat, row.measured_by) == ("Ours", "Linf", "autoattack")
    assert (row.clean_accuracy, row.robust_accuracy) == pytest.approx((0.8534, 0.5342))
    assert row.eps == EPS


def test_given_fields_stand_before_what_is_known(run: MakeRun) -> None:
    fields = (*RICE_FIELDS[:1], *RICE_FIELDS[2:], "number_forward_passes=3", "footnote=Uses synthetic images.")
    found = json.loads(render_robustbench(run(), row=None, fields=fields))
    assert (found["name"], found["number_forward_passes"]) == ("The at defence", 3)
    assert found["footnote"].startswith("Uses synthetic images. Measured with dkd-bench 0.1.0, ")


@pytest.mark.parametrize(
    ("eps", "threat", "text"),
    [
        (8 / 255, "Linf", "8/255"),
        (0.03137255, "Linf", "8/255"),
        (0.0314, "Linf", "0.0314"),
        (0.03, "Linf", "0.03"),
        (1.0, "Linf", "1"),
        (0.5, "L2", "0.5"),
        (2.0, "L2", "2"),
        (128 / 255, "L2", "0.5019607843"),
    ],
)
def test_eps_is_a_fraction_only_where_that_is_exact(eps: float, threat: str, text: str) -> None:
    assert eps_as_text(eps, threat) == text


def test_a_row_in_l2(run: MakeRun, cell: MakeCell) -> None:
    found = json.loads(render_robustbench(run(cell(norm="l2", eps=0.5)), row=None, fields=RICE_FIELDS))
    assert found["eps"] == "0.5"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({"randomized": True}, "'at' is randomised, and RobustBench takes only"),
        ({"abstains": True}, "'at' abstains, and"),
        ({"optimizes": True}, "'at' optimises at test time, and"),
        ({"randomized": True, "optimizes": True}, "'at' is randomised and optimises at test time, and"),
    ],
)
def test_defences_that_their_rules_exclude(run: MakeRun, kind: dict[str, Any], reason: str) -> None:
    assert reason in refusal(run(defense=kind))


def test_a_randomised_defence_is_refused_for_what_it_is_not_for_its_attack(run: MakeRun, cell: MakeCell) -> None:
    assert "is randomised" in refusal(run(cell(attack="autoattack-rand"), defense={"randomized": True}))


def test_other_datasets_are_refused(run: MakeRun) -> None:
    digits = DatasetRecord(name="digits", digest="d1" * 32, n=N, indices=tuple(range(N)))
    assert refusal(run(dataset=digits)) == ("RobustBench has no row on 'digits'; it takes cifar10, cifar100, imagenet")


@pytest.mark.parametrize(
    ("n", "n_test", "indices", "got"),
    [
        (1000, N, range(1000), "has 1000 of 10000"),
        (N, 2 * N, range(N), "has 10000 of 20000"),
        (N, None, [0] * N, "has 10000, and"),
    ],
)
def test_a_part_of_the_test_set_is_refused(run: MakeRun, n: int, n_test: int | None, indices: Any, got: str) -> None:
    part = DatasetRecord(name="cifar10", digest="d1" * 32, n=n, n_test=n_test, indices=tuple(indices))
    sentence = refusal(run(dataset=part))
    assert got in sentence
    assert "run again with n_examples 10000" in sentence


def test_l0_is_refused(run: MakeRun, cell: MakeCell) -> None:
    assert refusal(run(cell(norm="l0", eps=10.0))) == "RobustBench ranks linf and l2, and the run is in l0"


def test_a_row_without_autoattack_on_the_whole_is_refused(run: MakeRun, cell: MakeCell) -> None:
    blind = run(cell(threat_model="standalone"), cell(attack="pgd"))
    assert "at/deployed was not attacked by autoattack under the joint threat model" in refusal(blind)


def test_an_attack_without_a_number_is_refused(run: MakeRun, cell: MakeCell) -> None:
    failed = cell(status="error", reason="out of memory")
    assert refusal(run(failed, complete=True)).startswith("autoattack on at/deployed has no number (error: out of mem")


def test_an_incomplete_run_is_refused(run: MakeRun) -> None:
    assert "the run is incomplete" in refusal(run(complete=False))


def test_a_defence_that_was_never_trained_is_refused(run: MakeRun) -> None:
    record = run()
    empty = record.model_copy(update={"manifest": record.manifest.model_copy(update={"defenses": {}})})
    assert "'at' was never trained in this run" in refusal(empty)


def test_a_flag_on_any_cell_of_the_row_refuses_it(run: MakeRun, cell: MakeCell) -> None:
    flag = FlagRecord(name="noise beats the attack", detail="3 images")
    flagged = cell(attack="pgd", flags=(flag,))
    assert "at/deployed is suspicious: noise beats the attack;" in refusal(run(cell(), flagged))
    other_rule = cell(decision="other", attack="pgd", flags=(flag,))
    assert render_robustbench(run(cell(), other_rule), row="at/deployed", fields=RICE_FIELDS)


def test_a_flag_on_the_defence_refuses_it(run: MakeRun) -> None:
    flags = (FlagRecord(name="attack error", detail=""), FlagRecord(name="zero gradients", detail=""))
    assert "at/deployed is invalid: attack error, zero gradients;" in refusal(run(defense={"flags": flags}))


def test_another_variant_of_autoattack_is_refused(run: MakeRun) -> None:
    suite = {"attacks": [STANDARD | {"variant": ["apgd-ce", "fab-t", "square"]}]}
    assert refusal(run(suite=suite)).endswith("the run had apgd-ce, fab-t, square")
    assert refusal(run(suite={})).endswith("the run had one that its record does not describe")


def test_a_weakened_autoattack_is_refused(run: MakeRun) -> None:
    weak = STANDARD["parameters"] | {"square_queries": 50, "apgd_steps": 5}  # type: ignore[operator]
    assert "the run changed apgd_steps, square_queries;" in refusal(
        run(suite={"attacks": [STANDARD | {"parameters": weak}]})
    )


def test_a_record_that_contradicts_itself_is_refused(run: MakeRun, make_cell: MakeCell) -> None:
    short = make_cell("rrrr", defense="at", decision="deployed", attack="autoattack", eps=EPS, dataset="cifar10")
    with pytest.raises(EvidenceError, match=r"at/deployed should tell of 10000 images, got 4 outcomes for n = 4"):
        render_robustbench(run(short), row=None, fields=RICE_FIELDS)


def test_of_several_rows_one_must_be_named(run: MakeRun, cell: MakeCell) -> None:
    other = cell(decision="other", robust_accuracy=0.1)
    sentence = refusal(run(cell(), cell(attack="pgd"), other))
    assert sentence.endswith("the run has 2; name one with row: at/deployed, at/other")
    with pytest.raises(UnknownNameError, match=r"no row named 'at/deploid'. Did you mean 'at/deployed'\? The run has"):
        render_robustbench(run(cell(), other), row="at/deploid", fields=RICE_FIELDS)


def test_of_several_budgets_one_must_be_named(run: MakeRun, cell: MakeCell, make_cell: MakeCell) -> None:
    wide = make_cell("f" * N, defense="at", decision="deployed", attack="autoattack", eps=16 / 255)
    record = run(cell(), wide)
    sentence = refusal(record, row="at/deployed")
    assert sentence.endswith("'at/deployed' has 2; name one with row: at/deployed/8/255, at/deployed/16/255")
    found = json.loads(render_robustbench(record, row="at/deployed/16/255", fields=RICE_FIELDS))
    assert (found["eps"], found["autoattack_acc"]) == ("16/255", "0.00")


def test_a_run_without_budget_has_no_row(run: MakeRun, cell: MakeCell) -> None:
    assert "wants accuracy within a budget" in refusal(run(cell(eps=None, attack="deepfool")))


def test_all_missing_fields_are_named_at_once(run: MakeRun) -> None:
    assert refusal(run(), fields=("venue=ICML 2020",)) == (
        "RobustBench also wants link, authors, additional_data, architecture, reported, which the run does not know; "
        "give each as fields NAME=VALUE, such as fields link=https://arxiv.org/abs/2002.11569"
    )


def test_the_passes_of_an_ensemble_are_not_guessed(run: MakeRun, cell: MakeCell) -> None:
    members = tuple(
        CandidateRecord(name=name, robust_accuracy=0.5, ci95=(0.0, 1.0), failed_majorities=0, abstained=0)
        for name in ("member 1", "member 2")
    )
    standalone = cell(threat_model="standalone", candidates=members)
    latents = SeparationRecord(layer="latent", n=9, dimension=2, margin=None, scaled_margin=None, reason="too few")
    for record in (run(cell(), standalone), run(defense={"separation": latents})):
        assert "wants number_forward_passes, which" in refusal(record)
        found = json.loads(render_robustbench(record, row=None, fields=(*RICE_FIELDS, "number_forward_passes=2")))
        assert found["number_forward_passes"] == 2


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("venue", r"fields takes NAME=VALUE, got 'venue'"),
        ("=ICML", r"fields takes NAME=VALUE, got '=ICML'"),
        ("autoattack_acc=99", r"fields autoattack_acc cannot be given: the run has measured it"),
        ("eps=16/255", r"fields eps cannot be given"),
        ("venu=ICML", r"no field named 'venu'. Did you mean 'venue'\?"),
        ("unreliable=false", r"no field named 'unreliable'"),
        ("additional_data=maybe", r"must be true or false, got 'maybe'; write fields additional_data=false"),
        ("number_forward_passes=0", r"must be a whole number, at least 1, got '0'"),
        ("number_forward_passes=2.5", r"must be a whole number, at least 1, got '2.5'"),
        ("reported=58%", r"must be a percentage from 0 to 100: .*, got '58%'"),
        ("reported=101", r"must be a percentage from 0 to 100: .*, got '101'"),
        ("reported=nan", r"must be a percentage from 0 to 100: .*, got 'nan'"),
        ("link=arxiv.org", r"must be an address that begins with https:// or http://, got 'arxiv.org'"),
        ("authors= ", r"fields authors must be a text, got ''"),
    ],
)
def test_wrong_fields(word: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_fields([word])


def test_a_field_given_twice() -> None:
    with pytest.raises(ConfigError, match=r"fields gives 'venue' twice"):
        parse_fields(["venue=ICML 2020", "venue=ECCV 2020"])


def written(folder: Path, name: str, value: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return file


@pytest.fixture
def model_info(tmp_path: Path) -> Path:
    """Return a folder laid out as theirs."""
    folder = tmp_path / "model_info" / "cifar10"
    written(folder / "Linf", "Rice2020Overfitting", RICE)
    written(folder / "L2", "Augustin2020Adversarial", AUGUSTIN)
    return folder


def test_a_folder_of_theirs(model_info: Path) -> None:
    augustin, rice = read_published(model_info)
    assert rice == PublishedRow(
        source="Rice2020Overfitting",
        name="Overfitting in adversarially robust deep learning",
        dataset="cifar10",
        threat="Linf",
        eps=8 / 255,
        clean_accuracy=85.34 / 100,
        robust_accuracy=53.42 / 100,
        measured_by="autoattack",
        autoattack_accuracy=53.42 / 100,
        venue="ICML 2020",
        link="https://arxiv.org/abs/2002.11569",
        unreliable=False,
        footnote=None,
    )
    assert (augustin.threat, augustin.eps, augustin.robust_accuracy) == ("L2", 0.5, pytest.approx(0.7291))


def test_a_file_outside_their_folders_has_no_known_threat(tmp_path: Path) -> None:
    (row,) = read_published(written(tmp_path / "mine", "row", RICE))
    assert row.threat == "unknown"


def test_the_folder_is_known_from_within(model_info: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_info / "L2")
    assert read_published(Path("Augustin2020Adversarial.json"))[0].threat == "L2"


def test_an_external_number_counts_and_autoattacks_stands_beside_it(tmp_path: Path) -> None:
    (row,) = read_published(written(tmp_path / "Linf", "row", RICE | {"external": "51.00", "unreliable": True}))
    assert (row.robust_accuracy, row.measured_by) == (0.51, "external")
    (line,) = [line for line in render_published([row]).splitlines() if "Overfitting" in line]
    assert "external; AutoAttack 53.42; unreliable" in line
    assert line.split("|")[-2].strip() == "51.00"


def test_corruptions_have_a_number_of_their_own(tmp_path: Path) -> None:
    row = {name: value for name, value in RICE.items() if name != "autoattack_acc"}
    row |= {"eps": None, "corruptions_acc": "88.23", "corruptions_acc_3d": "70.00", "corruptions_mce": 61.5}
    (found,) = read_published(written(tmp_path / "corruptions", "row", row))
    assert (found.eps, found.robust_accuracy, found.measured_by) == (None, pytest.approx(0.8823), "corruptions")
    assert found.autoattack_accuracy is None
    assert "| corruptions | " in render_published([found])
    (found,) = read_published(written(tmp_path / "corruptions_3d", "row", row))
    assert (found.robust_accuracy, found.measured_by) == (0.7, "corruptions 3D")


def test_unknown_keys_and_a_budget_as_a_number_are_taken(tmp_path: Path) -> None:
    (row,) = read_published(written(tmp_path, "row", RICE | {"eps": 0.5, "external": None, "what_comes_next": [1]}))
    assert (row.eps, row.measured_by) == (0.5, "autoattack")


def test_the_section_is_sorted_and_ranks_nothing(model_info: Path) -> None:
    written(model_info / "Linf", "Better", RICE | {"name": "Better | by far\n", "autoattack_acc": "60.00"})
    text = render_published(read_published(model_info))
    assert text.startswith("## Published elsewhere, not measured here\n\n")
    assert "| #" not in text
    lines = text.splitlines()[4:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == [
        "defence",
        "-" * len(str(AUGUSTIN["name"])),
        AUGUSTIN["name"],
        "Better \\| by far",
        RICE["name"],
    ]
    assert "| cifar10 | Linf   | 8/255 | ICML 2020 | https://arxiv.org/abs/2002.11569 | 85.34 |      53.42 |" in text


def test_no_rows_no_section() -> None:
    assert render_published([]) == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", r"it is not JSON"),
        pytest.param("[" * 100_000, r"it is not JSON", id="deep"),
        ([RICE], r"it should hold one JSON object, and holds a list"),
        ({"acc": 1}, r"name: Field required"),
        (RICE | {"name": " "}, r"name: String should have at least 1 character"),
        (RICE | {"clean_acc": "high"}, r"clean_acc: expected a percentage such as '53.42', from 0 to 100, got 'high'"),
        (RICE | {"clean_acc": None}, r"clean_acc: expected a percentage as a string .* got None"),
        (RICE | {"autoattack_acc": "142.0"}, r"autoattack_acc: expected a percentage .* got '142.0'"),
        (RICE | {"autoattack_acc": "NaN"}, r"autoattack_acc: expected a percentage .* got 'NaN'"),
        (RICE | {"autoattack_acc": 53.42}, r"autoattack_acc: expected a percentage as a string .* got 53.42"),
        (RICE | {"autoattack_acc": None}, r"it should have external or autoattack_acc, and has none"),
        (RICE | {"eps": "8/0"}, r"eps: expected a budget such as '8/255' or '0.5', or null, got '8/0'"),
        (RICE | {"eps": "small"}, r"eps: expected a budget .* got 'small'"),
        (RICE | {"eps": True}, r"eps: expected a budget .* got True"),
        (RICE | {"eps": "-1/255"}, r"eps: expected a budget .* got '-1/255'"),
        (RICE | {"unreliable": "no"}, r"unreliable: Input should be a valid boolean"),
        (RICE | {"venue": 2020}, r"venue: Input should be a valid string"),
    ],
)
def test_what_is_not_a_row(tmp_path: Path, content: Any, reason: str) -> None:
    file = written(tmp_path / "Linf", "row", content)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_published(tmp_path)
    assert str(caught.value).startswith(f"{file} is not a row in RobustBench's format: ")
    assert "\n" not in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"no JSON file in {tmp_path}; expected rows"):
        read_published(tmp_path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file or folder .*nowhere.json; expected a row"):
        read_published(tmp_path / "nowhere.json")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(StoreError, match=r"cannot read .*folder.json"):
        read_published(tmp_path)


def test_accuracy_is_rounded_to_the_files_decimals(run: MakeRun, make_cell: MakeCell) -> None:
    one = make_cell("r" + "f" * (N - 1), defense="at", decision="deployed", attack="autoattack", eps=EPS)
    found = json.loads(render_robustbench(run(one), row=None, fields=RICE_FIELDS))
    assert (found["clean_acc"], found["autoattack_acc"]) == ("100.00", "0.01")


def test_published_rows_read_back_from_json(model_info: Path) -> None:
    rows = read_published(model_info)
    assert [PublishedRow.model_validate_json(row.model_dump_json()) for row in rows] == list(rows)


def test_a_run_that_its_verification_does_not_bear_out_is_not_published(run: MakeRun) -> None:
    doubted = LoadedRun(record=run(), doubt="verify found: image 3 is not so")
    with pytest.raises(ConfigError, match="at/deployed is invalid: evidence not verified; such a row has no rank"):
        render_robustbench(doubted, row=None, fields=RICE_FIELDS)
