"""Preparation: every problem at once, in a second, without weights; and the items that a job is cut into."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_jobs

from modularity.errors import InputError
from modularity.pipelines import EmergentModularityConfig
from modularity.pipelines.emergent import run_job
from modularity.pipelines.prepare import prepare
from modularity.types import Site


def test_all_problems_are_told_at_once(bert: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a bird", "label": 1}\n{"text": "", "label": 0}\n{"text": "a fish"}\n')
    config = tiny_jobs.job(
        bert,
        [{"name": "broken", "source": str(broken)}],
        capture={"sites": ["ffn.neurons", "decoder/residual"]},
        experts={"n_experts": 7, "top_fraction": 0.001},
    )
    with pytest.raises(InputError) as caught:
        prepare(config)
    message = str(caught.value)
    assert "broken.jsonl:2" in message
    assert "broken.jsonl:3" in message
    assert f"capture.sites: 'decoder/residual' is not in {str(bert)!r} (bert), which has encoder/ffn.neurons" in message
    assert len(caught.value.problems) >= 3


def test_problems_of_the_analyses_are_told_with_those_of_the_data(bert: Path, tmp_path: Path) -> None:
    config = tiny_jobs.job(
        bert,
        [{"name": "absent", "source": str(tmp_path / "absent.jsonl")}],
        experts={"n_experts": 7, "top_fraction": 0.001},
        overlap={"top_fraction": 0.006},
    )
    with pytest.raises(InputError) as caught:
        prepare(config)
    absent, *others = caught.value.problems
    assert "absent.jsonl" in absent
    assert others == [
        "experts.n_experts=7 does not divide the 160 neurons of layer 0; the nearest numbers that do are 4, 5, 8, 10",
        "experts.top_fraction=0.001 of the 160 neurons of layer 0 is less than one neuron; expected at least 0.0063",
        "overlap.top_fraction=0.006 of the 160 neurons of layer 0 is less than one neuron; expected at least 0.0063",
    ]


def test_weights_and_tokenizer_are_looked_at_before_anything_is_loaded(
    bert: Path, functions: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = shutil.copytree(bert, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"vocab_size": 20}))
    with pytest.raises(InputError) as caught:
        run_job(tiny_jobs.job(folder, functions), str(tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run").exists()
    *tokens, weights = caught.value.problems
    assert "holds pickled weights only (pytorch_model.bin)" in weights
    assert len(tokens) == 2
    assert all("embeds 20 tokens, counted from 0; give the tokenizer" in problem for problem in tokens)


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        ({"layers": [0, 2]}, r"capture.layers: \[2\] are not among the layers 0..1 of encoder/ffn.neurons"),
        (
            {"sites": ["ffn.neurons", "encoder/ffn.neurons"]},
            r"two names mean encoder/ffn.neurons; name it only once",
        ),
    ],
)
def test_sites_and_layers_must_be_there_once(
    bert: Path, functions: list[dict[str, Any]], capture: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare(tiny_jobs.job(bert, functions, capture=capture))


def test_a_model_that_is_not_there_is_told_with_the_data(functions: list[dict[str, Any]], tmp_path: Path) -> None:
    bad = [{**functions[0], "source": str(tmp_path / "absent.jsonl")}]
    with pytest.raises(InputError) as caught:
        prepare(tiny_jobs.job(tmp_path / "nowhere", bad))
    assert len(caught.value.problems) == 2
    assert "does not exist" in caught.value.problems[1]


def test_a_folder_without_tokenizer_is_told(bert: Path, functions: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shutil.copy(bert / "config.json", tmp_path / "model")
    with pytest.raises(InputError, match="holds no tokenizer"):
        prepare(tiny_jobs.job(tmp_path / "model", functions))


def test_positions_of_the_text_are_refused_at_decoder_sites(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "t5"
    tiny_jobs.t5_config().save_pretrained(model)
    tiny_jobs.tokenizer().save_pretrained(model)
    config = tiny_jobs.job(
        model,
        [tiny_jobs.topic_function(folder, pooling={"kind": "last"})],
        analyses=[],
        capture={"sites": ["encoder/ffn.neurons", "decoder/residual"]},
    )
    with pytest.raises(InputError, match="function 'topics' takes rows at token positions of the text, but dec"):
        prepare(config)


def test_items_are_named_by_what_they_compute(config: EmergentModularityConfig) -> None:
    job = prepare(config)
    table = job.tables["words"]
    assert [str(item) for item in job.capture_items()][:2] == [
        f"capture(data={table.fingerprint}, function=words, start=0, stop=256)",
        f"capture(data={table.fingerprint}, function=words, start=256, stop=280)",
    ]
    assert [str(item) for item in job.partition_items()] == [
        "partition(layer=0, site=encoder/ffn.neurons)",
        "partition(layer=1, site=encoder/ffn.neurons)",
    ]
    blocks = [(item.integer("start"), item.integer("stop")) for item in job.predictivity_items()]
    assert blocks == [(0, 64), (64, 128), (128, 160)] * 4
    assert [item.kind for item in job.summary_items()] == [
        "summary",
        "summary",
        "experts",
        "experts",
        "agreement",
        "overlap",
    ]
    assert prepare(config).data_identity() == job.data_identity()


def test_a_subset_of_layers_cuts_shapes_and_items(bert: Path, functions: list[dict[str, Any]]) -> None:
    job = prepare(tiny_jobs.job(bert, functions, capture={"layers": [1]}))
    assert job.analysed is not None
    assert (job.analysed.layers, job.analysed.widths) == ((1,), (160,))
    assert {item.integer("layer") for item in job.predictivity_items()} == {1}


def test_capture_alone_has_no_analysis_items(bert: Path, functions: list[dict[str, Any]]) -> None:
    job = prepare(tiny_jobs.job(bert, functions, analyses=[], capture={"sites": ["residual"]}))
    assert job.analysed is None
    assert job.shapes[Site("encoder", "residual")].layers == (0, 1, 2)
    assert not [*job.partition_items(), *job.predictivity_items(), *job.summary_items()]


def test_texts_are_cut_where_config_and_model_say(bert: Path, functions: list[dict[str, Any]]) -> None:
    job = prepare(tiny_jobs.job(bert, functions, capture={"max_tokens": 9}))
    table = job.tables["words"]
    assert table.lengths_E.max() == 9
    assert table.n_truncated == int(table.truncated_E.sum()) > 0
