"""Translation: text becomes token ids and back, T5 is T5, and BLEU is sacrebleu's."""

import copy
import math
import tarfile
from pathlib import Path

import pytest
import sacrebleu
import torch
from mlflow import MlflowClient
from torch import nn

from pipeline.config.experiment import load as load_params
from pipeline.data import build as data_sets
from pipeline.data import multi30k, wmt16
from pipeline.data.base import IGNORE, Dataset, Split, load, save
from pipeline.data.formats import text, tokenizer
from pipeline.errors import UserError
from pipeline.evaluate.bleu import bleu
from pipeline.evaluate.cost import cost
from pipeline.evaluate.translation import summary
from pipeline.export.write import Inputs, export
from pipeline.models._weights import load_weights
from pipeline.models.build import build
from pipeline.optional_imports import extra
from pipeline.prune.apply import prune
from pipeline.prune.prunable import prunable
from pipeline.report.paper import lookup
from pipeline.stagekit.merge_inputs import MergeInputs
from pipeline.stagekit.model_folder import write as write_model
from pipeline.storage.checkpoint import Checkpoint, read_json
from pipeline.storage.tensors import load_tensors, save_tensors
from pipeline.tasks.base import load as load_task
from pipeline.train.loop import Settings, train
from tests import shared
from tests.project import Project, trained
from tests.test_params import edited

NOUNS = {"dog": "Hund", "man": "Mann", "boy": "Junge", "tree": "Baum", "car": "Wagen"}
VERBS = {"sees": "sieht", "likes": "mag", "hears": "hört", "finds": "findet"}
PAIRS = [
    (f"A {one} {verb} the {other}.", f"Ein {NOUNS[one]} {VERBS[verb]} den {NOUNS[other]}.")
    for one in NOUNS
    for verb in VERBS
    for other in NOUNS
]


def write(folder: Path, stem: str, pairs: list[tuple[str, str]]) -> None:
    folder.mkdir(exist_ok=True)
    for side, language in enumerate(("en", "de")):
        lines = "".join(f"{pair[side]}\n" for pair in pairs)
        (folder / f"{stem}.{language}").write_text(lines, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write Multi30k's files, with sentences of five words."""
    for stem, pairs in (("train", PAIRS), ("val", PAIRS[:7]), ("test_2016_flickr", PAIRS[50:60])):
        write(tmp_path / "multi30k", stem, pairs)
    return tmp_path


@pytest.fixture
def data(root: Path) -> Dataset:
    return data_sets.prepare("multi30k", multi30k.read(root, None), seed=0)


def vocabulary(data: Dataset) -> bytes:
    return bytes(data.extras["vocabulary"].numpy())


def test_pairs_become_source_and_shifted_target(data):
    assert (len(data.train), len(data.val), len(data.test)) == (100, 7, 10)
    assert data.task == "translation"
    source, shifted = data.test.images.unbind(1)
    labels = data.test.labels
    assert tokenizer.decode(vocabulary(data), source) == [english for english, _ in PAIRS[50:60]]
    assert text.as_lines(data.test.text) == [german for _, german in PAIRS[50:60]]
    for seen, wanted in zip(shifted.tolist(), labels.tolist(), strict=True):
        length = wanted.index(tokenizer.END) + 1
        assert wanted[length:] == [IGNORE] * (len(wanted) - length)
        assert seen == [tokenizer.PAD, *wanted[: length - 1]] + [tokenizer.PAD] * (
            len(wanted) - length
        )


def test_a_hand_made_target_is_shifted_by_one():
    target = torch.tensor([[7, 8, tokenizer.END, tokenizer.PAD, tokenizer.PAD]])
    split = text._split(target, target, ["seven eight"])
    assert split.images.tolist() == [[[7, 8, 1, 0, 0], [0, 7, 8, 0, 0]]]
    assert split.labels.tolist() == [[7, 8, 1, IGNORE, IGNORE]]


def test_columns_are_as_many_as_the_longest_sentence_has_tokens(root, data):
    assert data.train.labels.shape[1] == data.train.images.shape[2] < 128
    assert not (data.train.images[:, 0] == tokenizer.PAD).any(0).all()
    short = multi30k.read(root, 8).train
    assert short.labels.shape == (100, 8)
    assert ((short.images[:, 0] == tokenizer.END).sum(1) == 1).all(), "what is cut has an end too"


def test_equal_text_gives_an_equal_vocabulary():
    lines = [german for _, german in PAIRS]
    first = tokenizer.train(lines, 60)
    assert first == tokenizer.train(lines, 60)
    assert first != tokenizer.train(lines[:50], 60)
    assert tokenizer.names(first)[:3] == ["<pad>", "</s>", "<unk>"]


def test_what_is_encoded_is_decoded():
    lines = ["Ein Hund mag den Baum.", "Jungen hören, Bäume nicht!", "den den den"]
    own = tokenizer.train([*(german for _, german in PAIRS), *lines], 80)
    ids = tokenizer.encode(own, lines)
    assert all(row[-1] == tokenizer.END and tokenizer.PAD not in row for row in ids)
    table = tokenizer.table(ids, max(map(len, ids)) + 2)
    assert tokenizer.decode(own, table) == lines
    behind = table.clone()
    behind[:, -1] = 5
    assert tokenizer.decode(own, behind) == lines, "nothing behind the end is read"
    behind[:, 0] = 10_000
    tokenizer.decode(own, behind)


def test_a_prepared_data_set_keeps_text_and_vocabulary(data, tmp_path):
    save(data, tmp_path / "out")
    again = load(tmp_path / "out")
    assert vocabulary(again) == vocabulary(data)
    assert torch.equal(again.test.text, data.test.text)
    assert again.train.text is None
    rows = torch.tensor([3, 1])
    assert text.as_lines(again.val.take(rows).text) == [PAIRS[3][1], PAIRS[1][1]]


def test_only_a_line_feed_ends_a_line(tmp_path):
    """As crawled text has it: a lone carriage return, or a line separator, inside a sentence."""
    (tmp_path / "crawl.en").write_bytes("one\rof two\u2028parts\r\nthe next\n".encode())
    (tmp_path / "crawl.de").write_bytes(b"eins\nzwei\n")
    source, target = text.read_pairs(tmp_path / "crawl", ("en", "de"), "")
    assert source == ["one\rof two\u2028parts", "the next"]
    assert target == ["eins", "zwei"]


def test_lines_survive_as_bytes():
    lines = ["", "Grüße", "a\u2028b", "x" * 300]
    assert text.as_lines(text.as_bytes(lines)) == lines


@pytest.mark.parametrize("file", ["train.en", "val.de", "test_2016_flickr.de"])
def test_missing_files_are_named_with_where_to_get_them(root, file):
    (root / "multi30k" / file).unlink()
    with pytest.raises(UserError, match=rf"{file} is missing: .*multi30k/dataset.*non-commercial"):
        multi30k.read(root, None)


def test_sides_of_other_lengths_are_refused(root):
    write(root / "multi30k", "val", PAIRS[:3])
    (root / "multi30k" / "val.de").write_text("Ein Satz.\n")
    with pytest.raises(UserError, match=r"val\.en has 3 lines, but .*val\.de has 1"):
        multi30k.read(root, None)


def test_wmt16_takes_the_corpora_that_are_there_and_t5s_vocabulary(tmp_path):
    with pytest.raises(UserError, match=r"no training corpus: .*statmt\.org/wmt16.*research"):
        wmt16.read(tmp_path, None)
    folder = tmp_path / "wmt16"
    write(folder, "news-commentary-v11.de-en", [*PAIRS[:60], ("", "ohne Quelle")])
    write(folder, "europarl-v7.de-en", PAIRS[60:])
    write(folder, "newstest2015", PAIRS[:4])
    with pytest.raises(UserError, match=r"newstest2016\.en is missing: .*sacrebleu -t wmt15"):
        wmt16.read(tmp_path, None)
    write(folder, "newstest2016", PAIRS[4:9])
    raw = wmt16.read(tmp_path, None)
    assert (len(raw.train), len(raw.val), len(raw.test)) == (100, 4, 5)
    own = tokenizer.train([english for english, _ in PAIRS] + ["translate English to German:"], 70)
    (folder / "spiece.model").write_bytes(own)
    raw = wmt16.read(tmp_path, None)
    assert len(raw.classes) == 256, "70 pieces and 100 sentinels, in whole blocks of 128"
    said = tokenizer.decode(own, raw.test.images[:, 0])
    assert said[0] == f"translate English to German: {PAIRS[4][0]}"


def test_bleu_by_hand():
    reference = "the cat sat on the mat today"
    short = bleu(["the cat sat on the mat"], [reference])
    assert short.score == pytest.approx(math.exp(1 - 7 / 6)), (
        "all n-grams are right, one word lacks"
    )
    assert short.brevity_penalty == pytest.approx(math.exp(1 - 7 / 6))
    # Of the 1- to 4-grams of a b c d e x, 5/6, 4/5, 3/4 and 2/3 are right.
    wrong = bleu(["a b c d e x"], ["a b c d e f"])
    assert wrong.score == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    assert bleu([reference], [reference]).score == 1.0
    assert bleu(["", ""], ["one two", "three"]).score == 0.0


def test_bleu_is_sacrebleus():
    said = ["A dog sees the tree.", "The man, he likes cars!", "a boy hears", "Ein Hund ."]
    true = ["A dog sees a tree.", "The man likes cars!", "a boy hears the tree", "Ein Hund."]
    ours, theirs = bleu(said, true), sacrebleu.corpus_bleu(said, [true], force=True)
    assert ours.score == pytest.approx(theirs.score / 100, abs=1e-12)
    assert 0 < ours.score < 1
    assert "case:mixed" in ours.signature
    assert f"version:{sacrebleu.__version__}" in ours.signature


def perfect(split: Split) -> torch.Tensor:
    counted = (split.labels != IGNORE).float()
    return torch.stack([split.labels.clamp(min=0).float(), -0.5 * counted, counted], 1)


def test_perfect_predictions_have_bleu_one(data):
    task = load_task("translation")
    kept = perfect(data.test)
    assert task.metric == "bleu"
    assert task.measure(kept, data.test, data) == {"bleu": 1.0, "loss": pytest.approx(0.5)}
    measured = summary(kept, data.test, data)
    assert (measured["test_bleu"], measured["test_accuracy"]) == (1.0, 1.0)
    assert (measured["test_brevity_penalty"], measured["test_examples"]) == (1.0, 10)
    assert task.ensemble([kept, kept]) is None


def test_wrong_predictions_count_per_token_and_divergence_is_said(data):
    task, kept = load_task("translation"), perfect(data.test)
    kept[:5, 0] = kept[5:, 0]
    kept[0, 2] = 0
    assert 0 < task.measure(kept, data.test, data)["bleu"] < 1
    tokens = (data.test.labels != IGNORE).sum(1)
    share = 1 - tokens[0] / tokens.sum()
    assert summary(kept, data.test, data)["test_accuracy"] == pytest.approx(float(share))
    kept[0, 1] = torch.nan
    with pytest.raises(UserError, match="diverged"):
        task.measure(kept, data.test, data)


@pytest.fixture(scope="module")
def t5() -> nn.Module:
    torch.manual_seed(0)
    return build("t5tiny", 50, 2).eval()


def tokens() -> torch.Tensor:
    """Two pairs [2, 2, 6] of different lengths."""
    source = [[5, 6, 7, 8, 1, 0], [9, 1, 0, 0, 0, 0]]
    shifted = [[0, 11, 12, 0, 0, 0], [0, 13, 14, 15, 0, 0]]
    return torch.tensor([source, shifted]).transpose(0, 1)


def test_the_network_is_transformers_t5(t5):
    """Its own class, with its own masks and its own key names, gives the same scores."""
    modeling = extra("transformers.models.t5.modeling_t5", "translation")
    config = copy.deepcopy(t5.encoder.config)
    config.is_encoder_decoder, config.use_cache = True, False
    theirs = modeling.T5ForConditionalGeneration(config).eval()
    state = t5.state_dict()
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= t5.redundant
    x = tokens()
    with torch.no_grad():
        out = theirs(
            input_ids=x[:, 0], attention_mask=(x[:, 0] != 0).long(), decoder_input_ids=x[:, 1]
        ).logits.transpose(1, 2)
        ours = t5(x)
    assert ours.shape == (2, 50, 4), "behind the longest sentence nothing is computed"
    torch.testing.assert_close(ours, out[:, :, :4], rtol=1e-4, atol=1e-4)


def test_scores_depend_on_the_tokens_before_and_on_the_source_only(t5):
    x = tokens()
    later, other = x.clone(), x.clone()
    later[:, 1, 3] = 20
    other[1, 0, 0] = 21
    with torch.no_grad():
        scores = t5(x)
        torch.testing.assert_close(t5(later)[:, :, :3], scores[:, :, :3])
        assert not torch.allclose(t5(later)[1, :, 3], scores[1, :, 3])
        assert not torch.allclose(t5(other)[1, :, 0], scores[1, :, 0])
        torch.testing.assert_close(t5(other)[0], scores[0])
        alone = torch.cat([t5(pair[None])[:, :, :2] for pair in x])
    torch.testing.assert_close(alone, scores[:, :, :2], msg="padding changes nothing")


def test_generating_takes_what_scores_highest(t5):
    """With its cache of earlier columns, the search finds what teacher forcing scores highest."""
    source = tokens()[:, 0]
    with torch.no_grad():
        said = t5.generate(source)
        shifted = said.roll(1, 1)
        shifted[:, 0] = 0
        best = t5(torch.stack([source, shifted], 1)).argmax(1)
    assert said.shape == (2, 6)
    for row, own in zip(said.tolist(), best.tolist(), strict=True):
        length = row.index(1) + 1 if 1 in row else len(row)
        scored = min(length, len(own))  # behind that, both sentences are padding
        assert row[:scored] == own[:scored]
        assert not any(row[length:])


@pytest.mark.slow
def test_an_exported_network_scores_alike(t5):
    x = tokens().repeat(2, 1, 1)
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(t5, (x,), dynamic_shapes=dynamic)
    with torch.no_grad():
        scores = program.module()(x[:3])
        torch.testing.assert_close(scores[:, :, :4], t5(x[:3])[:, :, :4])


def test_a_tied_head_is_dense_and_counted_once(t5):
    state = t5.state_dict()
    assert "shared.weight" in state
    assert "lm_head.weight" not in state
    assert t5.lm_head.weight is t5.shared.weight
    names = prunable(t5)
    linear = {f"{n}.weight" for n, m in t5.named_modules() if isinstance(m, nn.Linear)}
    assert set(names) == linear - {"lm_head.weight"}
    parent = Checkpoint(state, {}, {"sparsity": 0.0})
    pruned, metrics = prune(parent, names, 0.5, parameters=[n for n, _ in t5.named_parameters()])
    assert metrics["prunable"] == 917_504
    for name, tensor in pruned.state.items():
        assert torch.equal(tensor, state[name]) == (name not in names)
    dense = copy.deepcopy(t5)
    dense.load_state_dict(pruned.state)
    assert dense.lm_head.weight is dense.shared.weight
    measured = cost(dense, pruned.masks, tokens()[:1])
    assert measured["layers"]["lm_head"]["sparsity"] == 0
    assert measured["layers"]["lm_head"]["macs"] == 6 * 50 * 128, "a sentence of full length"
    assert measured["nonzeros"] == measured["parameters"] - 917_504 // 2


def test_a_linear_layer_tied_to_an_embedding_is_not_prunable():
    network = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 5, bias=False))
    assert prunable(network) == ["1.weight", "2.weight"]
    network[2].weight = network[0].weight
    assert prunable(network) == ["1.weight"]


def test_t5s_own_files_fit(t5, tmp_path):
    state = {name: torch.randn_like(tensor) for name, tensor in t5.state_dict().items()}
    copies = {name: state["shared.weight"].clone() for name in t5.redundant}
    save_tensors(tmp_path / "t5.safetensors", state | copies)
    model = copy.deepcopy(t5)
    assert load_weights(model, tmp_path / "t5.safetensors") == []
    assert torch.equal(model.lm_head.weight, state["shared.weight"])


def test_soups_of_translators_can_be_learned(data, tmp_path):
    """The slopes of the loss at the candidates' mean, with no sentence drawn for BatchNorm."""
    meta = {"network": "t5tiny", "classes": len(data.classes), "channels": 2, "sparsity": 0.0}
    folders = [tmp_path / name for name in ("c0", "c1")]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        state = build("t5tiny", len(data.classes), 2).state_dict()
        write_model(folder, Checkpoint(state, {}, meta), data, torch.device("cpu"))
    given = MergeInputs(folders, data, torch.device("cpu"))
    slopes = given.loss.gradient(torch.tensor([0.5, 0.5], dtype=torch.float64), 0)
    assert slopes.isfinite().all()
    assert slopes.sum().abs() < 1e-6 < slopes.abs().max()


@pytest.mark.slow
def test_a_translator_is_exported_to_pytorch_alone(data, tmp_path):
    meta = {"network": "t5tiny", "classes": len(data.classes), "channels": 2, "sparsity": 0.0}
    state = build("t5tiny", len(data.classes), 2).state_dict()
    for name in ("dense", "soup"):
        write_model(tmp_path / name, Checkpoint(state, {}, meta), data, torch.device("cpu"))
    save(data, tmp_path / "data")
    inputs = Inputs(tmp_path / "data", tmp_path / "soup", tmp_path / "dense")
    export(inputs, ["torch"], tmp_path / "out", seconds=0)
    plain = load_tensors(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(plain[name], tensor) for name, tensor in state.items())
    assert "| BLEU, test (%) |" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UserError, match="does not exist for translation"):
        export(inputs, ["onnx"], tmp_path / "out")


def test_training_sentences_are_scored_against_what_their_tokens_say(data):
    predicted = data.train.labels.clamp(min=0).float()
    kept = torch.stack([predicted, torch.zeros_like(predicted), torch.zeros_like(predicted)], 1)
    assert load_task("translation").measure(kept, data.train, data)["bleu"] == 1.0


def test_images_are_no_sentences():
    with pytest.raises(UserError, match="not pairs of sentences"):
        build("t5tiny", 10, 3)


@pytest.mark.parametrize("name", ["multi30k_t5small", "wmt16_t5small"])
def test_recipes_are_whole(name, tmp_path):
    (tmp_path / "params.yaml").write_text(
        f"recipe: {name}\nseed: 0\nm: 3\nmethods: [sms]\nmerge: [uniform]\n"
    )
    experiment = load_params(tmp_path / "params.yaml")
    assert (experiment.task, experiment.data.size) == ("translation", 128)


@pytest.mark.parametrize(
    ("method", "phase", "expected"),
    [
        ("dense", 0, (24.56, 3)),
        ("sms_uniform", 1, (24.51, 10)),
        ("sms_greedy", 1, (24.14, 10)),
        ("imp", 1, (24.04, 10)),
        ("imp_mx", 1, (24.0, 10)),
    ],
)
def test_the_rows_of_table_10_are_found(tmp_path, method, phase, expected):
    own = load_params(edited(tmp_path, recipe="wmt16_t5small", target_sparsity=0.7))
    found = lookup.lookup(own, method, phase)
    assert found is not None
    assert (found.mean, found.table) == expected


@pytest.mark.slow
def test_t5_small_has_t5s_count_and_the_papers():
    model = build("t5small", 32_128, 2)
    own = sum(parameter.numel() for parameter in model.parameters())
    assert own == 60_506_624
    assert own + model.lm_head.weight.numel() == 76_956_160, "the paper's 77 million"
    names = prunable(model)
    assert len(names) == 96
    assert sum(model.get_parameter(name).numel() for name in names) == 44_040_192


@pytest.mark.slow
def test_eight_pairs_are_learned_by_heart(data):
    eight = data.train.take(torch.arange(0, 96, 12))
    eight = Split(
        eight.images, eight.labels, text.as_bytes([PAIRS[i][1] for i in range(0, 96, 12)])
    )
    own = Dataset(eight, eight, eight, data.classes, data.mean, data.std, {}, extras=data.extras)
    torch.manual_seed(0)
    model = build("t5tiny", len(data.classes), 2)
    settings = Settings(8, 0.0, clip_norm=1.0)
    task = load_task("translation")
    history = train(model, own, settings, [0.1] * 200, seed=0, criterion=task)
    again = task.predict(model, own, eight)
    assert history[-1]["val_accuracy"] == 1.0
    assert task.measure(again, eight, own)["bleu"] == 1.0


TINY = """\
about: a few steps of translation, for tests
task: translation
phases: 1
target_sparsity: 0.5
data: {name: multi30k, path: data, size: 32}
network: {name: t5tiny}
augmentation: {}
pretrain:
  epochs: 2
  batch_size: 16
  learning_rate: 0.1
  weight_decay: 1.0e-5
  schedule: linear
  clip_norm: 1.0
retrain: {epochs: 1, schedule: ALLR}
"""


def metrics_of(project: Project, name: str) -> dict:
    return read_json(project.root / "artifacts" / name / "metrics.json")


def by_sacrebleu(project: Project, name: str, *, split: str) -> float:
    """Return sacrebleu's BLEU of a network's stored translations against the files, in [0, 1]."""
    data = load(project.root / "artifacts" / "data")
    stored = load_tensors(project.root / "artifacts" / name / "predictions.safetensors")[split]
    vocabulary = bytes(data.extras["vocabulary"].numpy())
    translations = tokenizer.decode(vocabulary, stored[:, 0].long())
    stem = {"val": "val", "test": "test_2016_flickr"}[split]
    references = (project.root / f"data/multi30k/{stem}.de").read_text().splitlines()
    return sacrebleu.corpus_bleu(translations, [references]).score / 100


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_translation_through_the_whole_graph(tmp_path):
    with tarfile.open(shared.pack("multi30k.tar.xz")) as archive:
        shared.unpack(archive, tmp_path)
    project = Project.create(tmp_path / "project")
    (project.root / "recipes" / "tiny.yaml").write_text(TINY)
    project.edit("params.yaml", "m: 3", "m: 2")
    counts = {"train": 300, "val": 20, "test_2016_flickr": 20}
    for stem, count in counts.items():
        for language in ("en", "de"):
            lines = (tmp_path / "multi30k" / f"{stem}.{language}").read_text().splitlines()
            target = project.root / "data" / "multi30k" / f"{stem}.{language}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("\n".join(lines[:count]) + "\n")
    done = project.run("dvc", "repro", SMS_MLFLOW="1")
    assert trained(done) == {"s0-dense", "s0-p1-c0", "s0-p1-c1"}
    measured = metrics_of(project, "s0-sms_uniform-p1-eval")
    assert measured["metric"] == "bleu"
    assert measured["sparsity"] == pytest.approx(0.5, abs=1e-4)
    assert "tok:13a" in measured["test_bleu_signature"]
    assert "tok:13a" in (project.root / "reports" / "results.csv").read_text()
    best = metrics_of(project, "s0-sms_uniform-p1-compare")["best_candidate"]
    names = ("s0-sms_uniform-p1", "s0-p1-c0", "s0-p1-c1")
    soup, *scores = (by_sacrebleu(project, name, split="test") for name in names)
    assert measured["test_bleu"] == pytest.approx(soup)
    assert best["test_bleu"] == pytest.approx(scores[best["candidate"]])
    vals = [by_sacrebleu(project, name, split="val") for name in names[1:]]
    assert best["val_bleu"] == pytest.approx(max(vals))
    assert best["candidate"] == vals.index(max(vals))
    assert "## Test BLEU" in (project.root / "reports" / "results.md").read_text()
    client = MlflowClient(f"sqlite:///{project.root}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'sparse-model-soups'")
    results = client.search_runs([experiment.experiment_id], "tags.kind = 'result'")
    assert results
    assert all("tok:13a" in run.data.tags["test_bleu_signature"] for run in results)
    assert client.get_model_version("sms-tiny", "1").tags["method"].startswith("sms_")
