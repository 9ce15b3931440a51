"""Models that bring a tokenizer of their own: SigLIP's, CLIPA's, multilingual ones."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.open_clip.encoder import OpenClipEncoder
from clip_index.encoder.open_clip.models import load_model
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import BadContent, EncoderUnavailable
from fakes.tiny_clip import tiny_config, write_tiny_clip

pytestmark = pytest.mark.encoder

TEXTS = [
    "a red dress",
    "a blue hat",
    "ein rotes Kleid",
    "красное платье",
    "红色连衣裙",
    "赤いドレス",
]
VOCABULARY, CONTEXT = 400, 16
SIGLIP = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "interpolation": "bicubic"}
LIKE_SIGLIP = {"clean": "canonicalize"}
LIKE_CLIPA = {"strip_sep_token": True}


@cache  # training settles ties anew each time
def train_unigram() -> Tokenizer:
    """Like T5's: pieces of words, an end token behind each text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


@cache
def train_word_pieces() -> Tokenizer:
    """Like BERT's: lower case, a token before each text and one behind it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def write_model(
    directory: Path, tokenizer: Tokenizer, options: dict[str, Any], described: dict[str, Any] | None = None
) -> Path:
    text = {
        "context_length": CONTEXT,
        "vocab_size": VOCABULARY,
        "hf_tokenizer_name": "owner/name",
        "tokenizer_kwargs": options,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    }
    write_tiny_clip(directory, tiny_config(text=text, custom_text=True), preprocessing=SIGLIP)
    tokenizer.save(str(directory / "tokenizer.json"))
    if described is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(described))
    return directory


def load(model: Path) -> OpenClipEncoder:
    return load_encoder(EncoderSettings(str(model), precision="fp32", threads=1))


def refusal(model: Path | str, pretrained: str | None = None) -> str:
    with pytest.raises(EncoderUnavailable) as caught:
        load_encoder(EncoderSettings(str(model), pretrained=pretrained))
    return str(caught.value)


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    return write_model(tmp_path / "siglip", train_unigram(), LIKE_SIGLIP, {"pad_token": "</s>"})


@pytest.fixture
def clipa(tmp_path: Path) -> Path:
    return write_model(tmp_path / "clipa", train_word_pieces(), LIKE_CLIPA)


def test_a_text_ends_and_is_padded_as_its_tokenizer_says(siglip: Path) -> None:
    tokens = load(siglip).prepare_text("A red dress!").tokens
    ids = train_unigram().encode("a red dress").ids  # canonical: lower case, no punctuation
    assert tokens.tolist() == [ids + [1] * (CONTEXT - len(ids))]
    assert ids[-1] == 1


def test_a_separator_is_left_out_where_the_model_says_so(clipa: Path) -> None:
    tokens = load(clipa).prepare_text("A red dress").tokens
    first, *ids, last = train_word_pieces().encode("a red dress").ids
    assert (first, last) == (2, 3)
    assert tokens.tolist() == [[2, *ids] + [0] * (CONTEXT - 1 - len(ids))]


@pytest.mark.parametrize("kind", ["siglip", "clipa"])
def test_texts_are_encoded_as_open_clip_encodes_the_same_ids(kind: str, request: Any) -> None:
    model = request.getfixturevalue(kind)
    encoder, module = load(model), load_model(EncoderSettings(str(model))).module
    prepared = [encoder.prepare_text(text) for text in TEXTS]
    with torch.inference_mode():
        tokens = torch.from_numpy(np.concatenate([one.tokens[:1] for one in prepared])).long()
        theirs = module.encode_text(tokens, normalize=True).numpy()
    ours = np.stack([rows[0] for rows in encoder.encode(prepared)])
    assert np.abs(ours - theirs).max() < 1e-5


def test_a_long_text_has_windows_of_the_models_own_length(siglip: Path) -> None:
    encoder = load(siglip)
    prepared = encoder.prepare_text("a red dress with feathers " * 20)
    assert prepared.num_rows > 2
    assert prepared.tokens.shape[1] == CONTEXT
    assert (prepared.tokens[:-1, -1] == 1).all()
    assert not prepared.is_truncated
    assert encoder.prepare_text("a red dress " * 2000).is_truncated
    assert encoder.prepare_text("a red dress " * 2000).num_rows == 64


def test_special_tokens_that_a_text_spells_out_are_text(siglip: Path, clipa: Path) -> None:
    assert load(siglip).prepare_text("red </s> dress").tokens[0].tolist().index(1) > 2
    assert 2 not in load(clipa).prepare_text("red [CLS] dress").tokens[0, 1:]


def test_a_description_may_say_which_special_tokens_are_added(tmp_path: Path) -> None:
    described = {
        "add_bos_token": False,
        "add_eos_token": True,
        "eos_token": {"content": "</s>"},
        "pad_token": "<pad>",
    }
    tokenizer = Tokenizer.from_str(train_unigram().to_str())
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    model = write_model(tmp_path / "gemma", tokenizer, LIKE_SIGLIP, described)
    row = load(model).prepare_text("a red dress").tokens[0].tolist()
    assert row[row.index(1) :] == [1] + [0] * (CONTEXT - 1 - row.index(1))


def test_pictures_are_squashed_and_not_cropped(siglip: Path) -> None:
    encoder = load(siglip)
    assert json.loads(encoder.fingerprint.preprocessing)["mean"] == [0.5] * 3
    assert "crops" not in encoder.fingerprint.windowing


def test_texts_in_several_scripts_have_different_embeddings(siglip: Path) -> None:
    encoder = load(siglip)
    rows = np.stack([rows[0] for rows in encoder.encode([encoder.prepare_text(text) for text in TEXTS])])
    assert (rows @ rows.T - np.eye(len(TEXTS))).max() < 0.99999


def test_a_text_of_signs_that_the_model_leaves_out_is_empty(siglip: Path) -> None:
    with pytest.raises(BadContent, match="empty_text"):
        load(siglip).prepare_text("?!")


class TestFingerprint:
    def test_it_covers_the_file(self, siglip: Path) -> None:
        before = load(siglip).fingerprint
        file = siglip / "tokenizer.json"
        file.write_text(file.read_text().replace('"NFKC"', '"NFKD"'))
        after = load(siglip).fingerprint
        assert before.windowing != after.windowing
        assert before.weights_digest == after.weights_digest

    def test_it_covers_how_a_text_is_cleaned_and_framed(self, tmp_path: Path, siglip: Path) -> None:
        other = write_model(tmp_path / "other", train_unigram(), {"clean": "lower"}, {"pad_token": "</s>"})
        padded = write_model(tmp_path / "padded", train_unigram(), LIKE_SIGLIP)
        found = [load(model).fingerprint.windowing for model in (siglip, other, padded)]
        assert [windowing.split()[2:] for windowing in found] == [
            ["clean=canonicalize", "special=/1/1"],
            ["clean=lower", "special=/1/1"],
            ["clean=canonicalize", "special=/1/0"],
        ]


class TestRefusals:
    def test_a_tokenizer_that_is_not_there(self, siglip: Path) -> None:
        (siglip / "tokenizer.json").unlink()
        assert f"there is no file {siglip / 'tokenizer.json'}" in refusal(siglip)

    @pytest.mark.parametrize("content", ["", "{}", "[]", "\x00", '{"model": {"type": "BPE"}}'])
    def test_a_broken_tokenizer(self, siglip: Path, content: str) -> None:
        (siglip / "tokenizer.json").write_text(content)
        assert "tokenizer.json cannot be read" in refusal(siglip)

    @pytest.mark.parametrize("content", ["", "[]"])
    def test_a_broken_description(self, siglip: Path, content: str) -> None:
        (siglip / "tokenizer_config.json").write_text(content)
        assert "cannot be loaded" in refusal(siglip)

    def test_a_tokenizer_of_another_vocabulary(self, tmp_path: Path) -> None:
        model = write_model(tmp_path / "model", train_unigram(), LIKE_SIGLIP)
        file = model / "open_clip_config.json"
        file.write_text(file.read_text().replace(f'"vocab_size": {VOCABULARY}', '"vocab_size": 9'))
        assert "its vocabulary has 9 tokens" in refusal(model)

    def test_an_option_that_is_not_known(self, tmp_path: Path) -> None:
        model = write_model(tmp_path / "model", train_unigram(), {"language": "de"})
        assert "its option language is not supported" in refusal(model)

    def test_a_text_tower_of_transformers_is_named(self) -> None:
        message = refusal("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k")
        assert "encoded by xlm-roberta-base, which needs the library transformers" in message

    def test_a_missing_library_is_named(self, siglip: Path) -> None:
        code = (
            "import sys; sys.modules['tokenizers'] = None\n"
            "from clip_index.encoder.open_clip import load_encoder\n"
            "from clip_index.encoder.settings import EncoderSettings\n"
            f"load_encoder(EncoderSettings({str(siglip)!r}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "needs the Python package tokenizers: install it" in done.stderr


def test_neither_library_is_loaded_for_a_model_with_the_tokenizer_of_clip(tmp_path: Path) -> None:
    model = write_tiny_clip(tmp_path / "model", tiny_config())
    code = (
        "import sys\n"
        "from clip_index.encoder.open_clip import load_encoder\n"
        "from clip_index.encoder.settings import EncoderSettings\n"
        f"load_encoder(EncoderSettings({str(model)!r}, threads=1))\n"
        "sys.exit('tokenizers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
