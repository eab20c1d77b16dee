from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkd_bench.check import load_reference, reference_from, save_reference
from dkd_bench.check._outcomes import packed, unpacked
from dkd_bench.errors import ConfigError, ExitCode, IncompleteRunError, StoreError
from dkd_bench.records import DatasetRecord, EvidenceRecord, FlagRecord
from dkd_bench.store.digests import digest_json


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bit_sets_round_trip(bits):
    shares = tuple(float(bit) for bit in bits)
    assert unpacked(packed(shares, draws=1), n=len(shares), draws=1) == shares


@given(st.integers(2, 255), st.data())
def test_counted_draws_round_trip(draws, data):
    counts = data.draw(st.lists(st.integers(0, draws), min_size=1, max_size=40))
    shares = tuple(count / draws for count in counts)
    assert unpacked(packed(shares, draws=draws), n=len(shares), draws=draws) == pytest.approx(shares)


def test_bit_sets_are_small():
    assert len(packed([1.0] * 1000, draws=1)) == 168


@pytest.mark.parametrize("share", [0.55, 1.1, -0.1])
def test_a_share_that_is_no_number_of_draws_is_refused(share):
    with pytest.raises(ValueError, match="no whole number of 10 draws"):
        packed([share], draws=10)


@pytest.mark.parametrize(
    ("text", "n", "draws", "message"),
    [
        ("AA==", 9, 1, "outcomes of 9 images take 2 bytes, got 1"),
        ("/w==", 7, 1, "outcomes beyond 7 images"),
        ("Cw==", 1, 10, "more than 10 draws"),
        ("AA=", 8, 1, "padding"),
        ("A*==", 8, 1, "base64"),
    ],
)
def test_outcomes_that_cannot_be_are_refused(text, n, draws, message):
    with pytest.raises(ValueError, match=message):
        unpacked(text, n=n, draws=draws)


def test_reference_holds_what_a_check_needs_and_no_more(described, make_cell, with_defenses):
    run = described(
        [make_cell("rrfmac" + "r" * 5), make_cell("r" * 11, attack="fgsm", flags=(flag("noise beats the attack"),))]
    )
    run = with_defenses(run, flags=(flag("zero gradients"),))
    reference = reference_from([run])
    first = reference.cells[0]
    assert (first.key.defense, first.key.attack, first.key.eps, first.draws) == ("dkd", "pgd", 0.1, 1)
    assert reference.shares(first) == ((1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1),)
    assert reference.runs[0].defenses["dkd"].weights_sha256 == "w" * 64
    assert reference.runs[0].defenses["dkd"].flags == ("noise beats the attack", "zero gradients")
    assert (reference.dataset.n, reference.dataset.digest) == (11, "d1" * 32)


def flag(name):
    return FlagRecord(name=name, detail="seen")


def test_draws_survived_are_kept_for_a_randomised_defence(described, make_cell):
    run = described([make_cell("rfr", survival=(1.0, 0.3, 0.7), robust_accuracy=2 / 3)])
    reference = reference_from([run])
    assert reference.cells[0].draws == 10
    assert reference.shares(reference.cells[0])[0] == pytest.approx((1.0, 0.3, 0.7))


def test_evidence_is_kept_by_target_and_chunk(described, make_cell):
    def craft(chunk, target):
        sha256 = f"{target}{chunk}" * 32
        return EvidenceRecord(sha256=sha256, target=target, attack="pgd", norm="linf", eps=0.1, chunk=chunk, n=2)

    evidence = {f"{target}{chunk}": craft(chunk, target) for target in "ab" for chunk in (0, 1)}
    run = described([make_cell("rrrr", evidence=("a0", "a1", "b0", "b1"))], evidence=evidence)
    reference = reference_from([run])
    assert reference.runs[0].evidence == tuple((key, key * 32) for key in ("a0", "a1", "b0", "b1"))
    assert reference.cells[0].runs[0].evidence == ((0, 1), (2, 3))


def test_another_attack_in_the_suite_changes_no_other(described, make_cell, suite):
    alone = reference_from([described([make_cell()])])
    beside = reference_from([described([make_cell()], suite=suite(cw=100))])
    other = reference_from([described([make_cell()], suite=suite(pgd=400))])
    assert alone.cells[0].attack_digest == beside.cells[0].attack_digest != other.cells[0].attack_digest


@pytest.mark.parametrize("name", ["eot_draws", "chunk_size"])
def test_what_all_attacks_share_is_part_of_each(described, make_cell, suite, name):
    digests = {
        reference_from([described([make_cell()], suite=words)]).cells[0].attack_digest
        for words in (suite(), suite() | {name: 1})
    }
    assert len(digests) == 2


def test_cells_without_a_number_are_left_out(described, make_cell):
    none = make_cell("rrrr", attack="fgsm", status="not_run", reason="no surrogate has gradients")
    reference = reference_from([described([make_cell(), none], complete=True)])
    assert [cell.key.attack for cell in reference.cells] == ["pgd"]
    with pytest.raises(ConfigError, match="no cell of the run has a number"):
        reference_from([described([none], complete=True)])


def test_incomplete_run_is_refused_with_its_reason(described, make_cell):
    error = make_cell("rrrr", attack="fgsm", status="error", reason="out of memory")
    with pytest.raises(IncompleteRunError, match=r"run 1 of 1 is incomplete: out of memory; the same") as refused:
        reference_from([described([make_cell(), error])])
    assert refused.value.exit_code is ExitCode.INCOMPLETE


def test_no_run_is_refused():
    with pytest.raises(ConfigError, match="a reference needs at least one run"):
        reference_from([])


def test_the_same_cell_twice_is_refused(described, make_cell):
    with pytest.raises(ConfigError, match=r"the cell dkd majority, joint, pgd linf 0\.1 stands twice in the run"):
        reference_from([described([make_cell(), make_cell("rrrf")])])


def test_attack_without_description_is_refused(make_run, make_cell):
    with pytest.raises(ConfigError, match="must describe attack 'pgd' once, does so 0 times"):
        reference_from([make_run([make_cell()])])


def test_outcomes_that_are_not_one_for_each_image_are_refused(described, make_cell):
    with pytest.raises(StoreError, match="must have 5 outcomes, has 4"):
        reference_from([described([make_cell("rrrr")], n=5)])


def test_several_runs_stand_side_by_side(described, make_cell):
    reference = reference_from([described([make_cell("rrff")]), described([make_cell("frrf")], training_seed=1)])
    assert reference.shares(reference.cells[0]) == ((1, 1, 0, 0), (0, 1, 1, 0))


def test_several_runs_must_have_the_same_images(described, make_cell):
    other = DatasetRecord(name="digits", digest="d1" * 32, n=4, indices=(0, 1, 2, 9))
    with pytest.raises(ConfigError, match="the same images; those of run 2 are not run 1's"):
        reference_from([described([make_cell()]), described([make_cell()], dataset=other)])


def test_several_runs_must_have_the_same_attacks(described, make_cell, suite):
    with pytest.raises(ConfigError, match="the same attacks; 'pgd' is not the same in all"):
        reference_from([described([make_cell()]), described([make_cell()], suite=suite(pgd=400), training_seed=1)])


def test_several_runs_must_have_the_same_cells(described, make_cell):
    two = described([make_cell(), make_cell(attack="fgsm")], training_seed=1)
    with pytest.raises(ConfigError, match=r"the same cells; dkd majority, joint, fgsm linf 0\.1 has a number in run 1"):
        reference_from([described([make_cell()]), two])


REQUEST = {"attacks": ["pgd"], "settings": ["pgd.steps=40"], "training_seed": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"request": REQUEST | {"settings": ["pgd.steps=4"]}},
            r"the settings of run 3 must be \['pgd.steps=40'\] as in run 1, got \['pgd.steps=4'\]\. Make them",
        ),
        ({"request": REQUEST | {"eps": [0.1]}}, r"the eps of run 3 must be None as in run 1, got \[0\.1\]"),
        ({"recipe": "paper"}, "the recipe of run 3 must be 'fast' as in run 1, got 'paper'"),
    ],
)
def test_several_runs_must_be_of_one_request(described, make_cell, changes, message):
    runs = [
        described([make_cell()], **{"request": REQUEST | {"training_seed": seed}, "training_seed": seed} | each)
        for seed, each in ((None, {}), (1, {}), (2, changes))
    ]
    assert len(reference_from(runs[:2]).runs) == 2
    with pytest.raises(ConfigError, match=f"must differ in training_seed alone; {message}"):
        reference_from(runs)


def test_several_runs_must_have_the_same_settings_of_a_defence(described, make_cell, with_defenses):
    other = with_defenses(described([make_cell()], training_seed=1), settings={"epochs": 3})
    with pytest.raises(
        ConfigError, match=r"the settings of 'dkd' of run 2 must be \{\} as in run 1, got \{'epochs': 3\}"
    ):
        reference_from([described([make_cell()]), other])


@pytest.mark.parametrize("seeds", [(None, None), (None, 0), (0, None), (5, 5)])
def test_several_runs_must_have_unlike_training_seeds(described, make_cell, seeds):
    first, second = (described([make_cell()], training_seed=seed) for seed in seeds)
    middle = described([make_cell()], training_seed=9)
    with pytest.raises(ConfigError, match=r"run 1 and run 3 are both of \d.*with another training_seed"):
        reference_from([first, middle, second])


@pytest.fixture
def saved(described, make_cell, tmp_path):
    path = tmp_path / "reference.json"
    cells = [make_cell("rrff"), make_cell("rrrf", attack="fgsm", eps=None, norm="l2")]
    save_reference(reference_from([described(cells)]), path)
    return path


def test_file_round_trips(saved, described, make_cell):
    cells = [make_cell("rrff"), make_cell("rrrf", attack="fgsm", eps=None, norm="l2")]
    assert load_reference(saved) == reference_from([described(cells)])


def test_no_file_is_a_clear_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"no reference at .*nowhere\.json; expected a file, as 'dkd-bench reference"):
        load_reference(tmp_path / "nowhere.json")


def test_truncated_file_is_found(saved):
    saved.write_text(saved.read_text()[:-20])
    with pytest.raises(StoreError, match=r"is no whole reference \(.+\); make it again with 'dkd-bench reference"):
        load_reference(saved)


def test_file_nested_too_deeply_is_found(saved):
    saved.write_text("[" * 100_000)
    with pytest.raises(StoreError, match=r"is no whole reference \(maximum recursion depth .*\); make it again with"):
        load_reference(saved)


def test_file_nested_too_deeply_for_its_digest_is_found(saved, monkeypatch):
    def too_deep(content):
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr("dkd_bench.check._reference.digest_json", too_deep)
    with pytest.raises(StoreError, match="is no reference: it is nested too deeply; make it again with"):
        load_reference(saved)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"schema_version": 1}'])
def test_other_json_is_no_reference(saved, text):
    saved.write_text(text)
    with pytest.raises(StoreError, match="states no schema_version and digest"):
        load_reference(saved)


def test_other_schema_version_is_found_before_anything_else(saved):
    saved.write_text('{"schema_version": 2, "digest": "of another form"}')
    with pytest.raises(StoreError, match="is a reference of schema version 2, this is dkd-bench for version 1; make"):
        load_reference(saved)


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["cells"][0]["runs"][0].update(survived="Dw=="),
        lambda content: content["cells"].pop(),
        lambda content: content["runs"][0]["defenses"]["dkd"].update(flags=["zero gradients"]),
        lambda content: content["dataset"].update(digest="e" * 64),
        lambda content: content.update(more=1),
        lambda content: content["cells"][0]["key"].update(eps=float("nan")),
    ],
)
def test_edited_file_is_found(saved, edit):
    content = json.loads(saved.read_text())
    edit(content)
    saved.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="it was edited or damaged; make it again with"):
        load_reference(saved)


def test_edited_digest_is_found(saved):
    content = json.loads(saved.read_text())
    saved.write_text(json.dumps(content | {"digest": "0" * 64}))
    with pytest.raises(StoreError, match=f"states digest {'0' * 64}, what it holds has {content['digest']}"):
        load_reference(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["cells"].append(content["cells"][0]), "stands in it twice"),
        (lambda content: content["cells"][0]["runs"].clear(), "must have 1 runs, has 0"),
        (lambda content: content["cells"][0]["runs"][0].update(survived="AAAA"), "take 1 bytes, got 3"),
        (lambda content: content["cells"][0]["runs"][0].update(evidence=[[0]]), "names evidence that is not in it"),
        (lambda content: content["cells"].clear(), "cells: Tuple should have at least 1 item"),
        (lambda content: content.update(more=1), "more: Extra inputs are not permitted"),
    ],
)
def test_digest_made_again_does_not_help_what_cannot_be(saved, edit, message):
    content = json.loads(saved.read_text())
    edit(content)
    del content["digest"]
    saved.write_text(json.dumps(content | {"digest": digest_json(content)}))
    with pytest.raises(StoreError, match=f"is no reference: .*{message}"):
        load_reference(saved)
