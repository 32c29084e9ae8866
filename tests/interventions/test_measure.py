"""Label words: the right token at the right position, against plain forwards of single examples."""

import numpy as np
import pytest
import torch

from modularity.errors import InputError
from modularity.interventions import label_logits, label_task, label_token_ids, measure_task, task_scores

TEXTS = ("w1 w2 w3 w4", "w5 w6", "w7 w8 w9 w10 w11", "w12 w13 w14")
MASKED = ("w1 [MASK] w3 w4", "[MASK] w6", "w7 w8 w9 w10 [MASK]", "w12 w13 [MASK]")
LABELS = [0, 1, 1, 0]
WORDS = ("w20", "w21")


def texts_for(kind: str) -> tuple[str, ...]:
    return MASKED if kind == "masked" else TEXTS


@pytest.mark.parametrize("name", ["t5", "flan-t5", "switch", "bert", "roberta", "distilbert"])
def test_logits_of_encoders_equal_those_of_single_examples(tiny, function_of, word_tokenizer, name, n_hooks) -> None:
    model = tiny(name)
    texts = texts_for(model.kind)
    found = label_logits(model, label_task(function_of(texts, LABELS), word_tokenizer, WORDS), tokens_per_batch=12)
    for example, text in enumerate(texts):
        ids = torch.tensor([word_tokenizer(text)["input_ids"]])
        if model.kind == "seq2seq":
            logits = model.module(input_ids=ids, decoder_input_ids=torch.zeros((1, 1), dtype=torch.long)).logits[0, 0]
        else:
            logits = model.module(input_ids=ids).logits[0, ids[0].tolist().index(word_tokenizer.mask_token_id)]
        np.testing.assert_allclose(found[example], logits[[25, 26]].numpy(), rtol=1e-4, atol=1e-5)
    assert n_hooks(model) == 0


@pytest.mark.parametrize("name", ["opt", "gpt2", "gpt_neox", "llama", "gemma2", "olmoe", "mixtral", "qwen3_moe"])
def test_logits_of_decoders_follow_the_last_token(tiny, function_of, word_tokenizer, name) -> None:
    model = tiny(name)
    found = label_logits(model, label_task(function_of(TEXTS, LABELS), word_tokenizer, WORDS), tokens_per_batch=12)
    for example, text in enumerate(TEXTS):
        logits = model.module(input_ids=torch.tensor([word_tokenizer(text)["input_ids"]])).logits[0, -1]
        np.testing.assert_allclose(found[example], logits[[25, 26]].numpy(), rtol=1e-4, atol=1e-5)


def test_only_the_positions_that_are_read_pass_through_the_head(tiny, function_of, word_tokenizer) -> None:
    model = tiny("gpt2")
    shapes = []
    head = model.module.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, args, output: shapes.append(tuple(output.shape)))
    label_logits(model, label_task(function_of(TEXTS, LABELS), word_tokenizer, WORDS))
    handle.remove()
    assert shapes == [(4, 1, 48)]


def test_scores_are_those_of_the_logits(tiny, function_of, word_tokenizer) -> None:
    model = tiny("t5")
    task = label_task(function_of(TEXTS, LABELS), word_tokenizer, WORDS)
    assert measure_task(model, task) == task_scores(label_logits(model, task), np.array(LABELS))


def test_examples_without_label_or_not_asked_for_are_left_out(function_of, word_tokenizer) -> None:
    function = function_of(TEXTS, [[0, 1, -1, 0], [1, 0, 1, 0]])
    task = label_task(function, word_tokenizer, WORDS, subfunction="s0", name="first")
    assert (task.name, task.example_ids, task.gold_E.tolist()) == ("first", ("e0", "e1", "e3"), [0, 1, 0])
    half = label_task(function, word_tokenizer, WORDS, subfunction="s1", examples_E=~function.selection_E)
    assert (half.example_ids, half.gold_E.tolist()) == (("e1", "e3"), [0, 0])
    assert half.tokens.token_ids.tolist() == [10, 11, 17, 18, 19]


def test_one_word_for_each_of_several_classes(function_of, word_tokenizer) -> None:
    function = function_of(TEXTS, [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]])
    task = label_task(function, word_tokenizer, ("w1", "w2", "w3"))
    assert task.gold_E.tolist() == [0, 1, 2]
    assert task.word_ids_C.tolist() == [6, 7, 8]
    assert task.example_ids == ("e0", "e1", "e2")  # the fourth has two classes


def test_words_must_begin_with_different_known_tokens(word_tokenizer) -> None:
    assert label_token_ids(word_tokenizer, ["w1 w2", "w2"]).tolist() == [6, 7]
    for words in (["w1", "w1 w2"], ["w1", "unknown"], ["w1", ""], ["w1"]):
        with pytest.raises(InputError, match=r"label words .* begin with the tokens"):
            label_token_ids(word_tokenizer, words)


def test_a_text_without_its_mask_token_is_named(tiny, function_of, word_tokenizer) -> None:
    task = label_task(function_of(("[MASK] w1 w2", "w3 w4 [MASK]"), [0, 1]), word_tokenizer, WORDS, max_tokens=2)
    with pytest.raises(InputError, match=r"example 'e1' of task 'demo', whose text was cut off .* has 0 mask tokens"):
        label_logits(tiny("bert"), task)


def test_wrong_subfunctions_are_refused(function_of, word_tokenizer) -> None:
    function = function_of(TEXTS, [[0, 1, 1, 0], [1, 0, 1, 0]])
    with pytest.raises(InputError, match=r"sub-function None of 'demo': expected one of s0, s1"):
        label_task(function, word_tokenizer, WORDS)
    with pytest.raises(InputError, match="3 label words for the 2 sub-functions"):
        label_task(function, word_tokenizer, ("w1", "w2", "w3"))
    with pytest.raises(InputError, match="no example of 'demo' is left"):
        label_task(function, word_tokenizer, WORDS, subfunction="s0", examples_E=np.zeros(4, bool))
