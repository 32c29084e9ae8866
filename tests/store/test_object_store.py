"""The same run on an S3 server in this process: writes, resume, damage, verification, plain zarr readers."""

import json

import numpy as np
import pytest
import store_demo
from test_space import exercise

from modularity.errors import StoreError
from modularity.store import open_run, open_space, query, verify_store
from modularity.store import space as space_module

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")


def test_space_on_s3(bucket):
    exercise(open_space(f"{bucket}/some folder"))


def test_space_on_gs(s3_server, tmp_path, monkeypatch):
    """The XML interface of gs:// is that of S3 but for the condition of a write, which the server translates."""
    account = {"gcs_base_url": s3_server.url, "disable_oauth": True}
    account |= {"client_email": "", "private_key": "", "private_key_id": ""}
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    monkeypatch.setattr(space_module, "CLIENT", {**space_module.CLIENT, "allow_http": True})
    exercise(open_space(f"gs://{s3_server.bucket}/some folder"))


def test_run_on_s3_equals_run_on_disk(bucket, run):
    remote = store_demo.finish_demo(store_demo.create_demo(f"{bucket}/some folder/run"))
    assert remote.content_hash() == run.content_hash()
    opened = open_run(f"{bucket}/some folder/run")
    np.testing.assert_array_equal(opened.activations("demo")["ffn.neurons"][3:9, 1].values, store_demo.values()[3:9, 1])
    assert query(opened, function="demo", layer=0, neuron=7, example="e3")["value"].to_pylist() == [
        pytest.approx(float(store_demo.values()[3, 0, 7]))
    ]
    assert opened.table("rows").equals(run.table("rows"))
    assert verify_store(opened).ok
    assert all(b"not-in-any-file" not in opened.space.read(p) for p in opened.space.list() if p.endswith(".json"))
    path = "activations/demo/encoder/ffn.neurons/c/1/0/0"
    opened.space.delete(path)
    assert [problem.path for problem in verify_store(opened).problems] == [path]
    with pytest.raises(StoreError, match="the object is missing, although item capture-"):
        opened.read_activations("demo", store_demo.NEURONS, layer=0)
