"""The forward equals a plain call of the Hugging Face model."""

import pytest
import torch

from modularity.errors import ModelError
from modularity.interventions.forward import Forward


@pytest.mark.parametrize("name", ["opt", "gpt2", "llama", "bert", "distilbert", "mixtral"])
def test_logits_of_single_stacks(tiny, batch_of, name) -> None:
    model, batch = tiny(name), batch_of([5, 3])
    logits = Forward(model.module, model.base)(batch).logits
    alone = model.module(input_ids=torch.from_numpy(batch.input_ids_BT[1:, :3])).logits
    torch.testing.assert_close(logits[1, :3], alone[0], rtol=1e-4, atol=1e-5)


def test_the_decoder_takes_one_step_from_its_start_token(tiny, batch_of) -> None:
    model, batch = tiny("t5"), batch_of([5, 5])
    logits = Forward(model.module, model.base)(batch).logits
    start = torch.tensor([[0], [0]])
    expected = model.module(input_ids=torch.from_numpy(batch.input_ids_BT), decoder_input_ids=start).logits
    torch.testing.assert_close(logits, expected)
    assert logits.shape[1] == 1


def test_a_decoder_without_start_token_is_refused(tiny) -> None:
    model = tiny("t5")
    model.base.hf_config.decoder_start_token_id = model.base.hf_config.pad_token_id = None
    with pytest.raises(ModelError, match="neither decoder_start_token_id nor pad_token_id"):
        Forward(model.module, model.base)


def test_an_error_of_the_model_names_the_examples_of_the_batch(tiny, batch_of) -> None:
    model, batch = tiny("opt"), batch_of([5, 3])

    def fail(module: object, args: object) -> None:
        raise RuntimeError("device-side assert")

    handle = model.module.get_output_embeddings().register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError) as caught:
            Forward(model.module, model.base)(batch)
    finally:
        handle.remove()
    rows = ", ".join(map(str, batch.row_ids))
    assert caught.value.__notes__ == [f"the model ran on the examples {rows}, counted from 0"]
