"""What a changed forward knows of its batch."""

import numpy as np
import pytest
import torch

from modularity.errors import InputError
from modularity.interventions.context import BatchContext, digest
from modularity.interventions.forward import Forward

GOLDEN = 16299997169100725290
ARCHITECTURES = ("opt", "gpt2", "gpt_neox", "llama", "bert", "roberta", "distilbert", "t5", "switch", "mixtral")


@pytest.fixture
def watched():
    """`watched(model)`: context and handles, taken off at the end."""
    handles = []

    def watch(model):
        context = BatchContext(model.base)
        handles.extend(context.attach())
        return context

    yield watch
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("called", ["head", "base"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_and_content_are_known_in_every_architecture(tiny, batch_of, watched, name, called) -> None:
    model, batch = tiny(name), batch_of([7, 4, 6])
    context = watched(model)
    Forward(model.module if called == "head" else model.base.module, model.base)(batch)
    content = context.content(model.base.sites.stacks[0])
    np.testing.assert_array_equal(content.real_BT, batch.attention_mask_BT)
    assert content.lengths_B.tolist() == [7, 4, 6]
    assert len(set(content.keys_B)) == 3


def test_keys_depend_on_tokens_and_on_nothing_else(tiny, batch_of, watched) -> None:
    model = tiny("t5")
    context = watched(model)
    forward = Forward(model.module, model.base)
    keys = []
    for batch in (batch_of([7, 4]), batch_of([4, 9], first=1), batch_of([7, 4], left=True), batch_of([7, 4], seed=1)):
        forward(batch)
        keys.append((context.content("encoder").keys_B, context.content("decoder").keys_B))
    (encoder, decoder), (shifted, _), (left, left_decoder), (other, _) = keys
    assert encoder[1] == shifted[0]
    assert (encoder, decoder) == (left, left_decoder)
    assert not set(encoder) & set(other)
    assert not set(encoder) & set(decoder)
    assert len(set(decoder)) == 2  # of one and the same decoder token


def test_equal_tokens_have_equal_keys(tiny, watched) -> None:
    model = tiny("gpt2")
    context = watched(model)
    model.module(input_ids=torch.tensor([[5, 6], [5, 6], [6, 5]]))
    one, other, third = context.content("decoder").keys_B
    assert one == other != third


def test_embedded_input_leaves_nothing_from_the_batch_before(tiny, batch_of, watched) -> None:
    model = tiny("llama")
    context = watched(model)
    Forward(model.module, model.base)(batch_of([4]))
    context.content("decoder")
    model.module(inputs_embeds=torch.zeros((1, 3, 32)))
    with pytest.raises(InputError, match="the decoder runs without input_ids"):
        context.content("decoder")


def test_a_mask_of_another_shape_is_refused(tiny, watched) -> None:
    model = tiny("gpt2")
    watched(model)
    with pytest.raises(InputError, match=r"attention_mask of the decoder has shape \(1, 5\), input_ids \(1, 1\)"):
        model.module(input_ids=torch.tensor([[5]]), attention_mask=torch.ones((1, 5)))


def test_digests_are_fixed_numbers() -> None:
    assert digest((1, 2, 3)) == digest(np.array([1, 2, 3])) == GOLDEN
    assert digest((12, 3)) != digest((1, 23))
