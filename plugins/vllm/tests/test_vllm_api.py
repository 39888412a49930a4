"""VllmAPI over a real socket: what is posted, what is read, and what goes wrong."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings

import pytest
import sqlalchemy as sa
from pinnacle_vllm import VllmAPI

import pinnacle.ext.llm
from pinnacle import ConfigError, NoAnswer
from pinnacle import pinnacle as connect
from pinnacle.testing import FakeOpenAI


@pytest.fixture
def server():
    with FakeOpenAI(answer="two") as server:
        yield server


def model(server, **options):
    return VllmAPI(**{"identifier": "llm", "api_url": f"{server.root}/generate", **options})


def test_the_public_face_is_this_class():
    assert pinnacle.ext.llm.VllmAPI is VllmAPI


@pytest.mark.parametrize("path", ["/generate", "/v1"])
def test_it_posts_to_the_url_exactly_and_reads_the_first_text(server, path):
    llm = model(server, api_url=f"{server.root}{path}")
    assert llm.predict("1+1=", n=2, max_tokens=5) == "1+1=two"
    (received,) = server.requests
    assert received.path == path
    assert received.body == {"prompt": "1+1=", "n": 2, "max_tokens": 5}


def test_the_prompt_before_the_answer_is_taken_off_where_asked(server):
    assert model(server, strip_prompt=True).predict(["1+1=", "2+0="]) == ["two", "two"]


def test_inference_kwargs_are_sent_and_those_of_predict_win(server):
    model(server, inference_kwargs={"temperature": 0.5, "seed": 1}).predict("a", seed=2)
    assert server.requests[0].body == {"prompt": "a", "temperature": 0.5, "seed": 2}


def test_what_is_no_sampling_parameter_is_dropped_with_one_warning(server):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model(server).predict("a", stream=True, temprature=0.5, top_p=0.9)
    assert [str(warning.message) for warning in seen] == [
        "model 'llm': stream, temprature: no sampling parameter of vLLM, and not sent; did you mean temperature=?"
    ]
    assert server.requests[0].body == {"prompt": "a", "top_p": 0.9}


def test_keywords_of_the_template_are_not_sent_and_not_dropped(server):
    model(server, prompt_template="{lang}: {input}").predict("a", lang="de")
    assert server.requests[0].body == {"prompt": "de: a"}


def test_a_dialog_is_sent_as_lines(server):
    dialog = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1+1="}]
    assert model(server, strip_prompt=True).predict(dialog) == "two"
    assert server.requests[0].body == {"prompt": "system: be brief\nuser: 1+1=\nassistant:"}
    with pytest.raises(ConfigError, match="the content of a message of 'user' is none"):
        model(server).predict([{"role": "user", "content": [{"type": "text", "text": "a"}]}])


@pytest.mark.parametrize(
    "text", [{"text": "two"}, {"text": []}, {"text": [None]}, {"text": {"0": "a"}}, {"text": [" "]}]
)
def test_an_answer_that_is_none_is_asked_for_again_and_never_taken(text):
    with FakeOpenAI(answer=lambda request: text) as server:
        with pytest.raises(NoAnswer, match="text"):
            model(server, max_attempts=2).predict("a")
        assert server.received == 2


def test_an_error_is_tried_again():
    with FakeOpenAI(answer="two", faults=["500", None]) as server:
        assert model(server, strip_prompt=True).predict("a") == "two"


def test_the_key_is_sent_and_shown_nowhere(server, monkeypatch):
    monkeypatch.setenv("VLLM_KEY", "s3cret")
    with FakeOpenAI(answer="two", api_key="s3cret") as guarded:
        llm = model(guarded, api_key="env:VLLM_KEY", strip_prompt=True)
        assert llm.predict("a") == "two"
    assert "s3cret" not in repr(llm) + repr(vars(llm))
    assert copy.deepcopy(llm) == llm


def test_all_models_of_one_server_share_its_limits(server):
    assert model(server).provider() == model(server, api_url=f"{server.root}/v1").provider() == server.root


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"api_url": ""}, "api_url is the address"),
        ({"api_url": "localhost:8000"}, "api_url is the address"),
        ({"api_url": "http://me:secret@host/v1"}, "holds a password"),
        ({"api_url": "http://host/v1?sig=secret1"}, "looks like a secret"),
        ({"identifier": ""}, "needs an identifier"),
        ({"prompt_template": "none"}, "has no {input}"),
    ],
)
def test_fields_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message) as refused:
        VllmAPI(**{"identifier": "llm", "api_url": "http://host/v1", **fields})
    assert "secret@" not in str(refused.value)
    assert "secret1" not in str(refused.value)


def test_rows_are_answered_and_the_component_loads_in_another_process(server, tmp_path):
    docs = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("q", sa.Text))
    url = f"sqlite:///{tmp_path}/docs.db"
    with connect(url) as db:
        docs.create(db.engine)
        db.execute(sa.insert(docs), [{"q": f"{number}+0="} for number in range(50)])
        result = model(server).predict(X="q", db=db, select=sa.select(docs), output="a", progress=False)
        written = db.execute(sa.text("SELECT a FROM docs ORDER BY id")).scalars().all()
    assert (result.written, result.failed) == (50, 0)
    assert written == [f"{number}+0=two" for number in range(50)]
    code = f"from pinnacle import pinnacle\nwith pinnacle({url!r}) as db: print(db.load('model', 'llm').predict('x='))"
    environment = {"PYTHONPATH": ":".join(sys.path), "PINNACLE_SECRET_FILE": "off"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert (done.stdout.strip(), done.stderr) == ("x=two", "")
