from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

HEAD = """
import torch
from torch import nn
from dkd_bench.api import ABSTAIN, Attack, AttackMeta, Defense, DefenseMeta, build_network, train_network


class Plain(Defense):
    meta = DefenseMeta(name="plain", title="Plain")

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.net = build_network("auto", images)

    @property
    def members(self):
        return [self.net]

    def fit(self, data, *, recipe, generator, progress):
        train_network(self.net, data, recipe=recipe, generator=generator, progress=progress)

    def predict(self, x, *, generator):
        return self.net(x).argmax(dim=1)
"""

BROKEN_DEFENSES = {
    "constant": (
        """
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken")
            def predict(self, x, *, generator):
                return torch.full((len(x),), 3)
        """,
        "gives the same answer, 3, to all",
    ),
    "rejects all": (
        """
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken", abstains=True)
            def predict(self, x, *, generator):
                return torch.full((len(x),), ABSTAIN)
        """,
        "gives the same answer, ABSTAIN, to all",
    ),
    "undeclared randomness": (
        """
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken")
            def predict(self, x, *, generator):
                return torch.randint(10, (len(x),))
        """,
        "answers differently when asked again but does not declare it",
    ),
    "undeclared abstention": (
        """
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken")
            def predict(self, x, *, generator):
                labels = self.net(x).argmax(dim=1)
                labels[0] = ABSTAIN
                return labels
        """,
        "abstains but does not declare it",
    ),
    "wrong shape": (
        """
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken")
            def predict(self, x, *, generator):
                return self.net(x)
        """,
        r"must answer with int64 labels of shape \(60,\)",
    ),
    "labels out of range": (
        """
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken")
            def predict(self, x, *, generator):
                return self.net(x).argmax(dim=1) + 7
        """,
        "must answer with labels from 0 to 9",
    ),
    "NaN logits": (
        """
        class NaN(nn.Module):
            def forward(self, x):
                return torch.full((len(x), 10), float("nan"))
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken")
            def __init__(self, images, settings=None):
                super().__init__(images, settings)
                self.bad = NaN()
            @property
            def members(self):
                return [self.net, self.bad]
        """,
        "member 2 of defence 'broken' returns logits that are not finite",
    ),
    "members in a list": (
        """
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken")
            def __init__(self, images, settings=None):
                super().__init__(images, settings)
                self.nets = [build_network("auto", images), build_network("auto", images)]
            @property
            def members(self):
                return self.nets
        """,
        "member 0 of defence 'broken' is not a registered module",
    ),
    "surrogate with another target's name": (
        """
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken")
            def surrogates(self):
                return {"member-1": self.net}
        """,
        "a surrogate of defence 'broken' is called 'member-1', a target's name",
    ),
    "fit raises": (
        """
        class Broken(Plain):
            meta = DefenseMeta(name="broken", title="Broken")
            def fit(self, data, *, recipe, generator, progress):
                raise KeyError("weights")
        """,
        "defence 'broken' cannot be trained: KeyError: 'weights'",
    ),
    "no defence at all": (
        """
        class Broken:
            pass
        """,
        "must be a subclass of dkd_bench.api.Defense with a meta",
    ),
    "import fails": (
        """
        import no_such_module
        class Broken(Plain):
            pass
        """,
        "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
    ),
}


def write_plugin(path: Path, body: str) -> str:
    path.write_text(HEAD + "\n\n" + dedent(body))
    return f"{path}:Broken"


@pytest.mark.parametrize("case", BROKEN_DEFENSES)
def test_broken_defence_has_no_number_and_does_not_stop_the_others(bench, tmp_path, caplog, case):
    body, sentence = BROKEN_DEFENSES[case]
    plugin = write_plugin(tmp_path / "plugin.py", body)
    record = bench(defenses=("none", plugin), attacks=("fgsm",))
    assert not record.complete
    good = [cell for cell in record.cells if cell.defense == "none"]
    bad = [cell for cell in record.cells if cell.defense != "none"]
    assert all(cell.status == "ok" for cell in good)
    assert len(bad) == len(good) == 4
    for cell in bad:
        assert cell.status == "error"
        assert cell.robust_accuracy is None
        assert cell.outcomes == ()
    assert re.search(sentence, bad[0].reason)
    assert re.search(sentence, caplog.text)
    board = (tmp_path / "run" / "leaderboard.md").read_text()
    assert re.search(sentence, board)


BROKEN_ATTACKS = {
    "leaves the budget": ("return (images + 0.2).clamp(0, 1)", "must be within linf 0.1 of the clean one"),
    "leaves the box": ("return images - 0.05", r"must have pixels in \[0, 1\]"),
    "not finite": ("return images * float('nan')", "has values that are not finite"),
    "wrong count": ("return images[:3]", "must return images of shape"),
    "returns nothing": ("return None", "must return images of shape .* got NoneType"),
    "raises": ("raise RuntimeError('out of luck')", "failed: RuntimeError: out of luck"),
}


@pytest.mark.parametrize("case", BROKEN_ATTACKS)
def test_failing_attack_is_an_error_and_never_survival(bench, tmp_path, case):
    body, sentence = BROKEN_ATTACKS[case]
    plugin = write_plugin(
        tmp_path / "attack.py",
        f"""
        class Broken(Attack):
            meta = AttackMeta(name="broken", title="Broken", kind="fixed")
            def _perturb(self, target, images, labels, budget):
                {body}
        """,
    )
    record = bench(defenses=("none",), attacks=("fgsm", plugin))
    assert not record.complete
    for cell in record.cells:
        assert cell.status == ("error" if cell.attack == "broken" else "ok")
        if cell.attack == "broken":
            assert cell.robust_accuracy is None
            assert re.search(sentence, cell.reason)
    board = (tmp_path / "run" / "leaderboard.json").read_text()
    assert '"worst": null' in board or "null" in board


def test_randomised_defence_is_scored_over_draws_and_attacked_in_expectation(bench, tmp_path):
    plugin = write_plugin(
        tmp_path / "plugin.py",
        """
        class Noise(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net
            def forward(self, x):
                return self.net((x + 0.1 * torch.randn_like(x)).clamp(0, 1))
        class Broken(Plain):
            meta = DefenseMeta(name="noise", title="Noise", randomized=True)
            def predict(self, x, *, generator):
                noise = torch.randn(x.shape, generator=generator)
                return self.net((x + 0.1 * noise).clamp(0, 1)).argmax(dim=1)
            def surrogates(self):
                return {"noisy": Noise(self.net)}
        """,
    )
    record = bench(defenses=(plugin,), attacks=("fgsm", "autoattack"), threat_models=("joint", "black-box"))
    assert record.complete
    # AutoAttack standard is for deterministic targets: it runs on the reference alone.
    assert {(cell.threat_model, cell.attack) for cell in record.cells} == {
        ("joint", "fgsm"),
        ("black-box", "fgsm"),
        ("black-box", "autoattack"),
    }
    joint = next(cell for cell in record.cells if cell.threat_model == "joint")
    assert len(joint.survival) == 40
    assert {share * 10 for share in joint.survival} <= {float(k) for k in range(11)}
    assert joint.robust_accuracy == pytest.approx(sum(joint.survival) / 40)
    assert joint.forward_passes >= 16 * 40


def test_declared_abstention_counts_as_not_fooled_and_is_shown(bench, tmp_path):
    plugin = write_plugin(
        tmp_path / "plugin.py",
        """
        class Broken(Plain):
            meta = DefenseMeta(name="rejecting", title="Rejecting", abstains=True)
            def predict(self, x, *, generator):
                top, second = self.net(x).softmax(dim=1).topk(2, dim=1).values.unbind(dim=1)
                labels = self.net(x).argmax(dim=1)
                return torch.where(top - second > 0.5, labels, ABSTAIN)
        """,
    )
    record = bench(defenses=(plugin,), attacks=("deepfool",), threat_models=("joint",))
    (cell,) = record.cells
    assert cell.abstained > 0
    survived = sum(outcome.value in ("robust", "abstained") for outcome in cell.outcomes)
    assert cell.robust_accuracy == survived / 40


def test_defence_without_gradient_or_surrogate_is_marked(bench, tmp_path):
    plugin = write_plugin(
        tmp_path / "plugin.py",
        """
        class Broken(Plain):
            meta = DefenseMeta(name="hard", title="Hard", non_differentiable=True)
        """,
    )
    record = bench(defenses=(plugin,), attacks=("fgsm",))
    (joint,) = [cell for cell in record.cells if cell.threat_model == "joint"]
    assert (joint.status, joint.robust_accuracy) == ("not_run", None)
    assert [flag.name for flag in joint.flags] == ["not adaptively evaluated"]
    assert record.complete
