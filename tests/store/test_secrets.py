"""Credentials stand in no file of a run, no output and no error."""

import pytest
import store_demo
from typer.testing import CliRunner

from modularity.cli import app
from modularity.errors import InputError, StoreError
from modularity.store import open_run, open_space
from modularity.store.space import without_secrets

SECRET = "not-in-any-file"
KEY = "key-of-the-tests"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
def test_what_a_store_refuses_is_told_without_credentials(s3_server):
    uri = f"s3://{s3_server.bucket}/run"
    run = store_demo.finish_demo(store_demo.create_demo(uri))
    files = b"".join(run.space.read(path) for path in run.space.list())
    assert SECRET.encode() not in files
    assert KEY.encode() not in files
    s3_server.faults.choose = lambda number, method, path: "forbidden"
    with pytest.raises(StoreError, match=r"run\.json failed.*403.*check the address, and") as caught:
        open_run(uri)
    assert KEY not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["s3://me:hidden-word@bucket/run", "s3n://me:hidden-word@bucket/run", "https://me:hidden-word@host/run"]
)
def test_a_password_in_an_address_is_not_repeated(uri):
    with pytest.raises(InputError) as caught:
        open_space(uri)
    assert "hidden-word" not in str(caught.value)
    shown = CliRunner().invoke(app, ["status", uri])
    assert shown.exit_code == 2
    assert "hidden-word" not in shown.output
    assert "error: " in shown.output


def test_secrets_are_taken_out_of_messages(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-long-session-token")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "abc")  # too short to be one
    text = "GET http://me:word@host:9/b?sig=AbC%2B&part=1 a-long-session-token abc"
    assert without_secrets(text) == "GET http://***@host:9/b?sig=***&part=1 *** abc"
