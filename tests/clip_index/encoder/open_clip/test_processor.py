"""What the processor's flags say about bf16, and attention as products of matrices beside torch's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from clip_index.encoder.open_clip import packed_blocks
from clip_index.encoder.open_clip.packed_blocks import SequenceGroup
from clip_index.encoder.open_clip.processor import attends_slowly, multiplies_bf16


@pytest.mark.parametrize(
    ("flags", "multiplies", "is_slow"),
    [
        pytest.param("flags\t\t: fpu avx512f avx512_bf16", True, True, id="avx512"),
        pytest.param("flags\t\t: fpu amx_bf16 amx_tile", True, False, id="amx"),
        pytest.param("flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile", True, False, id="both"),
        pytest.param("flags\t\t: fpu avx2 avx512f", False, False, id="neither"),
        pytest.param("", False, False, id="no flags"),
    ],
)
def test_flags_tell_what_the_processor_does_with_bf16(
    flags: str, multiplies: bool, is_slow: bool, tmp_path: Path
) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(f"processor\t: 0\n{flags}\n")
    assert (multiplies_bf16(cpu_info), attends_slowly(cpu_info)) == (multiplies, is_slow)


def test_without_a_description_of_the_processor_nothing_is_chosen(tmp_path: Path) -> None:
    assert not multiplies_bf16(tmp_path / "cpuinfo")
    assert not attends_slowly(tmp_path / "cpuinfo")


def test_without_onednn_nothing_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text("flags\t\t: fpu avx512_bf16\n")
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert not multiplies_bf16(cpu_info)
    assert not attends_slowly(cpu_info)


def random_block(
    monkeypatch: pytest.MonkeyPatch, *, is_slow: bool, is_causal: bool = False, dtype: torch.dtype
) -> packed_blocks.PackedBlock:
    """Return a block of two heads whose weights are the same for every call."""
    from open_clip.transformer import ResidualAttentionBlock

    torch.manual_seed(1)
    monkeypatch.setattr(packed_blocks, "attends_slowly", lambda: is_slow)
    return packed_blocks.PackedBlock(ResidualAttentionBlock(64, 2), dtype, is_causal=is_causal)


@pytest.mark.parametrize("length", [1, 2, 17, 50, 257])
def test_products_give_what_attention_gives(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(3 * length, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    group = [SequenceGroup(3, length)]
    with torch.inference_mode():
        own = random_block(monkeypatch, is_slow=True, dtype=torch.bfloat16)(rows, group)
        torchs = random_block(monkeypatch, is_slow=False, dtype=torch.bfloat16)(rows, group)
    cosines = functional.cosine_similarity(own.float(), torchs.float())
    assert float(cosines.min()) > 0.9999


def test_a_sequence_gets_the_same_whatever_it_is_computed_with(monkeypatch: pytest.MonkeyPatch) -> None:
    block = random_block(monkeypatch, is_slow=True, dtype=torch.bfloat16)
    rows = torch.randn(9 * 50, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    with torch.inference_mode():
        together = block(rows, [SequenceGroup(9, 50)])
        alone = torch.cat([block(part, [SequenceGroup(1, 50)]) for part in rows.split(50)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize(
    ("dtype", "is_causal", "length"),
    [
        pytest.param(torch.float32, False, 50, id="fp32"),
        pytest.param(torch.bfloat16, True, 50, id="causal"),
        pytest.param(torch.bfloat16, False, 258, id="long"),
    ],
)
def test_other_attention_is_torchs_own(
    dtype: torch.dtype, is_causal: bool, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(heads: torch.Tensor) -> torch.Tensor:
        raise AssertionError("products are for short sequences of bf16 without a mask")

    monkeypatch.setattr(packed_blocks, "_attend_by_products", refuse)
    block = random_block(monkeypatch, is_slow=True, is_causal=is_causal, dtype=dtype)
    with torch.inference_mode():
        block(torch.randn(length, 64).to(dtype), [SequenceGroup(1, length)])
