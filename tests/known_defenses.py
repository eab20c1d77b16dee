"""Defences whose fault is known, and honest ones; what they train is committed, see ``tiny_task.py``."""

import torch
from torch import nn

from dkd_bench.api import ABSTAIN, Defense, DefenseMeta, Detecting, build_network, train_network


class Plain(Defense):
    meta = DefenseMeta(name="plain", title="Plain")

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.network = self.build(images)

    def build(self, images):
        return build_network("auto", images)

    @property
    def members(self):
        return [self.network]

    def fit(self, data, *, recipe, generator, progress):
        train_network(self.network, data, recipe=recipe, generator=generator, progress=progress)

    def predict(self, x, *, generator):
        return self.surrogates()["whole"](x).argmax(dim=1)


class Linear(Plain):
    meta = DefenseMeta(name="linear", title="Honest and linear")

    def build(self, images):
        return nn.Sequential(nn.Flatten(), nn.Linear(images.channels * images.height * images.width, images.n_classes))


class Hot(Plain):
    meta = DefenseMeta(name="hot", title="Logits scaled until the softmax saturates")

    def surrogates(self):
        return {"whole": nn.Sequential(self.network, Scaled(1e4))}


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, logits):
        return self.factor * logits


class Quantised(Plain):
    meta = DefenseMeta(name="quantised", title="Gradients shattered by rounding")

    def surrogates(self):
        return {"whole": nn.Sequential(Rounded(), self.network)}


class Rounded(nn.Module):
    def forward(self, x):
        return (x * 4).round() / 4


class Sleeper(Plain):
    meta = DefenseMeta(name="sleeper", title="Asleep behind an argmax")

    def surrogates(self):
        return {"whole": nn.Sequential(self.network, Certain())}


class Certain(nn.Module):
    def forward(self, logits):
        return nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]) + 0 * logits


class LabelNoise(Plain):
    meta = DefenseMeta(name="label-noise", title="One answer in five is another label")

    def predict(self, x, *, generator):
        labels = self.network(x).argmax(dim=1)
        other = torch.randint(10, labels.shape, generator=generator)
        return torch.where(torch.rand(len(x), generator=generator) < 0.2, other, labels)


class Counting(Plain):
    meta = DefenseMeta(name="counting", title="Every other answer is another network's")

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.shift = Shift()

    def surrogates(self):
        return {"whole": nn.Sequential(self.shift, self.network)}

    def predict(self, x, *, generator):
        return self.network(x).argmax(dim=1)


class Shift(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x + 0.01 * (self.calls % 2)


class RejectsAll(Plain):
    meta = DefenseMeta(name="rejects-all", title="Rejects every image", abstains=True)

    def predict(self, x, *, generator):
        return torch.full((len(x),), ABSTAIN)


class NotANumber(Plain):
    meta = DefenseMeta(name="nan", title="Logits that are no numbers")

    def surrogates(self):
        return {"whole": self.network}

    @property
    def members(self):
        return [nn.Sequential(self.network, Scaled(float("nan")))]


class Listed(Plain):
    meta = DefenseMeta(name="listed", title="Members in a list")

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.networks = [build_network("auto", images)]

    @property
    def members(self):
        return self.networks


class Preprocessed(Plain):
    meta = DefenseMeta(name="preprocessed", title="A step that no surrogate has")

    def fit(self, data, *, recipe, generator, progress):
        whole = nn.Sequential(Inverted(), self.network)
        train_network(whole, data, recipe=recipe, generator=generator, progress=progress)

    def predict(self, x, *, generator):
        return self.network(1 - x).argmax(dim=1)


class Inverted(nn.Module):
    def forward(self, x):
        return 1 - x


class Junked(Plain):
    meta = DefenseMeta(name="junked", title="Shattered, with a gradient of something else")

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.whole = Junk(self.network, images.channels * images.height * images.width, images.n_classes)

    def surrogates(self):
        return {"whole": self.whole}


class Junk(nn.Module):
    def __init__(self, network, dimension, n_classes):
        super().__init__()
        self.network = network
        self.register_buffer("junk", torch.randn(dimension, n_classes, generator=torch.Generator().manual_seed(3)))

    def forward(self, x):
        return self.network((x * 4).round() / 4) + 1e-4 * (x.flatten(1) @ self.junk)


class Learning(Plain):
    meta = DefenseMeta(name="learning", title="Answers near what it has seen as it did then")
    seen = None

    def predict(self, x, *, generator):
        labels = self.network(x).argmax(dim=1)
        if self.seen is None:
            self.seen, self.said = x[:1], (labels[:1] + 1) % 10
            return labels
        near = (x - self.seen).abs().flatten(1).amax(dim=1) < 1e-3
        return torch.where(near & (x.shape[0] < 100), self.said, labels)


class Smooth(Plain):
    meta = DefenseMeta(name="smooth", title="Honest and random", randomized=True)

    def build(self, images):
        return nn.Sequential(Noisy(), build_network("auto", images))

    def predict(self, x, *, generator):
        noise = torch.randn(x.shape, generator=generator)
        return self.network[1](x + 0.3 * noise).argmax(dim=1)


class Noisy(nn.Module):
    def forward(self, x):
        return x + 0.3 * torch.randn_like(x)


class Reject(Plain):
    meta = DefenseMeta(name="reject", title="Honest, rejects what it is not sure of", abstains=True)

    def surrogates(self):
        return {"whole": Unsure(self.network)}

    def predict(self, x, *, generator):
        return torch.where(self.rejections(x)["margin"] > 0, ABSTAIN, self.network(x).argmax(dim=1))

    def rejections(self, x):
        return {"margin": Unsure(self.network).rejections(x)[:, 0]}


class Unsure(Detecting):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)

    def rejections(self, x):
        first, second = self.network(x).topk(2, dim=1).values.unbind(1)
        return (1.0 - (first - second)).unsqueeze(1)


class Fragile(Plain):
    meta = DefenseMeta(name="fragile", title="Fails far from the data")

    def predict(self, x, *, generator):
        if x.flatten(1).std(dim=1).max() > 0.47:
            raise ValueError("too far from the data")
        return self.network(x).argmax(dim=1)


class Backward(Plain):
    meta = DefenseMeta(name="backward", title="No way back")

    def surrogates(self):
        return {"whole": nn.Sequential(OneWay(), self.network)}


class OneWay(nn.Module):
    def forward(self, x):
        return Refusing.apply(x)


class Refusing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no backward here")


class Steep(Plain):
    meta = DefenseMeta(name="steep", title="The root of what is zero")

    def surrogates(self):
        return {"whole": nn.Sequential(Root(), self.network)}


class Root(nn.Module):
    def forward(self, x):
        return x.sqrt()
