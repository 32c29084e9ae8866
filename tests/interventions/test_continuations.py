"""What models write: greedy against a plain loop, draws that do not depend on the batch, ends and banned tokens."""

import numpy as np
import pytest
import torch
from tiny_texts import Tiny, nan_at, sentinel_tokenizer

from modularity.data import series_path
from modularity.data.language_tokenizer import TOKEN_IDS
from modularity.errors import DataError, InputError, NumericError
from modularity.interventions.continuations import continuations, make_prompts
from modularity.interventions.judge import train_judge
from modularity.interventions.pruning import pruned, units_of
from modularity.models import HeadModel, ModelConfig, load_tokenizer, wrap_head_model

TEXTS = ["w1 w2 w3 w4 w5", "w7 w8 w9", "w3 w4", "w11 w12 w13 w14"]


def with_sentinel(tiny: Tiny, name: str) -> HeadModel:
    return wrap_head_model(tiny(name).module, sentinel_tokenizer(), name="tiny")


def test_prompts_have_one_length_and_short_texts_are_counted() -> None:
    prompts, n_short = make_prompts("causal", sentinel_tokenizer(), TEXTS, n_prompt=2, n_new=2)
    assert n_short == 1
    assert [(prompt.text, prompt.rest) for prompt in prompts] == [
        ("w1 w2", "w3 w4"), ("w7 w8", "w9"), ("w11 w12", "w13 w14"),
    ]  # fmt: skip
    assert prompts[0].ids == (5, 6)
    series = load_tokenizer(ModelConfig(name=str(series_path() / "step00002000")))
    (started,), _ = make_prompts("causal", series, ["wolf so oak"], n_prompt=2, n_new=2)
    assert started.ids == tuple(TOKEN_IDS[word] for word in ("<s>", "wolf", "so"))
    (asked, *_), _ = make_prompts("seq2seq", sentinel_tokenizer(), TEXTS, n_prompt=2, n_new=2)
    assert asked.ids == (5, 6, 3, 2)
    with pytest.raises(InputError, match="does not go on with a text"):
        make_prompts("masked", sentinel_tokenizer(), TEXTS, n_prompt=2, n_new=2)


def test_greedy_is_the_likeliest_token_of_a_plain_loop(tiny: Tiny) -> None:
    model = with_sentinel(tiny, "opt")
    prompts, _ = make_prompts("causal", model.base.tokenizer, TEXTS, n_prompt=2, n_new=5)
    found = continuations(model, prompts, n_new=5, n_least=5, decoding="greedy")
    ids = list(prompts[0].ids)
    for _ in range(5):
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([ids])).logits[0, -1].clone()
        logits[[0, 1, 2]] = -torch.inf  # special tokens; the end, too, before n_least
        ids.append(int(logits.argmax()))
    assert found[0] == model.base.tokenizer.decode(ids[2:])


def test_a_prompt_after_which_the_model_gives_nan_is_named(tiny: Tiny) -> None:
    model = with_sentinel(tiny, "opt")
    prompts, _ = make_prompts("causal", model.base.tokenizer, TEXTS, n_prompt=2, n_new=2)
    with nan_at(model, "w8"), pytest.raises(NumericError, match="after 'w7 w8' logits are NaN"):
        continuations(model, prompts, n_new=2, n_least=2)


@pytest.mark.parametrize("name", ["opt", "t5"])
def test_draws_belong_to_the_prompt_and_the_seed(tiny: Tiny, name: str) -> None:
    model = with_sentinel(tiny, name)
    prompts, _ = make_prompts(model.kind, model.base.tokenizer, TEXTS, n_prompt=2, n_new=6)
    whole = continuations(model, prompts, n_new=6, n_least=6, seed=3)
    assert [continuations(model, [each], n_new=6, n_least=6, seed=3)[0] for each in prompts] == whole
    assert continuations(model, prompts, n_new=6, n_least=6, seed=3, tokens_per_batch=1) == whole
    assert continuations(model, prompts, n_new=6, n_least=6, seed=4) != whole
    assert all(len(text.split()) == 6 and "[" not in text and "</s>" not in text for text in whole)


def test_draws_follow_the_distribution(tiny: Tiny) -> None:
    model = tiny("opt")
    prompts, _ = make_prompts("causal", model.base.tokenizer, TEXTS, n_prompt=1, n_new=1)
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([prompts[0].ids])).logits[0, -1].double()
    logits[:5] = -torch.inf
    expected = torch.softmax(logits, 0)
    drawn = [continuations(model, prompts[:1], n_new=1, seed=seed)[0] for seed in range(300)]
    for token in expected.topk(2).indices.tolist():
        share = np.mean([text == f"w{token - 5}" for text in drawn])
        assert share == pytest.approx(float(expected[token]), abs=0.09)


def test_a_text_ends_with_its_end_and_not_before_the_least(tiny: Tiny) -> None:
    model = with_sentinel(tiny, "opt")
    with torch.no_grad():
        model.module.get_output_embeddings().weight.zero_()  # all tokens alike: the lowest, the end, is greedy's
    prompts, _ = make_prompts("causal", model.base.tokenizer, TEXTS, n_prompt=2, n_new=4)
    found = continuations(model, prompts, n_new=6, n_least=3, decoding="greedy")
    assert {len(text.split()) for text in found} == {3}


def test_hooks_are_seen(tiny: Tiny) -> None:
    model = tiny("opt")
    prompts, _ = make_prompts("causal", model.base.tokenizer, TEXTS, n_prompt=2, n_new=6)
    removed = {kind: np.ones(units.n, bool) for kind, units in units_of(model.base).items()}
    before = continuations(model, prompts, n_new=6, decoding="greedy")
    with pruned(model.base, removed):
        assert continuations(model, prompts, n_new=6, decoding="greedy") != before
    assert continuations(model, prompts, n_new=6, decoding="greedy") == before


def test_the_judge_knows_two_categories_and_how_well() -> None:
    code = [f"def f{n}(x): return x + {n}" for n in range(60)]
    news = [f"the minister said on day {n} that rain fell" for n in range(50)]
    for features in ("characters", "words"):
        judge = train_judge(("code", "news"), (code[:40], news[:40]), (code[40:], news[40:]), features=features)
        assert (judge.accuracy.estimate, judge.n_training, judge.n_test) == (1.0, 80, 20)
        assert judge.accuracy.low > 0.8
        p_code = judge.probability(["return x + 9", "the rain said"], "code")
        assert p_code[0] > 0.6 > 0.4 > p_code[1]
        assert judge.probability(["return x"], "news") == pytest.approx(1 - judge.probability(["return x"], "code"))
    alike = train_judge(("a", "b"), (code[::2], code[1::2]), (code[::3], code[1::3]))
    assert alike.accuracy.low < 0.5
    with pytest.raises(DataError, match="expected at least one of each"):
        train_judge(("a", "b"), (code, []), (code, code))
    with pytest.raises(DataError, match="expected one of a, b"):
        alike.probability(["x"], "c")
