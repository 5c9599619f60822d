"""The signatures as PyTorch modules, and their export with free sizes."""

from typing import Any

import torch
from torch import nn

from lxmert_pt.layers.attention import attention_bias, score_dtype
from lxmert_tf.input_table import ENCODED_IMAGE_INPUTS, IMAGE_INPUTS, SIGNATURE_INPUTS, TABLE, TEXT_INPUTS
from lxmert_tf.serving.signatures import Options


class Signature(nn.Module):
    """A signature, whose `forward` takes `inputs` in their order.

    Args:
        model: one of the models of `lxmert_pt`.
        options: what is given of the answers.
    """

    inputs: tuple[str, ...]

    def __init__(self, model: Any, options: Options):
        super().__init__()
        self.model, self.options = model, options


class WholeModel(Signature):
    """serving_default: text and image in, what the model gives out."""

    inputs = SIGNATURE_INPUTS

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        named = dict(zip(self.inputs, inputs, strict=True))
        output = self.model(**named, output_attentions=False, output_hidden_states=False, return_dict=True)
        tensors = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
        if self.model.task == "qa":
            return answers(tensors[self.model.answers], self.options)
        if self.model.task == "visual-reasoning":
            tensors["probabilities"] = tensors["logits"].softmax(-1)
        return tensors


class EncodeImage(Signature):
    """encode_image: the vision layers."""

    inputs = IMAGE_INPUTS

    def forward(
        self, visual_feats: torch.Tensor, visual_pos: torch.Tensor, visual_attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        encoder = self.model.lxmert.encoder
        bias = attention_bias(visual_attention_mask, score_dtype(self.model.dtype))
        states = encoder.visn_fc(visual_feats, visual_pos)
        for layer in encoder.r_layers:
            states, _ = layer(states, bias)
        return {"vision_states": states}


class AnswerEncoded(Signature):
    """answer_encoded: the language and cross layers, with an encoded image for each text."""

    inputs = tuple(name for name in SIGNATURE_INPUTS if name in TEXT_INPUTS) + ENCODED_IMAGE_INPUTS

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        vision_states: torch.Tensor,
        visual_attention_mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        backbone, scores = self.model.lxmert, score_dtype(self.model.dtype)
        text_bias, image_bias = attention_bias(attention_mask, scores), attention_bias(visual_attention_mask, scores)
        language, vision = backbone.embeddings(input_ids, token_type_ids, None), vision_states
        for layer in backbone.encoder.layer:
            language, _ = layer(language, text_bias)
        for layer in backbone.encoder.x_layers:
            language, vision, _ = layer(language, vision, text_bias, image_bias)
        return answers(self.model.answer_head(backbone.pooler(language)), self.options)


MODULES: dict[str, type[Signature]] = {
    "serving_default": WholeModel,
    "encode_image": EncodeImage,
    "answer_encoded": AnswerEncoded,
}


def answers(logits: torch.Tensor, options: Options) -> dict[str, torch.Tensor]:
    """Logits float[B, A], probabilities, and the ids and scores of the best."""
    probabilities = logits.sigmoid() if options.probabilities == "sigmoid" else logits.softmax(-1)
    top_ids = logits.topk(min(options.top_k, logits.shape[-1])).indices
    return {
        "logits": logits,
        "probabilities": probabilities,
        "top_ids": top_ids.to(torch.int32),
        "top_scores": probabilities.gather(1, top_ids),
    }


def export_signature(model: Any, signature: str, options: Options, opset: int) -> torch.onnx.ONNXProgram:
    """The ONNX program of a signature, with free batch, text length and number of boxes.

    Args:
        model: one of the models of `lxmert_pt`, for inference.
        signature: a key of `MODULES`.
        options: what is given of the answers.
        opset: version of the operations.
    """
    module = MODULES[signature](model, options).eval()
    longest = model.config.max_position_embeddings
    axes = {
        "examples": torch.export.Dim("batch"),
        "tokens": torch.export.Dim("tokens", max=longest),
        "boxes": torch.export.Dim("boxes"),
    }
    sizes: dict[Any, Any] = {"examples": 3, "tokens": min(7, longest), "boxes": 5}
    example, free = [], []
    for name in module.inputs:
        shape = TABLE[name].shape(model.config, model.num_images)
        dtype = getattr(torch, TABLE[name].dtype)
        example.append(torch.ones([sizes.get(size, size) for size in shape], dtype=dtype))
        free.append({axis: axes[size] for axis, size in enumerate(shape) if isinstance(size, str)})
    with torch.no_grad():
        outputs = list(module(*example))
    program = torch.onnx.export(
        module,
        tuple(example),
        dynamic_shapes={"inputs": tuple(free)} if signature == "serving_default" else tuple(free),
        input_names=list(module.inputs),
        output_names=outputs,
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program
