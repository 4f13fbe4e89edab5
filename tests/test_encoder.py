"""The encoder has the notebooks' names and size, opens without help, and takes the notebooks' next cells."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pyarrow as pa
import pytest

from minibert.model.encoder import build_masked_lm, cut_encoder
from minibert.settings import ModelSettings, TextSettings
from minibert.text import encode, learn_vocabulary
from tests import small_models
from tests.closeness import deviation

TEXTS = ["A great film!", "a bad film", "Great, great.", "bad<br />bad"] * 4
SENTIMENT = [1, 0, 1, 0] * 4


def reference(settings: ModelSettings, *, vocabulary_size: int, sequence_length: int) -> keras.Model:
    """The notebooks' model, of Keras' own layers."""
    from keras import layers
    from keras_nlp.layers import PositionEmbedding

    token_ids = layers.Input((sequence_length,), dtype="int64")
    words = layers.Embedding(vocabulary_size, settings.hidden_size)(token_ids)
    hidden = words + PositionEmbedding(sequence_length)(words)
    for _ in range(settings.blocks):
        attention = layers.MultiHeadAttention(settings.heads, settings.hidden_size // settings.heads)
        hidden = layers.LayerNormalization()(hidden + attention(hidden, hidden, hidden))
        inner = layers.Dense(settings.feed_forward_size, activation="relu")(hidden)
        hidden = layers.LayerNormalization()(hidden + layers.Dense(settings.hidden_size)(inner))
    return keras.Model(token_ids, layers.Dense(vocabulary_size, activation="softmax")(hidden))


def test_layers_have_the_notebooks_names():
    model = small_models.masked_lm()
    assert model.name == "masked_bert_model"
    names = ["word_embedding", "position_embedding", "mlm_cls"]
    for block in range(2):
        parts = ("multiheadattention", "att_dropout", "att_layernormalization", "ffn", "ffn_dropout",
                 "ffn_layernormalization")  # fmt: skip
        names += [f"encoder_{block}_{part}" for part in parts]
    assert set(names) <= {layer.name for layer in model.layers}
    assert [type(model.get_layer(f"encoder_0_{part}")).__name__ for part in ("ffn", "att_dropout")] == [
        "Sequential",
        "StreamDropout",
    ]
    assert model.input_shape == (None, small_models.LENGTH)
    assert model.output_shape == (None, small_models.LENGTH, small_models.VOCABULARY_SIZE)


@pytest.mark.parametrize("settings", [small_models.SETTINGS, ModelSettings(hidden_size=32, heads=4)])
def test_there_are_as_many_parameters_as_in_the_notebooks_model(settings):
    sizes = {"vocabulary_size": 50, "sequence_length": 7}
    ours = build_masked_lm(settings, **sizes, seed=0)
    # Dropout's seeds are Keras' own state, no parameters of the model.
    assert sum(w.numpy().size for w in ours.trainable_weights) == reference(settings, **sizes).count_params()


def test_every_position_gives_probabilities():
    probabilities = small_models.masked_lm()(small_models.token_ids()[:3].astype("int32")).numpy()
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1.0, rtol=1e-5)


def test_the_cut_encoder_shares_the_models_weights():
    model = small_models.masked_lm()
    encoder = cut_encoder(model)
    assert encoder.output_shape == (None, small_models.LENGTH, small_models.SETTINGS.hidden_size)
    ours, whole = ({id(w) for w in some.weights} for some in (encoder, model))
    assert ours < whole
    assert len(whole - ours) == 2, "all but the head's kernel and bias"


def test_padding_counts_only_without_a_padding_mask():
    """The notebooks attend to padding: more of it changes what real tokens become."""
    ids = np.full((1, small_models.LENGTH), 0, dtype=np.int32)
    ids[0, :3] = [5, 6, 7]
    for settings, changes in ((small_models.WITHOUT_DROPOUT, True), (small_models.WITH_PADDING_MASK, False)):
        model = small_models.build(settings)
        before = cut_encoder(model)(ids).numpy()[0, :3]
        embedding = model.get_layer("word_embedding").embeddings
        value = embedding.numpy()
        value[0] += 1.0
        embedding.assign(value)
        after = cut_encoder(model)(ids).numpy()[0, :3]
        assert np.array_equal(before, after) is not changes


# Saved and loaded


def test_a_saved_model_is_loaded_in_safe_mode_with_the_same_bits(tmp_path):
    model, ids = small_models.masked_lm(), small_models.token_ids()[:4].astype("int32")
    model.save(tmp_path / "masked_lm.keras")
    loaded = keras.models.load_model(tmp_path / "masked_lm.keras", safe_mode=True)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    for left, right in zip(model.trainable_weights, loaded.trainable_weights, strict=True):
        assert np.array_equal(left, right), left.path
    assert np.array_equal(model(ids), loaded(ids))


def test_a_padding_mask_survives_saving(tmp_path):
    model, ids = small_models.masked_lm(small_models.WITH_PADDING_MASK), small_models.token_ids()[:4].astype("int32")
    model.save(tmp_path / "masked_lm.keras")
    assert deviation(keras.models.load_model(tmp_path / "masked_lm.keras")(ids), model(ids)) < 1e-6


NEXT_CELLS = '''
"""The notebooks' cells after "Load the pretrained model", with the names of a minibert run."""
import sys
import minibert
import keras
import numpy as np
from keras import layers

path, array, length = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
x_train, y_train = array["ids"], array["labels"]

mlm_model = keras.models.load_model(path)
pretrained_bert_model = keras.Model(mlm_model.input, mlm_model.get_layer("encoder_0_ffn_layernormalization").output)
pretrained_bert_model.trainable = False


def create_classifier_bert_model():
    inputs = layers.Input((length,), dtype="int64")
    sequence_output = pretrained_bert_model(inputs)
    pooled_output = layers.GlobalMaxPooling1D()(sequence_output)
    hidden_layer = layers.Dense(64, activation="relu")(pooled_output)
    outputs = layers.Dense(1, activation="sigmoid")(hidden_layer)
    classifer_model = keras.Model(inputs, outputs, name="classification")
    optimizer = keras.optimizers.Adam()
    classifer_model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return classifer_model


classifer_model = create_classifier_bert_model()
assert len(classifer_model.trainable_weights) == 4, "the encoder is frozen"
before = [np.array(weight) for weight in pretrained_bert_model.weights if "seed" not in weight.path]
history = classifer_model.fit(x_train, y_train, epochs=1, batch_size=8, verbose=0)
assert np.isfinite(history.history["loss"]).all()
after = [np.array(weight) for weight in pretrained_bert_model.weights if "seed" not in weight.path]
assert all(np.array_equal(one, two) for one, two in zip(before, after))

pretrained_bert_model.trainable = True
optimizer = keras.optimizers.Adam()
classifer_model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
history = classifer_model.fit(x_train, y_train, epochs=1, batch_size=8, verbose=0)
assert np.isfinite(history.history["loss"]).all()
after = [np.array(weight) for weight in pretrained_bert_model.weights if "seed" not in weight.path]
assert not all(np.array_equal(one, two) for one, two in zip(before, after))
'''


@pytest.fixture
def saved_run(tmp_path) -> list[str]:
    """A saved masked language model and a labelled corpus encoded for it: the arguments of `NEXT_CELLS`."""
    settings = TextSettings(vocabulary_size=20, sequence_length=6)
    texts = pa.array(TEXTS)
    vocabulary = learn_vocabulary([texts], settings)
    model = build_masked_lm(
        ModelSettings(hidden_size=8, heads=2), vocabulary_size=len(vocabulary), sequence_length=6, seed=0
    )
    model.save(tmp_path / "masked_lm.keras")
    np.savez(tmp_path / "corpus.npz", ids=encode(texts, vocabulary, settings), labels=np.array(SENTIMENT, np.float32))
    return [str(tmp_path / "masked_lm.keras"), str(tmp_path / "corpus.npz"), "6"]


@pytest.mark.long
def test_the_notebooks_next_cells_run_unchanged(saved_run, monkeypatch):
    keras.utils.set_random_seed(0)  # as the README says, where a run of this process has turned op determinism on
    monkeypatch.setattr(sys, "argv", ["cells.py", *saved_run])
    exec(compile(NEXT_CELLS, "cells.py", "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize("imports", ["import minibert\nimport keras", "import keras\nimport minibert"])
def test_the_notebooks_next_cells_run_in_a_fresh_process(saved_run, imports):
    """There, nothing but the import of minibert, before Keras or after, has registered the layers."""
    cells = NEXT_CELLS.replace("import minibert\nimport keras", imports)
    assert imports in cells
    done = subprocess.run([sys.executable, "-c", cells, *saved_run], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_words_gradient_is_added_up_in_float32_whatever_the_precision():
    model = build_masked_lm(ModelSettings(precision="mixed_bfloat16"), vocabulary_size=50, sequence_length=8, seed=0)
    dtypes = {layer.name: layer.compute_dtype for layer in model.layers}
    assert {dtypes[name] for name in ("word_embedding", "position_embedding", "embedding")} == {"float32"}
    assert dtypes["encoder_0_multiheadattention"] == dtypes["encoder_0_att_residual"] == "bfloat16"
    assert model.get_layer("encoder_0_ffn_layernormalization").output.dtype == "bfloat16"
