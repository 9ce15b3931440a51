"""Which model a query service loads for the index that serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import ClipIndexError, EncoderMismatch, EncoderUnavailable
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.indexes.recorded_model import RecordedModel, record_model
from clip_index.reading.index_reader import IndexReader
from fakes.hash_encoder import HashEncoder
from query_api.opened_index import Models, load_first_encoder
from query_api.root_candidates import RootCandidates
from query_api.settings import IndexSettings, ModelSection, QueryApiSettings, Settings, read_settings

OLD, NEW = HashEncoder(), HashEncoder(seed=1, max_crops=3)


class Loader:
    """Loads the hashing encoders by their names, and keeps what was asked for."""

    def __init__(self) -> None:
        self.asked: list[EncoderSettings] = []

    def load(self, settings: EncoderSettings) -> Encoder:
        self.asked.append(settings)
        known = {"old": OLD, "new": NEW, "elsewhere": NEW}
        if settings.model not in known:
            raise EncoderUnavailable(settings.model, "there is no such model")
        return known[settings.model]

    @property
    def names(self) -> list[str]:
        return [settings.model for settings in self.asked]


@pytest.fixture
def loader() -> Loader:
    return Loader()


def create(root: Path, encoder: Encoder, model: str | None) -> None:
    about = IndexDescription("content-uploads", None, 1, "cliptide-main", encoder.fingerprint)
    index = IndexDirectory.create(root, "main", about)
    if model is not None:
        record_model(index.store, RecordedModel.of(EncoderSettings(model=model)))


def candidates(root: Path, loader: Loader, configured: str, **overrides: str) -> RootCandidates:
    return RootCandidates(
        root,
        EncoderSettings(model=configured, threads=2),
        Models(loader.load),
        lambda index_id, fingerprint: IndexReader(root, index_id, fingerprint),
        lambda: None,
        {index_id: RecordedModel(model) for index_id, model in overrides.items()},
    )


def test_a_service_with_a_stale_setting_takes_the_recorded_model(tmp_path: Path, loader: Loader) -> None:
    create(tmp_path, NEW, "new")
    assert candidates(tmp_path, loader, "old").load_for("main") is NEW
    assert loader.names == ["new"]
    assert (loader.asked[0].threads, loader.asked[0].max_crops) == (2, 3)


@pytest.mark.parametrize("recorded", [None, "old", "/models/of/another/machine", "gone"])
def test_the_configured_model_serves_where_the_record_does_not_help(
    tmp_path: Path, loader: Loader, recorded: str | None
) -> None:
    create(tmp_path, NEW, recorded)
    assert candidates(tmp_path, loader, "new").load_for("main") is NEW


def test_an_override_is_the_only_candidate(tmp_path: Path, loader: Loader) -> None:
    create(tmp_path, NEW, "new")
    assert candidates(tmp_path, loader, "old", main="elsewhere").load_for("main") is NEW
    assert loader.names == ["elsewhere"]
    with pytest.raises(EncoderUnavailable, match="nowhere"):
        candidates(tmp_path, loader, "new", main="nowhere").load_for("main")


def test_without_any_fitting_model_the_start_is_refused_and_names_both(
    tmp_path: Path, loader: Loader
) -> None:
    create(tmp_path, NEW, None)
    with pytest.raises(EncoderMismatch, match="the index was built by hash"):
        candidates(tmp_path, loader, "old").load_for("main")


def test_a_model_that_was_loaded_and_is_another_one_is_not_loaded_again(
    tmp_path: Path, loader: Loader
) -> None:
    create(tmp_path, NEW, "old")
    known = candidates(tmp_path, loader, "old")
    for _ in range(2):
        with pytest.raises(ClipIndexError):
            known.load_for("main")
    assert loader.names == ["old"]


def test_a_start_without_an_index_loads_the_configured_model(tmp_path: Path, loader: Loader) -> None:
    settings = Settings(index=IndexSettings(root=tmp_path), encoder=EncoderSettings(model="old"))
    found = load_first_encoder(settings, Models(loader.load), candidates(tmp_path, loader, "old"))
    assert found is OLD


def test_a_service_of_one_index_loads_the_configured_model_whatever_is_recorded(
    tmp_path: Path, loader: Loader
) -> None:
    create(tmp_path, NEW, "new")
    settings = Settings(index=IndexSettings(root=tmp_path, id="main"), encoder=EncoderSettings(model="old"))
    assert load_first_encoder(settings, Models(loader.load), None) is OLD


def test_the_setting_of_models_is_a_json_object_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"v2": {"model": "/models/tuned"}, "v3": {"model": "ViT-L-14", "pretrained": "openai"}}'
    monkeypatch.setenv("CLIPTIDE_QUERY_API__MODELS", text)
    found = read_settings().query_api
    assert isinstance(found, QueryApiSettings)
    assert found.models["v2"] == ModelSection(model="/models/tuned")
    assert found.models["v3"].pretrained == "openai"


class WeighingLoader(Loader):
    """Models of 300 MiB each."""

    def weigh(self, settings: EncoderSettings) -> int | None:
        return 300 * 2**20


def candidates_of_group(root: Path, num_processes: int, free_megabytes: int) -> RootCandidates:
    return RootCandidates(
        root,
        EncoderSettings(model="old"),
        WeighingLoader(),
        lambda index_id, fingerprint: IndexReader(root, index_id, fingerprint),
        lambda: free_megabytes * 2**20,
        num_processes=lambda: num_processes,
    )


@pytest.mark.parametrize(
    ("num_processes", "free_megabytes", "refusal"),
    [
        pytest.param(1, 600, None, id="one process that fits"),
        pytest.param(
            1, 599, "to load the second one takes 600 MiB, and 599 MiB are free", id="one too large"
        ),
        pytest.param(4, 2_400, None, id="four that fit"),
        pytest.param(
            4,
            2_399,
            "to load the second one in each of 4 processes takes 2,400 MiB, and 2,399 MiB are free",
            id="four of which only three fit",
        ),
    ],
)
def test_a_switch_is_refused_unless_every_process_of_the_port_can_load_the_second_encoder(
    tmp_path: Path, num_processes: int, free_megabytes: int, refusal: str | None
) -> None:
    create(tmp_path, NEW, None)
    found = candidates_of_group(tmp_path, num_processes, free_megabytes).refusal("main", OLD.fingerprint)
    if refusal is None:
        assert found is None
    else:
        assert refusal in str(found)


def test_a_process_that_loads_asks_for_its_own_room_because_the_others_have_taken_theirs(
    tmp_path: Path,
) -> None:
    create(tmp_path, NEW, None)
    last_of_four = candidates_of_group(tmp_path, num_processes=4, free_megabytes=600)
    with pytest.raises(EncoderMismatch):  # it was loaded; the fakes' only other model is the configured one
        last_of_four.open("main", OLD.fingerprint)
