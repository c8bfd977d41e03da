"""Captioners: every word a probability, all of them from the same inputs."""

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, Grid, Predictor
from glas3d.predict import Captioner
from tests.core.cases import SHAPES, is_trial, refused, volume

VOCABULARY = ("<start>", "<end>", "a", "red", "blue", "circle", "a 2")
SMALL = {"sigma_light": 2, "sigma_shadow": 2}
CAPTION = ["a", "red", "circle", "a"]


class Model(nn.Module):
    """Random weights; ``encode`` and ``step`` are methods, and both record their calls."""

    def __init__(self, shape, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(int(np.prod(shape)), 6)
            self.embed = nn.Embedding(len(VOCABULARY), 6)
            self.to_words = nn.Linear(6, len(VOCABULARY))
        with torch.no_grad():
            self.to_words.weight *= 6
        self.doubt = nn.Dropout(0.5)
        self.encoded, self.steps = [], []

    def encode(self, images):
        self.encoded.extend([len(images)] * (not is_trial()))
        return self.doubt(torch.tanh(self.head(images.flatten(1)))), "unused"

    def step(self, features, words):
        assert features[1] == "unused"
        self.steps.extend([(tuple(words.shape), words.dtype)] * (not is_trial()))
        position = torch.arange(1, words.shape[1] + 1)[:, None]
        return self.to_words(self.doubt(features[0] * (1 + (self.embed(words) * position).sum(dim=1))))


def captioner_of(model, **settings):
    given = {"max_words": 8, "encode": model.encode, "device": "cpu"} | settings
    return Captioner(model.step, VOCABULARY, "<start>", "<end>", **given)


def after(model, batch, words):
    """By hand: the distribution of the word after ``words``, for a batch."""
    numbers = torch.tensor([[VOCABULARY.index(w) for w in ("<start>", *words)]] * len(batch))
    model.eval()
    with torch.no_grad():
        raised = model.step(model.encode(batch), numbers).double().exp()
    model.train()
    return raised / raised.sum(dim=1, keepdim=True)


@pytest.fixture(params=[2, 3])
def case(request):
    shape = SHAPES[request.param]
    return Model(shape), volume(shape, seed=5)


# The words' probabilities.


def test_each_word_given_the_image_and_the_words_before_it(case):
    model, image = case
    batch = torch.from_numpy(np.stack([image, image[:, ::-1], 2 * image]))
    p = captioner_of(model).about(CAPTION)(batch)
    assert (p.shape, p.dtype) == ((3, 4), torch.float32)
    for t, word in enumerate(CAPTION):
        expected = after(model, batch, CAPTION[:t])[:, VOCABULARY.index(word)]
        torch.testing.assert_close(p[:, t].double(), expected, rtol=1e-5, atol=1e-6)
    assert (p[:, 0] - p[:, 3]).abs().max() > 1e-3, "the two a's have other words before them"


def test_one_call_explains_every_word_from_the_same_inputs(case):
    model, image = case
    predict = captioner_of(model).about(CAPTION)
    glas, search = GLAS(predict, **SMALL, batch_size=4), Grid(2)
    model.encoded.clear(), model.steps.clear()
    explanations = glas.explain(image, range(len(CAPTION)), search)
    inputs = explanations[0].settings["evaluations"]
    assert inputs == 2 * 2 ** (image.ndim - 1) + 1
    assert model.encoded == [4] * -(-inputs // 4), "once a batch"
    assert model.steps == [((4, t), torch.int64) for t in (1, 2, 3, 4)] * len(model.encoded)
    for i, explanation in enumerate(explanations):
        alone = glas.explain(image, predict.classes[i], search)
        assert (explanation.target, alone.target) == (i, i)
        np.testing.assert_array_equal(explanation.score, alone.score)
    assert max(np.ptp(explanation.drop) for explanation in explanations) > 1e-3


def test_words_are_located_where_they_come_from():
    """A captioner whose t-th word looks at the t-th position, in two and three dimensions."""
    for ndim, positions in ((2, [(1, 7), (5, 2)]), (3, [(1, 6, 2), (5, 1, 6)])):

        def step(images, words, positions=positions):
            bright = images[(slice(None), 0, *positions[words.shape[1] - 1])]
            return torch.stack([bright * (word == "a") for word in VOCABULARY], dim=1)

        image = np.ones((1, *SHAPES[ndim]), dtype=np.float32)
        predict = Captioner(step, VOCABULARY, "<start>", "<end>", max_words=3).about("a a")
        explanations = GLAS(predict, sigma_light=1, sigma_shadow=1).explain(image, ("a", "a 2"), positions)
        assert [int(explanation.score.argmax()) for explanation in explanations] == [0, 1]
        assert all(explanation.drop[1 - i] < 0.01 < explanation.drop[i] for i, explanation in enumerate(explanations))


def test_a_word_that_comes_again_is_counted():
    model = Model((7, 9))
    cases = {
        "a red circle": ("a", "red", "circle"),
        "a red a a": ("a", "red", "a 2", "a 3"),
        "red <end>": ("red", "<end>"),
    }
    for text, names in cases.items():
        for words in (text, text.split(), tuple(text.split()), np.array(text.split())):
            predict = captioner_of(model).about(words)
            assert isinstance(predict, Predictor)
            assert predict.classes == names
    assert captioner_of(model).about(["a", "a", "a 2", "a"]).classes == ("a", "a 3", "a 2", "a 4")


def test_without_encode_the_step_sees_the_images():
    seen = []

    def step(images, words):
        seen.append(images.clone())
        return torch.zeros(len(images), len(VOCABULARY))

    batch = torch.rand(2, 1, 7, 9)
    p = Captioner(step, VOCABULARY, "<start>", "<end>", 5).about("a red")(batch)
    torch.testing.assert_close(p, torch.full((2, 2), 1 / len(VOCABULARY)))
    assert len(seen) == 2
    assert all(torch.equal(images, batch) for images in seen)


def test_probabilities_are_taken_as_they_are():
    p = torch.linspace(0.1, 0.7, len(VOCABULARY), dtype=torch.float64)
    captioner = Captioner(
        lambda images, words: p.repeat(len(images), 1), VOCABULARY, "<start>", "<end>", 5, activation="none"
    )
    torch.testing.assert_close(captioner.about("a red")(torch.zeros(2, 1, 7, 9)), p[2:4].float().repeat(2, 1))


# The caption.


def test_the_likeliest_word_each_time(case):
    model, image = case
    for seed in range(6):
        model = Model(image.shape[1:], seed)
        batch, words = torch.from_numpy(image[None]), []
        while len(words) < 8 and "<end>" not in words:
            words.append(VOCABULARY[int(after(model, batch, words)[0].argmax())])
        expected = words[:-1] if words[-1] == "<end>" else words
        assert captioner_of(model).caption(image) == expected
        assert captioner_of(model, max_words=2).caption(image) == expected[:2]


def planned(*words, max_words=None):
    """A captioner that says these words, whatever it is shown."""

    def step(images, before):
        word = words[before.shape[1] - 1]
        return torch.eye(len(VOCABULARY))[VOCABULARY.index(word)].repeat(len(images), 1)

    return Captioner(step, VOCABULARY, "<start>", "<end>", max_words=max_words or len(words))


def test_where_a_caption_ends():
    image = volume((7, 9), channels=3)
    assert planned("a", "red", "<end>").caption(image) == ["a", "red"]
    assert planned("a", "red", "<end>", max_words=9).caption(image) == ["a", "red"], "no step follows the end"
    assert planned("a", "red").caption(image) == ["a", "red"]
    assert planned("<end>", "a").caption(image) == []


# Transform, mode, device.


class Standardise:
    def __init__(self):
        self.fitted = 0

    def fit(self, volume):
        self.fitted += 1
        return lambda batch: batch - volume.mean()


def test_a_transform_is_fitted_to_the_intact_volume(case):
    model, image = case
    transform = Standardise()
    captioner, plain = captioner_of(model, transform=transform), captioner_of(model)
    centred = image - image.mean()
    assert captioner.caption(image) == plain.caption(centred)
    assert transform.fitted == 1
    predict = captioner.about(CAPTION)
    torch.testing.assert_close(
        predict.fit(image)(image[None]), plain.about(CAPTION)(centred[None]), atol=1e-5, rtol=1e-4
    )
    GLAS(predict, **SMALL).explain(image, 0, Grid(2))
    assert transform.fitted == 3
    with refused(r"fitted to a scan: call predict.fit\(volume\)\(batch\)"):
        predict(image[None])


def test_a_method_s_module_is_in_eval_mode_for_the_call_alone(case):
    model, image = case
    model.train()
    predict = captioner_of(model).about(CAPTION)
    assert torch.equal(predict(image[None]), predict(image[None]))
    assert model.training
    assert model.doubt.training


@pytest.mark.parametrize("kind", ["methods", "modules"])
def test_all_parts_move_to_the_device_together(kind):
    class Encoder(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model.head(images.flatten(1))

    class Decoder(Encoder):
        def forward(self, features, words):
            return self.model.to_words(features + self.model.embed(words).sum(dim=1))

    model = Model((7, 9))
    encode, step = Encoder(model), Decoder(model)
    if kind == "methods":
        encode, step = encode.forward, step.forward
    captioner = Captioner(step, VOCABULARY, "<start>", "<end>", 5, encode=encode, device="meta")
    assert captioner.device.type == "meta"
    p = captioner.about(CAPTION)(torch.zeros(2, 1, 7, 9))
    assert (p.device.type, p.shape) == ("meta", (2, 4))
    assert next(model.parameters()).device.type == "cpu"


def test_callables_alone_stay_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    captioner = planned("a", "<end>")
    assert captioner.device.type == captioner.about("a").device.type == "cpu"
    assert captioner.about("a").info.name == "step"
    assert captioner_of(Model((7, 9))).about("a").info.name == "Model"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_captioner_on_the_gpu():
    class Decoder(nn.LSTM):
        def forward(self, features, words):
            seen = nn.functional.one_hot(words, len(VOCABULARY)).float() + features[:, None, :1]
            return super().forward(seen)[0][:, -1]

    decoder = Decoder(len(VOCABULARY), len(VOCABULARY), batch_first=True)
    captioner, here = (
        Captioner(decoder, VOCABULARY, "<start>", "<end>", 5, encode=nn.Flatten(), device=d) for d in ("auto", "cpu")
    )
    assert captioner.device.type == "cuda"
    image = volume((7, 9))
    assert captioner.caption(image) == here.caption(image)
    torch.testing.assert_close(
        captioner.about(CAPTION)(image[None]).cpu(), here.about(CAPTION)(image[None]), atol=1e-5, rtol=1e-4
    )


# What is refused.


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("a purple circle", r"words of the vocabulary \(it has 7\), got 'purple'"),
        (["a red"], "got 'a red'"),
        ("", "must have at least one word, got none"),
        ([], "must have at least one word, got none"),
        ("<start> a", "without the word that opens it, got '<start>' first"),
    ],
)
def test_captions(words, match):
    with refused(match):
        planned("a").about(words)


@pytest.mark.parametrize(
    ("output", "came"),
    [
        (torch.zeros(2, 6), r"got \(2, 6\)"),
        (torch.zeros(2, 1, 7), r"got \(2, 1, 7\)"),
        (torch.zeros(1, 7), r"got \(1, 7\)"),
        (torch.zeros(7), r"got \(7,\)"),
        ((torch.zeros(2, 7), None), "got tuple"),
        (None, "got NoneType"),
    ],
)
def test_steps_of_another_shape(output, came):
    captioner = Captioner(lambda images, words: output, VOCABULARY, "<start>", "<end>", 5)
    with refused(rf"step must return \(2, 7\) for words of \(2, 1\), the next word's scores .*{came}$"):
        captioner.about("a red")(torch.zeros(2, 1, 7, 9))


def test_images_the_model_does_not_take():
    captioner = captioner_of(Model((7, 9)))
    with refused(r"does not take a batch of \(1, 2, 7, 9\): "):
        captioner.about("a")(torch.zeros(1, 2, 7, 9))
    with refused(r"does not take a batch of \(1, 2, 7, 9\): "):
        captioner.caption(volume((7, 9), channels=2))
    with refused(r"two or three spatial axes, got \(7, 9\)"):
        captioner.caption(np.ones((7, 9)))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"step": "lstm"}, "step must be a torch module or a callable, got str"),
        ({"step": None}, "step must be a torch module or a callable, got NoneType"),
        ({"encode": 3}, "encode must be a torch module or a callable, got int"),
        ({"vocabulary": "a red circle"}, "vocabulary must be a sequence of words, got str"),
        ({"vocabulary": {"a": 0}}, "vocabulary must be a sequence of words, got dict"),
        ({"vocabulary": ("<start>", "<end>", "a", "red", "a")}, "every word once, 'a' is in it twice"),
        ({"start": "<bos>"}, "start must be a word of the vocabulary, got '<bos>'"),
        ({"end": 1}, "end must be a word of the vocabulary, got 1"),
        ({"max_words": 0}, "max_words must be a whole number of at least 1, got 0"),
        ({"max_words": True}, "max_words must be .*got True"),
        ({"max_words": 2.0}, "max_words must be .*got 2.0"),
        ({"activation": "sigmoid"}, "activation must be one of softmax, none, got 'sigmoid'"),
        ({"transform": 3}, r"transform must be callable or have fit\(\), got int"),
        ({"device": "toaster"}, "device must be auto, cpu, cuda or another.*got 'toaster'"),
    ],
)
def test_settings(settings, match):
    given = {"step": print, "vocabulary": VOCABULARY, "start": "<start>", "end": "<end>", "max_words": 5}
    with refused(match):
        Captioner(**(given | settings))
