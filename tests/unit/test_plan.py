"""Plans: each craft wanted once, and keys that know what determines a craft and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from dkd_bench.attacks import AttackMeta
from dkd_bench.budget import Budget
from dkd_bench.errors import ConfigError
from dkd_bench.steps.plan import (
    Ground,
    Plan,
    PlannedDefense,
    PlannedTarget,
    Trial,
    budgets_of,
    make_plan,
)
from dkd_bench.target import Access
from dkd_bench.threats import Roles, ThreatModel
from dkd_bench.threats.aggregated import Aggregated
from dkd_bench.threats.black_box import BlackBox
from dkd_bench.threats.joint import Joint
from dkd_bench.threats.standalone import Standalone

GROUND = Ground(
    chunk_digests=("chunk-a", "chunk-b"), seed=0, eot_draws=16, harness="code-a", libraries={"torch": "2.14.1"}
)
LINF = Budget(norm="linf", eps=0.1)
ALL_THREATS = (BlackBox(), Standalone(), Aggregated(), Joint())


def defense(
    name: str = "dkd",
    *,
    randomized: bool = False,
    surrogates: Sequence[str] = ("whole",),
    access: frozenset[Access] = frozenset({"gradients"}),
) -> PlannedDefense:
    members = ("member-1", "member-2")

    def target(called: str, **facts: Any) -> PlannedTarget:
        return PlannedTarget(digest=called, content=f"content-{called}", **facts)

    targets = {"reference": target("digest-lenet")}
    targets |= {each: target(f"{name}-{each}", randomized=randomized) for each in members}
    targets |= {each: target(f"{name}-{each}", randomized=randomized, access=access) for each in surrogates}
    return PlannedDefense(
        name=name, roles=Roles(reference="reference", members=members, surrogates=tuple(surrogates)), targets=targets
    )


@dataclass(frozen=True, kw_only=True)
class AskedAttack:
    """What the plan asks an attack."""

    meta: AttackMeta
    told: dict[str, Any]

    def identity(self) -> dict[str, Any]:
        return self.told


def attack(name: str = "pgd", *, identity: dict[str, Any] | None = None, **changes: Any) -> Any:
    told = {"name": name, "parameters": {"steps": 40}} | (identity or {})
    meta = {"name": name, "title": name, "kind": "fixed", "norms": ("linf", "l2")} | changes
    return AskedAttack(meta=AttackMeta(**meta), told=told)


DEEPFOOL = attack("deepfool", kind="minimum_norm", norms=("l2",))


def plan(
    *,
    defenses: Sequence[PlannedDefense] = (defense(),),
    attacks: Sequence[Any] = (attack(),),
    threat_models: Sequence[ThreatModel] = (Standalone(),),
    budgets: Sequence[Budget] = (LINF,),
    ground: Ground = GROUND,
) -> Plan:
    return make_plan(defenses=defenses, attacks=attacks, threat_models=threat_models, budgets=budgets, ground=ground)


def by_threat_model(found: Plan) -> Mapping[str, Trial]:
    return {trial.threat_model: trial for trial in found.trials}


def test_every_combination_is_a_trial() -> None:
    found = plan(
        defenses=[defense("dkd"), defense("kd")], attacks=[attack("fgsm"), attack()], threat_models=ALL_THREATS
    )
    assert [(trial.defense, trial.threat_model, trial.attack) for trial in found.trials] == [
        (name, threat_model.meta.name, each)
        for name in ("dkd", "kd")
        for threat_model in ALL_THREATS
        for each in ("fgsm", "pgd")
    ]


def test_one_craft_serves_standalone_and_aggregated() -> None:
    found = plan(threat_models=[Standalone(), Aggregated()])
    trials = by_threat_model(found)
    assert trials["standalone"].crafts == trials["aggregated"].crafts
    assert [craft.target for craft in found.crafts] == ["dkd-member-1", "dkd-member-2"]


def test_black_box_is_shared_by_all_defences() -> None:
    found = plan(defenses=[defense("dkd"), defense("kd"), defense("ri")], threat_models=[BlackBox()])
    assert len(found.trials) == 3
    assert [craft.target for craft in found.crafts] == ["digest-lenet"]


def test_equal_networks_share_crafts() -> None:
    """The undefended network is the main model of DKD, weight for weight."""
    dkd, none = defense("dkd"), defense("none")
    none = replace(none, targets={**none.targets, "member-1": dkd.targets["member-1"]})
    found = plan(defenses=[dkd, none])
    assert sorted(craft.target for craft in found.crafts) == ["dkd-member-1", "dkd-member-2", "none-member-2"]


def test_one_key_for_each_chunk() -> None:
    (trial,) = plan().trials
    keys = [key for craft in trial.crafts.values() for key in craft.keys]
    assert len(keys) == len(set(keys)) == 2 * len(GROUND.chunk_digests)


def test_a_minimum_norm_craft_serves_every_budget_of_its_norm() -> None:
    near, far = Budget(norm="l2", eps=0.25), Budget(norm="l2", eps=0.5)
    found = plan(attacks=[DEEPFOOL], budgets=[near, far])
    (trial,) = found.trials
    assert trial.budgets == (Budget(norm="l2"), near, far)
    assert {craft.budget for craft in found.crafts} == {Budget(norm="l2")}
    assert len(found.crafts) == 2


def test_a_minimum_norm_craft_of_another_norm_has_one_cell() -> None:
    (trial,) = plan(attacks=[DEEPFOOL], budgets=[LINF]).trials
    assert trial.budgets == (Budget(norm="l2"),)


def test_a_fixed_attack_is_crafted_for_each_budget() -> None:
    near, far = Budget(norm="linf", eps=0.05), LINF
    found = plan(budgets=[near, far])
    assert [trial.budgets for trial in found.trials] == [(near,), (far,)]
    assert len(found.crafts) == 4


def test_budgets_of_an_attack() -> None:
    assert budgets_of("fixed", ("linf",), [LINF]) == [(LINF, (LINF,))]
    assert budgets_of("minimum_norm", ("linf",), [LINF]) == [(Budget(norm="linf"), (Budget(norm="linf"), LINF))]


def test_a_fixed_attack_must_know_the_norm() -> None:
    with pytest.raises(ConfigError, match=r"works in linf, not in l2; choose another norm or leave that attack out"):
        plan(attacks=[attack("jsma", norms=("linf",))], budgets=[Budget(norm="l2", eps=0.5)])


FOR_DETERMINISTIC = attack("autoattack", applies_to="deterministic")
FOR_RANDOMIZED = attack("autoattack-rand", applies_to="randomized")


def test_attacks_are_matched_to_what_they_are_for() -> None:
    attacks = [attack(), FOR_DETERMINISTIC, FOR_RANDOMIZED]
    deterministic = plan(attacks=attacks, threat_models=ALL_THREATS)
    randomized = plan(defenses=[defense(randomized=True)], attacks=attacks, threat_models=ALL_THREATS)
    assert {trial.attack for trial in deterministic.trials} == {"pgd", "autoattack"}
    told = {(trial.threat_model, trial.attack) for trial in randomized.trials}
    assert told == {("black-box", "pgd"), ("black-box", "autoattack")} | {
        (threat_model, each)
        for threat_model in ("standalone", "aggregated", "joint")
        for each in ("pgd", "autoattack-rand")
    }


def test_draws_are_averaged_for_randomised_targets_alone() -> None:
    averaging = attack("averaging", averages_draws=True)
    found = plan(
        defenses=[defense("dkd"), defense("noisy", randomized=True)],
        attacks=[attack(), averaging],
        threat_models=[BlackBox(), Standalone()],
    )
    draws = {
        (trial.defense, trial.threat_model, trial.attack): {craft.draws for craft in trial.crafts.values()}
        for trial in found.trials
    }
    assert draws.pop(("noisy", "standalone", "pgd")) == {16}
    assert set(map(frozenset, draws.values())) == {frozenset({1})}


def test_a_randomised_defence_shares_the_black_box_craft() -> None:
    found = plan(defenses=[defense("dkd"), defense("noisy", randomized=True)], threat_models=[BlackBox()])
    assert len(found.crafts) == 1


def test_without_surrogate_there_is_a_trial_and_no_craft() -> None:
    (trial,) = plan(defenses=[defense(surrogates=())], threat_models=[Joint()]).trials
    assert trial.crafts == {}
    assert trial.budgets == (LINF,)


def test_answers_alone_are_attacked_and_the_gradients_missed() -> None:
    """A defence that offers nothing but its answers has a number, and a gap where gradients belong."""
    answers = defense(surrogates=("decision",), access=frozenset({"decisions"}))
    found = plan(defenses=[answers], attacks=[attack(), attack("hsj", access="decisions")], threat_models=[Joint()])
    assert {trial.attack: set(trial.crafts) for trial in found.trials} == {"pgd": set(), "hsj": {"decision"}}


@pytest.mark.parametrize("access", ["scores", "decisions", "detectors", "generator"])
def test_an_attack_meets_only_targets_that_offer_what_it_needs(access: Access) -> None:
    special = attack("special", access=access)
    offering = defense("offering", access=frozenset({"gradients", access}))
    found = plan(defenses=[defense(), offering], attacks=[attack(), special], threat_models=ALL_THREATS)
    assert [(trial.defense, trial.threat_model) for trial in found.trials if trial.attack == "special"] == [
        ("offering", "joint")
    ]


def test_members_that_are_not_random_take_one_draw() -> None:
    """The network behind a random purifier is as deterministic as any."""
    noisy = defense("noisy", randomized=True)
    member = replace(noisy.targets["member-1"], randomized=False)
    noisy = replace(noisy, targets={**noisy.targets, "member-1": member, "member-2": member})
    attacks = [attack(), FOR_DETERMINISTIC, FOR_RANDOMIZED]
    found = plan(defenses=[noisy], attacks=attacks, threat_models=[Standalone(), Joint()])
    assert [(trial.threat_model, trial.attack, [c.draws for c in trial.crafts.values()]) for trial in found.trials] == [
        ("standalone", "pgd", [1, 1]),
        ("standalone", "autoattack", [1, 1]),
        ("joint", "pgd", [16]),
        ("joint", "autoattack-rand", [16]),
    ]


def test_nothing_applies() -> None:
    with pytest.raises(ConfigError, match=r"none of the attacks autoattack-rand applies .* run with attacks all"):
        plan(attacks=[FOR_RANDOMIZED], threat_models=ALL_THREATS)


def seeds_of(found: Plan) -> tuple[int, ...]:
    return tuple(seed for craft in found.crafts for seed in craft.seeds)


def keys_of(found: Plan) -> tuple[str, ...]:
    return tuple(key for craft in found.crafts for key in craft.keys)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"defenses": [defense("another")]}, id="target weights"),
        pytest.param({"attacks": [attack(identity={"name": "pgd", "parameters": {"steps": 41}})]}, id="parameter"),
        pytest.param({"attacks": [attack(identity={"name": "pgd", "libraries": {"foolbox": "3.3.5"}})]}, id="library"),
        pytest.param({"budgets": [Budget(norm="linf", eps=0.2)]}, id="eps"),
        pytest.param({"budgets": [Budget(norm="l2", eps=0.1)]}, id="norm"),
        pytest.param({"ground": replace(GROUND, chunk_digests=("chunk-c", "chunk-d"))}, id="images"),
        pytest.param({"ground": replace(GROUND, seed=1)}, id="seed"),
        pytest.param({"ground": replace(GROUND, harness="code-b")}, id="code of the harness"),
        pytest.param({"ground": replace(GROUND, libraries={"torch": "2.15.0"})}, id="version of torch"),
        pytest.param({"defenses": [defense(randomized=True)]}, id="draws"),
    ],
)
def test_keys_know_what_determines_a_craft(changed: dict[str, Any]) -> None:
    assert not set(keys_of(plan(**changed))) & set(keys_of(plan()))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"defenses": [replace(defense(), name="renamed")]}, id="name of the defence"),
        pytest.param({"threat_models": [Aggregated()]}, id="threat model"),
        pytest.param(
            {"attacks": [replace(attack(), meta=replace(attack().meta, name="nickname"))]}, id="name of the attack"
        ),
        pytest.param({"ground": replace(GROUND, eot_draws=32)}, id="draws of others"),
        pytest.param({"defenses": [defense(surrogates=("one", "two"))]}, id="other targets"),
    ],
)
def test_keys_know_nothing_else(changed: dict[str, Any]) -> None:
    assert keys_of(plan(**changed)) == keys_of(plan())


def recoded(target: PlannedTarget) -> PlannedTarget:
    return replace(target, digest=f"{target.digest} by other code")


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"ground": replace(GROUND, harness="code-b")}, id="code of the harness"),
        pytest.param({"ground": replace(GROUND, libraries={"torch": "2.15.0"})}, id="version of torch"),
        pytest.param({"attacks": [attack(identity={**attack().told, "code": "b"})]}, id="code of the attack"),
        pytest.param({"attacks": [attack(identity={**attack().told, "libraries": {"foolbox": "4"}})]}, id="library"),
        pytest.param(
            {"defenses": [replace(defense(), targets={n: recoded(t) for n, t in defense().targets.items()})]},
            id="code of the target",
        ),
    ],
)
def test_seeds_know_what_is_asked_and_no_code(changed: dict[str, Any]) -> None:
    assert seeds_of(plan(**changed)) == seeds_of(plan())
    assert not set(keys_of(plan(**changed))) & set(keys_of(plan()))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"defenses": [defense("another")]}, id="target weights"),
        pytest.param({"attacks": [attack(identity={"name": "pgd", "parameters": {"steps": 41}})]}, id="parameter"),
        pytest.param({"budgets": [Budget(norm="linf", eps=0.2)]}, id="eps"),
        pytest.param({"ground": replace(GROUND, chunk_digests=("chunk-c", "chunk-d"))}, id="images"),
        pytest.param({"ground": replace(GROUND, seed=1)}, id="seed"),
    ],
)
def test_each_question_has_its_own_seeds(changed: dict[str, Any]) -> None:
    assert not set(seeds_of(plan(**changed))) & set(seeds_of(plan()))
    assert len(set(seeds_of(plan()))) == len(seeds_of(plan()))


def test_keys_do_not_know_what_is_crafted_besides() -> None:
    alone = set(keys_of(plan()))
    together = plan(
        defenses=[defense("kd"), defense()],
        attacks=[DEEPFOOL, attack("fgsm"), attack()],
        threat_models=ALL_THREATS,
        budgets=[Budget(norm="linf", eps=0.3), LINF],
    )
    assert alone < set(keys_of(together))


def test_more_images_keep_the_keys_of_the_first() -> None:
    longer = plan(ground=replace(GROUND, chunk_digests=(*GROUND.chunk_digests, "chunk-c")))
    for short, long in zip(plan().crafts, longer.crafts, strict=True):
        assert long.keys[:2] == short.keys
