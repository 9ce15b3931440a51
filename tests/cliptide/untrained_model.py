"""The demo's model with random weights. It encodes as the trained one does, without meaning."""

from __future__ import annotations

from pathlib import Path

from cliptide.demo.small_clip.model import (
    CompactVocabulary,
    compact_weights,
    model_config,
    write_model_directory,
)

TOKEN_IDS = (*range(256, 512), 49406, 49407)  # the last two: start and end of a text


def write_untrained_model(path: Path, seed: int = 0) -> Path:
    """Write a directory that open_clip loads."""
    import torch  # takes seconds, so only the tests that encode import it
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vocabulary = CompactVocabulary(TOKEN_IDS)
    config = model_config(len(vocabulary))
    torch.manual_seed(seed)
    model = CLIP(
        config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
    )
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    return write_model_directory(path, compact_weights(state, vocabulary))
