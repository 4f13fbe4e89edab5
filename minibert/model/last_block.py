"""The encoder's last block for the selected tokens alone: what masked-LM training and `fill-mask` compute of it.

    block's input (batch, sequence, hidden) -> key, value of every token
                                            -> selected rows (rows, hidden) -> query -> ... -> (rows, hidden)

The loss reads the encoder's output at the selected places only, and nothing behind the last attention looks at another
place. So all that this block needs of the other tokens is their keys and values; the same loss and the same gradient
come of some quarter of its arithmetic. The layers, their weights and each place's dropout are the whole encoder's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from minibert.model.attention import Queries
from minibert.model.dropout import Rows
from minibert.model.rows import take_rows

Named = dict[str, Any]


class LastBlock:
    """The last block of an encoder.

    Args:
        encoder: From `minibert.model.encoder.cut_encoder`; its layers are used as they are.

    Attributes:
        prefix: What the names of its layers begin with.
        inputs: Name of the layer whose output goes in.
        outputs: Name of the layer whose output comes out.
    """

    def __init__(self, encoder: keras.Model) -> None:
        self.outputs = encoder.layers[-1].name
        self.prefix = self.outputs.removesuffix("ffn_layernormalization")
        layers = {layer.name: layer for layer in encoder.layers}
        self._not_padding = layers.get("not_padding")
        self._layers = {name.removeprefix(self.prefix): layer for name, layer in layers.items()}
        self.inputs = [name for name in layers if not name.startswith((self.prefix, "not_padding"))][-1]

    def __call__(self, hidden: Any, batch: Named, *, training: bool = True) -> Named:
        """The outputs of the block's layers by name, in forward order: (rows, features) each.

        Args:
            hidden: (batch, sequence, hidden): what goes in.
            batch: Of `minibert.batches.MaskedLMBatches`, or from `one_of_each`.
            training: Whether it drops out.
        """
        with keras.name_scope("last_block"):  # a graph's names have a layer's behind a model's
            return {f"{self.prefix}{part}": value for part, value in self._outputs(hidden, batch, training)}

    def _outputs(self, hidden: Any, batch: Named, training: bool) -> Iterator[tuple[str, Any]]:
        layers = self._layers
        chosen = take_rows(ops.reshape(hidden, (-1, hidden.shape[-1])), batch["positions"], batch["row_of_place"])
        queries = Queries(chosen, batch["row_of_query"], batch["query_of_row"])
        rows = Rows(batch["positions"], batch["row_of_place"])
        padding_mask = None if self._not_padding is None else self._not_padding(batch["token_ids"])
        yield "multiheadattention", (attended := layers["multiheadattention"](hidden, padding_mask, queries=queries))
        yield "att_dropout", (attended := layers["att_dropout"](attended, training=training, rows=rows))
        yield "att_residual", (joined := layers["att_residual"]([chosen, attended]))
        yield "att_layernormalization", (normalized := layers["att_layernormalization"](joined))
        inner, outer = layers["ffn"].layers
        with keras.name_scope(layers["ffn"].name):
            fed = outer(inner(normalized))
        yield "ffn", fed
        yield "ffn_dropout", (fed := layers["ffn_dropout"](fed, training=training, rows=rows))
        yield "ffn_residual", (joined := layers["ffn_residual"]([normalized, fed]))
        yield "ffn_layernormalization", layers["ffn_layernormalization"](joined)


def one_of_each(token_ids: Any, places: Any) -> Named:
    """What `LastBlock` reads of a batch in which one token of each example is selected.

    Args:
        token_ids: Integers, (batch, sequence).
        places: int32, (batch,): where the token stands, from 0.
    """
    count, length = ops.shape(token_ids)[0], token_ids.shape[1]
    first = ops.arange(count, dtype="int32")
    numbers = first + 1
    positions = first * length + places
    here = ops.equal(ops.arange(length, dtype="int32")[None], places[:, None])
    return {
        "token_ids": token_ids,
        "positions": positions,
        "row_of_place": ops.reshape(ops.where(here, numbers[:, None], 0), (-1,)),
        "row_of_query": numbers,
        "query_of_row": numbers,
    }
