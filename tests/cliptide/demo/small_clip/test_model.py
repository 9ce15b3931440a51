from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from safetensors.numpy import load

from cliptide.demo.small_clip.model import (
    EMBEDDING_KEY,
    TOKEN_IDS_KEY,
    UNKNOWN_WORD_ROW,
    VOCABULARY_SIZE,
    CompactVocabulary,
    compact_weights,
    expand_weights,
    model_config,
    packaged_weights,
    write_model_directory,
)
from cliptide.finetuning.contrast import encode_tokens

START, END = 49406, 49407
DRESS, RED = 2595, 736


@pytest.fixture(scope="module")
def vocabulary() -> CompactVocabulary:
    return CompactVocabulary([END, RED, START, DRESS, RED])


@pytest.fixture(scope="module")
def small_model(vocabulary: CompactVocabulary) -> CLIP:
    """An untrained model with the compact vocabulary, its weights rounded to half precision."""
    torch.manual_seed(1)
    model = CLIP(**model_config(len(vocabulary))).eval()
    model.load_state_dict({name: t.half().float() for name, t in model.state_dict().items()})
    return model


@pytest.fixture(scope="module")
def compact(small_model: CLIP, vocabulary: CompactVocabulary) -> bytes:
    return compact_weights({name: t.numpy() for name, t in small_model.state_dict().items()}, vocabulary)


def test_a_compact_vocabulary_keeps_the_order_of_token_ids(vocabulary: CompactVocabulary):
    assert vocabulary.rows(np.array([RED, DRESS, START, END])).tolist() == [1, 2, 3, 4]
    assert len(vocabulary) == 5


def test_every_other_token_is_the_unknown_word(vocabulary: CompactVocabulary):
    assert vocabulary.rows(np.array([[0, 5], [100, 49405]])).tolist() == [[UNKNOWN_WORD_ROW] * 2] * 2


def test_expanding_puts_each_row_where_its_token_looks_for_it(compact: bytes, small_model: CLIP):
    known = small_model.token_embedding.weight.detach().numpy()
    full = load(expand_weights(compact))[EMBEDDING_KEY]

    assert full.shape == (VOCABULARY_SIZE, known.shape[1])
    assert np.array_equal(full[[RED, DRESS, START, END]], known[1:])
    assert np.array_equal(full[[0, 7, 30_000]], known[[UNKNOWN_WORD_ROW] * 3])


def test_expanding_leaves_no_trace_of_the_compact_form(compact: bytes):
    assert TOKEN_IDS_KEY not in load(expand_weights(compact))


def test_open_clip_loads_every_weight_of_the_directory(compact: bytes, tmp_path: Path):
    import open_clip

    name = f"local-dir:{write_model_directory(tmp_path / 'model', compact)}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    expanded = load(expand_weights(compact))

    assert type(model) is CLIP
    assert set(model.state_dict()) == set(expanded)
    assert all(np.array_equal(t.numpy(), expanded[key]) for key, t in model.state_dict().items())
    assert preprocess.transforms[0].size == 64
    assert open_clip.get_tokenizer(name)("a red dress").shape == (1, 77)


def test_the_expanded_model_reads_texts_as_training_did(
    compact: bytes, small_model: CLIP, vocabulary: CompactVocabulary, tmp_path: Path
):
    import open_clip

    name = f"local-dir:{write_model_directory(tmp_path, compact)}"
    model = open_clip.create_model(name).eval()
    tokens = open_clip.get_tokenizer(name)(["red dress", "a dress", "dress dress zebra red"])
    rows = torch.from_numpy(vocabulary.rows(tokens.numpy()))[:, :9]

    with torch.inference_mode():
        assert torch.allclose(model.encode_text(tokens), encode_tokens(small_model, rows), atol=1e-5)


def test_writing_the_directory_twice_gives_the_same_bytes(compact: bytes, tmp_path: Path):
    first, second = (write_model_directory(tmp_path / name, compact) for name in ("first", "second"))
    files = sorted(path.name for path in first.iterdir())

    assert files == ["open_clip_config.json", "open_clip_model.safetensors"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_a_directory_that_is_whole_is_left_alone(compact: bytes, tmp_path: Path):
    write_model_directory(tmp_path, compact)
    inodes = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    write_model_directory(tmp_path, compact)

    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == inodes


def test_a_file_that_was_cut_short_is_replaced(compact: bytes, tmp_path: Path):
    weights = write_model_directory(tmp_path, compact) / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    write_model_directory(tmp_path, compact)

    assert weights.read_bytes() == whole


def test_the_packaged_weights_take_at_most_5_megabytes():
    assert len(packaged_weights()) <= 5_000_000


def test_the_packaged_weights_are_those_of_the_configured_model(tmp_path: Path):
    packaged = load(packaged_weights())
    expected = CLIP(**model_config(len(packaged[TOKEN_IDS_KEY]) + 1)).state_dict()
    tensors = {name: tensor.shape for name, tensor in packaged.items() if name != TOKEN_IDS_KEY}

    assert tensors == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    assert all(np.isfinite(packaged[name]).all() for name in tensors)
