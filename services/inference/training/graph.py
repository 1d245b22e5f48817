"""The ONNX graph of the model, float or int8, built from the kernels that measured fastest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.quantise import Int8Linear, quantise_rows
from training.weights import Classifier

MICROSOFT = "com.microsoft"
OPSET = 23
IR_VERSION = 10
TAP = "input of "


@dataclass
class _Graph:
    """Nodes and constants, each once, in order of first use, so that builds are reproducible."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    outputs: dict[str, list[str]] = field(default_factory=dict)

    def constant(self, name: str, value: object) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(value, order="C"), name)
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.ops(kind, inputs, 1, domain, **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        asked = f"{kind} {list(inputs)} {attributes}"
        if asked not in self.outputs:
            name = f"{kind}_{len(self.nodes)}"
            names = [f"{name}:{index}" for index in range(outputs)]
            self.nodes.append(helper.make_node(kind, inputs, names, name=name, domain=domain, **attributes))
            self.outputs[asked] = names
        return self.outputs[asked]


class ClassifierGraph:
    """Builds the graph: `input_ids`, `attention_mask` (batch x tokens, int64) in, `logits` (batch x labels) out.

    Layers named in `int8` run on bytes, the others in float; with any int8 the word table is int8 too. With `taps`
    the input of every linear layer of the encoder is an output as well, for calibration.
    """

    def __init__(self, model: Classifier, int8: Mapping[str, Int8Linear], taps: bool = False) -> None:
        self._model = model
        self._int8 = int8
        self._taps: list[str] | None = [] if taps else None
        self._graph = _Graph()
        self._width = model.words.shape[1]

    def build(self) -> onnx.ModelProto:
        graph = self._graph
        hidden = self._flat(self._embed())
        masks = self._masks()
        for index in range(self._model.layers - 1):
            hidden = self._layer(index, hidden, masks[0])
        first = self._last_layer(self._model.layers - 1, hidden, masks[1])
        pooled = graph.op("Tanh", self._gemm("pooler", first))
        logits = self._gemm("head", pooled)
        graph.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))
        return self._model_proto()

    def _embed(self) -> str:
        graph, model = self._graph, self._model
        if self._int8:
            table, scale = quantise_rows(model.words)
            rows = graph.op("Gather", graph.constant("words", table), "input_ids")
            steps = graph.op("Gather", graph.constant("words.scale", scale), "input_ids")
            words = graph.op("Mul", graph.op("Cast", rows, to=TensorProto.FLOAT), steps)
        else:
            words = graph.op("Gather", graph.constant("words", model.words), "input_ids")
        places = graph.constant("positions", model.positions)
        here = graph.op("Slice", places, graph.constant("from 0", np.array([0])), self._tokens())
        return self._norm("embeddings", graph.op("Add", words, here))

    def _layer(self, index: int, hidden: str, mask: str) -> str:
        joint = self._wide(self._linear(f"{index}.qkv", hidden))
        query, key, value = self._graph.ops("Split", [joint], 3, axis=-1, num_outputs=3)
        return self._after_attention(index, self._attend(query, key, value, mask), hidden)

    def _last_layer(self, index: int, hidden: str, mask: str) -> str:
        """Only the first token's output is used, so only it gets a query and passes through the rest."""
        graph = self._graph
        joint = self._wide(self._linear(f"{index}.kv", hidden))
        key, value = graph.ops("Split", [joint], 2, axis=-1, num_outputs=2)
        first = graph.op("Gather", self._wide(hidden), graph.constant("first", np.int64(0)), axis=1)
        query = graph.op("Unsqueeze", self._linear(f"{index}.q", first), graph.constant("axis 1", np.array([1])))
        return self._after_attention(index, self._attend(query, key, value, mask), first)

    def _attend(self, query: str, key: str, value: str, mask: str) -> str:
        heads = self._model.heads
        return self._flat(self._graph.op("Attention", query, key, value, mask, q_num_heads=heads, kv_num_heads=heads))

    def _after_attention(self, index: int, attended: str, hidden: str) -> str:
        # Add and LayerNormalization apart: onnxruntime's fused SkipLayerNormalization is several times slower.
        out = self._linear(f"{index}.out", attended)
        hidden = self._norm(f"{index}.attention", self._graph.op("Add", out, hidden))
        up = self._graph.op("Gelu", self._linear(f"{index}.up", hidden))
        down = self._linear(f"{index}.down", up)
        return self._norm(f"{index}.output", self._graph.op("Add", down, hidden))

    def _linear(self, name: str, x: str) -> str:
        graph = self._graph
        if self._taps is not None:
            graph.nodes.append(helper.make_node("Identity", [x], [TAP + name], name=TAP + name))
            self._taps.append(name)
        if name in self._int8:
            return self._int8_linear(name, self._int8[name], x)
        linear = self._model.linears[name]
        product = graph.op("MatMul", x, graph.constant(f"{name}.weight", linear.weight))
        return graph.op("Add", product, graph.constant(f"{name}.bias", linear.bias))

    def _int8_linear(self, name: str, linear: Int8Linear, x: str) -> str:
        """uint8 by int8: the only combination with VNNI and AMX kernels on x86 in onnxruntime."""
        graph = self._graph
        if linear.shrink is not None:
            x = graph.op("Mul", x, graph.constant(f"{name}.shrink", linear.shrink))
        scale = graph.constant(f"{name}.input_scale", linear.input_scale)
        zero = graph.constant(f"{name}.input_zero", linear.input_zero)
        return graph.op(
            "MatMulIntegerToFloat",
            graph.op("QuantizeLinear", x, scale, zero),
            graph.constant(f"{name}.weight", linear.weight),
            scale,
            graph.constant(f"{name}.weight_scale", linear.weight_scale),
            zero,
            "",
            graph.constant(f"{name}.bias", linear.bias),
            domain=MICROSOFT,
        )

    def _gemm(self, name: str, x: str) -> str:
        linear, graph = self._model.linears[name], self._graph
        weight, bias = (
            graph.constant(f"{name}.weight", linear.weight),
            graph.constant(f"{name}.bias", linear.bias),
        )
        return graph.op("Gemm", x, weight, bias)

    def _norm(self, name: str, x: str) -> str:
        norm, graph = self._model.norms[name], self._graph
        gain, bias = (
            graph.constant(f"{name}.norm.gain", norm.gain),
            graph.constant(f"{name}.norm.bias", norm.bias),
        )
        return graph.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=self._model.epsilon)

    def _masks(self) -> tuple[str, str]:
        """Attention masks for all queries (batch, 1, tokens, tokens) and for one (batch, 1, 1, tokens)."""
        graph = self._graph
        kept = graph.op("Cast", "attention_mask", to=TensorProto.BOOL)
        one = graph.op("Unsqueeze", kept, graph.constant("axes 1 2", np.array([1, 2])))
        ones = graph.constant("one", np.array([1]))
        shape = graph.op("Concat", ones, ones, self._tokens(), ones, axis=0)
        return graph.op("Expand", one, shape), one

    def _tokens(self) -> str:
        return self._graph.op("Shape", "input_ids", start=1, end=2)

    def _flat(self, x: str) -> str:
        """Reshape (batch, tokens, width) to rows for the linear layers."""
        return self._graph.op("Reshape", x, self._graph.constant("rows", np.array([-1, self._width])))

    def _wide(self, x: str) -> str:
        """Reshape rows to (batch, tokens, width)."""
        graph = self._graph
        sizes = graph.op("Shape", "input_ids")
        shape = graph.op("Concat", sizes, graph.constant("rest", np.array([-1])), axis=0)
        return graph.op("Reshape", x, shape)

    def _model_proto(self) -> onnx.ModelProto:
        outputs = ["logits", *(TAP + name for name in self._taps or ())]
        graph = helper.make_graph(
            self._graph.nodes,
            "classifier",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
                for name in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            list(self._graph.constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
